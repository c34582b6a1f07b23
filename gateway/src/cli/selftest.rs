//! `baton selftest`: checks the device of this machine and measures it, on a page that can be sent to us.

use std::num::NonZeroUsize;

use serde::Serialize;
use stages::selftest::{Finding, MeasuredSpeeds, Outcome, SelfTest};

use super::exit::{CliError, Exit};
use super::output::{self, billions, bytes, replace_control_chars};
use super::table::Table;
use crate::settings::ComputeSettings;

/// Columns of a check's name.
const NAME_COLUMNS: usize = 34;

/// The document that `baton selftest --json` prints.
#[derive(Debug, Serialize)]
struct SelfTestDocument {
    version: &'static str,
    system: String,
    /// The device that was tested, and its name.
    device: &'static str,
    chip: String,
    memory_total_bytes: u64,
    /// The reason for the device, if it is not the one that was asked for.
    device_reason: Option<String>,
    passed: bool,
    checks: Vec<CheckDocument>,
    /// Bytes per second that the device reads when it does nothing else.
    read_bytes_per_second: Option<u64>,
    speed: Vec<SpeedDocument>,
}

#[derive(Debug, Serialize)]
struct CheckDocument {
    name: String,
    /// `passed`, `left_out` or `failed`.
    outcome: &'static str,
    reason: Option<String>,
    took_ms: u64,
}

#[derive(Debug, Serialize)]
struct SpeedDocument {
    format: &'static str,
    bytes_per_second: u64,
    multiplications_per_second: u64,
}

/// Runs all checks, prints each as it ends, and then the speeds. Fails if a check does.
pub(super) fn run(compute: &ComputeSettings, json: bool) -> Result<Exit, CliError> {
    let folder = tempfile::Builder::new().prefix("baton-selftest-").tempdir()?;
    let threads = NonZeroUsize::new(compute.threads).unwrap_or(NonZeroUsize::MIN);
    let test = SelfTest::new(compute.device, threads, folder.path())?;
    let mut document = SelfTestDocument {
        version: env!("CARGO_PKG_VERSION"),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        device: test.record.device.name(),
        chip: test.record.chip.clone(),
        memory_total_bytes: test.record.memory_total_bytes,
        device_reason: test.record.device_reason.clone(),
        passed: true,
        checks: Vec::new(),
        read_bytes_per_second: None,
        speed: Vec::new(),
    };
    if !json {
        output::print(&head(&document))?;
    }
    // A page that nobody reads any more is no reason to end: the exit status still counts.
    test.check(&mut |finding| {
        let check = CheckDocument::from(finding);
        if !json {
            let _ = output::print(&line(&check));
        }
        document.passed &= check.outcome != "failed";
        document.checks.push(check);
    })?;
    let speeds = if document.passed { test.measure()? } else { None };
    if let Some(MeasuredSpeeds { read_bytes_per_second, rows }) = speeds {
        document.read_bytes_per_second = read_bytes_per_second;
        document.speed = rows.iter().map(SpeedDocument::from).collect();
    }
    output::print(&if json { output::json(&document)? } else { tail(&document) })?;
    Ok(if document.passed { Exit::Ok } else { Exit::Failed })
}

fn head(document: &SelfTestDocument) -> String {
    let SelfTestDocument { version, system, device, chip, memory_total_bytes, device_reason, .. } = document;
    let memory = bytes(*memory_total_bytes);
    let reason = device_reason.iter().map(|reason| format!("{}\n", replace_control_chars(reason))).collect::<String>();
    format!("baton {version}, {system}: {device}, {}, {memory}\n{reason}\n", replace_control_chars(chip))
}

fn line(check: &CheckDocument) -> String {
    let CheckDocument { name, outcome, reason, took_ms } = check;
    let mark = match *outcome {
        "passed" => "ok      ",
        "left_out" => "left out",
        _ => "FAILED  ",
    };
    let seconds = *took_ms as f64 / 1e3;
    let reason = reason.iter().map(|reason| format!("  {}", replace_control_chars(reason))).collect::<String>();
    format!("{mark}  {name:NAME_COLUMNS$} {seconds:7.2} s{reason}\n")
}

