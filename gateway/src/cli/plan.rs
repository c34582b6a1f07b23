//! `baton plan`: the placement that the stages would choose for the cluster as it is, or with a pin that is not
//! written.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use engine::planner::{NoPlan, Proposal, ROWS, has_measured, in_order, interval_ps, times_ps};
use engine::view::{ClusterView, Versioned};
use schema::record::{ModelRecord, Pin, PinStatus, Placement, Shard, StageRecord};
use schema::{LayerRange, StageName};
use serde::Serialize;

use super::cluster;
use super::exit::{CliError, Exit};
use super::output::{self, bytes, replace_control_chars};
use super::table::Table;
use crate::settings::ClusterSettings;

/// The plan of the stages, for text and for `--json`.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct PlanDocument {
    /// The number of the newest placement.
    generation: Option<u64>,
    /// True if the stages would write another placement.
    moves: bool,
    /// The reason that there is no plan.
    reason: Option<String>,
    /// The stages in the plan's order, then the stages without layers in the plan.
    stages: Vec<Change>,
    /// Expected speed of the current placement.
    before: Option<ExpectedSpeed>,
    /// Expected speed of the plan.
    after: Option<ExpectedSpeed>,
    /// Pins that would have no effect, with the reason of each.
    pub(super) refused_pins: Vec<RefusedPin>,
}

/// The layers that a stage holds now and in the plan.
#[derive(Debug, PartialEq, Serialize)]
struct Change {
    stage: StageName,
    before: Option<LayerRange>,
    after: Option<LayerRange>,
    /// Weights that the stage would have to load, in bytes.
    load_bytes: u64,
}

/// Expected tokens per second, from the times that the stages measured for their weights and links. Attention and
/// sampling are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct ExpectedSpeed {
    /// Tokens per second of a single stream, which passes through all stages in turn.
    pub(super) one_stream: f64,
    /// Tokens per second of many streams, with a micro-batch of 8 rows on each stage.
    pub(super) many_streams: f64,
}

/// A pin that would have no effect.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct RefusedPin {
    pub(super) stage: StageName,
    pub(super) reason: String,
}

/// Reads the cluster and prints the plan. The pin `hypothetical` replaces the stage's own pin.
pub(super) async fn run(
    settings: &ClusterSettings,
    hypothetical: Option<(StageName, Pin)>,
    json: bool,
) -> Result<Exit, CliError> {
    let mut view = cluster::read_once(settings).await?;
    if let Some((stage, pin)) = hypothetical {
        assume_pin(&mut view, &stage, Some(pin));
    }
    PlanDocument::new(&view).print(json)
}

/// Replaces a stage's pin in the view with `pin`, as the newest pin, or removes it (`None`).
pub(super) fn assume_pin(view: &mut ClusterView, stage: &StageName, pin: Option<Pin>) {
    view.pins.remove(stage);
    view.unreadable_pins.remove(stage);
    let newest = view.revision + 1;
    view.pins.extend(pin.map(|value| (stage.clone(), Versioned { value, mod_revision: newest })));
}

// === impl PlanDocument ===

impl PlanDocument {
    /// The plan of the stages for `view`.
    pub(super) fn new(view: &ClusterView) -> Self {
        let placement = view.placement.as_ref().map(|placement| &placement.value);
        let current = placement.map(Placement::shards).unwrap_or_default();
        let mut document = Self {
            generation: placement.map(|placement| placement.generation().0),
            moves: false,
            reason: None,
            stages: Vec::new(),
            before: None,
            after: None,
            refused_pins: Vec::new(),
        };
        let Some(model) = view.model.as_ref().map(|model| &model.value) else {
            return Self { reason: Some("the cluster has no model yet".to_owned()), ..document };
        };
        let proposal = Proposal::new(view, model, true);
        let refused =
            |(stage, status): (StageName, PinStatus)| status.reason.map(|reason| RefusedPin { stage, reason });
        document.refused_pins = proposal.pins.into_iter().filter_map(refused).collect();
        document.before = expected_speed(view, model, current);
        let wanted = match proposal.shards {
            Ok(wanted) => wanted,
            Err(error) => {
                let no_plan = NoPlan::find(view, model);
                document.reason = Some(no_plan.map_or_else(|| error.to_string(), |no_plan| no_plan.to_string()));
                current.to_vec()
            }
        };
        document.moves = wanted != current;
        document.after = expected_speed(view, model, &wanted);
        document.stages = changes(view, model, current, &wanted);
        document
    }

    /// Prints the plan as JSON or as text.
    pub(super) fn print(&self, json: bool) -> Result<Exit, CliError> {
        let text = if json {
            format!("{}\n", serde_json::to_string_pretty(self).map_err(std::io::Error::other)?)
        } else {
            self.render()
        };
        output::print(&text)?;
        Ok(Exit::Ok)
    }

