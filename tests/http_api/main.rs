//! The HTTP server on a real socket, with doubles of the pipeline and the text model that do real arithmetic.

mod answers;
mod anthropic;
mod anthropic_tools;
mod api_keys;
mod bench;
mod browsers;
mod client;
mod cluster;
mod connections;
mod disconnects;
mod double;
mod embeddings;
mod fuzz;
mod generation_config;
mod half_characters;
mod live;
mod llama_server;
mod ollama;
mod openapi;
mod prompt_progress;
mod raw_input;
mod refusals;
mod request_templates;
mod responses;
mod streams;
#[cfg(feature = "tls")]
mod tls;
mod token_ids;
mod tools;
mod unread_bodies;
