//! The flags of `baton chat`.

use std::path::PathBuf;

use clap::Args;

use super::super::endpoint::EndpointArguments;
use crate::chat::ChatOptions;

/// The arguments of `baton chat`.
#[derive(Debug, Args)]
pub struct ChatArguments {
    /// A message: its answer is printed, and that is all. Standard input is added to it if it is no terminal
    #[arg(value_name = "MESSAGE")]
    pub(super) prompt: Vec<String>,
    #[command(flatten)]
    pub(super) endpoint: EndpointArguments,
    /// The system prompt
    #[arg(long, value_name = "TEXT")]
    pub(super) system: Option<String>,
    /// Go on with a conversation that `/save` wrote
    #[arg(long, value_name = "FILE")]
    pub(super) load: Option<PathBuf>,
    /// Sampling temperature, 0 for the likeliest token each time [default: the endpoint's]
    #[arg(long, value_name = "T", value_parser = temperature)]
    pub(super) temperature: Option<f32>,
    /// Most tokens of an answer [default: the endpoint's]
    #[arg(long, value_name = "TOKENS")]
    pub(super) max_tokens: Option<u32>,
    /// Seed of the sampling [default: the endpoint's]
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
}

fn temperature(text: &str) -> Result<f32, &'static str> {
    let given = text.parse().ok().filter(|given| (0.0..=2.0).contains(given));
    given.ok_or("expected a number from 0 to 2")
}

// === impl ChatArguments ===

impl ChatArguments {
    /// The parameters of the requests.
    pub(super) fn options(&self) -> ChatOptions {
        ChatOptions { temperature: self.temperature, max_tokens: self.max_tokens, seed: self.seed }
    }
}
