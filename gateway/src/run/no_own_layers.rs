//! Own layers in a build without TLS, which joins no cluster.

use std::sync::Arc;

use engine::membership::Publisher;
use engine::runner::Loader;
use engine::store::SharedStore;
use schema::Keyspace;

use super::RunError;
use super::model::Served;
use super::stop::Stop;
use crate::settings::StageSettings;

/// A model whose layers are fetched as they are needed, which there is none of here.
pub(super) struct OwnLayers {
    pub(super) served: Served,
    never: std::convert::Infallible,
}

// === impl OwnLayers ===

impl OwnLayers {
    #[expect(clippy::unused_async, reason = "the other build waits for a header")]
    pub(super) async fn open(
        _: &SharedStore,
        _: &Keyspace,
        _: &Publisher,
        _: &StageSettings,
        _: &Stop,
    ) -> Result<Option<Self>, RunError> {
        Ok(None)
    }

    pub(super) fn loader(&self, _: Arc<dyn Loader>) -> Arc<dyn Loader> {
        match self.never {}
    }
}
