//! The HTTP API: OpenAI's endpoints and the cluster's own pages, over one pipeline and one text model.
//!
//! A request passes `server` (connections, bounded by `admission`) → `middleware` (checks of `host` and `origin`, and
//! the headers of every answer) → `routes` (the page) → a `Valid…` type parsed from the body → `generation` (its
//! sequences) → an answer, whole or as a stream of events. This module does not know how tokens are generated, nor how
//! text is split into them. It uses [`engine::generate::Pipeline`] and [`TextModel`] for that.
//!
//! Parameters that a request leaves out have the values of OpenAI's reference: `temperature` 1, `top_p` 1, `n` 1, and
//! for completions `max_tokens` 16. Without a `seed` each request gets a random one. A chat without `max_tokens` (or
//! `max_completion_tokens`) gets [`Settings::default_max_tokens`], or the rest of the context if that is less. An
//! answer that is cut there ends with the reason `length`. A limit that the request itself sets is bounded by the
//! context only.

mod app_state;
mod cluster;
mod error;
mod generation;
mod index;
mod limits;
mod openai;
mod page;
mod routes;
mod server;

pub use app_state::{AppState, ModelInfo, Settings};
pub use generation::text_model::{Decoder, Message, TextError, TextModel};
pub(crate) use limits::DEFAULT_MAX_TOKENS;
pub use server::host::{AllowedHost, HostError};
pub use server::origin::{AllowedOrigin, OriginError};
pub use server::serve;
