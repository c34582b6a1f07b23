//! The bounds of a conversation, each with its unit and its reason.

use std::time::Duration;

/// Most bytes of a conversation's file, and of a message: what the gateway takes as the body of a request.
pub const CONVERSATION_BYTES_MAX: u64 = 4 << 20;
/// Timeout for an endpoint's list of models.
pub(super) const MODELS_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout where a model is named, so that the list only says if progress is reported.
pub(super) const NAMED_MODEL_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest silence in a stream: the gateway's own default deadline of a request, because a long prompt on a slow
/// machine sends nothing before its first token.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(600);
