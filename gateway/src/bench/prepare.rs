//! Probes an endpoint before it is measured: its model, the optional parameters it understands, and the way it counts
//! tokens.

use std::time::Instant;

use super::answer::Answer;
use super::client::{Capabilities, Client};
use super::error::BenchError;
use super::plan::Plan;
use super::workload::{PromptSize, Request, Scale};
use crate::client::{Connector, Failure, Target, first_model};

/// Words of the two prompts that determine the [`Scale`]. Both fit into small contexts.
const PROBE_WORDS: [u32; 2] = [16, 64];
/// Combinations of optional parameters to try, best first.
const CAPABILITIES: [Capabilities; 4] = [
    Capabilities { ignore_eos: true, usage: true },
    Capabilities { ignore_eos: false, usage: true },
    Capabilities { ignore_eos: true, usage: false },
    Capabilities { ignore_eos: false, usage: false },
];

/// An endpoint that was probed and can be measured.
#[derive(Debug)]
pub(super) struct ProbedEndpoint {
    pub(super) client: Client,
    pub(super) scale: Scale,
    /// Remarks on the endpoint for readers of the figures.
    pub(super) notes: Vec<String>,
}

/// Prepares target `index` of `plan`.
///
/// # Errors
/// [`BenchError`] if the endpoint does not serve.
pub(super) async fn prepare(plan: &Plan, index: usize, target: &Target) -> Result<ProbedEndpoint, BenchError> {
    let endpoint = &target.endpoint;
    let connector = Connector::new(endpoint.scheme(), &plan.trusted);
    let connector = connector.map_err(|cause| BenchError::Trust { endpoint: endpoint.to_string(), cause })?;
    let model = match &plan.model {
        Some(model) => model.clone(),
        None => model(plan, target, &connector).await?,
    };
    let ([capabilities, ..], timeout) = (CAPABILITIES, plan.timeout);
    let client = Client { target: target.clone(), connector, model, api: plan.api, capabilities, timeout };
    let [few, many] = PROBE_WORDS.map(|words| plan.workload.probe(index, words));
    let path = client.path();
    let failed = |cause| BenchError::Endpoint { endpoint: endpoint.to_string(), method: "POST", path, cause };
    measure(client, &few, &many).await.map_err(failed)
}

async fn model(plan: &Plan, target: &Target, connector: &Connector) -> Result<String, BenchError> {
    let endpoint = &target.endpoint;
    let path = endpoint.path("models");
    match first_model(target, connector, plan.timeout).await {
        Ok(Some(model)) => Ok(model.id),
        Ok(None) => Err(BenchError::NoModel { endpoint: endpoint.to_string(), path }),
        Err(cause) => Err(BenchError::Endpoint { endpoint: endpoint.to_string(), method: "GET", path, cause }),
    }
}

async fn measure(client: Client, few: &Request, many: &Request) -> Result<ProbedEndpoint, Failure> {
    let (client, answered_few) = negotiate(client, few).await?;
    let answered_many = client.ask(many, Instant::now()).await?;
    let mut notes = Vec::new();
    if !client.capabilities.ignore_eos {
        notes.push("does not know ignore_eos: answers may be shorter than asked for".to_owned());
    }
    if answered_many.usage.is_none() {
        notes.push("does not count tokens in streams: pieces of text are counted instead".to_owned());
    }
    let tokens = |answer: &Answer| answer.usage.map(|usage| usage.prompt_tokens);
    let scale = tokens(&answered_few).zip(tokens(&answered_many)).and_then(|(fewer, more)| {
        let [few, many] = PROBE_WORDS;
        Scale::through(PromptSize { words: few, tokens: fewer }, PromptSize { words: many, tokens: more })
    });
    if scale.is_none() {
        notes.push("does not count the tokens of prompts: a word is taken for a token".to_owned());
    }
    Ok(ProbedEndpoint { client, scale: scale.unwrap_or(Scale::DEFAULT), notes })
}

