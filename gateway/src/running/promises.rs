//! Memory of this machine that `baton up` processes have promised to their stages, and what that leaves to one more.
//! Pure.

use schema::{ClusterName, HumanBytes};

/// Memory that another process may come to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// Its cluster.
    pub cluster: ClusterName,
    /// The process.
    pub pid: u32,
    /// The memory, in bytes.
    pub bytes: u64,
}

/// The machine's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineMemory {
    /// All that processes can use.
    pub total: u64,
    /// The part that they can still allocate now. Keys and values that were promised and never used count among it.
    pub available: u64,
}

/// The memory that a cluster of some stages on this machine would take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Number of stages.
    pub stages: u64,
    /// The budget of each, if it was told.
    pub told: Option<u64>,
    /// The least that one of them needs to serve the model alone. 0 if other machines may serve it.
    pub least: u64,
    /// The most that one of them takes, if it serves the model alone with the largest room for keys and values.
    pub most: u64,
    /// The part of it that each further stage takes for itself.
    pub scratch: u64,
}

/// The memory of the stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The budget of each.
    pub budget: u64,
    /// The memory that they may come to take together: a layer is held by one of them only.
    pub promised: u64,
}

/// Too little memory is left beside what other processes may come to take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "of this machine's {total}, {held}: {left} are left, and {needed} are needed; {remedy}",
    total = HumanBytes(*.total),
    held = list(.holders),
    left = HumanBytes(*.left),
    needed = HumanBytes(*.needed),
    remedy = remedy(.holders)
)]
pub struct MemoryPromised {
    total: u64,
    left: u64,
    needed: u64,
    holders: Vec<Promise>,
}

fn list(holders: &[Promise]) -> String {
    let one = |Promise { cluster, pid, bytes }: &Promise| {
        format!("cluster {cluster} (process {pid}) may come to use {}", HumanBytes(*bytes))
    };
    holders.iter().map(one).collect::<Vec<_>>().join(" and ")
}

fn remedy(holders: &[Promise]) -> String {
    let cluster = holders.iter().max_by_key(|promise| promise.bytes).map(|promise| promise.cluster.to_string());
    let cluster = cluster.unwrap_or_default();
    format!(
        "end that one with `baton stop {cluster}`, or start it again with less (a smaller --kv-tokens, or --memory for \
         its stages), or give this one a smaller --kv-tokens"
    )
}

// === impl Demand ===

impl Demand {
    /// The memory for these stages beside what `others` may come to take.
    ///
    /// # Errors
    /// [`MemoryPromised`] if there are others, and they leave too little.
    pub fn grant(self, machine: MachineMemory, others: &[Promise]) -> Result<Grant, MemoryPromised> {
        let held = others.iter().fold(0_u64, |sum, promise| sum.saturating_add(promise.bytes));
        let left = machine.total.saturating_sub(held).min(machine.available);
        let stages = self.stages.max(1);
        let budget = self.told.unwrap_or(self.most.min(left / stages));
        let together = self.most.saturating_add(self.scratch.saturating_mul(stages - 1));
        let promised = budget.saturating_mul(stages).min(together);
        let needed = if self.told.is_some() { promised } else { self.least };
        if held > 0 && needed > left {
            return Err(MemoryPromised { total: machine.total, left, needed, holders: others.to_vec() });
        }
        Ok(Grant { budget, promised })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn machine(total: u64, available: u64) -> MachineMemory {
        MachineMemory { total: total * GIB, available: available * GIB }
    }

    fn demand(stages: u64, least: u64, most: u64) -> Demand {
        Demand { stages, told: None, least: least * GIB, most: most * GIB, scratch: 0 }
    }

    fn other(bytes: u64) -> Promise {
        Promise { cluster: "home".parse().unwrap(), pid: 7, bytes: bytes * GIB }
    }

    #[test]
    fn a_first_cluster_takes_what_its_model_can_use_and_no_more() {
        let grant = |demand: Demand| demand.grant(machine(24, 20), &[]).unwrap();
        assert_eq!(grant(demand(1, 1, 4)), Grant { budget: 4 * GIB, promised: 4 * GIB });
        // A layer is held once, however many stages could hold it.
        assert_eq!(grant(demand(3, 1, 4)), Grant { budget: 4 * GIB, promised: 4 * GIB });
        let with_scratch = Demand { scratch: GIB, ..demand(3, 1, 4) };
        assert_eq!(grant(with_scratch).promised, 6 * GIB);
        assert_eq!(grant(demand(2, 10, 40)), Grant { budget: 10 * GIB, promised: 20 * GIB });
        // Alone, a cluster that does not fit says so itself, and waits for machines.
        assert_eq!(grant(demand(1, 30, 40)).budget, 20 * GIB);
        let told = Demand { told: Some(2 * GIB), ..demand(1, 1, 4) };
        assert_eq!(grant(told), Grant { budget: 2 * GIB, promised: 2 * GIB });
    }

    #[test]
    fn a_second_one_gets_what_promises_leave_however_much_looks_free() {
        let grant = |demand: Demand, held| demand.grant(machine(24, 23), &[other(held)]);
        assert_eq!(grant(demand(1, 1, 4), 16).unwrap().budget, 4 * GIB);
        assert_eq!(grant(demand(1, 1, 40), 16).unwrap(), Grant { budget: 8 * GIB, promised: 8 * GIB });
        assert_eq!(demand(1, 1, 40).grant(machine(24, 2), &[other(16)]).unwrap().budget, 2 * GIB);
        let refused = grant(demand(1, 9, 12), 16).unwrap_err();
        let expected = "of this machine's 24.0 GiB, cluster home (process 7) may come to use 16.0 GiB: 8.0 GiB are \
                        left, and 9.0 GiB are needed; end that one with `baton stop home`, or start it again with less \
                        (a smaller --kv-tokens, or --memory for its stages), or give this one a smaller --kv-tokens";
        assert_eq!(refused.to_string(), expected);
        let told = Demand { told: Some(9 * GIB), ..demand(1, 1, 12) };
        assert!(grant(told, 16).is_err() && grant(told, 15).is_ok());
        // With other machines it may serve a part of the layers.
        assert_eq!(grant(demand(1, 0, 40), 24).unwrap().budget, 0);
    }
}
