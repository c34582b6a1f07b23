//! One request over one connection, up to the head of its response. It knows no API.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::connector::Connector;
use super::failure::Failure;
use super::limits::{BODY_BYTES_MAX, CONNECT_TIMEOUT, MESSAGE_CHARS_MAX};
use super::target::Target;

/// A model in an endpoint's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedModel {
    pub(crate) id: String,
    /// The program that serves it, by its own word.
    pub(crate) owner: String,
}

/// The first model that the endpoint lists, if it lists any.
///
/// # Errors
/// [`Failure`] if the endpoint returns no list.
pub(crate) async fn first_model(
    target: &Target,
    connector: &Connector,
    timeout: Duration,
) -> Result<Option<ListedModel>, Failure> {
    let asking = async {
        let head = http::Request::get(target.endpoint.path("models"));
        let body = send(target, connector, head, String::new()).await?;
        let list: Value = serde_json::from_slice(&collect(body).await?)
            .map_err(|error| Failure::InvalidResponse { reason: error.to_string() })?;
        let first = &list["data"][0];
        let owner = first["owned_by"].as_str().unwrap_or_default().to_owned();
        Ok(first["id"].as_str().map(|id| ListedModel { id: id.to_owned(), owner }))
    };
    let late = Failure::Timeout { seconds: timeout.as_secs() };
    tokio::time::timeout(timeout, asking).await.unwrap_or(Err(late))
}

/// Sends a request and returns the body of the response if its status is 200.
pub(crate) async fn send(
    Target { endpoint, api_key }: &Target,
    connector: &Connector,
    mut head: http::request::Builder,
    body: String,
) -> Result<Incoming, Failure> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(endpoint.authority()));
    let stream = connecting.await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let stream = stream.map_err(|error| match error.kind() {
        std::io::ErrorKind::TimedOut => Failure::connect_timeout(),
        _ => Failure::Connect { reason: error.to_string() },
    })?;
    let cut_off = |error: hyper::Error| Failure::CutOff { reason: reason(&error) };
    if let Some(key) = api_key {
        head = head.header(AUTHORIZATION, key.authorization());
    }
    let request = head.header(HOST, endpoint.authority()).body(Full::new(Bytes::from(body)));
    let request = request.map_err(|error| Failure::InvalidResponse { reason: error.to_string() })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(cut_off)?;
    // The task ends when the sender and the response body are dropped. Its errors are returned by those two.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(cut_off)?;
    let status = response.status();
    if status == http::StatusCode::OK {
        return Ok(response.into_body());
    }
    let body = collect(response.into_body()).await.unwrap_or_default();
    Err(Failure::Refused { status: status.as_u16(), message: error_message(&body) })
}

pub(crate) async fn collect(body: Incoming) -> Result<Bytes, Failure> {
    let collected = Limited::new(body, BODY_BYTES_MAX).collect().await;
    Ok(collected.map_err(|error| Failure::CutOff { reason: error.to_string() })?.to_bytes())
}

/// The cause of hyper's error, because hyper's own message does not contain it. Without a cause, hyper's message.
pub(crate) fn reason(error: &hyper::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// The message of an OpenAI error body, or the beginning of the body.
fn error_message(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    truncated(value["error"]["message"].as_str().unwrap_or(text.trim()))
}

/// The first [`MESSAGE_CHARS_MAX`] characters of an endpoint's message.
pub(crate) fn truncated(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_message_of_the_endpoint() {
        assert_eq!(error_message(br#"{"error":{"message":"too many"}}"#), "too many");
        assert_eq!(error_message(b"<h1>no</h1>\n"), "<h1>no</h1>");
    }
}
