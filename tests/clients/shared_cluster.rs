//! One cluster for all cases that run at the same time.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::common::cluster::Cluster;

/// A further name of the model, as users of Anthropic's clients set one.
const ALIAS: &str = "claude-sonnet-5";

/// The running cluster, or a new one if no case uses one now. It ends when the last case drops it.
pub(crate) fn get() -> Arc<Cluster> {
    static CLUSTER: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut running = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    running.upgrade().unwrap_or_else(|| {
        let cluster = Arc::new(Cluster::start(2, &["--model-alias", ALIAS], &[]));
        *running = Arc::downgrade(&cluster);
        cluster
    })
}
