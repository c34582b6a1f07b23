//! The HTTP state: OpenAI's surface and the cluster's own pages, over one pipeline and one text model.
//!
//! A request passes `serve` (connections, bounded by `admission`) → `edge` (checks of `host` and `origin`, and what
//! every answer carries) → `routes` (which noun) → a `Valid…` type parsed from the body → `stream` (its generations)
//! → an answer whole or as a stream of events. This module does not know how tokens are made nor how text is cut into
//! them: it sees [`engine::generate::Pipeline`] and [`TextModel`].
//!
//! Values a request leaves out are those of OpenAI's reference: `temperature` 1, `top_p` 1, `n` 1, and for completions
//! `max_tokens` 16; without a `seed` each request gets a random one. A chat without `max_tokens` (or
//! `max_completion_tokens`) gets [`Settings::default_max_tokens`], or what the context holds if that is less; an answer
//! that is cut there ends with the reason `length`. What a request asks for itself is bounded by the context only.

mod app_state;
mod cluster;
mod error;
mod generation;
mod limits;
mod openai;
mod routes;
mod server;

pub use app_state::{AppState, ModelInfo, Settings};
pub use generation::text_model::{Decoder, Message, TextError, TextModel};
pub(crate) use limits::DEFAULT_MAX_TOKENS;
pub use server::host::{AllowedHost, HostError};
pub use server::origin::{AllowedOrigin, OriginError};
pub use server::serve;
