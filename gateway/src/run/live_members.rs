//! The processes that are alive in a cluster, for whoever brings another model.

use std::fmt;

use engine::view::ClusterView;

/// Most members that a message names.
const NAMED_MAX: usize = 4;

/// The stages and gateways whose records the store has, as people know them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveMembers(Vec<String>);

// === impl LiveMembers ===

impl LiveMembers {
    /// The members of `view`, those without a proof among them.
    pub(super) fn new(view: &ClusterView) -> Self {
        let stages = view.stages.iter().map(|(name, stage)| {
            let record = &stage.value;
            format!("stage {name} (process {} on {})", record.pid, record.host)
        });
        let unproven = view.unproven_stages.keys().map(|name| format!("stage {name}"));
        let gateways = view.gateways.values().map(|gateway| format!("the gateway at {}", gateway.value.url));
        Self(stages.chain(unproven).chain(gateways).collect())
    }

    /// True if there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for LiveMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("another process has just brought that model: expected one model in a cluster");
        }
        let named = self.0.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = self.0.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        write!(
            f,
            "{named}{more} are alive with it (one that was killed, for its lease time): `baton switch MODEL` changes \
             the model while they serve, or serve this one beside it with --cluster NAME"
        )
    }
}

#[cfg(test)]
mod tests {
    use schema::record::{GatewayRecord, StageRecord};

    use super::*;
    use engine::view::Versioned;

    #[test]
    fn the_message_names_who_is_alive_and_what_to_do() {
        let mut view = ClusterView::default();
        assert!(LiveMembers::new(&view).is_empty());
        for n in 1..=5 {
            let record = StageRecord { pid: n, ..StageRecord::new("mini-1", 1) };
            view.stages.insert(format!("s{n}").parse().unwrap(), Versioned { value: record, mod_revision: 1 });
        }
        let gateway = GatewayRecord::new("mini-1", "http://mini-1:8100".to_owned());
        view.gateways.insert(0, Versioned { value: gateway, mod_revision: 1 });
        let text = LiveMembers::new(&view).to_string();
        assert!(text.starts_with("stage s1 (process 1 on mini-1), stage s2"), "{text}");
        assert!(text.contains(" and 2 more are alive") && text.contains("--cluster NAME"), "{text}");
    }
}
