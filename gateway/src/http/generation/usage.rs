//! Tokens of a request, counted.

/// Tokens of a request, counted exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Tokens of all prompts, each prompt counted once.
    pub(crate) prompt_tokens: u64,
    /// Prompt tokens that no choice had to compute.
    pub(crate) cached_tokens: u64,
    /// Tokens of all choices, stop tokens included.
    pub(crate) completion_tokens: u64,
    /// Those of them that the choices had when the last text of their reasoning came: the reasoning, and the mark
    /// before it.
    pub(crate) reasoning_tokens: u64,
}
