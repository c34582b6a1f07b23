//! The addresses of other members that serve layers, as the newest view of the cluster shows them: a member is a source
//! from the moment on that its record is there.

use std::sync::Arc;

use engine::view::ClusterView;
use schema::StageName;
use tokio::sync::watch;

/// The addresses.
#[derive(Debug, Clone)]
pub struct FoundSources {
    views: watch::Receiver<Arc<ClusterView>>,
    /// The stage that fetches, which is no source for itself.
    own: Option<StageName>,
}

// === impl FoundSources ===

impl FoundSources {
    /// Those of the cluster that `views` show, without that of stage `own`.
    pub fn new(views: watch::Receiver<Arc<ClusterView>>, own: StageName) -> Self {
        Self { views, own: Some(own) }
    }

    /// The addresses now.
    pub(super) fn addresses(&self) -> Vec<String> {
        let view = self.views.borrow();
        let others = view.stages.iter().filter(|(name, _)| Some(*name) != self.own.as_ref());
        others.filter_map(|(_, stage)| stage.value.layers_endpoint.clone()).collect()
    }
}

impl Default for FoundSources {
    /// None.
    fn default() -> Self {
        Self { views: watch::channel(Arc::default()).1, own: None }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use engine::membership::Publisher;
    use engine::store::{MemoryStore, SharedStore, Txn, Write};
    use schema::record::StageRecord;
    use schema::{Key, Keyspace};

    use super::*;

    /// Longest time until a new member is a source: a view is made every few milliseconds.
    const FOUND_MAX: Duration = Duration::from_millis(500);

    #[tokio::test]
    async fn a_member_is_a_source_as_soon_as_its_record_is_there_and_no_longer() {
        let store: SharedStore = Arc::new(MemoryStore::new());
        let keyspace = Keyspace::new(&"home".parse().unwrap());
        let publisher = Publisher::start(store.clone(), keyspace.clone(), None).await.unwrap();
        let found = FoundSources::new(publisher.views(), "own".parse().unwrap());
        let write = async |name: &str, endpoint: Option<&str>| {
            let key = keyspace.name(&Key::Stage(name.parse().unwrap()));
            let record = StageRecord { layers_endpoint: endpoint.map(str::to_owned), ..StageRecord::new("h", 1) };
            let value = serde_json::to_vec(&record).unwrap();
            let writes = vec![Write::Put { key, value, lease: None }];
            store.commit(Txn { compares: vec![], writes }).await.unwrap();
        };
        let shows = async |expected: &[&str]| {
            let shown = async {
                while found.addresses() != expected {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let shown = tokio::time::timeout(FOUND_MAX, shown).await;
            assert!(shown.is_ok(), "{:?} after {FOUND_MAX:?}: expected {expected:?}", found.addresses());
        };
        shows(&[]).await;
        write("own", Some("own:1")).await;
        write("a", Some("a:1")).await;
        write("b", None).await;
        shows(&["a:1"]).await;
        write("b", Some("b:1")).await;
        shows(&["a:1", "b:1"]).await;
        write("a", None).await;
        shows(&["b:1"]).await;
    }
}
