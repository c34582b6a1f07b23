//! `baton up --share` in a build without TLS, where the settings refuse it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::link::ClusterKey;
use engine::store::SharedStore;
use schema::{ClusterName, Keyspace};
use stages::weights::ModelFile;
use tokio::sync::watch;

use super::RunError;
use super::deployments::OpenDeployment;
use super::own_store::OwnStore;
use crate::models::Cache;
use crate::settings::UpSettings;

/// A cluster that is about to be shared, which there is none of here.
pub(super) enum Prepared {}

/// A cluster that is shared, which there is none of here either.
pub(super) enum Shared {}

/// Never a cluster to share.
#[expect(clippy::unused_async, reason = "the other build waits for a port")]
pub(super) async fn prepare(_: &mut UpSettings) -> Result<Option<Prepared>, RunError> {
    Ok(None)
}

/// Never a key: nobody made one.
pub(super) fn cluster_key(_: &Path, _: &ClusterName) -> Result<ClusterKey, RunError> {
    Err(RunError::ShareHost)
}

impl Prepared {
    pub(super) fn store(&self) -> PathBuf {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "the other build writes to the store")]
    pub(super) async fn open(
        self,
        _: &OwnStore,
        _: SharedStore,
        _: &Keyspace,
        _: &UpSettings,
    ) -> Result<Shared, RunError> {
        match self {}
    }
}

impl Shared {
    pub(super) fn announce(&mut self, _: &ClusterName, _: &str) {
        match *self {}
    }

    pub(super) fn offer(&self, _: &ModelFile, _: &Cache) {
        match *self {}
    }

    pub(super) fn spare(&self, _: watch::Receiver<Arc<OpenDeployment>>) {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "the other build waits for a goodbye")]
    pub(super) async fn close(self) {
        match self {}
    }
}
