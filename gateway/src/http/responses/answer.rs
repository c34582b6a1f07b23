//! The answer to a request, whole or as events. A complete answer is kept in the store if the request wants that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::body::{ErrorBody, IncompleteDetails, ResponseBody, ResponseStatus};
use super::echo::Echo;
use super::event::{Detail, Event, Numbered};
use super::item::Item;
use super::output::Output;
use super::store::ResponseStore;
use super::stored::StoredResponse;
use crate::http::error::ApiError;
use crate::http::generation::choice_decoder::Ended;
use crate::http::generation::choice_stream::ChoiceDelta;
use crate::http::generation::dialect::{Choice, Dialect, Events};
use crate::http::generation::totals::Totals;
use crate::http::limits::PINGS_PER_KEEPALIVE;

/// The answer to one request.
#[derive(Debug)]
pub(super) struct Answer {
    id: String,
    created_at: u64,
    model: String,
    echo: Echo,
    /// The items before the answer.
    input: Vec<Arc<Item>>,
    store: Arc<ResponseStore>,
    output: Output,
    ended: Option<Ended>,
    /// The number of the next event. Atomic, as the next one, because a ping borrows the answer only.
    sequence_number: AtomicU64,
    pings: AtomicU32,
}

// === impl Answer ===

impl Answer {
    /// The answer of `model` with this `id` to the conversation `input`. Its items come from `output`.
    pub(super) fn new(
        id: String,
        model: &str,
        echo: Echo,
        input: Vec<Arc<Item>>,
        store: Arc<ResponseStore>,
        output: Output,
    ) -> Self {
        Self {
            id,
            created_at: unix_seconds(),
            model: model.to_owned(),
            echo,
            input,
            store,
            output,
            ended: None,
            sequence_number: AtomicU64::new(0),
            pings: AtomicU32::new(0),
        }
    }

    /// The response without usage. `status` says how far it is.
    fn response(&self, status: ResponseStatus, output: Vec<Item>) -> ResponseBody {
        ResponseBody {
            id: self.id.clone(),
            object: "response",
            created_at: self.created_at,
            completed_at: (status == ResponseStatus::Completed).then(unix_seconds),
            status,
            error: None,
            incomplete_details: (status == ResponseStatus::Incomplete)
                .then_some(IncompleteDetails { reason: "max_output_tokens" }),
            model: self.model.clone(),
            output,
            usage: None,
            echo: self.echo.clone(),
            timings: None,
        }
    }

    /// The response at its end. It is kept if the request wants that.
    fn complete(&self, output: Vec<Item>, ended: Option<Ended>, Totals { usage, timings }: Totals) -> ResponseBody {
        let status = match ended {
            Some(Ended::Length) => ResponseStatus::Incomplete,
            Some(Ended::Stop | Ended::ToolCalls) | None => ResponseStatus::Completed,
        };
        let response = self.response(status, output);
        let response = ResponseBody { usage: Some(usage.into()), timings: Some(timings), ..response };
        if self.echo.store {
            self.keep(&response);
        }
        response
    }

    fn keep(&self, response: &ResponseBody) {
        let Ok(body) = serde_json::to_vec(response) else { return };
        let output = response.output.iter().map(|item| Arc::new(item.clone().without_logprobs())).collect();
        let (id, input) = (self.id.clone(), self.input.clone());
        let kept = self.store.insert(StoredResponse { id, body: Bytes::from(body), input, output }, Instant::now());
        if !kept {
            tracing::warn!(id = self.id, "a response is too large to be kept");
        }
    }

    fn send(&self, name: &'static str, detail: &Detail, events: &mut Events) {
        let sequence_number = self.sequence_number.fetch_add(1, Ordering::Relaxed);
        events.push_named(name, &Numbered { name, sequence_number, detail });
    }

    fn send_all(&self, all: &[Event], events: &mut Events) {
        for Event { name, detail } in all {
            self.send(name, detail, events);
        }
    }

    fn send_response(&self, name: &'static str, response: ResponseBody, events: &mut Events) {
        self.send(name, &Detail::Response { response: Box::new(response) }, events);
    }
}

impl Dialect for Answer {
    type Body = ResponseBody;

    fn body(&self, choices: Vec<Choice>, totals: Totals) -> ResponseBody {
        let choice = choices.into_iter().next().unwrap_or_default();
        let ended = choice.ended;
        self.complete(self.output.clone().whole(choice), ended, totals)
    }

