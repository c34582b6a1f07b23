//! Sentences about the decisions of the cluster between two views of it. Pure.

use std::collections::BTreeMap;

use engine::view::ClusterView;
use schema::StageName;
use schema::record::{ClaimState, Placement, StageRecord};

use super::log::{Sentence, Subject};
use crate::http::limits::LIVE_STAGES_NAMED_MAX;

/// The sentence that the log begins with.
pub(super) fn beginning(view: &ClusterView) -> Sentence {
    let text = match &view.placement {
        None => "This gateway started: there is no placement yet.".to_owned(),
        Some(placement) => {
            let (generation, stages) = (placement.value.generation(), placement.value.shards().len());
            format!("This gateway started: generation {generation} gives the layers to {stages} stages.")
        }
    };
    Sentence::new(Subject::Placement, text)
}

/// The changes from `before` to `after`. Nothing is said while the store does not answer, because then a view is
/// only an older one.
pub(super) fn between(before: &ClusterView, after: &ClusterView) -> Vec<Sentence> {
    let mut said = Vec::new();
    store(before, after, &mut said);
    members(before, after, &mut said);
    pins(before, after, &mut said);
    placement(before, after, &mut said);
    claims(before, after, &mut said);
    said
}

fn store(before: &ClusterView, after: &ClusterView, said: &mut Vec<Sentence>) {
    let mut say = |text: String| said.push(Sentence::new(Subject::Store, text));
    match (before.reachable, after.reachable) {
        (true, false) => say("The store does not answer: serving goes on with the last known placement.".to_owned()),
        (false, true) => say("The store answers again.".to_owned()),
        _ => {}
    }
    let new_alarms = after.store_alarms.iter().filter(|alarm| !before.store_alarms.contains(alarm));
    new_alarms.take(LIVE_STAGES_NAMED_MAX).for_each(|alarm| say(format!("The store raises an alarm: {alarm}.")));
    let new = after.complaints.iter().filter(|complaint| !before.complaints.contains(complaint));
    new.take(LIVE_STAGES_NAMED_MAX).for_each(|complaint| say(format!("Ignored in the store: {complaint}.")));
}

fn members(before: &ClusterView, after: &ClusterView, said: &mut Vec<Sentence>) {
    let mut say = |subject, text: String| said.push(Sentence::new(subject, text));
    let joined = |record: &StageRecord| format!("{} on {}", record.chip, record.host);
    let came = after.stages.iter().filter(|(name, _)| !before.stages.contains_key(*name));
    let came = came.map(|(name, record)| format!("Stage {name} joined: {}.", joined(&record.value)));
    limited(came, "stages joined").into_iter().for_each(|text| say(Subject::Member, text));
    for (name, why) in new_in(&before.evictions, &after.evictions) {
        say(Subject::Eviction, format!("Stage {name} was evicted by {}: {}.", why.value.by, why.value.cause));
    }
    for (name, why) in new_in(&before.unproven_stages, &after.unproven_stages) {
        say(Subject::Eviction, format!("Stage {name} was refused: {}.", why.value));
    }
    let is_explained =
        |name: &StageName| after.evictions.contains_key(name) || after.unproven_stages.contains_key(name);
    let went = before.stages.iter().filter(|(name, _)| !after.stages.contains_key(*name) && !is_explained(name));
    let went = went.map(|(name, record)| match record.value.leaving {
        true => format!("Stage {name} has left."),
        false => format!("Stage {name} is gone: it renews its lease no more, or its process has ended."),
    });
    limited(went, "stages are gone").into_iter().for_each(|text| say(Subject::Member, text));
    for (name, record) in &after.stages {
        let old = before.stages.get(name).map(|old| &old.value);
        if record.value.leaving && old.is_some_and(|old| !old.leaving) {
            say(Subject::Member, format!("Stage {name} is leaving: others are to take over its layers."));
        }
        let trouble = record.value.trouble.as_ref().filter(|_| old.is_some_and(|old| old.trouble.is_none()));
        trouble.into_iter().for_each(|trouble| say(Subject::Member, format!("Stage {name} reports: {trouble}.")));
    }
    for (slot, gateway) in &after.gateways {
        if !before.gateways.contains_key(slot) {
            say(Subject::Member, format!("Gateway {slot} serves at {}.", gateway.value.url));
        }
    }
    for slot in before.gateways.keys().filter(|slot| !after.gateways.contains_key(*slot)) {
        say(Subject::Member, format!("Gateway {slot} is gone."));
    }
}

