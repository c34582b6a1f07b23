//! The gateway that a drill talks to.

use futures::future::join_all;
use http::header::{ACCEPT, CONTENT_TYPE};
use serde_json::json;

use super::cluster_status::ClusterStatus;
use super::error::DrillError;
use super::limits::{PAGE_TIMEOUT, SILENCE_MAX};
use super::plan::DrillPlan;
use super::token_stream::AnswerStream;
use crate::client::{Connector, Endpoint, Failure, Target, TrustedCertificates, collect, send};

/// The beginning of the text that the model goes on with. Any text would do.
const PROMPT: &str = "Two friends walk along the coast at dusk. The first one says:";
/// Above 0, so that the seed matters: a draw that is lost or made twice changes everything after it.
const TEMPERATURE: f32 = 0.8;

/// A gateway, and what it takes to talk to it.
#[derive(Debug, Clone)]
pub struct Gateway {
    target: Target,
    connector: Connector,
    trusted: TrustedCertificates,
}

// === impl Gateway ===

impl Gateway {
    /// The gateway at `target`.
    ///
    /// # Errors
    /// [`DrillError::Trust`] if it speaks https and the certificates cannot be used.
    pub fn new(target: Target, trusted: TrustedCertificates) -> Result<Self, DrillError> {
        let connector = Connector::new(target.endpoint.scheme(), &trusted)
            .map_err(|cause| DrillError::Trust { url: target.endpoint.to_string(), cause })?;
        Ok(Self { target, connector, trusted })
    }

    /// Its address.
    pub fn url(&self) -> String {
        self.target.endpoint.to_string()
    }

    /// The cluster as it shows it.
    pub(super) async fn status(&self) -> Result<ClusterStatus, DrillError> {
        self.read_status().await.map_err(|cause| self.failed(cause))
    }

    async fn read_status(&self) -> Result<ClusterStatus, Failure> {
        let asking = async {
            let head = http::Request::get(self.target.endpoint.page("distributed/status"));
            let body = collect(send(&self.target, &self.connector, head, String::new()).await?).await?;
            serde_json::from_slice(&body).map_err(|error| Failure::InvalidResponse { reason: error.to_string() })
        };
        let late = Failure::Timeout { seconds: PAGE_TIMEOUT.as_secs() };
        tokio::time::timeout(PAGE_TIMEOUT, asking).await.unwrap_or(Err(late))
    }

    /// Refuses if requests of other clients run at any gateway of the cluster, while `own` requests of this drill run
    /// at this one.
    ///
    /// # Errors
    /// [`DrillError::Busy`] if there are any, [`DrillError::Unknown`] if a gateway cannot be asked.
    pub(super) async fn check_idle(&self, status: &ClusterStatus, own: usize) -> Result<(), DrillError> {
        busy(&self.url(), (status.running + status.waiting).saturating_sub(own))?;
        let others = status.gateways.iter().filter(|gateway| gateway.url != self.url());
        let asking = others.map(|gateway| async {
            let unknown = |cause| DrillError::Unknown { url: gateway.url.clone(), cause };
            let endpoint: Endpoint =
                gateway.url.parse().map_err(|reason| unknown(Failure::InvalidResponse { reason }))?;
            // It may be this very gateway under another name.
            let own = if endpoint.port() == self.target.endpoint.port() { own } else { 0 };
            let target = Target { endpoint, api_key: self.target.api_key.clone() };
            let status = Self::new(target, self.trusted.clone())?.read_status().await.map_err(unknown)?;
            busy(&gateway.url, (status.running + status.waiting).saturating_sub(own))
        });
        join_all(asking).await.into_iter().collect()
    }

    /// Begins to stream the answer.
    pub(super) async fn stream(&self, model: &str, plan: &DrillPlan) -> Result<AnswerStream, DrillError> {
        let head = http::Request::post(self.target.endpoint.path("completions"));
        let head = head.header(CONTENT_TYPE, "application/json").header(ACCEPT, "text/event-stream");
        let body = json!({
            "model": model,
            "prompt": PROMPT,
            "max_tokens": plan.tokens,
            "temperature": TEMPERATURE,
            "seed": plan.seed,
            "ignore_eos": true,
            "stream": true,
            "return_token_ids": true,
        });
        let sending = send(&self.target, &self.connector, head, body.to_string());
        let late = Failure::Timeout { seconds: SILENCE_MAX.as_secs() };
        let body = tokio::time::timeout(SILENCE_MAX, sending).await.unwrap_or(Err(late));
        Ok(AnswerStream::new(body.map_err(|cause| self.failed(cause))?))
    }

    pub(super) fn failed(&self, cause: Failure) -> DrillError {
        DrillError::Gateway { url: self.url(), cause }
    }
}

/// Refuses if there are any `requests` of other clients at `url`.
fn busy(url: &str, requests: usize) -> Result<(), DrillError> {
    let found = match requests {
        0 => return Ok(()),
        1 => "a request of another client runs".to_owned(),
        many => format!("{many} requests of other clients run"),
    };
    Err(DrillError::Busy { url: url.to_owned(), found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_of_others_are_named_and_the_drill_s_own_is_none() {
        let target = Target { endpoint: "127.0.0.1:1".parse().unwrap(), api_key: None };
        let gateway = Gateway::new(target, TrustedCertificates::default()).unwrap();
        let status = ClusterStatus { running: 2, waiting: 1, ..ClusterStatus::default() };
        let error = gateway.check_idle(&status, 1).await.unwrap_err().to_string();
        assert!(error.starts_with("2 requests of other clients run at http://127.0.0.1:1, which"), "{error}");
        gateway.check_idle(&status, 3).await.unwrap();
    }
}
