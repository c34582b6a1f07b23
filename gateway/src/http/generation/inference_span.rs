//! The span of one inference, with names and attributes by OpenTelemetry's conventions for generative AI. It lasts
//! until the sequence below it has ended.

use engine::generate::Failure;
use tracing::field::Empty;
use tracing::{Span, info_span};

use super::choice_decoder::Ended;
use super::options::GenerationOptions;

/// The value of `gen_ai.provider.name`: this program computes the model itself.
const PROVIDER: &str = "baton";

/// A span that is still open.
#[derive(Debug, Clone)]
pub(crate) struct InferenceSpan(Span);

// === impl InferenceSpan ===

impl InferenceSpan {
    /// Opens the span of a chat or of a completion of text by `model`, below the current span.
    pub(crate) fn open(model: &str, options: &GenerationOptions, prompt_tokens: usize, tokens_max: u32) -> Self {
        let operation = if options.answer.is_some() { "chat" } else { "text_completion" };
        Self::of(operation, model, prompt_tokens, Some(tokens_max))
    }

    /// Opens the span of an embedding.
    pub(crate) fn embedding(model: &str, prompt_tokens: usize) -> Self {
        Self::of("embeddings", model, prompt_tokens, None)
    }

    fn of(operation: &'static str, model: &str, prompt_tokens: usize, tokens_max: Option<u32>) -> Self {
        // Signed numbers: attributes of OpenTelemetry spans have no unsigned ones.
        Self(info_span!(
            "inference",
            otel.name = format!("{operation} {model}"),
            otel.kind = "internal",
            otel.status_code = Empty,
            gen_ai.operation.name = operation,
            gen_ai.provider.name = PROVIDER,
            gen_ai.request.model = model,
            gen_ai.request.max_tokens = tokens_max.map(i64::from),
            gen_ai.response.model = model,
            gen_ai.response.finish_reasons = Empty,
            gen_ai.usage.input_tokens = prompt_tokens as i64,
            gen_ai.usage.cache_read.input_tokens = Empty,
            gen_ai.usage.output_tokens = Empty,
            "error.type" = Empty,
        ))
    }

    /// The span itself, in which the sequence is to be started.
    pub(crate) fn span(&self) -> Span {
        self.0.clone()
    }

    /// Records how the inference ended.
    pub(crate) fn ended(&self, tokens: u64, cached_tokens: u32, end: &Result<Ended, Failure>) {
        self.0.record("gen_ai.usage.output_tokens", tokens as i64);
        self.0.record("gen_ai.usage.cache_read.input_tokens", i64::from(cached_tokens));
        match end {
            Ok(ended) => {
                let reason = match ended {
                    Ended::Stop => "stop",
                    Ended::Length => "length",
                    Ended::ToolCalls => "tool_calls",
                };
                self.0.record("gen_ai.response.finish_reasons", reason);
            }
            Err(failure) => {
                let kind = match failure {
                    Failure::Deadline { .. } => "timeout",
                    _ => "server_error",
                };
                self.0.record("otel.status_code", "ERROR");
                self.0.record("error.type", kind);
            }
        }
    }
}