    fn open(&mut self, _: usize, _: u64, events: &mut Events) {
        for name in ["response.created", "response.in_progress"] {
            self.send_response(name, self.response(ResponseStatus::InProgress, Vec::new()), events);
        }
    }

    fn delta(&mut self, ChoiceDelta { delta, .. }: &ChoiceDelta, _: Option<Totals>, events: &mut Events) {
        let mut changes = Vec::new();
        self.output.push(delta, &mut changes);
        if let Some(Ok(ended)) = delta.end {
            self.ended = Some(ended);
            self.output.finish(self.ended, &mut changes);
        }
        self.send_all(&changes, events);
    }

    fn close(&mut self, totals: Totals, events: &mut Events) {
        let response = self.complete(self.output.items(), self.ended, totals);
        let name = match response.status {
            ResponseStatus::Incomplete => "response.incomplete",
            _ => "response.completed",
        };
        self.send_response(name, response, events);
    }

    fn fail(&mut self, error: &ApiError, events: &mut Events) {
        let (code, message, param) = (error.code(), error.message().to_owned(), error.param().map(str::to_owned));
        self.send("error", &Detail::Error { code, message, param }, events);
        let response = self.response(ResponseStatus::Failed, self.output.items());
        let response = ResponseBody { error: Some(ErrorBody::from(error)), ..response };
        self.send_response("response.failed", response, events);
    }