fn pins(before: &ClusterView, after: &ClusterView, said: &mut Vec<Sentence>) {
    let mut say = |text: String| said.push(Sentence::new(Subject::Pin, text));
    for (name, pin) in &after.pins {
        match before.pins.get(name) {
            Some(old) if old.mod_revision == pin.mod_revision => {}
            Some(old) => say(format!("Stage {name} is pinned to {} instead of {}.", pin.value, old.value)),
            None => say(format!("Stage {name} is pinned to {}.", pin.value)),
        }
    }
    for name in before.pins.keys().filter(|name| !after.pins.contains_key(*name)) {
        say(format!("The pin of stage {name} was removed."));
    }
    for (name, status) in &after.pin_statuses {
        let is_new = before.pin_statuses.get(name).is_none_or(|old| old.value != status.value);
        match &status.value.reason {
            Some(reason) if is_new => say(format!("The pin of stage {name} is refused: {reason}.")),
            None if is_new => say(format!("The plan obeys the pin of stage {name}.")),
            _ => {}
        }
    }
}

fn placement(before: &ClusterView, after: &ClusterView, said: &mut Vec<Sentence>) {
    let (old, new) = (before.placement.as_ref().map(|old| &old.value), after.placement.as_ref().map(|new| &new.value));
    let Some(new) = new.filter(|new| old.is_none_or(|old| old.generation() != new.generation())) else { return };
    let moves = moves(old, new);
    let text = match old {
        None => format!("Generation {} is the first placement: {moves}.", new.generation()),
        Some(old) => {
            let why = reason(before, after, old, new);
            format!("Generation {} follows {} {why}: {moves}.", new.generation(), old.generation())
        }
    };
    said.push(Sentence::new(Subject::Placement, text));
}

/// The reason for which `new` followed `old`, as a clause.
fn reason(before: &ClusterView, after: &ClusterView, old: &Placement, new: &Placement) -> String {
    let named = |names: Vec<&StageName>, one: &str, many: &str| match names.as_slice() {
        [] => None,
        [name] => Some(format!("because stage {name} {one}")),
        names => Some(format!("because {} stages {many}", names.len())),
    };
    let old_stages = || old.shards().iter().map(|shard| &shard.stage);
    let lost = old_stages().filter(|stage| !after.stages.contains_key(*stage)).collect();
    let is_leaving = |stage: &&StageName| after.stages.get(*stage).is_some_and(|record| record.value.leaving);
    let leaving = old_stages().filter(is_leaving).collect();
    let obeyed = |view: &ClusterView, stage: &StageName| {
        view.pin_statuses.get(stage).filter(|status| status.value.honoured).map(|status| status.value.pin_revision)
    };
    let pins = before.pin_statuses.keys().chain(after.pin_statuses.keys());
    let mut changed: Vec<_> = pins.filter(|stage| obeyed(before, stage) != obeyed(after, stage)).collect();
    changed.dedup();
    let new_stages = new.shards().iter().map(|shard| &shard.stage);
    let joined = new_stages.filter(|stage| old.slot_of(stage).is_none()).collect();
    named(lost, "is gone", "are gone")
        .or_else(|| named(leaving, "is leaving", "are leaving"))
        .or_else(|| named(changed, "has another pin", "have other pins"))
        .or_else(|| named(joined, "has joined", "have joined"))
        .unwrap_or_else(|| "because the plan is faster".to_owned())
}

