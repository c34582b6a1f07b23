//! The links of a process: the addresses of its peers as it finds them.

use serde::{Deserialize, Serialize};

/// One address of a peer, as the process that sends to it finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    /// The endpoint in the peer's record, which names the peer.
    pub to: String,
    /// The endpoint that was tried, one of those that the peer advertises.
    pub address: String,
    /// The round trip, in microseconds: the time that a connection takes to be made. `None` until one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u32>,
    /// The throughput in Mbit/s, as a burst came to the peer of late. `None` until one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub megabits_per_second: Option<u32>,
    /// The use of the address.
    pub state: LinkState,
}

/// The recent work of a gateway: the value of a key beside the stages' loads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayLoad {
    /// The addresses of the first stage, if that is on another machine, as the gateway finds them.
    #[serde(default)]
    pub links: Vec<LinkReport>,
}

/// The use of one address of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Frames go there.
    Used,
    /// Frames would go there if the used one failed.
    Spare,
    /// It did not answer when it was last tried.
    Dead,
    /// A newer version has written a state that this one does not know.
    #[serde(other)]
    Unknown,
}

// === impl LinkState ===

impl LinkState {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Spare => "spare",
            Self::Dead => "dead",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_back_as_itself_and_a_state_of_a_newer_version_is_unknown() {
        let text = r#"{"to":"tcp://a:1","address":"tcp://10.0.0.2:1","rtt_us":140,"state":"used"}"#;
        let report: LinkReport = serde_json::from_str(text).unwrap();
        assert_eq!((report.state, report.rtt_us), (LinkState::Used, Some(140)));
        assert_eq!(serde_json::to_string(&report).unwrap(), text);
        let newer: LinkReport = serde_json::from_str(r#"{"to":"a","address":"b","state":"idle","x":1}"#).unwrap();
        assert_eq!((newer.state.word(), newer.rtt_us), ("unknown", None));
    }
}
