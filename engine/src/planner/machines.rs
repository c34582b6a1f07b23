//! Speeds shared by the stages of one machine. Each stage measures its speed by itself, while the others of its machine
//! do the same or compute. Thirty equal stages on two cores found speeds that differ by tenfold, and a plan by those
//! moved the layers of all of them. So stages that compute on the same device of the same machine with as many threads
//! are as fast as the fastest measurement among them: a slower one had to wait for something else. If all stages are on
//! one machine, no link counts.

use std::collections::BTreeMap;

use schema::record::{FormatSpeed, Speeds, StageRecord};

/// Host, device, chip and threads: stages that share all four are equally fast.
type Kind<'a> = (&'a str, String, &'a str, u32);

fn kind(record: &StageRecord) -> Kind<'_> {
    (&record.host, format!("{:?}", record.device), &record.chip, record.threads)
}

/// The speeds of each of `stages`, as measured on its machine. Empty if no stage of its kind has measured.
pub(super) fn speeds<'a>(stages: impl Iterator<Item = &'a StageRecord> + Clone) -> Vec<Speeds> {
    let mut found: BTreeMap<Kind<'_>, Speeds> = BTreeMap::new();
    for record in stages.clone() {
        let machine = found.entry(kind(record)).or_default();
        for (format, speed) in &record.speed {
            let best = machine.entry(format.clone()).or_insert(*speed);
            *best = FormatSpeed {
                bytes_per_second: best.bytes_per_second.max(speed.bytes_per_second),
                multiplications_per_second: best.multiplications_per_second.max(speed.multiplications_per_second),
            };
        }
    }
    stages.map(|record| found.get(&kind(record)).cloned().unwrap_or_default()).collect()
}

/// True if all `stages` are on one machine.
pub(super) fn share_one_machine<'a>(mut stages: impl Iterator<Item = &'a StageRecord>) -> bool {
    let first = stages.next();
    first.is_none_or(|first| stages.all(|other| other.host == first.host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stage;

    fn measured(host: &str, speed: Option<u64>) -> StageRecord {
        let speed = speed.map(|speed| {
            let speed = FormatSpeed { bytes_per_second: speed, multiplications_per_second: 100 - speed };
            ("Q4_1".to_owned(), speed)
        });
        StageRecord { host: host.to_owned(), speed: speed.into_iter().collect(), ..stage(1) }
    }

    #[test]
    fn stages_of_one_machine_are_as_fast_as_its_fastest_measurement() {
        let stages = [measured("a", Some(10)), measured("b", Some(30)), measured("a", Some(40)), measured("a", None)];
        let found: Vec<_> = speeds(stages.iter()).iter().map(|speeds| speeds["Q4_1"]).collect();
        let speed =
            |bytes_per_second, multiplications_per_second| FormatSpeed { bytes_per_second, multiplications_per_second };
        assert_eq!(found, [speed(40, 90), speed(30, 70), speed(40, 90), speed(40, 90)]);
        let more_threads = StageRecord { threads: 2, ..measured("a", None) };
        assert!(speeds([&stages[0], &more_threads].into_iter())[1].is_empty(), "another kind of stage");
        assert!(!share_one_machine(stages.iter()) && share_one_machine([&stages[0], &stages[2]].into_iter()));
    }
}
