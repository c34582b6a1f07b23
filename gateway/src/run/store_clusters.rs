//! The clusters in a store that have live stages, told from its keys alone.

use std::collections::{BTreeMap, BTreeSet};

use engine::store::{Change, Entry};
use schema::{ClusterName, Keyspace};

use super::limits::CLUSTERS_FOLLOWED_MAX;

/// The keys of live stages, by cluster.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StoreClusters(BTreeMap<ClusterName, BTreeSet<String>>);

/// The cluster of the stage whose record lies at `key`. `None` for another key.
fn cluster_of_stage(key: &str) -> Option<ClusterName> {
    let (cluster, _) = key.strip_prefix(Keyspace::ALL_CLUSTERS)?.split_once('/')?;
    let keyspace = Keyspace::new(&cluster.parse().ok()?).owner(key);
    key.strip_prefix(keyspace.prefix())?.strip_prefix("stages/")?;
    Some(keyspace.cluster().clone())
}

// === impl StoreClusters ===

impl StoreClusters {
    /// Those of a snapshot.
    pub(super) fn new(entries: &[Entry]) -> Self {
        let mut clusters = Self::default();
        entries.iter().for_each(|entry| clusters.put(&entry.key));
        clusters
    }

    /// Follows changes.
    pub(super) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(entry) => self.put(&entry.key),
                Change::Deleted { key, .. } => self.delete(key),
            }
        }
    }

    /// The clusters with a live stage, in the order of their names.
    pub(super) fn live(&self) -> impl Iterator<Item = &ClusterName> {
        self.0.keys()
    }

    /// True if the cluster has a live stage.
    pub(super) fn is_live(&self, cluster: &ClusterName) -> bool {
        self.0.contains_key(cluster)
    }

    fn put(&mut self, key: &str) {
        let Some(cluster) = cluster_of_stage(key) else { return };
        if self.0.len() < CLUSTERS_FOLLOWED_MAX || self.0.contains_key(&cluster) {
            self.0.entry(cluster).or_default().insert(key.to_owned());
        }
    }

    fn delete(&mut self, key: &str) {
        let Some(cluster) = cluster_of_stage(key) else { return };
        let Some(stages) = self.0.get_mut(&cluster) else { return };
        stages.remove(key);
        if stages.is_empty() {
            self.0.remove(&cluster);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::store::Revision;

    fn entry(key: &str) -> Entry {
        Entry { key: key.to_owned(), value: Vec::new(), mod_revision: Revision(1), lease: None }
    }

    fn deleted(key: &str) -> Change {
        Change::Deleted { key: key.to_owned(), revision: Revision(2) }
    }

    fn names(clusters: &StoreClusters) -> Vec<&str> {
        clusters.live().map(ClusterName::as_str).collect()
    }

    #[test]
    fn a_cluster_lives_as_long_as_one_of_its_stages() {
        let keys = ["/baton/v1/home/model", "/baton/v1/home/stages/a-1", "/baton/v1/home/stages/a-2"];
        let mut clusters = StoreClusters::new(&keys.map(entry));
        assert_eq!(names(&clusters), ["home"]);
        clusters.apply(&[Change::Put(entry("/baton/v1/second/stages/b-1")), deleted("/baton/v1/home/stages/a-1")]);
        assert_eq!(names(&clusters), ["home", "second"]);
        clusters.apply(&[deleted("/baton/v1/home/stages/a-2"), deleted("/baton/v1/home/stages/never")]);
        assert_eq!(names(&clusters), ["second"]);
    }

    #[test]
    fn the_stages_of_any_deployment_count() {
        let keys = ["/baton/v1/home/stages/a-1", "/baton/v1/home/deployments/2/stages/a-1"];
        let mut clusters = StoreClusters::new(&keys.map(entry));
        clusters.apply(&[deleted(keys[0])]);
        assert_eq!(names(&clusters), ["home"]);
        clusters.apply(&[deleted(keys[1])]);
        assert_eq!(names(&clusters), [""; 0]);
    }

    #[test]
    fn other_keys_are_no_clusters() {
        let keys = ["/baton/v1/model", "/baton/v1/Bad Name/stages/a", "/baton/v1-load/home/a", "/baton/v1/home/pins/a"];
        assert_eq!(names(&StoreClusters::new(&keys.map(entry))), [""; 0]);
        let keys: Vec<_> = (0..2 * CLUSTERS_FOLLOWED_MAX).map(|n| entry(&format!("/baton/v1/c{n}/stages/a"))).collect();
        assert_eq!(StoreClusters::new(&keys).live().count(), CLUSTERS_FOLLOWED_MAX);
    }
}
