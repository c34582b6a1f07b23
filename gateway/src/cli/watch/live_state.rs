//! The state of `GET /distributed/events`, kept true by its changes. Pure.

use serde::Deserialize;
use serde_json::Value;

use super::limits::{LINES_MAX, ROWS_MAX};
use super::picture::Picture;
use crate::client::ServerEvent;
use crate::merge_patch;

/// The state after the events so far.
#[derive(Debug, Clone, Default)]
pub(super) struct LiveState {
    state: Option<Value>,
    last_id: Option<String>,
}

/// The events of a gateway cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the gateway's events are not understood: {0}")]
pub(super) struct EventError(#[from] serde_json::Error);

// === impl LiveState ===

impl LiveState {
    /// Applies an event. Events of unknown names change nothing.
    pub(super) fn apply(&mut self, event: ServerEvent) -> Result<(), EventError> {
        self.last_id = event.id.or(self.last_id.take());
        let name = event.name.unwrap_or_default();
        match (name.as_str(), &mut self.state) {
            ("state", state) => *state = Some(serde_json::from_str(&event.data)?),
            ("patch", Some(state)) => merge_patch::apply(state, serde_json::from_str(&event.data)?),
            ("sample", Some(state)) => {
                append(state, "/series/rows", vec![serde_json::from_str(&event.data)?], ROWS_MAX);
            }
            ("log", Some(state)) => append(state, "/log", serde_json::from_str(&event.data)?, LINES_MAX),
            ("behind", _) => self.begin_anew(),
            _ => {}
        }
        Ok(())
    }

    /// Lets the next stream begin with the whole state.
    pub(super) fn begin_anew(&mut self) {
        self.last_id = None;
    }

    /// True once a whole state has come.
    pub(super) fn has_state(&self) -> bool {
        self.state.is_some()
    }

    /// The id of the last event, from which a new stream goes on.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.state.as_ref().and(self.last_id.as_deref())
    }

    /// The state as a page shows it. `None` before the first whole state.
    pub(super) fn picture(&self) -> Result<Option<Picture>, EventError> {
        Ok(self.state.as_ref().map(Picture::deserialize).transpose()?)
    }
}

/// Appends to the list at the JSON pointer `place`, if one is there. It keeps its newest entries.
fn append(state: &mut Value, place: &str, more: Vec<Value>, entries_max: usize) {
    if let Some(Value::Array(entries)) = state.pointer_mut(place) {
        entries.extend(more);
        let excess = entries.len().saturating_sub(entries_max);
        entries.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, id: &str, data: &str) -> ServerEvent {
        ServerEvent { name: Some(name.to_owned()), id: Some(id.to_owned()), data: data.to_owned() }
    }

    #[test]
    fn changes_before_the_whole_state_are_left_out_and_later_ones_apply() {
        let mut live = LiveState::default();
        live.apply(event("patch", "a-1", r#"{"cluster":{"running":9}}"#)).unwrap();
        assert_eq!((live.picture().unwrap(), live.last_id()), (None, None));
        let whole = r#"{"cluster":{"running":1,"stages":{"a":{"name":"a","busy":0.5}}},
            "series":{"columns":["t","busy"],"rows":[[1,null]]},"log":[]}"#;
        live.apply(event("state", "a-2", whole)).unwrap();
        live.apply(event("patch", "a-3", r#"{"cluster":{"running":2,"stages":{"a":{"busy":null}}}}"#)).unwrap();
        live.apply(event("sample", "a-4", "[2,0.25]")).unwrap();
        live.apply(event("log", "a-5", r#"[{"t":7,"subject":"pin","text":"Stage a is pinned."}]"#)).unwrap();
        live.apply(event("news", "a-6", "?")).unwrap();
        let picture = live.picture().unwrap().unwrap();
        assert_eq!((picture.cluster.running, picture.cluster.stages["a"].busy), (2, None));
        assert_eq!((picture.series.last("busy"), picture.log[0].text.as_str()), (Some(0.25), "Stage a is pinned."));
        assert_eq!(live.last_id(), Some("a-6"));
        live.apply(event("behind", "", "{}")).unwrap();
        assert_eq!(live.last_id(), None);
    }

    #[test]
    fn lists_keep_their_newest_entries_and_damage_is_an_error() {
        let mut live = LiveState::default();
        live.apply(event("state", "1", r#"{"series":{"columns":["t"],"rows":[]}}"#)).unwrap();
        for t in 0..=ROWS_MAX {
            live.apply(event("sample", "2", &format!("[{t}]"))).unwrap();
        }
        let rows = live.picture().unwrap().unwrap().series.rows;
        assert_eq!((rows.len(), rows[0][0]), (ROWS_MAX, Some(1.0)));
        assert!(live.apply(event("patch", "3", "{")).is_err());
        live.apply(event("patch", "4", r#"{"cluster":7}"#)).unwrap();
        assert!(live.picture().unwrap_err().to_string().contains("not understood"));
        live.apply(event("state", "5", "[]")).unwrap();
        live.apply(event("sample", "6", "[1]")).unwrap();
        live.apply(event("log", "7", "[1]")).unwrap();
    }
}