fn tail(document: &SelfTestDocument) -> String {
    let count = |wanted: &str| document.checks.iter().filter(|check| check.outcome == wanted).count();
    let (passed, left_out, failed) = (count("passed"), count("left_out"), count("failed"));
    let sum = format!("\n{passed} checks passed, {failed} failed, {left_out} left out\n");
    if document.speed.is_empty() {
        return sum;
    }
    let mut table = Table::new(&["WEIGHTS", "READS", "OF MEMORY", "MULTIPLIES"]);
    for row in &document.speed {
        let part = document.read_bytes_per_second.map(|most| 100.0 * row.bytes_per_second as f64 / most as f64);
        table.row([
            row.format.to_owned(),
            format!("{} GB/s", billions(row.bytes_per_second)),
            part.map_or_else(|| "-".to_owned(), |part| format!("{part:.0} %")),
            format!("{} GMAC/s", billions(row.multiplications_per_second)),
        ]);
    }
    let memory = document.read_bytes_per_second.map_or_else(String::new, |rate| {
        format!("memory is read at {} GB/s by a loop that does nothing else\n", billions(rate))
    });
    format!("{sum}\n{}{memory}", table.render())
}

// === impl CheckDocument ===

impl From<Finding> for CheckDocument {
    fn from(finding: Finding) -> Self {
        let (outcome, reason) = match finding.outcome {
            Outcome::Passed => ("passed", None),
            Outcome::LeftOut(reason) => ("left_out", Some(reason)),
            Outcome::Failed(fault) => ("failed", Some(fault)),
        };
        Self { name: finding.name, outcome, reason, took_ms: finding.took.as_millis() as u64 }
    }
}

// === impl SpeedDocument ===

impl From<&stages::selftest::SpeedRow> for SpeedDocument {
    fn from(row: &stages::selftest::SpeedRow) -> Self {
        Self {
            format: row.format,
            bytes_per_second: row.speed.bytes_per_second,
            multiplications_per_second: row.speed.multiplications_per_second,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, outcome: &'static str, reason: Option<&str>) -> CheckDocument {
        CheckDocument { name: name.to_owned(), outcome, reason: reason.map(str::to_owned), took_ms: 120 }
    }

    #[test]
    fn the_page_names_the_device_each_check_and_what_failed() {
        let document = SelfTestDocument {
            version: "1.0.0",
            system: "linux x86_64".to_owned(),
            device: "cuda",
            chip: "GPU".to_owned(),
            memory_total_bytes: 16 << 30,
            device_reason: None,
            passed: false,
            checks: vec![
                check("golden model against transformers", "passed", None),
                check("weights in TQ2_0", "left_out", Some("no kernels")),
                check("weights in Q4_K", "failed", Some("kernel product_q4_k_4 gives 1: expected 2")),
            ],
            read_bytes_per_second: Some(100_000_000_000),
            speed: vec![SpeedDocument {
                format: "Q8_0",
                bytes_per_second: 80_000_000_000,
                multiplications_per_second: 900_000_000_000,
            }],
        };
        let lines: String = document.checks.iter().map(line).collect();
        insta::assert_snapshot!(format!("{}{lines}{}", head(&document), tail(&document)), @r"
        baton 1.0.0, linux x86_64: cuda, GPU, 16.0 GiB

        ok        golden model against transformers     0.12 s
        left out  weights in TQ2_0                      0.12 s  no kernels
        FAILED    weights in Q4_K                       0.12 s  kernel product_q4_k_4 gives 1: expected 2

        1 checks passed, 1 failed, 1 left out

        WEIGHTS  READS      OF MEMORY  MULTIPLIES
        Q8_0     80.0 GB/s  80 %       900.0 GMAC/s
        memory is read at 100.0 GB/s by a loop that does nothing else
        ");
    }
}
