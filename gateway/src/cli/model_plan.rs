//! `baton plan MODEL`: a model by its header, and what each machine would hold of it.

use std::fmt::Write as _;
use std::num::NonZeroUsize;

use engine::planner::{NoPlan, Proposal};
use engine::view::ClusterView;
use schema::record::ModelRecord;
use schema::{LayerRange, StageName};
use serde::Serialize;
use stages::format::Format;
use stages::kernels::ThreadPool;
use stages::probe::measure;

use super::described::{Described, Figures};
use super::exit::{CliError, Exit};
use super::fit;
use super::model::short;
use super::output::{self, bytes, replace_control_chars};
use super::table::Table;
use crate::models::Cache;
use crate::placement_plan::{ExpectedSpeed, expected_speed};
use crate::settings::{ClusterSettings, ComputeSettings, ModelSettings};

/// A model and its plan, for text and for `--json`.
#[derive(Debug, PartialEq, Serialize)]
struct ModelPlan {
    model: String,
    /// The architecture, as the file names it.
    family: String,
    /// Number of parameters.
    parameters: u64,
    /// Number of those that are multiplied with for a token.
    active_parameters: u64,
    /// Longest sequence that it was trained for, in tokens. `None` for a model whose header is not here.
    context_tokens: Option<u32>,
    /// True if no header was to be had, so that the catalogue's figures count.
    by_catalogue: bool,
    /// The place that the figures are from.
    figures: Figures,
    /// Bytes of each layer, in order.
    layers: Vec<LayerBytes>,
    /// Bytes of the head. 0 if they are counted with the layers.
    head_bytes: u64,
    /// Tokens for whose keys and values there is room.
    kv_tokens: u32,
    /// True if that is what the smallest of the stages can hold, and changes with them.
    follows_memory: bool,
    /// True if the stages are a cluster's, false if they are this machine.
    cluster: bool,
    /// The stages that would hold layers, in their order.
    stages: Vec<Holder>,
    /// The reason that there is no plan, and what would help.
    reason: Option<String>,
    /// Expected speed. `None` without a plan, or if a stage has not measured itself.
    expected: Option<ExpectedSpeed>,
}

/// The sizes of one layer, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct LayerBytes {
    weights: u64,
    read_per_token: u64,
    kv_per_token: u64,
    /// Bytes of keys and values in all, for the room that there is.
    kv_bytes: u64,
    /// Tokens that a row attends to, if these are the last ones.
    window: Option<u32>,
    format: Option<String>,
}

/// The part of the model that one stage would hold.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Holder {
    stage: StageName,
    host: String,
    layers: LayerRange,
    weights_bytes: u64,
    kv_bytes: u64,
    scratch_bytes: u64,
    budget_bytes: u64,
}

/// Plans `model` for the cluster, or for this machine if no cluster answers, and prints the plan.
pub(super) async fn run(
    model: &str,
    cache: &Cache,
    cluster: &ClusterSettings,
    compute: &ComputeSettings,
    settings: &ModelSettings,
    json: bool,
) -> Result<Exit, CliError> {
    let described = Described::new(model, cache, settings)?;
    let view = fit::reachable(cluster).await;
    let (is_cluster, view) = match view {
        Some(view) => (true, view),
        None => (false, fit::this_machine(compute, speeds(&described.record, compute))),
    };
    let plan = ModelPlan::new(described, &view, is_cluster);
    let text = if json { output::json(&plan)? } else { plan.render() };
    output::print(&text)?;
    Ok(Exit::Ok)
}

/// This machine's speeds with the formats of `model`.
fn speeds(model: &ModelRecord, compute: &ComputeSettings) -> schema::record::Speeds {
    let named = model.layer_formats.iter().chain(&model.layer_format).chain(&model.head_format);
    let named: Vec<&String> = named.collect();
    let formats: Vec<Format> =
        Format::ALL.into_iter().filter(|format| named.iter().any(|name| *name == format.name())).collect();
    let pool = ThreadPool::new(NonZeroUsize::new(compute.threads).unwrap_or(NonZeroUsize::MIN));
    measure(&pool, &formats)
}

// === impl ModelPlan ===