/// The layers of the stages that have others than before.
fn moves(old: Option<&Placement>, new: &Placement) -> String {
    let held = |placement: Option<&Placement>, stage: &StageName| {
        let shards = placement.map(Placement::shards).unwrap_or_default();
        shards.iter().find(|shard| shard.stage == *stage).map(|shard| shard.layers)
    };
    let mut moves = Vec::new();
    for shard in new.shards() {
        match held(old, &shard.stage) {
            Some(before) if before == shard.layers => {}
            Some(before) => moves.push(format!("{} takes {} in the place of {before}", shard.stage, shard.layers)),
            None => moves.push(format!("{} takes {}", shard.stage, shard.layers)),
        }
    }
    let shards = old.map(Placement::shards).unwrap_or_default();
    let without = shards.iter().filter(|shard| held(Some(new), &shard.stage).is_none());
    moves.extend(without.map(|shard| format!("{} gives up {}", shard.stage, shard.layers)));
    if moves.is_empty() {
        return "every stage keeps its layers".to_owned();
    }
    let more = moves.len().saturating_sub(LIVE_STAGES_NAMED_MAX);
    moves.truncate(LIVE_STAGES_NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", moves.join(", "))
}

fn claims(before: &ClusterView, after: &ClusterView, said: &mut Vec<Sentence>) {
    for (id, claim) in &after.claims {
        let old = before.claims.get(id).map(|old| &old.value.state);
        if let ClaimState::Failed { reason } = &claim.value.state
            && old != Some(&claim.value.state)
        {
            let (stage, layers) = (&claim.value.stage, claim.value.layers);
            let text = format!("Stage {stage} could not load layers {layers}: {reason}.");
            said.push(Sentence::new(Subject::Member, text));
        }
    }
    let served = |view: &ClusterView| view.serving().ok().map(|served| served.generation);
    if let Some(generation) = served(after)
        && served(before) != Some(generation)
    {
        let text = format!("Generation {generation} is complete: every layer is held exactly once.");
        said.push(Sentence::new(Subject::Placement, text));
    }
}

/// The records of `after` that `before` does not have, at most as many as are named.
fn new_in<'a, T>(
    before: &BTreeMap<StageName, T>,
    after: &'a BTreeMap<StageName, T>,
) -> impl Iterator<Item = (&'a StageName, &'a T)> {
    after.iter().filter(|(name, _)| !before.contains_key(*name)).take(LIVE_STAGES_NAMED_MAX)
}

/// The sentences, or their number if they are too many.
fn limited(sentences: impl Iterator<Item = String>, what: &str) -> Vec<String> {
    let sentences: Vec<_> = sentences.collect();
    if sentences.len() <= LIVE_STAGES_NAMED_MAX {
        return sentences;
    }
    vec![format!("{} {what}.", sentences.len())]
}

#[cfg(test)]
mod tests {
    use engine::store::{Entry, Revision};
    use schema::{ClusterName, Keyspace};
    use serde_json::json;

    use super::*;

    const STAGE: &str = concat!(
        r#"{"endpoint":"ipc:///x","host":"mini-1","pid":1,"version":"0.1.0","device":"cpu","chip":"Some chip","#,
        r#""threads":2,"memory_total_bytes":2,"memory_budget_bytes":1}"#
    );

    /// The view of a store with these keys and values, of the cluster `home`.
    fn view(entries: &[(&str, &str)]) -> ClusterView {
        let keyspace = Keyspace::new(&"home".parse::<ClusterName>().unwrap());
        let entry = |(revision, (key, value)): (usize, &(&str, &str))| Entry {
            key: format!("/baton/v1/home/{key}"),
            value: value.as_bytes().to_vec(),
            mod_revision: Revision(revision as u64 + 1),
            lease: None,
        };
        let entries: Vec<_> = entries.iter().enumerate().map(entry).collect();
        ClusterView::new(&keyspace, None, 9, &entries)
    }

