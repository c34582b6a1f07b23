//! Keeps responses in memory, so that later requests can go on from them: at most so many, so many bytes, and for so
//! long. The oldest ones make room for new ones. Nothing is written to disk, and other gateways do not know them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::item::Item;
use super::stored::StoredResponse;
use crate::http::app_state::Settings;

/// The bounds of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoreBounds {
    pub(super) responses_max: usize,
    /// Bytes of all responses, each counted as if it shared nothing with others.
    pub(super) bytes_max: usize,
    /// Time after which a response counts as absent. The next call removes it.
    pub(super) age_max: Duration,
}

/// The kept responses of this process.
#[derive(Debug)]
pub(super) struct ResponseStore {
    bounds: StoreBounds,
    kept: Mutex<Kept>,
}

/// The responses by the order in which they came.
#[derive(Debug, Default)]
struct Kept {
    by_order: BTreeMap<u64, Entry>,
    orders: HashMap<String, u64>,
    next_order: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    response: Arc<StoredResponse>,
    bytes: usize,
    since: Instant,
}

// === impl StoreBounds ===

impl StoreBounds {
    /// The bounds of the settings.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            responses_max: settings.stored_responses_max,
            bytes_max: settings.stored_bytes_max,
            age_max: settings.stored_age_max,
        }
    }
}

// === impl ResponseStore ===

impl ResponseStore {
    /// An empty store.
    pub(super) fn new(bounds: StoreBounds) -> Self {
        Self { bounds, kept: Mutex::default() }
    }

    pub(super) fn bounds(&self) -> StoreBounds {
        self.bounds
    }

    /// Keeps `response`, and removes the oldest ones that exceed a bound. Returns false if it alone exceeds one.
    pub(super) fn insert(&self, response: StoredResponse, now: Instant) -> bool {
        self.kept(now).insert(response, now, &self.bounds)
    }

    /// The response with this id.
    pub(super) fn get(&self, id: &str, now: Instant) -> Option<Arc<StoredResponse>> {
        let kept = self.kept(now);
        let entry = kept.orders.get(id).and_then(|order| kept.by_order.get(order));
        entry.map(|entry| Arc::clone(&entry.response))
    }

    /// Removes the response with this id. Returns false if there is none.
    pub(super) fn remove(&self, id: &str, now: Instant) -> bool {
        let mut kept = self.kept(now);
        let order = kept.orders.get(id).copied();
        order.is_some_and(|order| kept.remove(order))
    }

    /// Those items of all responses that have one of `ids`, by id. It looks at every item once.
    pub(super) fn items(&self, ids: &HashSet<&str>, now: Instant) -> HashMap<String, Arc<Item>> {
        let kept = self.kept(now);
        let all = kept.by_order.values().flat_map(|entry| entry.response.items());
        all.filter(|item| ids.contains(item.id())).map(|item| (item.id().to_owned(), Arc::clone(item))).collect()
    }

    /// The responses that are not too old.
    fn kept(&self, now: Instant) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.expire(now, self.bounds.age_max);
        kept
    }
}

// === impl Kept ===

impl Kept {
    fn insert(&mut self, response: StoredResponse, now: Instant, bounds: &StoreBounds) -> bool {
        let bytes = response.bytes();
        if bounds.responses_max == 0 || bytes > bounds.bytes_max {
            return false;
        }
        while self.by_order.len() >= bounds.responses_max || self.bytes + bytes > bounds.bytes_max {
            self.remove_oldest();
        }
        let order = self.next_order;
        self.next_order += 1;
        self.orders.insert(response.id.clone(), order);
        self.by_order.insert(order, Entry { response: Arc::new(response), bytes, since: now });
        self.bytes += bytes;
        true
    }

    fn expire(&mut self, now: Instant, age_max: Duration) {
        let is_old = |entry: &Entry| now.saturating_duration_since(entry.since) >= age_max;
        while self.by_order.first_key_value().is_some_and(|(_, oldest)| is_old(oldest)) {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(order) = self.by_order.keys().next().copied() {
            self.remove(order);
        }
    }

    fn remove(&mut self, order: u64) -> bool {
        let Some(entry) = self.by_order.remove(&order) else { return false };
        self.orders.remove(&entry.response.id);
        self.bytes -= entry.bytes;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::responses::item::{CallOutputItem, Status};

    const HOUR: Duration = Duration::from_secs(3600);

    fn response(id: &str, output: &str) -> StoredResponse {
        let item = Item::FunctionCallOutput(CallOutputItem {
            id: format!("item-of-{id}"),
            status: Status::Completed,
            call_id: String::new(),
            output: output.to_owned(),
        });
        StoredResponse { id: id.to_owned(), body: bytes::Bytes::new(), input: Vec::new(), output: vec![Arc::new(item)] }
    }

    fn store(responses_max: usize, bytes_max: usize) -> ResponseStore {
        ResponseStore::new(StoreBounds { responses_max, bytes_max, age_max: HOUR })
    }

    fn kept<'a>(store: &ResponseStore, ids: &[&'a str], now: Instant) -> Vec<&'a str> {
        ids.iter().copied().filter(|id| store.get(id, now).is_some()).collect()
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let (store, now) = (store(2, usize::MAX), Instant::now());
        for id in ["a", "b", "c"] {
            assert!(store.insert(response(id, ""), now));
        }
        assert_eq!(kept(&store, &["a", "b", "c"], now), ["b", "c"]);
        assert_eq!(store.get("c", now).unwrap().id, "c");
    }

    #[test]
    fn the_oldest_go_when_the_bytes_are_too_many() {
        let one = response("a", &"x".repeat(1000)).bytes();
        let (store, now) = (store(100, 3 * one), Instant::now());
        for id in ["a", "b", "c"] {
            assert!(store.insert(response(id, &"x".repeat(1000)), now));
        }
        assert_eq!(kept(&store, &["a", "b", "c"], now), ["a", "b", "c"]);
        assert!(store.insert(response("d", &"x".repeat(1001)), now));
        assert_eq!(kept(&store, &["a", "b", "c", "d"], now), ["c", "d"]);
        assert!(!store.insert(response("e", &"x".repeat(4000)), now));
        assert_eq!(kept(&store, &["c", "d", "e"], now), ["c", "d"]);
        assert!(store.remove("c", now) && store.remove("d", now) && !store.remove("d", now));
        assert_eq!(store.kept(now).bytes, 0);
    }

    #[test]
    fn a_response_goes_at_its_age() {
        let (store, now) = (store(100, usize::MAX), Instant::now());
        store.insert(response("a", ""), now);
        store.insert(response("b", ""), now + HOUR / 2);
        assert_eq!(kept(&store, &["a", "b"], now + HOUR - Duration::from_millis(1)), ["a", "b"]);
        assert_eq!(kept(&store, &["a", "b"], now + HOUR), ["b"]);
        assert!(store.items(&HashSet::from(["item-of-a"]), now + HOUR).is_empty());
    }

    #[test]
    fn items_are_found_by_their_ids() {
        let (store, now) = (store(100, usize::MAX), Instant::now());
        for id in ["a", "b", "c"] {
            store.insert(response(id, id), now);
        }
        let found = store.items(&HashSet::from(["item-of-a", "item-of-c", "item-of-z"]), now);
        let mut ids: Vec<_> = found.keys().map(String::as_str).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["item-of-a", "item-of-c"]);
    }

    #[test]
    fn a_store_of_nothing_keeps_nothing() {
        let (store, now) = (store(0, usize::MAX), Instant::now());
        assert!(!store.insert(response("a", ""), now));
        assert!(store.get("a", now).is_none());
    }
}