impl ModelPlan {
    /// The plan of `described` on the stages of `view`, whatever they serve now.
    fn new(described: Described, view: &ClusterView, cluster: bool) -> Self {
        let record = &described.record;
        let by_catalogue = matches!(described.figures, Figures::Catalogue { .. });
        let Proposal { shards, kv_tokens, .. } = Proposal::new(view, record, true);
        let model = &record.with_room(kv_tokens.unwrap_or(record.kv_tokens));
        let reason = |error: String| NoPlan::find(view, record).map_or(error, |no_plan| no_plan.to_string());
        let (shards, reason) = match shards {
            Ok(shards) => (shards, None),
            Err(error) => (Vec::new(), Some(reason(error.to_string()))),
        };
        let holder = |shard: &schema::record::Shard| {
            let stage = &view.stages.get(&shard.stage)?.value;
            let held = model.shard_bytes(shard.layers);
            Some(Holder {
                stage: shard.stage.clone(),
                host: stage.host.clone(),
                layers: shard.layers,
                weights_bytes: held.weights,
                kv_bytes: held.kv,
                scratch_bytes: held.scratch,
                budget_bytes: stage.memory_budget_bytes,
            })
        };
        let layer = |layer| {
            let cost = model.layer(layer);
            LayerBytes {
                weights: cost.weights,
                read_per_token: cost.read_per_token,
                kv_per_token: cost.kv_per_token,
                kv_bytes: cost.kv_bytes(),
                window: model.layer_windows.get(layer as usize).copied().filter(|window| *window > 0),
                format: cost.format.map(str::to_owned),
            }
        };
        Self {
            model: model.name.clone(),
            family: model.architecture.clone(),
            parameters: described.parameters,
            active_parameters: described.active,
            context_tokens: Some(model.context_tokens).filter(|_| !by_catalogue),
            by_catalogue,
            figures: described.figures,
            layers: (0..model.layers).map(layer).collect(),
            head_bytes: model.head_bytes,
            kv_tokens: model.kv_tokens,
            follows_memory: model.kv_growth.is_some(),
            cluster,
            stages: shards.iter().filter_map(holder).collect(),
            reason,
            expected: expected_speed(view, model, &shards),
        }
    }