/// Sends `request` with each combination of capabilities, best first, until the endpoint accepts one.
async fn negotiate(client: Client, request: &Request) -> Result<(Client, Answer), Failure> {
    let mut refusal = None;
    for capabilities in CAPABILITIES {
        let client = Client { capabilities, ..client.clone() };
        match client.ask(request, Instant::now()).await {
            Ok(answer) => return Ok((client, answer)),
            // Endpoints answer unknown parameters with these statuses. The first refusal is kept, because it concerns
            // the whole request.
            Err(failure @ Failure::Refused { status: 400 | 422, .. }) => refusal = refusal.or(Some(failure)),
            Err(failure) => return Err(failure),
        }
    }
    Err(refusal
        .unwrap_or(Failure::InvalidResponse { reason: "the endpoint accepts no combination of parameters".to_owned() }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::bench::plan::Api;
    use crate::bench::workload::Workload;
    use crate::client::{Endpoint, TrustedCertificates};

    /// An endpoint that refuses requests with the parameter `unknown`. It counts two tokens for each word of a prompt,
    /// plus seven.
    async fn endpoint(unknown: &'static str) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let asked = asked(&mut stream).await;
                let answer = if asked.get(unknown).is_some() { refusal(unknown) } else { completion(&asked) };
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address.to_string().parse().unwrap()
    }

    /// Reads a request and returns its body.
    async fn asked(stream: &mut TcpStream) -> Value {
        let mut request = Vec::new();
        loop {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            let text = String::from_utf8_lossy(&request);
            let body = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
            if let Some(body) = body {
                return body;
            }
        }
    }

    fn refusal(unknown: &str) -> String {
        let body = format!("{{\"error\":{{\"message\":\"what is {unknown}?\"}}}}");
        format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    fn completion(asked: &Value) -> String {
        let (words, _) = asked["prompt"].as_str().unwrap().split_once('\n').unwrap();
        let prompt_tokens = 7 + 2 * words.split(' ').count();
        let usage = match asked.get("stream_options") {
            Some(_) => format!(
                "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{prompt_tokens},\"completion_tokens\":1}}}}\n\n"
            ),
            None => String::new(),
        };
        format!(
            "HTTP/1.1 200 OK\r\n\r\n: hello\n\ndata: {{\"choices\":[{{\"text\":\"a\"}}]}}\n\n{usage}data: [DONE]\n\n"
        )
    }

    async fn prepared(unknown: &'static str) -> Result<ProbedEndpoint, BenchError> {
        let endpoint = endpoint(unknown).await;
        let workload = Workload {
            seed: 1,
            prompt_tokens: "120".parse().unwrap(),
            output_tokens: "9".parse().unwrap(),
            shared_prefix_tokens: 0,
        };
        let plan = Plan {
            targets: Vec::new(),
            trusted: TrustedCertificates::default(),
            model: Some("small".to_owned()),
            api: Api::Completions,
            workload,
            loads: Vec::new(),
            requests: 1,
            warmup: 0,
            timeout: Duration::from_secs(10),
        };
        prepare(&plan, 0, &Target { endpoint, api_key: None }).await
    }

    #[tokio::test]
    async fn parameters_that_an_endpoint_rejects_are_left_out_and_noted() {
        let probed = prepared("nothing").await.unwrap();
        assert_eq!(
            (probed.client.capabilities, probed.notes.len()),
            (Capabilities { ignore_eos: true, usage: true }, 0)
        );
        assert_eq!(probed.scale, Scale { fixed: 7.0, per_word: 2.0 });

        let probed = prepared("ignore_eos").await.unwrap();
        assert_eq!(probed.client.capabilities, Capabilities { ignore_eos: false, usage: true });
        assert!(probed.notes[0].starts_with("does not know ignore_eos"), "{:?}", probed.notes);

        let probed = prepared("stream_options").await.unwrap();
        assert_eq!(probed.client.capabilities, Capabilities { ignore_eos: true, usage: false });
        assert_eq!((probed.scale, probed.notes.len()), (Scale::DEFAULT, 2));
    }

    #[tokio::test]
    async fn a_refusal_of_the_request_itself_is_the_first_one() {
        let error = prepared("prompt").await.unwrap_err();
        let BenchError::Endpoint { cause, path, .. } = error else { panic!("{error}") };
        assert_eq!((path.as_str(), cause.to_string().as_str()), ("/v1/completions", "answered 400: what is prompt?"));
    }
}
