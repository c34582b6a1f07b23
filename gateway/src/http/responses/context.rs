//! Finds the whole conversation of a request: the items of the response that it goes on from, and its own.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::input::InputItem;
use super::item::Item;
use super::store::ResponseStore;
use crate::http::error::{ApiError, cut};

/// The items before the answer, the oldest first. `previous` is the id of the earlier response.
///
/// # Errors
/// A 400 if the store does not have that response, and a 404 for an item that it does not have.
pub(super) fn resolve(
    previous: Option<&str>,
    input: Vec<InputItem>,
    store: &ResponseStore,
    now: Instant,
) -> Result<Vec<Arc<Item>>, ApiError> {
    let mut items = Vec::new();
    if let Some(id) = previous {
        let previous = store.get(id, now).ok_or_else(|| previous_not_found(id, store))?;
        items.extend(previous.items().cloned());
    }
    let referenced = referenced(&input, store, now);
    for item in input {
        items.push(match item {
            InputItem::Given(item) => Arc::new(item),
            InputItem::Reference { path, id } => {
                referenced.get(&id).cloned().ok_or_else(|| item_not_found(&path, &id, store))?
            }
        });
    }
    Ok(items)
}

fn referenced(input: &[InputItem], store: &ResponseStore, now: Instant) -> HashMap<String, Arc<Item>> {
    let ids: HashSet<_> = input.iter().filter_map(InputItem::reference).collect();
    if ids.is_empty() { HashMap::new() } else { store.items(&ids, now) }
}

fn previous_not_found(id: &str, store: &ResponseStore) -> ApiError {
    let message = format!("Previous response with id '{}' not found. {}", cut(id), kept(store));
    ApiError::bad_request("previous_response_not_found", message).about("previous_response_id")
}

fn item_not_found(path: &str, id: &str, store: &ResponseStore) -> ApiError {
    let message = format!("Item with id '{}' not found. {}", cut(id), kept(store));
    ApiError::not_found("item_not_found", message).about(path)
}

/// A sentence that says what the store has.
pub(super) fn kept(store: &ResponseStore) -> String {
    let bounds = store.bounds();
    format!(
        "This server has its last {} responses for {} s and until it stops, except those with 'store' false.",
        bounds.responses_max,
        bounds.age_max.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::responses::item::{MessageItem, Part, Role, Status};
    use crate::http::responses::store::StoreBounds;
    use crate::http::responses::stored::StoredResponse;
    use std::time::Duration;

    fn item(id: &str) -> Item {
        let content = vec![Part::InputText { text: id.to_owned() }];
        Item::Message(MessageItem { id: id.to_owned(), status: Status::Completed, role: Role::User, content })
    }

    fn reference(id: &str) -> InputItem {
        InputItem::Reference { path: "input[0]".to_owned(), id: id.to_owned() }
    }

    fn store() -> ResponseStore {
        let bounds = StoreBounds { responses_max: 9, bytes_max: 1 << 20, age_max: Duration::from_secs(60) };
        let store = ResponseStore::new(bounds);
        let (input, output) = (vec![Arc::new(item("question"))], vec![Arc::new(item("answer"))]);
        let response = StoredResponse { id: "resp_1".to_owned(), body: bytes::Bytes::new(), input, output };
        assert!(store.insert(response, Instant::now()));
        store
    }

    fn ids(items: &[Arc<Item>]) -> Vec<&str> {
        items.iter().map(|item| item.id()).collect()
    }

    #[test]
    fn a_conversation_goes_on_from_an_earlier_response() {
        let now = Instant::now();
        let items = resolve(Some("resp_1"), vec![InputItem::Given(item("next"))], &store(), now).unwrap();
        assert_eq!(ids(&items), ["question", "answer", "next"]);
        let items = resolve(None, vec![InputItem::Given(item("next")), reference("answer")], &store(), now).unwrap();
        assert_eq!(ids(&items), ["next", "answer"]);
    }

    #[test]
    fn what_is_not_kept_is_named() {
        let now = Instant::now();
        let error = resolve(Some("resp_9"), Vec::new(), &store(), now).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code()), (400, Some("previous_response_not_found")));
        assert_eq!(error.param(), Some("previous_response_id"));
        assert!(error.message().starts_with("Previous response with id 'resp_9' not found."), "{error:?}");
        let error = resolve(Some("resp_1"), vec![reference("other")], &store(), now).unwrap_err();
        assert_eq!((error.status.as_u16(), error.param()), (404, Some("input[0]")));
    }
}