    /// The plan as text for people.
    fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let mut line = |content: String| writeln!(text, "{content}").unwrap_or_default();
        let context = self.context_tokens.map(|tokens| format!(", trained for {tokens} tokens")).unwrap_or_default();
        line(format!(
            "{}: {}, {} parameters, {} of them for a token{context}",
            replace_control_chars(&self.model),
            replace_control_chars(&self.family),
            short(self.parameters),
            short(self.active_parameters)
        ));
        match &self.figures {
            Figures::File => {}
            Figures::RemoteHeader { source, fetched_bytes } => {
                line(format!(
                    "its file is not here: {} of it were read, the header, from {source}",
                    bytes(*fetched_bytes)
                ));
            }
            Figures::Catalogue { .. } => {
                line("its file is not here: the figures are the catalogue's, with equal layers".to_owned());
                line("(its header cannot be read either: --json tells why)".to_owned());
            }
        }
        line(format!("\n{}", self.layer_table().trim_end()));
        match &self.reason {
            Some(reason) => line(format!("\nno plan: {}", replace_control_chars(reason))),
            None => line(format!("\n{}", self.stage_table().trim_end())),
        }
        match self.expected {
            Some(expected) => line(format!(
                "\nexpected tokens per second: one stream {:.1}, many {:.1}",
                expected.one_stream, expected.many_streams
            )),
            None if self.reason.is_none() => {
                line("\nexpected tokens per second: unknown, as not every stage has measured these formats".to_owned());
            }
            None => {}
        }
        let what = if self.cluster { "the cluster's stages" } else { "this machine alone: no cluster answers" };
        let rule = if self.follows_memory { ", as many as the smallest stage can hold" } else { "" };
        line(format!("\nfor {what}, with keys and values of {} tokens{rule}", self.kv_tokens));
        text
    }

    /// The layers, with neighbours that are alike in one row.
    fn layer_table(&self) -> String {
        let mut table =
            Table::new(&["LAYERS", "EACH", "READ FOR A TOKEN", "KEYS+VALUES A TOKEN", "IN ALL", "WINDOW", "WEIGHTS"]);
        let mut start = 0;
        for alike in self.layers.chunk_by(|a, b| a == b) {
            let end = start + alike.len();
            let LayerBytes { weights, read_per_token, kv_per_token, kv_bytes, window, format } = &alike[0];
            let window = window.map_or("-".to_owned(), |window| window.to_string());
            let format = format.clone().unwrap_or("-".to_owned());
            let cells = [*weights, *read_per_token, *kv_per_token, *kv_bytes].map(bytes);
            let [weights, read, kv, kv_bytes] = cells;
            table.row([format!("{start}..{end}"), weights, read, kv, kv_bytes, window, format]);
            start = end;
        }
        if self.head_bytes > 0 {
            let (head, none) = (bytes(self.head_bytes), "-".to_owned());
            table.row(["head".to_owned(), head.clone(), head, none.clone(), none.clone(), none.clone(), none]);
        }
        let sum = |of: fn(&LayerBytes) -> u64| self.layers.iter().map(of).fold(0, u64::saturating_add);
        let weights = sum(|layer| layer.weights).saturating_add(self.head_bytes);
        let read = sum(|layer| layer.read_per_token).saturating_add(self.head_bytes);
        let kv = sum(|layer| layer.kv_per_token);
        let kv_bytes = sum(|layer| layer.kv_bytes);
        let none = String::new();
        table.row(["all".to_owned(), bytes(weights), bytes(read), bytes(kv), bytes(kv_bytes), none.clone(), none]);
        table.render()
    }

    fn stage_table(&self) -> String {
        let mut table = Table::new(&["STAGE", "HOST", "LAYERS", "WEIGHTS", "KEYS+VALUES", "NEEDS", "MAY USE"]);
        for holder in &self.stages {
            let needs = holder.weights_bytes.saturating_add(holder.kv_bytes).saturating_add(holder.scratch_bytes);
            table.row([
                holder.stage.to_string(),
                holder.host.clone(),
                holder.layers.to_string(),
                bytes(holder.weights_bytes),
                bytes(holder.kv_bytes),
                bytes(needs),
                bytes(holder.budget_bytes),
            ]);
        }
        table.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::catalogue;

    fn plan(name: &str, gigabytes: u64) -> ModelPlan {
        let entry = catalogue().iter().find(|entry| entry.name == name).unwrap();
        let described = Described::of_entry(entry, &fit::tests::settings(), "offline".to_owned());
        ModelPlan::new(described, &fit::tests::machine(gigabytes), false)
    }

    #[test]
    fn a_model_that_fits_has_a_plan_for_this_machine() {
        let plan = plan("qwen3-14b", 16);
        assert_eq!(plan.stages.len(), 1);
        let holder = &plan.stages[0];
        assert_eq!((holder.layers.to_string().as_str(), holder.kv_bytes), ("0..40", 163_840 * 8192));
        let text = plan.render();
        for part in [
            "qwen3-14b: qwen3, 14.8B parameters, 14.8B of them for a token\n",
            "the figures are the catalogue's, with equal layers\n(its header cannot be read either: --json tells",
            "LAYERS  EACH       READ FOR A TOKEN  KEYS+VALUES A TOKEN  IN ALL    WINDOW  WEIGHTS\n",
            "0..40   214.6 MiB  214.6 MiB         4.0 KiB              32.0 MiB  -       Q4_K\n",
            "all     8.4 GiB    8.4 GiB           160.0 KiB            1.2 GiB\n",
            "this-machine",
            "for this machine alone: no cluster answers, with keys and values of 8192 tokens\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn a_model_that_does_not_fit_says_what_is_missing() {
        let plan = plan("qwen3-14b", 8);
        assert!(plan.stages.is_empty() && plan.expected.is_none());
        let text = plan.render();
        assert!(text.contains("\nno plan: the model needs 9.8 GiB ") && text.contains("1.8 GiB are missing"), "{text}");
    }

    #[test]
    fn a_mixture_tells_its_active_parameters() {
        let text = plan("qwen3-30b-a3b", 32).render();
        assert!(text.contains("qwen3moe, 30.5B parameters, 3.3B of them for a token"), "{text}");
    }
}
