//! The machines that can be asked for layers, in turn. One that sent something wrong is left out for a while, and one
//! that could not answer comes after all others. Pure.

use std::time::Instant;

use super::limits::{LEFT_OUT_TIME, SILENT_TIME, SOURCES_MAX};

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// Its address, as `host:port`.
    pub(super) address: String,
    /// True for the shared port of the machine that carries the store, which has all of the model.
    pub(super) is_shared: bool,
}

/// The machines, in the order in which they are asked next.
#[derive(Debug)]
pub(super) struct Sources(Vec<Listed>);

#[derive(Debug)]
struct Listed {
    source: Source,
    /// The time at which it was left out, and the reason.
    left_out: Option<(Instant, String)>,
    /// The last time at which it could not answer, since it last did.
    silent: Option<Instant>,
}

// === impl Sources ===

impl Sources {
    /// Those with shared ports at `addresses`.
    pub(super) fn shared(addresses: impl IntoIterator<Item = String>) -> Self {
        let listed = |address| Listed { source: Source { address, is_shared: true }, left_out: None, silent: None };
        Self(addresses.into_iter().take(SOURCES_MAX).map(listed).collect())
    }

    /// The other members that serve layers are those at `addresses` from now on.
    pub(super) fn set_members(&mut self, addresses: &[String]) {
        self.0.retain(|listed| listed.source.is_shared || addresses.contains(&listed.source.address));
        for address in addresses {
            if self.0.len() < SOURCES_MAX && self.0.iter().all(|listed| listed.source.address != *address) {
                let source = Source { address: address.clone(), is_shared: false };
                self.0.push(Listed { source, left_out: None, silent: None });
            }
        }
    }

    /// The next one for which `may_be` is true, which comes last from then on. One that was silent a moment ago only if
    /// there is no other: to wait for it takes long.
    pub(super) fn next(&mut self, now: Instant, may_be: impl Fn(&Source) -> bool) -> Option<Source> {
        let is_over = |since: Instant, time| now.saturating_duration_since(since) >= time;
        let is_in = |listed: &&Listed| {
            let is_in = listed.left_out.as_ref().is_none_or(|(since, _)| is_over(*since, LEFT_OUT_TIME));
            is_in && may_be(&listed.source)
        };
        let answers = |listed: &Listed| listed.silent.is_none_or(|since| is_over(since, SILENT_TIME));
        let at = self.0.iter().position(|listed| is_in(&listed) && answers(listed));
        let at = at.or_else(|| self.0.iter().position(|listed| is_in(&listed)))?;
        let mut next = self.0.remove(at);
        next.left_out = None;
        let source = next.source.clone();
        self.0.push(next);
        Some(source)
    }

    /// Leaves the one at `address` out for a while.
    pub(super) fn leave_out(&mut self, address: &str, now: Instant, reason: &str) {
        for listed in self.0.iter_mut().filter(|listed| listed.source.address == address) {
            listed.left_out = Some((now, reason.to_owned()));
        }
    }

    /// The one at `address` answered, or could not.
    pub(super) fn note(&mut self, address: &str, now: Instant, answered: bool) {
        for listed in self.0.iter_mut().filter(|listed| listed.source.address == address) {
            listed.silent = (!answered).then_some(now);
        }
    }

    /// The reasons for which some are left out.
    pub(super) fn reasons(&self) -> String {
        let reasons = self.0.iter().filter_map(|listed| listed.left_out.as_ref().map(|(_, reason)| reason.as_str()));
        reasons.collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_asked_in_turn_and_one_that_lied_comes_back_after_a_while() {
        let now = Instant::now();
        let mut sources = Sources::shared(["s:1".to_owned()]);
        let next = |sources: &mut Sources, at| sources.next(at, |_| true).map(|source| source.address);
        sources.set_members(&["a:1".to_owned(), "b:1".to_owned()]);
        let turn: Vec<_> = (0..4).filter_map(|_| next(&mut sources, now)).collect();
        assert_eq!(turn, ["s:1", "a:1", "b:1", "s:1"]);
        sources.leave_out("a:1", now, "a wrong chunk");
        let turn: Vec<_> = (0..3).filter_map(|_| next(&mut sources, now)).collect();
        assert_eq!(turn, ["b:1", "s:1", "b:1"]);
        // Listed again, it is still left out.
        sources.set_members(&["a:1".to_owned()]);
        assert_eq!(next(&mut sources, now).as_deref(), Some("s:1"));
        assert_eq!((next(&mut sources, now).as_deref(), sources.reasons().as_str()), (Some("s:1"), "a wrong chunk"));
        let later = now + LEFT_OUT_TIME;
        let turn: Vec<_> = (0..2).filter_map(|_| next(&mut sources, later)).collect();
        assert_eq!(turn, ["a:1", "s:1"]);
        assert_eq!(sources.next(later, |source| !source.is_shared).unwrap().address, "a:1");
    }

    #[test]
    fn a_silent_source_comes_after_all_others_until_it_answers_or_a_while_has_passed() {
        let now = Instant::now();
        let mut sources = Sources::shared(["s:1".to_owned()]);
        sources.set_members(&["a:1".to_owned(), "b:1".to_owned()]);
        sources.note("s:1", now, false);
        let turn = |sources: &mut Sources, at| {
            (0..3).filter_map(|_| sources.next(at, |_| true).map(|source| source.address)).collect::<Vec<_>>()
        };
        assert_eq!(turn(&mut sources, now), ["a:1", "b:1", "a:1"]);
        assert_eq!(sources.next(now, |source| source.is_shared).unwrap().address, "s:1", "there is no other");
        sources.note("s:1", now, true);
        assert_eq!(turn(&mut sources, now), ["b:1", "a:1", "s:1"]);
        sources.note("s:1", now, false);
        assert_eq!(turn(&mut sources, now + SILENT_TIME), ["b:1", "a:1", "s:1"]);
    }

    #[test]
    fn no_more_sources_are_listed_than_there_may_be() {
        let mut sources = Sources::shared(["s:1".to_owned()]);
        let many: Vec<_> = (0..2 * SOURCES_MAX).map(|port| format!("a:{port}")).collect();
        sources.set_members(&many);
        assert_eq!(sources.0.len(), SOURCES_MAX);
    }
}
