//! The list of a response's input items, a page at a time.

use std::sync::Arc;

use serde::Serialize;

use super::item::Item;
use crate::http::error::ApiError;
use crate::http::limits::{INPUT_ITEMS_DEFAULT, INPUT_ITEMS_MAX};

/// The query of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListQuery<'a> {
    /// Most items of the answer.
    limit: usize,
    /// True if the oldest item comes first.
    ascending: bool,
    /// The id of the item after which the list begins.
    after: Option<&'a str>,
}

/// One page of the list.
#[derive(Debug, Serialize)]
pub(super) struct ItemList<'a> {
    object: &'static str,
    data: Vec<&'a Item>,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
    has_more: bool,
}

// === impl ListQuery ===

impl<'a> ListQuery<'a> {
    /// Reads the query's pairs. Of a repeated key, the last one counts; other keys change nothing.
    ///
    /// # Errors
    /// A 400 that names the key.
    pub(super) fn read(pairs: &'a [(String, String)]) -> Result<Self, ApiError> {
        let mut query = Self { limit: INPUT_ITEMS_DEFAULT, ascending: false, after: None };
        for (key, value) in pairs {
            match (key.as_str(), value.as_str()) {
                ("limit", limit) => {
                    let limit = limit.parse().ok().filter(|limit| (1..=INPUT_ITEMS_MAX).contains(limit));
                    query.limit = limit
                        .ok_or_else(|| invalid("limit", &format!("a whole number from 1 to {INPUT_ITEMS_MAX}")))?;
                }
                ("order", "asc") => query.ascending = true,
                ("order", "desc") => query.ascending = false,
                ("order", _) => return Err(invalid("order", "asc or desc")),
                ("after", after) => query.after = Some(after),
                _ => {}
            }
        }
        Ok(query)
    }

    /// The page of `items`, which are the oldest first.
    ///
    /// # Errors
    /// A 400 if there is no item with the id `after`.
    pub(super) fn page<'b>(&self, items: &'b [Arc<Item>]) -> Result<ItemList<'b>, ApiError> {
        let mut ordered: Vec<&Item> = items.iter().map(|item| &**item).collect();
        if !self.ascending {
            ordered.reverse();
        }
        let start = match self.after {
            None => 0,
            Some(id) => match ordered.iter().position(|item| item.id() == id) {
                Some(position) => position + 1,
                None => return Err(invalid("after", "the id of one of the items")),
            },
        };
        let rest = &ordered[start..];
        let data = rest[..rest.len().min(self.limit)].to_vec();
        let (first_id, last_id) = (data.first().map(|item| item.id()), data.last().map(|item| item.id()));
        Ok(ItemList { object: "list", first_id, last_id, has_more: data.len() < rest.len(), data })
    }
}

fn invalid(key: &'static str, expected: &str) -> ApiError {
    let message = format!("Invalid value for '{key}' in the query: expected {expected}.");
    ApiError::bad_request("invalid_value", message).about(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::responses::item::{MessageItem, Role, Status};
    use serde_json::{Value, json};

    fn items() -> Vec<Arc<Item>> {
        let item = |number: u32| {
            let (id, content) = (format!("msg_{number}"), Vec::new());
            Arc::new(Item::Message(MessageItem { id, status: Status::Completed, role: Role::User, content }))
        };
        (1..=25).map(item).collect()
    }

    fn page(query: &[(&str, &str)]) -> Result<Value, ApiError> {
        let pairs: Vec<_> = query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let items = items();
        let page = ListQuery::read(&pairs)?.page(&items)?;
        let mut page = serde_json::to_value(page).unwrap();
        let ids = page["data"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect();
        page["data"] = ids;
        Ok(page)
    }

    #[test]
    fn the_newest_twenty_come_first() {
        let first = page(&[]).unwrap();
        assert_eq!(first["data"].as_array().unwrap().len(), 20);
        assert_eq!(
            (&first["first_id"], &first["last_id"], &first["has_more"]),
            (&json!("msg_25"), &json!("msg_6"), &json!(true))
        );
        let next = page(&[("after", "msg_6")]).unwrap();
        assert_eq!(next["data"], json!(["msg_5", "msg_4", "msg_3", "msg_2", "msg_1"]));
        assert_eq!(next["has_more"], false);
    }

    #[test]
    fn order_and_limit_are_honoured_and_the_end_is_an_empty_page() {
        let ascending = page(&[("order", "asc"), ("limit", "2"), ("after", "msg_3"), ("include[]", "x")]).unwrap();
        assert_eq!(ascending["data"], json!(["msg_4", "msg_5"]));
        let end = page(&[("order", "asc"), ("after", "msg_25")]).unwrap();
        assert_eq!(end, json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false}));
    }

    #[test]
    fn other_values_are_refused_by_name() {
        for (key, value) in
            [("limit", "0"), ("limit", "101"), ("limit", "many"), ("order", "random"), ("after", "msg_99")]
        {
            assert_eq!(page(&[(key, value)]).unwrap_err().param(), Some(key), "{value}");
        }
    }
}
