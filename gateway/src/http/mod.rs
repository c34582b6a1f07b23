//! The HTTP API: OpenAI's and Anthropic's endpoints and the cluster's own pages, over the pipelines and text models of
//! one model or several.
//!
//! A request passes `server` (connections, bounded by `admission`, and TLS) → `middleware` (checks of `host` and
//! `origin`, and the headers of every answer) → `auth` (API keys and their limits) → `routes` (the page) → `models`
//! (the model that the body names) → a `Valid…` type read from the body → `generation` (its sequences) → an answer,
//! whole or as a stream of events. This module does not know how tokens are generated, nor how text is split into them.
//! It uses [`engine::generate::Pipeline`] and [`TextModel`] for that.
//!
//! Parameters that a request leaves out have the values that the model's file recommends, if it does, and else those of
//! OpenAI's reference: `temperature` 1, `top_p` 1, `n` 1, and for completions `max_tokens` 16. Without a `seed` each
//! request gets a random one. A chat without `max_tokens` (or `max_completion_tokens`) gets
//! [`Settings::default_max_tokens`], or the rest of the context if that is less. An answer that is cut there ends with
//! the reason `length`. A limit that the request itself sets is bounded by the context only.

mod answer_form;
mod anthropic;
mod app_state;
mod auth;
mod cluster;
mod error;
mod file_watch;
mod generation;
mod index;
mod json_body;
mod limits;
mod live;
mod llama_server;
mod model_alias;
mod models;
mod ollama;
mod openai;
mod page;
mod params;
mod prompt;
mod responses;
mod routes;
mod served_model;
mod server;
mod stop_strings;
mod stream_response;
mod token_options;
mod unsupported;
mod web;

pub use app_state::{AppState, Settings};
pub(crate) use auth::secret_of;
pub use auth::{AccessControl, ApiKeyError, GivenKey, KeyFileError, KeyLimits, KeyName, KeyRing, Limit};
pub use auth::{parse_key, parse_key_file};
pub use cluster::{DrillRunner, PinStore};
pub use file_watch::FileWatch;
pub use generation::generation_config::GenerationConfig;
pub use generation::text_model::{
    AnswerPart, AnswerPlan, AnswerRequest, Conversation, Decoder, EmbeddingModel, FimTokens, Message, ModelDescription,
    PromptEnding, SpecialTokens, TextError, TextForm, TextModel, Tool, ToolCall, ToolChoice,
};
pub(crate) use limits::{
    API_KEYS_MAX, API_SECRET_BYTES_MAX, CONCURRENT_REQUESTS_MAX, FILE_WATCH_INTERVAL, KEY_NAME_BYTES_MAX,
    REQUESTS_PER_MINUTE_MAX,
};
pub(crate) use limits::{DEFAULT_MAX_TOKENS, STORED_RESPONSES_MAX};
pub use live::LiveFeed;
pub use model_alias::{ModelAlias, ModelNameError};
pub use models::{ModelRefused, Models};
pub use served_model::{ModelInfo, ServedModel};
pub use server::allowed::Allowed;
pub use server::host::{AllowedHost, HostError};
pub use server::origin::{AllowedOrigin, OriginError};
pub use server::serve;
pub use server::tls::ServerTls;
pub use server::tls_source::{TlsError, TlsFiles, TlsNames, TlsSource};
