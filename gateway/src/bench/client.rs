//! One request over one connection, with its result.
//!
//! Each request opens a connection of its own, as a new client does. The time to connect is part of the measured time.

use std::time::{Duration, Instant};

use http::header::{ACCEPT, CONTENT_TYPE};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::answer::{Answer, AnswerDecoder};
use super::plan::Api;
use super::workload::Request;
use crate::client::{Connector, Events, Failure, Target, reason, send};

/// Optional request parameters that an endpoint understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// `ignore_eos`: the answer continues after the model's end-of-sequence token.
    pub(super) ignore_eos: bool,
    /// `stream_options`: the stream ends with a count of the tokens.
    pub(super) usage: bool,
}

/// Sends completion requests to one endpoint.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) target: Target,
    pub(super) connector: Connector,
    pub(super) model: String,
    pub(super) api: Api,
    pub(super) capabilities: Capabilities,
    pub(super) timeout: Duration,
}

// === impl Client ===

impl Client {
    /// Sends the request and reads the answer to its end. Times count from `due`.
    ///
    /// # Errors
    /// [`Failure`] names the step that failed.
    pub(super) async fn ask(&self, request: &Request, due: Instant) -> Result<Answer, Failure> {
        let timeout = Failure::Timeout { seconds: self.timeout.as_secs() };
        tokio::time::timeout(self.timeout, self.exchange(request, due)).await.unwrap_or(Err(timeout))
    }

    /// Path of the completion requests.
    pub(super) fn path(&self) -> String {
        self.target.endpoint.path(match self.api {
            Api::Chat => "chat/completions",
            Api::Completions => "completions",
        })
    }

    async fn exchange(&self, request: &Request, due: Instant) -> Result<Answer, Failure> {
        let head = http::Request::post(self.path()).header(CONTENT_TYPE, "application/json");
        let head = head.header(ACCEPT, "text/event-stream");
        let body = self.body(request).to_string();
        let mut body = send(&self.target, &self.connector, head, body).await?;
        let (mut events, mut decoder) = (Events::default(), AnswerDecoder::default());
        while !decoder.is_done() {
            let Some(frame) = body.frame().await else { break };
            let frame = frame.map_err(|error| Failure::CutOff { reason: reason(&error) })?;
            let at = due.elapsed();
            let Some(bytes) = frame.data_ref() else { continue };
            let events = events.push(bytes).map_err(|error| Failure::InvalidResponse { reason: error.to_string() })?;
            for event in events {
                decoder.push(&event.data, at)?;
            }
        }
        decoder.end(due.elapsed())
    }

    fn body(&self, request: &Request) -> Value {
        let mut body = json!({
            "model": self.model,
            "max_tokens": request.output_tokens,
            "temperature": 0,
            "stream": true,
        });
        match self.api {
            Api::Chat => {
                let system = (!request.prefix.is_empty()).then(|| json!({"role": "system", "content": request.prefix}));
                let user = json!({"role": "user", "content": request.prompt});
                body["messages"] = system.into_iter().chain([user]).collect();
            }
            Api::Completions if request.prefix.is_empty() => body["prompt"] = request.prompt.as_str().into(),
            Api::Completions => body["prompt"] = format!("{}\n{}", request.prefix, request.prompt).into(),
        }
        if self.capabilities.ignore_eos {
            body["ignore_eos"] = true.into();
        }
        if self.capabilities.usage {
            body["stream_options"] = json!({"include_usage": true});
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Scheme, TrustedCertificates};

    fn client(api: Api, capabilities: Capabilities) -> Client {
        let target = Target { endpoint: "127.0.0.1:1".parse().unwrap(), api_key: None };
        let connector = Connector::new(Scheme::Http, &TrustedCertificates::default()).unwrap();
        Client { target, connector, model: "small".to_owned(), api, capabilities, timeout: Duration::from_secs(5) }
    }

    #[test]
    fn the_request_body_follows_the_api_and_the_capabilities() {
        let request = Request { prefix: "be kind".to_owned(), prompt: "hello".to_owned(), output_tokens: 9 };
        let all = Capabilities { ignore_eos: true, usage: true };
        let body = client(Api::Chat, all).body(&request);
        let expected = concat!(
            r#"{"model":"small","max_tokens":9,"temperature":0,"stream":true,"#,
            r#""messages":[{"role":"system","content":"be kind"},{"role":"user","content":"hello"}],"#,
            r#""ignore_eos":true,"stream_options":{"include_usage":true}}"#
        );
        assert_eq!(body.to_string(), expected);
        let none = Capabilities { ignore_eos: false, usage: false };
        let body = client(Api::Completions, none).body(&request);
        let expected = concat!(
            r#"{"model":"small","max_tokens":9,"temperature":0,"stream":true,"#,
            r#""prompt":"be kind\nhello"}"#
        );
        assert_eq!(body.to_string(), expected);
    }
}
