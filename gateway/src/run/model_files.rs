//! The files of clusters' models on this machine, for a gateway that was not told where they are.

use std::path::PathBuf;

use engine::link::ClusterKey;
use engine::membership::{admit, read_view};
use engine::store::SharedStore;
use schema::record::ModelRecord;
use schema::{ClusterName, Keyspace};
use stages::weights::ModelFile;
use tracing::warn;

use super::RunError;
use super::model::Served;
use crate::error_chain::chain;
use crate::models::{self, Cache};
use crate::running::RunningFolder;

/// Finds files of models.
pub(super) struct ModelFiles {
    /// The files of models.
    pub(super) cache: Cache,
    /// The `baton up` processes of this user, which know the files of their models.
    pub(super) running: Option<RunningFolder>,
}

// === impl ModelFiles ===

impl ModelFiles {
    /// Admits this process to `keyspace`, and finds its model and this machine's file of it. The error is the reason
    /// for which the gateway cannot serve it.
    pub(super) async fn served(
        &self,
        store: &SharedStore,
        keyspace: &Keyspace,
        key: Option<&ClusterKey>,
    ) -> Result<Served, String> {
        admit(store, keyspace, key).await.map_err(|error| chain(&error))?;
        let view = read_view(store, keyspace, None).await.map_err(|error| chain(&error))?;
        let Some(record) = view.model.map(|model| model.value) else {
            return Err("no process has named its model yet".to_owned());
        };
        let mut problem = chain(&RunError::NotHere { name: record.name.clone() });
        for path in self.candidates(keyspace, &record) {
            match ModelFile::open(&path) {
                Ok(file) if *file.fingerprint() == record.fingerprint => return Ok(Served { file, record }),
                Ok(file) => {
                    let (path, found, expected) = (path.display(), file.fingerprint(), &record.fingerprint);
                    problem = format!("{path} has fingerprint {found}: expected {expected}, its model's");
                }
                Err(error) => problem = format!("cannot read {}: {error}", path.display()),
            }
        }
        Err(problem)
    }

    /// The paths at which the model may be.
    fn candidates(&self, keyspace: &Keyspace, record: &ModelRecord) -> Vec<PathBuf> {
        let noted = models::noted_path(&record.fingerprint, &self.cache);
        let brought = self.brought_to(keyspace.cluster());
        let located = models::locate(&record.name, &self.cache);
        [noted, brought, located].into_iter().flatten().collect()
    }

    /// The file of the model that a `baton up` of this user brought to `cluster`.
    fn brought_to(&self, cluster: &ClusterName) -> Option<PathBuf> {
        let running = self.running.as_ref()?.running(&stages::memory::machine().host);
        let running = running.inspect_err(|error| warn!(%error, "the processes of this user cannot be read")).ok()?;
        running.into_iter().filter(|up| up.record.cluster == *cluster).find_map(|up| up.record.model_file)
    }
}
