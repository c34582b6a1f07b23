//! Gets to know an endpoint before it is measured: its model, what it understands, and how it counts tokens.

use std::time::Instant;

use super::answer::Answer;
use super::client::{Client, Dialect, first_model};
use super::endpoint::Endpoint;
use super::failure::{BenchError, Failure};
use super::plan::Plan;
use super::workload::{Request, Scale};

/// Words of the two prompts through which the scale is drawn. Both fit into small contexts.
const PROBE_WORDS: [u32; 2] = [16, 64];
/// What endpoints may understand, best first.
const DIALECTS: [Dialect; 4] = [
    Dialect { ignore_eos: true, usage: true },
    Dialect { ignore_eos: false, usage: true },
    Dialect { ignore_eos: true, usage: false },
    Dialect { ignore_eos: false, usage: false },
];

/// An endpoint that can be measured.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) client: Client,
    pub(super) scale: Scale,
    /// What readers of the figures should know about it.
    pub(super) notes: Vec<String>,
}

/// Prepares endpoint `index` of `plan`.
///
/// # Errors
/// [`BenchError`] when it does not serve.
pub(super) async fn prepare(plan: &Plan, index: usize, endpoint: &Endpoint) -> Result<Ready, BenchError> {
    let model = match &plan.model {
        Some(model) => model.clone(),
        None => model(plan, endpoint).await?,
    };
    let [dialect, ..] = DIALECTS;
    let client = Client { endpoint: endpoint.clone(), model, api: plan.api, dialect, timeout: plan.timeout };
    let [few, many] = PROBE_WORDS.map(|words| plan.workload.probe(index, words));
    let path = client.path();
    let failed = |cause| BenchError::Endpoint { endpoint: endpoint.to_string(), method: "POST", path, cause };
    match measure(client, &few, &many).await {
        Ok(ready) => Ok(ready),
        Err(cause) => Err(failed(cause)),
    }
}

async fn model(plan: &Plan, endpoint: &Endpoint) -> Result<String, BenchError> {
    let path = endpoint.path("models");
    match first_model(endpoint, plan.timeout).await {
        Ok(Some(model)) => Ok(model),
        Ok(None) => Err(BenchError::NoModel { endpoint: endpoint.to_string(), path }),
        Err(cause) => Err(BenchError::Endpoint { endpoint: endpoint.to_string(), method: "GET", path, cause }),
    }
}

async fn measure(client: Client, few: &Request, many: &Request) -> Result<Ready, Failure> {
    let (client, answered_few) = understood(client, few).await?;
    let answered_many = client.ask(many, Instant::now()).await?;
    let mut notes = Vec::new();
    if !client.dialect.ignore_eos {
        notes.push("does not know ignore_eos: answers may be shorter than asked for".to_owned());
    }
    if answered_many.usage.is_none() {
        notes.push("does not count tokens in streams: pieces of text are counted instead".to_owned());
    }
    let tokens = |answer: &Answer| answer.usage.map(|usage| usage.prompt_tokens);
    let scale = tokens(&answered_few).zip(tokens(&answered_many)).and_then(|(fewer, more)| {
        let [few, many] = PROBE_WORDS;
        Scale::through((few, fewer), (many, more))
    });
    if scale.is_none() {
        notes.push("does not count the tokens of prompts: a word is taken for a token".to_owned());
    }
    Ok(Ready { client, scale: scale.unwrap_or(Scale::GUESS), notes })
}

/// Asks in the best dialect that the endpoint does not refuse.
async fn understood(client: Client, request: &Request) -> Result<(Client, Answer), Failure> {
    let mut refusal = None;
    for dialect in DIALECTS {
        let client = Client { dialect, ..client.clone() };
        match client.ask(request, Instant::now()).await {
            Ok(answer) => return Ok((client, answer)),
            // What endpoints say to parameters they do not know. The first refusal is about the whole request.
            Err(failure @ Failure::Refused { status: 400 | 422, .. }) => refusal = refusal.or(Some(failure)),
            Err(failure) => return Err(failure),
        }
    }
    Err(refusal.unwrap_or(Failure::NotUnderstood { reason: "no request was understood".to_owned() }))
}