    fn said(before: &[(&str, &str)], after: &[(&str, &str)]) -> Vec<String> {
        between(&view(before), &view(after)).into_iter().map(|sentence| sentence.text).collect()
    }

    fn placement_of(generation: u64, shards: &[(&str, u32, u32)]) -> String {
        let shards: Vec<_> =
            shards.iter().map(|(stage, start, end)| json!({"layers": [start, end], "stage": stage})).collect();
        json!({"generation": generation, "shards": shards}).to_string()
    }

    #[test]
    fn a_placement_says_who_takes_what_and_why() {
        let (old, new) = (placement_of(3, &[("a", 0, 2), ("b", 2, 4)]), placement_of(4, &[("a", 0, 4)]));
        let before = [("stages/a", STAGE), ("placement", &old)];
        let after = [("stages/a", STAGE), ("placement", &new)];
        assert_eq!(
            said(&before, &after),
            ["Generation 4 follows 3 because stage b is gone: a takes 0..4 in the place of 0..2, b gives up 2..4."]
        );
        assert_eq!(said(&[], &before)[1], "Generation 3 is the first placement: a takes 0..2, b takes 2..4.");
        let obeyed = r#"{"honoured":true,"pin_revision":7}"#;
        let pinned = [("stages/a", STAGE), ("stages/b", STAGE), ("placement", &new), ("pins-status/a", obeyed)];
        let before = [("stages/a", STAGE), ("stages/b", STAGE), ("placement", &*old)];
        assert_eq!(
            said(&before, &pinned),
            [
                "The plan obeys the pin of stage a.",
                "Generation 4 follows 3 because stage a has another pin: a takes 0..4 in the place of 0..2, b gives \
                 up 2..4.",
            ]
        );
    }

    #[test]
    fn members_pins_and_evictions_are_named() {
        let evicted = r#"{"by":"gateway 0","endpoint":"ipc:///x","cause":"it does not answer"}"#;
        let refused = r#"{"honoured":false,"reason":"the model has layers 0..30","pin_revision":3}"#;
        let before = [("stages/a", STAGE), ("stages/b", STAGE), ("pins/b", r#"{"layers":[]}"#)];
        let after = [
            ("stages/b", STAGE),
            ("stages/c", STAGE),
            ("evictions/a", evicted),
            ("pins/b", r#"{"layers":[0,99]}"#),
            ("pins-status/b", refused),
        ];
        assert_eq!(
            said(&before, &after),
            [
                "Stage c joined: Some chip on mini-1.",
                "Stage a was evicted by gateway 0: it does not answer.",
                "Stage b is pinned to layers 0..99 instead of no layers.",
                "The pin of stage b is refused: the model has layers 0..30.",
            ]
        );
        assert_eq!(
            said(&before[..2], &before[..1]),
            ["Stage b is gone: it renews its lease no more, or its process has ended."]
        );
        assert!(said(&after, &after).is_empty());
    }

    #[test]
    fn many_changes_are_counted_instead_of_named() {
        let names: Vec<_> = (0..20).map(|n| format!("stages/s{n}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), STAGE)).collect();
        assert_eq!(said(&[], &many), ["20 stages joined."]);
        assert_eq!(said(&many, &[]), ["20 stages are gone."]);
        let shards: Vec<_> = (0..20).map(|n| (format!("s{n}"), n, n + 1)).collect();
        let shards: Vec<_> = shards.iter().map(|(stage, start, end)| (stage.as_str(), *start, *end)).collect();
        let placement = placement_of(1, &shards);
        let placed = [&many[..], &[("placement", &placement)]].concat();
        let text = said(&many, &placed).remove(0);
        assert!(text.ends_with("s7 takes 7..8 and 12 more."), "{text}");
    }
}
