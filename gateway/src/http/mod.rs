//! The HTTP door: OpenAI's surface and the cluster's own pages, over one pipeline and one text model.
//!
//! A request passes `serve` (connections, bounded by `admission`) → `edge` (checks of `host` and `origin`, and what
//! every answer carries) → `routes` (which noun) → a `Valid…` type parsed from the body → `chorus` (its generations)
//! → an answer whole or as a stream of events. This module does not know how tokens are made nor how text is cut into
//! them: it sees [`engine::generate::Pipeline`] and [`TextModel`].
//!
//! Values a request leaves out are those of OpenAI's reference: `temperature` 1, `top_p` 1, `n` 1, and for completions
//! `max_tokens` 16; without a `seed` each request gets a random one. A chat without `max_tokens` (or
//! `max_completion_tokens`) gets [`Settings::default_max_tokens`], or what the context holds if that is less; an answer
//! that is cut there ends with the reason `length`. What a request asks for itself is bounded by the context only.

mod admission;
mod answer;
mod body;
mod chat;
mod chorus;
mod completions;
mod connection;
mod door;
mod edge;
mod error;
mod fields;
mod gpu_info;
mod health;
mod host;
mod limits;
mod linger;
mod messages;
mod metrics;
mod models;
mod options;
mod origin;
mod prompt;
mod request_body;
mod root;
mod routes;
mod score;
mod serve;
mod speech;
mod status;
mod submit;
mod text;
mod timings;
mod tracked_body;
mod turned_away;
mod unsupported;
mod voice;
mod wire;

pub use door::{Door, ModelInfo, Settings};
pub use host::{AllowedHost, HostError};
pub(crate) use limits::DEFAULT_MAX_TOKENS;
pub use origin::{AllowedOrigin, OriginError};
pub use serve::serve;
pub use text::{Decoder, Message, TextError, TextModel};
