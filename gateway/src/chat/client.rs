//! Sends a conversation to an endpoint and hands out the pieces of the answer as they come.

use http::header::{ACCEPT, CONTENT_TYPE};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::answer::{AnswerEnd, ChatDecoder, Piece};
use super::conversation::Message;
use super::limits::{MODELS_TIMEOUT, NAMED_MODEL_TIMEOUT, SILENCE_MAX};
use crate::client::{Connector, Events, Failure, Target, first_model, reason, send};

/// The parameters that go with every request. What is `None` is left to the endpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatOptions {
    /// `temperature`
    pub temperature: Option<f32>,
    /// `max_tokens`
    pub max_tokens: Option<u32>,
    /// `seed`
    pub seed: Option<u64>,
}

/// Sends conversations to one model of an endpoint.
#[derive(Debug, Clone)]
pub struct ChatClient {
    target: Target,
    connector: Connector,
    model: String,
    options: ChatOptions,
    /// True if the endpoint is known to report how much of a prompt is computed. Others may refuse to be asked.
    reports_progress: bool,
}

/// The programs that report how much of a prompt is computed, as they name themselves in lists of models.
const REPORT_PROGRESS: [&str; 2] = ["baton", "llamacpp"];

// === impl ChatClient ===

impl ChatClient {
    /// A client for `model`, or for the first model that the endpoint lists.
    ///
    /// # Errors
    /// [`Failure`] if the endpoint gives no list of models, or an empty one.
    pub async fn new(
        target: Target,
        connector: Connector,
        model: Option<String>,
        options: ChatOptions,
    ) -> Result<Self, Failure> {
        let patience = if model.is_some() { NAMED_MODEL_TIMEOUT } else { MODELS_TIMEOUT };
        let listed = match first_model(&target, &connector, patience).await {
            // A model that is named needs no list.
            Err(_) if model.is_some() => None,
            listed => listed?,
        };
        let reports_progress = listed.as_ref().is_some_and(|listed| REPORT_PROGRESS.contains(&listed.owner.as_str()));
        let none =
            || Failure::InvalidResponse { reason: "the endpoint lists no model: name one with --model".to_owned() };
        let model = model.or(listed.map(|listed| listed.id)).ok_or_else(none)?;
        Ok(Self { target, connector, model, options, reports_progress })
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Sends `messages` and passes each piece of the answer to `piece`. Dropping the future ends the request.
    ///
    /// # Errors
    /// [`Failure`] names the step that failed.
    pub async fn answer(&self, messages: &[Message], mut piece: impl FnMut(Piece)) -> Result<AnswerEnd, Failure> {
        let head = http::Request::post(self.target.endpoint.path("chat/completions"));
        let head = head.header(CONTENT_TYPE, "application/json").header(ACCEPT, "text/event-stream");
        let silent = |_| Failure::Timeout { seconds: SILENCE_MAX.as_secs() };
        let sending = send(&self.target, &self.connector, head, self.body(messages).to_string());
        let mut body = tokio::time::timeout(SILENCE_MAX, sending).await.map_err(silent)??;
        let (mut events, mut decoder) = (Events::default(), ChatDecoder::default());
        while !decoder.is_done() {
            let Some(frame) = tokio::time::timeout(SILENCE_MAX, body.frame()).await.map_err(silent)? else { break };
            let frame = frame.map_err(|error| Failure::CutOff { reason: reason(&error) })?;
            let Some(bytes) = frame.data_ref() else { continue };
            let events = events.push(bytes).map_err(|error| Failure::InvalidResponse { reason: error.to_string() })?;
            for event in events {
                decoder.push(&event.data)?.into_iter().for_each(&mut piece);
            }
        }
        decoder.end()
    }

    fn body(&self, messages: &[Message]) -> Value {
        let mut body = json!({"model": self.model, "messages": messages, "stream": true});
        let options = [
            ("temperature", self.options.temperature.map(Value::from)),
            ("max_tokens", self.options.max_tokens.map(Value::from)),
            ("seed", self.options.seed.map(Value::from)),
            ("return_progress", self.reports_progress.then_some(Value::Bool(true))),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        body
    }
}
