//! A pipeline that can be closed while requests still hold it.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use engine::core::PipelineHandle;
use engine::generate::{Pipeline, PipelineStatus, Rejection, Request, SequenceReport, TokenStream};
use engine::view::ClusterView;
use schema::ClusterName;

/// The pipeline of a cluster that comes and goes while the server runs.
pub(super) struct ClosablePipeline {
    cluster: ClusterName,
    open: RwLock<Option<Arc<PipelineHandle>>>,
}

// === impl ClosablePipeline ===

impl ClosablePipeline {
    pub(super) fn new(cluster: ClusterName, pipeline: Arc<PipelineHandle>) -> Self {
        Self { cluster, open: RwLock::new(Some(pipeline)) }
    }

    /// Closes it: the gateway leaves the cluster, running sequences end with a failure, and new ones are not accepted.
    pub(super) fn close(&self) {
        // Taken out first: the last reference joins a thread, for which the lock is not held.
        let pipeline = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(pipeline);
    }

    fn open(&self) -> Option<Arc<PipelineHandle>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reason(&self) -> String {
        format!("cluster {} has ended: no stage of it is left", self.cluster)
    }
}

#[async_trait]
impl Pipeline for ClosablePipeline {
    async fn generate(&self, request: Request) -> Result<TokenStream, Rejection> {
        match self.open() {
            Some(pipeline) => pipeline.generate(request).await,
            None => Err(Rejection::NotServing { reason: self.reason() }),
        }
    }

    fn refused(&self, rejection: &Rejection) {
        if let Some(pipeline) = self.open() {
            pipeline.refused(rejection);
        }
    }

    fn status(&self) -> PipelineStatus {
        let ended = || PipelineStatus { reason: self.reason(), ..PipelineStatus::default() };
        self.open().map_or_else(ended, |pipeline| pipeline.status())
    }

    fn metrics(&self) -> prometheus::Registry {
        self.open().map(|pipeline| pipeline.metrics()).unwrap_or_default()
    }

    fn view(&self) -> Arc<ClusterView> {
        self.open().map(|pipeline| pipeline.view()).unwrap_or_default()
    }

    fn sequences(&self) -> Arc<[SequenceReport]> {
        self.open().map(|pipeline| pipeline.sequences()).unwrap_or_default()
    }
}
