//! Sends spans to an OpenTelemetry collector: OTLP, protobuf over HTTP. It does not depend on the meaning of the spans.
//!
//! Requests never wait for it. An ended span goes into a bounded queue and is dropped if the queue is full. A thread
//! with a runtime of its own sends the queued spans.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tokio::runtime::{Handle, Runtime};
use tracing::level_filters::LevelFilter;
use tracing::{info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;

use super::exit::CliError;
use super::logging::SpanLayer;
use crate::settings::OtlpEndpoint;

/// Most spans that wait for the collector: about ten seconds of a busy gateway, a few MiB.
const SPANS_QUEUED_MAX: usize = 8192;
/// Most spans of one message: some hundred KiB, far below the limits of collectors.
const SPANS_PER_MESSAGE_MAX: usize = 512;
/// Time for which spans are collected before they are sent in one message.
const COLLECT_TIME: Duration = Duration::from_secs(1);
/// Timeout for a message, after which it counts as lost. Later spans wait for it in the queue.
const SEND_TIME_MAX: Duration = Duration::from_secs(5);
/// Time that the process waits at its end for the last spans. Ctrl-C is to end everything in under two seconds.
const FLUSH_TIME_MAX: Duration = Duration::from_millis(500);
/// Crates whose spans are sent. Spans of libraries are not sent.
const TARGETS: [&str; 3] = ["gateway", "engine", "stages"];

/// The connection to the collector. Dropping it sends the remaining spans.
pub(super) struct Exporter {
    provider: SdkTracerProvider,
    runtime: Option<Runtime>,
}

/// An HTTP client that sends on the exporter's runtime, independent of the calling thread. It logs when the collector
/// stops or begins to answer.
#[derive(Debug)]
struct Sender {
    client: HyperClient,
    runtime: Handle,
    answers: Arc<AtomicBool>,
}

// === impl Exporter ===

impl Exporter {
    /// Starts the thread that sends spans. The collector need not be reachable.
    pub(super) fn start(endpoint: &OtlpEndpoint) -> Result<Self, CliError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("spans").enable_all().build();
        let runtime = runtime.map_err(|source| CliError::Runtime { source })?;
        let client = HyperClient::with_default_connector(SEND_TIME_MAX, None);
        let sender = Sender { client, runtime: runtime.handle().clone(), answers: Arc::new(AtomicBool::new(true)) };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(sender)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint.traces())
            .with_timeout(SEND_TIME_MAX)
            .build()
            .map_err(|error| CliError::Spans { to: endpoint.traces(), reason: error.to_string() })?;
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(SPANS_QUEUED_MAX)
            .with_max_export_batch_size(SPANS_PER_MESSAGE_MAX)
            .with_scheduled_delay(COLLECT_TIME)
            .build();
        let resource = Resource::builder_empty()
            .with_service_name("baton")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            // Reads OTEL_RESOURCE_ATTRIBUTES, as OpenTelemetry programs do.
            .with_detector(Box::new(EnvResourceDetector::new()));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(config).build())
            .with_resource(resource.build())
            .build();
        Ok(Self { provider, runtime: Some(runtime) })
    }

    /// The layer that passes the spans of the program's own crates to the exporter, down to level debug, independent of
    /// the log filter.
    pub(super) fn layer(&self) -> SpanLayer {
        let is_own = filter_fn(|metadata| {
            metadata.is_span() && metadata.target().split("::").next().is_some_and(|own| TARGETS.contains(&own))
        });
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("baton"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(is_own.with_max_level_hint(LevelFilter::DEBUG))
            .boxed()
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_TIME_MAX) {
            warn!(%error, "the last spans may be lost");
        }
        if let Some(runtime) = self.runtime.take() {
            // Unfinished requests to the collector are not awaited.
            runtime.shutdown_background();
        }
    }
}

// === impl Sender ===

#[async_trait::async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let answer = self.runtime.spawn(async move { client.send_bytes(request).await }).await;
        let answer = answer.unwrap_or_else(|stopped| Err(stopped.into()));
        let wrong = match &answer {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(response.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        match (wrong, self.answers.load(Ordering::Relaxed)) {
            (Some(reason), true) => warn!(reason, "the collector takes no spans; they are dropped"),
            (None, false) => info!("the collector takes spans again"),
            _ => return answer,
        }
        self.answers.fetch_not(Ordering::Relaxed);
        answer
    }
}
