//! `baton plan`: prints the placement that the stages would choose for the cluster as it is, or with a pin that is not
//! written.

use std::fmt::Write as _;

use schema::record::Pin;
use schema::{LayerRange, StageName};

use super::cluster;
use super::exit::{CliError, Exit};
use super::output::{self, bytes, replace_control_chars};
use super::table::Table;
use crate::placement_plan::{Change, PlanDocument, RefusedPin, assume_pin};
use crate::settings::ClusterSettings;

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

// === impl PlanDocument ===

impl PlanDocument {
    /// Prints the plan as JSON or as text.
    pub(super) fn print(&self, json: bool) -> Result<Exit, CliError> {
        let text = if json { output::json(self)? } else { self.render() };
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

#[cfg(test)]
mod tests {
    use schema::record::ClaimState;

    use super::super::status::fixture::view;
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
