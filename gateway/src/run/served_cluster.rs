//! One cluster of a gateway: its pipeline, and its model for the HTTP server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::core::{PipelineHandle, PipelineSettings};
use engine::link::ClusterKey;
use engine::store::SharedStore;
use schema::record::GatewayRecord;
use schema::{ClusterName, Keyspace};
use stages::weights::ModelFile;
use tracing::warn;

use super::RunError;
use super::generation_config;
use super::model::Served;
use super::text::ModelText;
use crate::client::TrustedCertificates;
use crate::http::{DrillRunner, GenerationConfig, LiveFeed, ModelInfo, PinStore, ServedModel, Settings};
use crate::settings::{HttpSettings, MemberSettings};

/// Opens clusters of one store for one HTTP server.
pub(super) struct ClusterOpener {
    pub(super) store: SharedStore,
    pub(super) member: MemberSettings,
    pub(super) speculates: bool,
    pub(super) uses_generation_config: bool,
    pub(super) takes_web_pins: bool,
    pub(super) runs_web_drills: bool,
    /// The HTTP server's settings.
    pub(super) settings: Arc<Settings>,
    /// The address at which other processes reach the HTTP server.
    pub(super) url: String,
    /// Its certificate, if it speaks https.
    pub(super) certificate: Option<PathBuf>,
}

/// A cluster that is opened.
pub(super) struct OpenedCluster {
    pub(super) pipeline: Arc<PipelineHandle>,
    pub(super) model: ServedModel,
}

/// The sampling that the model's file recommends, unless it is not to be used.
fn recommended_sampling(file: &ModelFile, is_used: bool) -> GenerationConfig {
    if !is_used {
        return GenerationConfig::default();
    }
    let (config, problems) = generation_config::read(&file.header().metadata);
    for problem in problems {
        warn!(problem, "a value that the model's file recommends for sampling is left out");
    }
    config
}

// === impl ClusterOpener ===

impl ClusterOpener {
    /// The opener of a `baton up` or a `baton gateway` with these settings.
    pub(super) fn new(
        store: SharedStore,
        member: &MemberSettings,
        http: &HttpSettings,
        url: String,
        certificate: Option<PathBuf>,
        drain_time: Duration,
    ) -> Self {
        let advertised = member.advertise.as_ref().map(|host| host.as_str().to_owned());
        let own_hosts = [Some(stages::memory::machine().host), advertised].into_iter().flatten().collect();
        let settings = Settings {
            drain_time,
            generation_time: http.request_deadline,
            default_max_tokens: http.default_max_tokens,
            stored_responses_max: http.stored_responses as usize,
            trusts_request_chat_template: http.trusts_request_chat_template,
            model_aliases: http.model_aliases.clone(),
            own_hosts,
            allowed_hosts: http.allowed_hosts.clone(),
            allowed_origins: http.allowed_origins.clone(),
            ..Settings::default()
        };
        Self {
            store,
            member: member.clone(),
            speculates: http.speculates,
            uses_generation_config: http.uses_generation_config,
            takes_web_pins: http.takes_web_pins,
            runs_web_drills: http.runs_web_drills,
            settings: Arc::new(settings),
            url,
            certificate,
        }
    }

    /// The key of the members of `cluster`.
    pub(super) fn key(&self, cluster: &ClusterName) -> Option<ClusterKey> {
        self.member.cluster_key.as_ref().map(|key| key.of_cluster(cluster))
    }

    /// Registers the gateway in the deployment of `keyspace`, whose model is `served`, and starts its pipeline. `alone`
    /// is true if it must be the only gateway there.
    pub(super) async fn open(
        &self,
        keyspace: &Keyspace,
        served: &Served,
        alone: bool,
    ) -> Result<OpenedCluster, RunError> {
        let (cluster, text) = (keyspace.cluster(), ModelText::new(&served.file)?);
        if let Some(problem) = text.template_problem() {
            warn!(%cluster, problem, "chats cannot be served, only raw completions");
        }
        let (keyspace, key, host) = (keyspace.clone(), self.key(cluster), stages::memory::machine().host);
        let record = GatewayRecord::new(&host, self.url.clone());
        let (listen, lease_ttl) = (self.member.listen(key.clone())?, self.member.lease_ttl);
        let pins = self.takes_web_pins.then(|| PinStore { store: self.store.clone(), keyspace: keyspace.clone() });
        let settings =
            PipelineSettings { keyspace, listen, key, record, lease_ttl, alone, speculates: self.speculates };
        let pipeline = Arc::new(PipelineHandle::start(self.store.clone(), settings).await?);
        let model = ServedModel {
            cluster: cluster.clone(),
            pipeline: pipeline.clone(),
            text: Arc::new(text),
            model: ModelInfo {
                name: served.record.name.clone(),
                context_tokens: served.record.with_room(served.record.kv_tokens_max()).sequence_tokens_max(),
                created_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
                generation_config: recommended_sampling(&served.file, self.uses_generation_config),
            },
            settings: Arc::clone(&self.settings),
            live: LiveFeed::default(),
            pins,
            drills: None,
        };
        Ok(OpenedCluster { pipeline, model })
    }

    /// The drills of the server's first cluster: a drill is a client that names no model.
    pub(super) fn drills(&self) -> Option<Arc<DrillRunner>> {
        // As a client of this very server, so it trusts its certificate.
        let trusted = TrustedCertificates { file: None, own: self.certificate.clone() };
        let runner = || Arc::new(DrillRunner::new(self.url.clone(), trusted, stages::memory::machine().host));
        self.runs_web_drills.then(runner)
    }
}
