//! The report on the experts that a stage has computed, derived from its record. The command line and the HTTP pages
//! only draw it. Pure.

use schema::record::MemoryUse;
use serde::Serialize;

/// The experts of a stage's layers, and those of them that a token ever chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpertReport {
    /// Experts of all its layers together.
    pub total: u64,
    /// Those that a token has chosen since the layers were loaded. The others take no memory.
    pub touched: u64,
    /// The same for each layer that has experts. Empty if the record has no room for it.
    pub layers: Vec<LayerExpertReport>,
}

/// The experts of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerExpertReport {
    /// The layer.
    pub layer: u32,
    /// Number of its experts.
    pub total: u32,
    /// Number of those that a token has chosen.
    pub touched: u64,
    /// The chosen ones as runs, such as `0-3,7,9-127`.
    pub ranges: String,
}

// === impl ExpertReport ===

impl ExpertReport {
    /// The report of `memory`. `None` for layers without experts.
    pub fn of(memory: &MemoryUse) -> Option<Self> {
        let experts = &memory.experts;
        let layers = experts.sets().map(|(layer, set)| LayerExpertReport {
            layer,
            total: set.count(),
            touched: set.len(),
            ranges: set.ranges(),
        });
        let report = Self { total: experts.total, touched: memory.experts_touched, layers: layers.collect() };
        (!experts.is_empty()).then_some(report)
    }
}

#[cfg(test)]
mod tests {
    use schema::record::{ExpertSet, TouchedExperts};

    use super::*;

    #[test]
    fn a_layer_with_experts_has_a_line_and_others_have_none() {
        let sets = vec![ExpertSet::new(8, [0b1100_0001]), ExpertSet::default(), ExpertSet::new(8, [0])];
        let memory = MemoryUse { experts_touched: 3, experts: TouchedExperts::new(20, sets), ..MemoryUse::default() };
        let report = ExpertReport::of(&memory).unwrap();
        assert_eq!((report.total, report.touched, report.layers.len()), (16, 3, 2));
        let of =
            |layer, touched, ranges: &str| LayerExpertReport { layer, total: 8, touched, ranges: ranges.to_owned() };
        assert_eq!(report.layers, [of(20, 3, "0,6-7"), of(22, 0, "")]);
        assert_eq!(ExpertReport::of(&MemoryUse::default()), None);
    }
}