    /// A comment, and now and then an event like OpenAI's own: some clients give up a stream without events.
    fn ping(&self, events: &mut Events) {
        let pings = self.pings.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if pings.is_multiple_of(PINGS_PER_KEEPALIVE) {
            self.send("keepalive", &Detail::Nothing {}, events);
        } else {
            events.push_comment("ping");
        }
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::app_state::Settings;
    use crate::http::generation::choice_decoder::Delta;
    use crate::http::generation::text_model::ByteText;
    use crate::http::generation::timings::TimingsBody;
    use crate::http::generation::usage::Usage;
    use crate::http::responses::ids::Ids;
    use crate::http::responses::request::ValidRequest;
    use crate::http::responses::store::StoreBounds;
    use crate::http::served_model::ModelInfo;
    use serde_json::{Value, json};
    use std::collections::HashMap;

    fn answer(body: &Value, store: &Arc<ResponseStore>) -> Answer {
        let model = ModelInfo { name: "tiny".to_owned(), context_tokens: 64, ..ModelInfo::default() };
        let mut ids = Ids::from_seed(1);
        let id = ids.next("resp");
        let body = body.as_object().unwrap();
        let request = ValidRequest::read(body, &model, &Settings::default(), &ByteText, &mut ids).unwrap();
        let output = Output::new(ids, HashMap::new(), false);
        Answer::new(id, "tiny", request.echo, Vec::new(), Arc::clone(store), output)
    }

    fn store() -> Arc<ResponseStore> {
        Arc::new(ResponseStore::new(StoreBounds::new(&Settings::default())))
    }

    fn totals() -> Totals {
        let usage = Usage { prompt_tokens: 7, cached_tokens: 2, completion_tokens: 3, ..Usage::default() };
        Totals { usage, timings: TimingsBody::new(&engine::generate::Timings::default(), usage, 1) }
    }

    fn delta(text: &str, end: Option<Ended>) -> ChoiceDelta {
        let delta = Delta { text: text.to_owned(), end: end.map(Ok), ..Delta::default() };
        ChoiceDelta { choice: 0, delta, usage: Usage::default() }
    }

    /// The data of the events, after a check of their names and numbers.
    fn data(events: &Events) -> Vec<Value> {
        let text = events.text();
        let all: Vec<Value> = text
            .split_terminator("\n\n")
            .map(|event| {
                let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
                let data: Value = serde_json::from_str(data).unwrap();
                assert_eq!(data["type"], name);
                data
            })
            .collect();
        assert!(all.iter().enumerate().all(|(number, event)| event["sequence_number"] == number), "{text}");
        all
    }

    fn streamed(body: &Value, store: &Arc<ResponseStore>, end: Ended) -> Vec<Value> {
        let (mut answer, mut events) = (answer(body, store), Events::default());
        answer.open(1, 7, &mut events);
        answer.delta(&delta("Hi", None), None, &mut events);
        answer.delta(&delta("", Some(end)), Some(totals()), &mut events);
        answer.close(totals(), &mut events);
        data(&events)
    }

    #[test]
    fn a_stream_begins_with_two_events_and_ends_with_the_whole_response() {
        let store = store();
        let events = streamed(&json!({"input": "hello", "metadata": {"a": "b"}}), &store, Ended::Stop);
        let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(types[..2], ["response.created", "response.in_progress"]);
        assert_eq!((types.len(), types.last()), (9, Some(&"response.completed")));
        let created = &events[0]["response"];
        assert_eq!((&created["status"], &created["output"]), (&json!("in_progress"), &json!([])));
        assert_eq!((&created["usage"], &created["completed_at"]), (&Value::Null, &Value::Null));
        let response = &events[8]["response"];
        assert_eq!((&response["id"], &response["object"]), (&created["id"], &json!("response")));
        assert_eq!((&response["status"], &response["metadata"]), (&json!("completed"), &json!({"a": "b"})));
        assert_eq!(response["output"][0]["content"][0]["text"], "Hi");
        assert!(response["completed_at"].as_u64() >= response["created_at"].as_u64());
        assert_eq!(
            response["usage"],
            json!({
                "input_tokens": 7, "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
                "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 10
            })
        );
        let kept = store.get(response["id"].as_str().unwrap(), Instant::now()).unwrap();
        assert_eq!(&serde_json::from_slice::<Value>(&kept.body).unwrap(), response);
    }

    #[test]
    fn an_answer_that_is_cut_off_is_incomplete() {
        let events = streamed(&json!({"input": "hello"}), &store(), Ended::Length);
        let last = events.last().unwrap();
        assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.incomplete"), &json!("incomplete")));
        assert_eq!(last["response"]["incomplete_details"], json!({"reason": "max_output_tokens"}));
        assert_eq!(last["response"]["completed_at"], Value::Null);
    }

    #[test]
    fn a_failure_in_the_middle_ends_with_an_error_and_the_failed_response() {
        let store = store();
        let (mut answer, mut events) = (answer(&json!({"input": "hello"}), &store), Events::default());
        answer.open(1, 7, &mut events);
        answer.delta(&delta("Hi", None), None, &mut events);
        answer.fail(&ApiError::internal("Stage a is out of memory."), &mut events);
        let events = data(&events);
        let [.., error, failed] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(
            *error,
            json!({
                "type": "error", "sequence_number": 5, "code": "internal_error", "message": "Stage a is out of memory.",
                "param": null
            })
        );
        assert_eq!((&failed["type"], &failed["response"]["status"]), (&json!("response.failed"), &json!("failed")));
        let expected = json!({"code": "server_error", "message": "Stage a is out of memory."});
        assert_eq!(failed["response"]["error"], expected);
        assert_eq!(failed["response"]["output"][0]["status"], "incomplete");
        assert!(store.get(failed["response"]["id"].as_str().unwrap(), Instant::now()).is_none());
    }

    #[test]
    fn a_whole_answer_is_kept_unless_the_request_refuses_that() {
        let store = store();
        let choice = || Choice { text: "Hi".to_owned(), ended: Some(Ended::Stop), ..Choice::default() };
        let refusing = answer(&json!({"input": "hello", "store": false}), &store);
        let body = refusing.body(vec![choice()], totals());
        assert!(store.get(&body.id, Instant::now()).is_none());
        let body = answer(&json!({"input": "hello"}), &store).body(vec![choice()], totals());
        assert_eq!(store.get(&body.id, Instant::now()).unwrap().output.len(), 1);
        assert_eq!(serde_json::to_value(&body).unwrap()["output"][0]["content"][0]["text"], "Hi");
    }

    #[test]
    fn a_long_silence_has_an_event_now_and_then() {
        let answer = answer(&json!({"input": "hello"}), &store());
        let mut events = Events::default();
        (0..2 * PINGS_PER_KEEPALIVE).for_each(|_| answer.ping(&mut events));
        let text = events.text();
        assert_eq!(text.matches(": ping\n\n").count(), 2 * (PINGS_PER_KEEPALIVE as usize - 1));
        assert_eq!(text.matches("event: keepalive\ndata: {\"type\":\"keepalive\",\"sequence_number\":").count(), 2);
    }
}
