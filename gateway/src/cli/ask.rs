//! A client for the gateway: one small chat completion, or one page.

use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};

use crate::client::{ClientStream, Connector, Scheme, TrustError};
use crate::settings::ClientSettings;

/// Most bytes of a response that are read. The requested answer has a few hundred.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Timeout for the connection and its handshake. The gateway is on a network nearby.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for the answer: a prompt of a dozen tokens and as many new ones, on a slow machine with a large model.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// The question. Any question would do.
const QUESTION: &str = "What is the capital of France? Answer in one word.";
/// Most tokens to request.
const ANSWER_TOKENS: u32 = 8;
/// Most characters of a error_message that are repeated.
const REFUSAL_CHARS_MAX: usize = 300;

/// The answer of the gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The text of the answer.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// Time from the start of the connection until the whole response was read.
    pub took: Duration,
    /// The work of each stage for this request.
    pub stages: Vec<StageWork>,
}

/// The work of one stage for one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageWork {
    /// The stage's name.
    pub stage: String,
    /// `[first, one past last]` layer.
    pub layers: [u32; 2],
    /// Token rows that the stage computed.
    pub rows: u64,
    /// Compute time, in milliseconds.
    pub compute_ms: f64,
}

/// The reason that no answer came.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The gateway's address in the store is unusable.
    #[error("the gateway's address {found:?} is not usable: expected http://<host>:<port>, or https")]
    Address {
        /// The address in the store.
        found: String,
    },
    /// TLS cannot be used.
    #[error("cannot speak https with the gateway at {url}")]
    Trust {
        /// The gateway's address.
        url: String,
        /// The reason.
        #[source]
        cause: TrustError,
    },
    /// The connection could not be opened.
    #[error("cannot connect to the gateway at {url}: {reason}")]
    Connect {
        /// The gateway's address.
        url: String,
        /// The error of the connection, or the timeout.
        reason: String,
    },
    /// The connection broke, or the answer did not come in time.
    #[error("the gateway at {url} did not answer: {reason}")]
    Exchange {
        /// The gateway's address.
        url: String,
        /// The error of the exchange, or the timeout.
        reason: String,
    },
    /// The gateway takes requests with a key only.
    #[error("the gateway at {url} needs an API key: {found}")]
    Unauthorized {
        /// The gateway's address.
        url: String,
        /// The fault of the key that was sent.
        found: &'static str,
    },
    /// The gateway refused the request.
    #[error("the gateway at {url} answered {status}: {message}")]
    Refused {
        /// The gateway's address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The gateway's message.
        message: String,
    },
    /// The response is not a chat completion.
    #[error("the gateway at {url} answered with something that is no chat completion: {reason}")]
    Answer {
        /// The gateway's address.
        url: String,
        /// The reason that it could not be parsed.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    usage: Usage,
    #[serde(default)]
    timings: Timings,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

#[derive(Default, Deserialize)]
struct Timings {
    #[serde(default)]
    stages: Vec<StageWork>,
}

/// Asks the gateway at `url` (`http://<host>:<port>`, or https) for a few tokens of `model`.
///
/// # Errors
/// [`AskError`] names the step that failed.
pub(super) async fn ask(url: &str, model: &str, settings: &ClientSettings) -> Result<Answer, AskError> {
    let began = Instant::now();
    let question = serde_json::json!({
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
    });
    let request = http::Request::post("/v1/chat/completions").header(CONTENT_TYPE, "application/json");
    let body = exchange(url, settings, request, question.to_string()).await?;
    parse_answer(&body, began.elapsed()).map_err(|reason| AskError::Answer { url: url.to_owned(), reason })
}

/// The page `path` of the gateway at `url`.
///
/// # Errors
/// [`AskError`] names the step that failed.
pub(super) async fn get(url: &str, path: &str, settings: &ClientSettings) -> Result<String, AskError> {
    let body = exchange(url, settings, http::Request::get(path), String::new()).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Sends `request` with `body` to the gateway at `url` and returns the body of the response.
async fn exchange(
    url: &str,
    settings: &ClientSettings,
    mut request: http::request::Builder,
    body: String,
) -> Result<Vec<u8>, AskError> {
    let server = Scheme::split(url).map(|(scheme, rest)| (scheme, rest.trim_end_matches('/')));
    let server = server.filter(|(_, authority)| authority.contains(':') && !authority.contains('/'));
    let (scheme, authority) = server.ok_or_else(|| AskError::Address { found: url.chars().take(200).collect() })?;
    let connector = Connector::new(scheme, &settings.trusted);
    let connector = connector.map_err(|cause| AskError::Trust { url: url.to_owned(), cause })?;
    if let Some(key) = &settings.api_key {
        request = request.header(AUTHORIZATION, key.authorization());
    }
    let connect = |reason: String| AskError::Connect { url: url.to_owned(), reason };
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(authority)).await {
        Ok(connected) => connected.map_err(|error| connect(error.to_string()))?,
        Err(_) => return Err(connect(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))),
    };
    let exchange = |reason: String| AskError::Exchange { url: url.to_owned(), reason };
    let (status, body) = match tokio::time::timeout(ANSWER_TIMEOUT, send(stream, authority, request, body)).await {
        Ok(answered) => answered.map_err(|error| exchange(error.to_string()))?,
        Err(_) => return Err(exchange(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
    };
    match StatusCode::from_u16(status) {
        Ok(StatusCode::OK) => Ok(body),
        Ok(StatusCode::UNAUTHORIZED) => {
            let found = match settings.api_key {
                None => "expected one in BATON_API_KEY",
                Some(_) => "it does not know the one in BATON_API_KEY",
            };
            Err(AskError::Unauthorized { url: url.to_owned(), found })
        }
        _ => Err(AskError::Refused { url: url.to_owned(), status, message: error_message(&body) }),
    }
}

/// Sends a request over `stream` and returns status and body of the response.
async fn send(
    stream: ClientStream,
    authority: &str,
    request: http::request::Builder,
    body: String,
) -> Result<(u16, Vec<u8>), Box<dyn std::error::Error + Send + Sync>> {
    let request = request.header(HOST, authority).body(Full::new(bytes::Bytes::from(body)))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async move {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?;
        Ok((status, body.to_bytes().to_vec()))
    };
    tokio::pin!(connection, asking);
    tokio::select! {
        answered = &mut asking => answered,
        // The connection may end before the rest of the response is read.
        ended = &mut connection => {
            ended?;
            asking.await
        }
    }
}

fn parse_answer(body: &[u8], took: Duration) -> Result<Answer, String> {
    let completion: Completion = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let choice = completion.choices.into_iter().next().ok_or("it has no choices")?;
    Ok(Answer {
        text: choice.message.content.unwrap_or_default(),
        prompt_tokens: completion.usage.prompt_tokens,
        completion_tokens: completion.usage.completion_tokens,
        took,
        stages: completion.timings.stages,
    })
}

/// The message of an OpenAI error body, or the beginning of the body.
fn error_message(body: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    let message = value["error"]["message"].as_str().unwrap_or(&text);
    message.chars().take(REFUSAL_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::client::ApiSecret;

    const ANSWER: &str = r#"{"choices":[{"message":{"role":"assistant","content":"Paris."}}],
        "usage":{"prompt_tokens":17,"completion_tokens":3,"total_tokens":20},
        "timings":{"prompt_per_second":9.5,"stages":[{"stage":"left","layers":[0,16],"rows":19,"compute_ms":4.25}]}}"#;

    /// A gateway that answers one request with `answer`. Returns its address and the body of that request.
    async fn gateway(answer: String) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let body = |request: &[u8]| {
                let text = String::from_utf8_lossy(request).into_owned();
                let (_, body) = text.split_once("\r\n\r\n")?;
                serde_json::from_str::<serde_json::Value>(body).ok().map(|body| body.to_string())
            };
            while body(&request).is_none() {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            body(&request).unwrap()
        });
        (url, asked)
    }

    async fn ask(url: &str, model: &str) -> Result<Answer, AskError> {
        super::ask(url, model, &ClientSettings::default()).await
    }

    fn response(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn the_answer_has_each_stage_s_rows_and_time() {
        let (url, asked) = gateway(response("200 OK", ANSWER)).await;
        let answer = ask(&url, "small").await.unwrap();
        assert_eq!((answer.text.as_str(), answer.prompt_tokens, answer.completion_tokens), ("Paris.", 17, 3));
        let work = StageWork { stage: "left".to_owned(), layers: [0, 16], rows: 19, compute_ms: 4.25 };
        assert_eq!(answer.stages, [work]);
        let asked: serde_json::Value = serde_json::from_str(&asked.await.unwrap()).unwrap();
        assert_eq!(
            (&asked["model"], &asked["max_tokens"], &asked["temperature"]),
            (&"small".into(), &8.into(), &0.into())
        );
    }

    #[tokio::test]
    async fn an_answer_without_a_length_ends_with_the_connection() {
        let (url, _) = gateway(format!("HTTP/1.1 200 OK\r\n\r\n{ANSWER}")).await;
        assert_eq!(ask(&url, "small").await.unwrap().completion_tokens, 3);
    }

    #[tokio::test]
    async fn a_refusal_has_the_message_of_the_gateway() {
        let body = r#"{"error":{"message":"layers 9..21 are held by nobody","type":"server_error"}}"#;
        let (url, _) = gateway(response("503 Service Unavailable", body)).await;
        let error = ask(&url, "small").await.unwrap_err().to_string();
        assert_eq!(error, format!("the gateway at {url} answered 503: layers 9..21 are held by nobody"));
    }

    #[tokio::test]
    async fn a_gateway_that_wants_a_key_is_named_with_the_variable() {
        for (key, expected) in [(None, "expected one in BATON_API_KEY"), (Some("abc"), "does not know the one")] {
            let (url, _) = gateway(response("401 Unauthorized", "{}")).await;
            let settings = ClientSettings { api_key: key.and_then(ApiSecret::new), ..ClientSettings::default() };
            let error = super::ask(&url, "small", &settings).await.unwrap_err().to_string();
            assert!(error.contains("needs an API key") && error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn a_response_without_a_completion_is_an_error() {
        for body in ["", "hello", "{}", r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#] {
            let (url, _) = gateway(response("200 OK", body)).await;
            let error = ask(&url, "small").await.unwrap_err();
            assert!(matches!(error, AskError::Answer { .. }), "{body:?} gave {error}");
        }
        let (url, _) = gateway(String::new()).await;
        assert!(matches!(ask(&url, "small").await, Err(AskError::Exchange { .. })));
        let (url, _) = gateway(response("200 OK", &" ".repeat(ANSWER_BYTES_MAX + 1))).await;
        assert!(matches!(ask(&url, "small").await, Err(AskError::Exchange { .. })));
    }

    #[tokio::test]
    async fn an_unreachable_gateway_is_an_error() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = ask(&format!("http://{gone}"), "small").await.unwrap_err();
        assert!(matches!(error, AskError::Connect { .. }), "{error}");
        for url in ["ftp://a:1", "a:1", "http://a", "https://a", "http://a:1/x", ""] {
            assert!(matches!(ask(url, "small").await, Err(AskError::Address { .. })), "{url} was accepted");
        }
    }
}
