//! A watch stream of etcd as a source of changes.

use async_trait::async_trait;
use etcd_client::{Event, WatchResponse, WatchStream};

use super::members::{Members, reason};
use super::{entry, revision};
use crate::store::watch::ChangeSource;
use crate::store::{Change, StoreError};

/// etcd's text in the reply that ends a watch of keys that its user may not read.
const DENIED: &str = "permission denied";

/// An open watch. It is kept whole, because dropping its sending half would end it.
pub(super) struct EtcdWatch {
    members: Members,
    /// The member it runs on.
    at: usize,
    stream: WatchStream,
    prefix: String,
}

impl EtcdWatch {
    pub(super) fn new(members: Members, at: usize, stream: WatchStream, prefix: &str) -> Self {
        Self { members, at, stream, prefix: prefix.to_owned() }
    }

    /// The error with which `reply` ends the watch, if it does.
    fn end(&self, reply: &WatchResponse) -> Option<StoreError> {
        if reply.compact_revision() > 0 {
            return Some(StoreError::Compacted { oldest: revision(reply.compact_revision()) });
        }
        if reply.canceled() && reply.cancel_reason().contains(DENIED) {
            return Some(StoreError::Denied { user: self.members.user(), asked: super::reading(&self.prefix) });
        }
        let cancelled = || format!("the watch was cancelled: {}", reply.cancel_reason());
        reply.canceled().then(|| self.members.unavailable(cancelled()))
    }
}

#[async_trait]
impl ChangeSource for EtcdWatch {
    async fn next(&mut self) -> Result<Vec<Change>, StoreError> {
        loop {
            let reply = match self.stream.message().await {
                Ok(Some(reply)) => reply,
                Ok(None) => return Err(self.members.unavailable("the watch was closed".to_owned())),
                Err(error) => {
                    self.members.fail_over(self.at);
                    return Err(self.members.unavailable(reason(&error)));
                }
            };
            if let Some(end) = self.end(&reply) {
                return Err(end);
            }
            let changes: Vec<_> = reply.events().iter().filter_map(change).collect();
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }
}

fn change(event: &Event) -> Option<Change> {
    let entry = entry(event.kv()?)?;
    // By number, because etcd-client's own accessor panics on a number that it does not know.
    match event.0.r#type {
        0 => Some(Change::Put(entry)),
        1 => Some(Change::Deleted { key: entry.key, revision: entry.mod_revision }),
        _ => None,
    }
}