    /// The plan as text for people.
    fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let mut line = |content: String| writeln!(text, "{content}").unwrap_or_default();
        match (&self.reason, self.moves, self.generation) {
            (Some(reason), ..) => line(format!("no plan: {}", replace_control_chars(reason))),
            (None, true, Some(generation)) => line(format!("generation {} follows {generation}:", generation + 1)),
            (None, true, None) => line("the first placement:".to_owned()),
            (None, false, generation) => line(format!("generation {} stands: nothing moves", generation.unwrap_or(0))),
        }
        let mut table = Table::new(&["STAGE", "NOW", "THEN", "LOADS"]);
        for Change { stage, before, after, load_bytes } in &self.stages {
            let range = |layers: &Option<LayerRange>| layers.map_or("-".to_owned(), |layers| layers.to_string());
            let loads = if *load_bytes > 0 { bytes(*load_bytes) } else { "-".to_owned() };
            table.row([stage.to_string(), range(before), range(after), loads]);
        }
        if !self.stages.is_empty() {
            line(format!("\n{}", table.render().trim_end()));
        }
        match (self.before, self.after) {
            (Some(before), Some(after)) if self.moves => line(format!(
                "\nexpected tokens per second: one stream {:.1} -> {:.1}, many {:.1} -> {:.1}",
                before.one_stream, after.one_stream, before.many_streams, after.many_streams
            )),
            (_, Some(after)) => line(format!(
                "\nexpected tokens per second: one stream {:.1}, many {:.1}",
                after.one_stream, after.many_streams
            )),
            (_, None) => {
                line("\nexpected tokens per second: unknown until the stages have measured themselves".to_owned());
            }
        }
        for RefusedPin { stage, reason } in &self.refused_pins {
            line(format!("the pin of {stage} changes nothing: {}", replace_control_chars(reason)));
        }
        text
    }
}

/// The layers that each stage holds now and in the plan.
fn changes(view: &ClusterView, model: &ModelRecord, current: &[Shard], wanted: &[Shard]) -> Vec<Change> {
    let held = |shards: &[Shard], stage: &StageName| {
        shards.iter().find(|shard| shard.stage == *stage).map(|shard| shard.layers)
    };
    let placed = wanted.iter().chain(current).map(|shard| &shard.stage);
    let mut seen = BTreeSet::new();
    let names = placed.chain(view.stages.keys()).filter(|stage| seen.insert(*stage));
    let change = |stage: &StageName| {
        let (before, after) = (held(current, stage), held(wanted, stage));
        let load_bytes = after.map_or(0, |after| new_bytes(model, before, after));
        Change { stage: stage.clone(), before, after, load_bytes }
    };
    names.map(change).collect()
}

/// Bytes of the weights in `after` that are not in `before`.
fn new_bytes(model: &ModelRecord, before: Option<LayerRange>, after: LayerRange) -> u64 {
    let layers = (after.start()..after.end()).filter(|layer| before.is_none_or(|before| !before.contains(*layer)));
    let one = |layer: u32| LayerRange::new(layer, layer + 1).map_or(0, |layer| model.shard_bytes(layer).weights);
    layers.map(one).fold(0, u64::saturating_add)
}

/// Expected speed of a placement. `None` if it is empty or one of its stages has not measured itself.
pub(super) fn expected_speed(view: &ClusterView, model: &ModelRecord, shards: &[Shard]) -> Option<ExpectedSpeed> {
    let measured =
        |shard: &Shard| view.stages.get(&shard.stage).is_some_and(|stage| has_measured(model, &stage.value.speed));
    if shards.is_empty() || !shards.iter().all(measured) {
        return None;
    }
    let stages = in_order(view.stages.iter().map(|(name, stage)| (name, &stage.value)), shards);
    let seconds = |rows| times_ps(model, &stages, shards, rows).into_iter().map(|time_ps| time_ps as f64 / 1e12);
    let links: f64 = shards.iter().filter_map(|shard| view.stages.get(&shard.stage)).map(link_seconds).sum();
    let one_stream = 1.0 / (seconds(1).sum::<f64>() + links);
    let many_streams = ROWS as f64 * 1e12 / interval_ps(model, &stages, shards) as f64;
    // A model record without weights gives infinite speeds, which are not shown.
    (one_stream.is_finite() && many_streams.is_finite()).then_some(ExpectedSpeed { one_stream, many_streams })
}

fn link_seconds(stage: &Versioned<StageRecord>) -> f64 {
    f64::from(stage.value.link_us) / 1e6
}

#[cfg(test)]
mod tests {
    use schema::record::ClaimState;

    use super::super::status::tests::view;
    use super::*;

    #[test]
    fn a_plan_shows_the_moving_layers_and_the_bytes_to_load() {
        let mut view = view(Some(ClaimState::Serving), None);
        assume_pin(&mut view, &"left".parse().unwrap(), Some(Pin::Layers(LayerRange::new(0, 4).unwrap())));
        insta::assert_snapshot!(PlanDocument::new(&view).render(), @r"
        generation 4 follows 3:

        STAGE  NOW     THEN    LOADS
        left   0..16   0..4    -
        right  16..30  4..17   12 B
        spare  -       17..30  14 B

        expected tokens per second: unknown until the stages have measured themselves
        ");
        assume_pin(&mut view, &"left".parse().unwrap(), Some(Pin::Layers(LayerRange::new(0, 99).unwrap())));
        insta::assert_snapshot!(PlanDocument::new(&view).render(), @r"
        generation 4 follows 3:

        STAGE  NOW     THEN    LOADS
        left   0..16   0..10   -
        right  16..30  10..20  6 B
        spare  -       20..30  11 B

        expected tokens per second: unknown until the stages have measured themselves
        the pin of left changes nothing: stage left is to hold layers 0..99: the model has layers 0..30
        ");
    }
}
