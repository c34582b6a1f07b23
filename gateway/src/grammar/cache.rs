//! Compiled grammars by source, the least recently used of which give way.

use std::collections::HashMap;

use super::Grammar;
use super::source::SourceKey;

/// A bounded cache of compiled grammars.
pub(super) struct GrammarCache {
    entries: HashMap<SourceKey, Entry>,
    grammars_max: usize,
    bytes_max: usize,
    /// Bytes of all entries.
    bytes: usize,
    /// Look-ups so far, which order the entries by use.
    uses: u64,
}

struct Entry {
    grammar: Grammar,
    bytes: usize,
    used: u64,
}

// === impl GrammarCache ===

impl GrammarCache {
    /// An empty cache that keeps at most so many grammars, and so many bytes of them together.
    pub(super) fn new(grammars_max: usize, bytes_max: usize) -> Self {
        Self { entries: HashMap::new(), grammars_max, bytes_max, bytes: 0, uses: 0 }
    }

    /// The grammar of `key`, if it is kept.
    pub(super) fn get(&mut self, key: &SourceKey) -> Option<Grammar> {
        self.uses += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.uses;
        Some(entry.grammar.clone())
    }

    /// Keeps `grammar`, which takes `bytes`. Others give way until it fits. It is not kept if it fits not even alone.
    pub(super) fn insert(&mut self, key: SourceKey, grammar: Grammar, bytes: usize) {
        if bytes > self.bytes_max || self.grammars_max == 0 {
            return;
        }
        self.remove(&key);
        while self.entries.len() >= self.grammars_max || self.bytes + bytes > self.bytes_max {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
            let Some(oldest) = oldest else { break };
            self.remove(&oldest);
        }
        self.uses += 1;
        self.bytes += bytes;
        self.entries.insert(key, Entry { grammar, bytes, used: self.uses });
    }

    fn remove(&mut self, key: &SourceKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::{GrammarSource, fixture};

    fn key(name: &str) -> SourceKey {
        GrammarSource::Regex(name.to_owned()).key().unwrap().0
    }

    #[test]
    fn the_least_recently_used_grammar_gives_way_to_a_new_one() {
        let grammar = fixture::compile(&GrammarSource::Regex("a".to_owned()));
        let mut cache = GrammarCache::new(2, 100);
        cache.insert(key("a"), grammar.clone(), 10);
        cache.insert(key("b"), grammar.clone(), 10);
        assert!(cache.get(&key("a")).is_some());
        cache.insert(key("c"), grammar, 10);
        assert!(cache.get(&key("b")).is_none());
        assert!(cache.get(&key("a")).is_some() && cache.get(&key("c")).is_some());
    }

    #[test]
    fn the_bytes_of_all_grammars_are_bounded() {
        let grammar = fixture::compile(&GrammarSource::Regex("a".to_owned()));
        let mut cache = GrammarCache::new(10, 100);
        cache.insert(key("a"), grammar.clone(), 60);
        cache.insert(key("a"), grammar.clone(), 50);
        cache.insert(key("b"), grammar.clone(), 50);
        assert!(cache.get(&key("a")).is_some() && cache.get(&key("b")).is_some());
        cache.insert(key("c"), grammar.clone(), 51);
        assert!(cache.get(&key("a")).is_none() && cache.get(&key("b")).is_none());
        cache.insert(key("d"), grammar, 101);
        assert!(cache.get(&key("d")).is_none() && cache.get(&key("c")).is_some());
    }
}
