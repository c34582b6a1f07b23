//! The items of an answer as they grow: turns what is generated into items, and each change into the events that
//! announce it. Pure: it knows no connection and no clock.

use std::collections::HashMap;

use super::event::{Detail, Event};
use super::ids::Ids;
use super::item::{CallItem, Item, Status};
use super::logprobs::LogprobBody;
use super::open_item::{CONTENT_INDEX, OpenItem};
use crate::http::generation::choice_decoder::{Delta, Ended, ToolCallDelta};
use crate::http::generation::dialect::Choice;
use crate::http::generation::text_model::ToolCall;

/// The items of one answer.
#[derive(Debug, Clone)]
pub(super) struct Output {
    ids: Ids,
    /// Namespace and own name of each function of a namespace, by the name that the model sees.
    namespaced: HashMap<String, (String, String)>,
    /// True if texts have log-probabilities.
    logprobs: bool,
    done: Vec<Item>,
    /// The item that still grows. Its number in the answer is that of the items that are done.
    open: Option<OpenItem>,
}

// === impl Output ===

impl Output {
    /// An answer without items yet.
    pub(super) fn new(ids: Ids, namespaced: HashMap<String, (String, String)>, logprobs: bool) -> Self {
        Self { ids, namespaced, logprobs, done: Vec::new(), open: None }
    }

    /// The items of a whole answer.
    pub(super) fn whole(mut self, choice: Choice) -> Vec<Item> {
        let call = |(index, call): (usize, ToolCall)| ToolCallDelta {
            index,
            id: Some(call.id),
            name: Some(call.name),
            arguments: call.arguments,
        };
        let Choice { text, reasoning, tool_calls, logprobs, ended, .. } = choice;
        let tool_calls = tool_calls.into_iter().enumerate().map(call).collect();
        let mut events = Vec::new();
        self.push(&Delta { text, reasoning, tool_calls, logprobs, ..Delta::default() }, &mut events);
        self.finish(ended, &mut events);
        self.done
    }

    /// Takes the next part of the answer: reasoning, then text, then calls.
    pub(super) fn push(&mut self, delta: &Delta, events: &mut Vec<Event>) {
        if !delta.reasoning.is_empty() {
            self.push_reasoning(&delta.reasoning, events);
        }
        let in_message = matches!(self.open, Some(OpenItem::Message { .. }));
        if !delta.text.is_empty() || (in_message && !delta.logprobs.is_empty()) {
            let logprobs =
                if self.logprobs { delta.logprobs.iter().map(LogprobBody::from).collect() } else { Vec::new() };
            self.push_text(&delta.text, logprobs, events);
        }
        for call in &delta.tool_calls {
            self.push_call(call, events);
        }
    }

    /// Ends the answer. An answer without any item gets an empty message. The last item is incomplete if the answer was
    /// cut off.
    pub(super) fn finish(&mut self, ended: Option<Ended>, events: &mut Vec<Event>) {
        if self.done.is_empty() && self.open.is_none() {
            self.open_message(events);
        }
        let status = if ended == Some(Ended::Length) { Status::Incomplete } else { Status::Completed };
        self.close(status, events);
    }

    /// The items, of which the last one may be cut off.
    pub(super) fn items(&self) -> Vec<Item> {
        let open = self.open.as_ref().map(|open| open.item(Status::Incomplete));
        self.done.iter().cloned().chain(open).collect()
    }

    fn push_reasoning(&mut self, more: &str, events: &mut Vec<Event>) {
        if !matches!(self.open, Some(OpenItem::Reasoning { .. })) {
            self.open_item(|ids| OpenItem::Reasoning { id: ids.next("rs"), text: String::new() }, events);
        }
        let output_index = self.done.len();
        if let Some(OpenItem::Reasoning { id, text }) = &mut self.open {
            text.push_str(more);
            let (item_id, content_index, delta) = (id.clone(), CONTENT_INDEX, more.to_owned());
            let detail = Detail::ReasoningDelta { item_id, output_index, content_index, delta };
            events.push(Event::new("response.reasoning_text.delta", detail));
        }
    }

    fn push_text(&mut self, more: &str, more_logprobs: Vec<LogprobBody>, events: &mut Vec<Event>) {
        if !matches!(self.open, Some(OpenItem::Message { .. })) {
            self.open_message(events);
        }
        let output_index = self.done.len();
        if let Some(OpenItem::Message { id, text, logprobs }) = &mut self.open {
            text.push_str(more);
            logprobs.extend_from_slice(&more_logprobs);
            let (item_id, content_index, delta) = (id.clone(), CONTENT_INDEX, more.to_owned());
            let detail = Detail::TextDelta { item_id, output_index, content_index, delta, logprobs: more_logprobs };
            events.push(Event::new("response.output_text.delta", detail));
        }
    }

    fn push_call(&mut self, more: &ToolCallDelta, events: &mut Vec<Event>) {
        let continues = matches!(&self.open, Some(OpenItem::Call { index, .. }) if *index == more.index);
        if !continues {
            let seen_name = more.name.clone().unwrap_or_default();
            let (namespace, name) = match self.namespaced.get(&seen_name) {
                Some((namespace, name)) => (Some(namespace.clone()), name.clone()),
                None => (None, seen_name),
            };
            let open = |ids: &mut Ids| {
                let (id, status) = (ids.next("fc"), Status::InProgress);
                let call_id = more.id.clone().unwrap_or_else(|| ids.next("call"));
                let item = CallItem { id, status, call_id, namespace, name, arguments: String::new() };
                OpenItem::Call { index: more.index, item }
            };
            self.open_item(open, events);
        }
        let output_index = self.done.len();
        if let Some(OpenItem::Call { item, .. }) = &mut self.open
            && !more.arguments.is_empty()
        {
            item.arguments.push_str(&more.arguments);
            let (item_id, delta) = (item.id.clone(), more.arguments.clone());
            let detail = Detail::ArgumentsDelta { item_id, output_index, delta };
            events.push(Event::new("response.function_call_arguments.delta", detail));
        }
    }

    fn open_message(&mut self, events: &mut Vec<Event>) {
        let open = |ids: &mut Ids| OpenItem::Message { id: ids.next("msg"), text: String::new(), logprobs: Vec::new() };
        self.open_item(open, events);
    }

    /// Ends the open item and begins the next one.
    fn open_item(&mut self, open: impl FnOnce(&mut Ids) -> OpenItem, events: &mut Vec<Event>) {
        self.close(Status::Completed, events);
        let (open, output_index) = (open(&mut self.ids), self.done.len());
        let detail = Detail::Item { output_index, item: open.beginning() };
        events.push(Event::new("response.output_item.added", detail));
        if let Some(part) = open.empty_part() {
            let (item_id, content_index) = (open.id().to_owned(), CONTENT_INDEX);
            let detail = Detail::Part { item_id, output_index, content_index, part };
            events.push(Event::new("response.content_part.added", detail));
        }
        self.open = Some(open);
    }

    fn close(&mut self, status: Status, events: &mut Vec<Event>) {
        let Some(open) = self.open.take() else { return };
        let output_index = self.done.len();
        open.announce_end(output_index, events);
        let item = open.item(status);
        events.push(Event::new("response.output_item.done", Detail::Item { output_index, item: item.clone() }));
        self.done.push(item);
    }
}

#[cfg(test)]
mod tests;
