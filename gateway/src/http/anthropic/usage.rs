//! The `usage` field: tokens of a request.

use serde::Serialize;

use crate::http::generation::usage::Usage;

/// Tokens of a request. The prompt's are the sum of the three `…input_tokens`.
#[derive(Debug, Serialize)]
pub(crate) struct UsageBody {
    /// Tokens of the prompt that were computed.
    input_tokens: u64,
    /// 0: the prefix cache keeps every prompt, and no client pays for it.
    cache_creation_input_tokens: u64,
    /// Tokens of the prompt whose keys and values were in the prefix cache.
    cache_read_input_tokens: u64,
    output_tokens: u64,
    output_tokens_details: OutputTokensDetails,
    /// Null, like the next two: nothing is billed, placed or searched.
    cache_creation: (),
    inference_geo: (),
    server_tool_use: (),
    service_tier: &'static str,
}

#[derive(Debug, Serialize)]
struct OutputTokensDetails {
    /// Tokens of `output_tokens` that were reasoning, its marks included.
    thinking_tokens: u64,
}

// === impl UsageBody ===

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        let cached_tokens = usage.cached_tokens.min(usage.prompt_tokens);
        Self {
            input_tokens: usage.prompt_tokens - cached_tokens,
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: cached_tokens,
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokensDetails { thinking_tokens: usage.reasoning_tokens },
            cache_creation: (),
            inference_geo: (),
            server_tool_use: (),
            service_tier: "standard",
        }
    }
}
