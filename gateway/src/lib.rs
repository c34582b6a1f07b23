//! The user interfaces of baton: HTTP for clients and the command line for people. This crate also puts the other
//! crates together.

pub mod bench;
pub mod chat;
pub mod cli;
pub mod client;
pub mod drill;
mod error_chain;
mod etcd_process;
pub mod grammar;
pub mod http;
mod json_size;
pub mod launchers;
#[cfg(feature = "tls")]
pub mod layers;
pub mod logs;
mod merge_patch;
pub mod models;
mod new_file;
mod placement_plan;
pub mod run;
pub mod running;
pub mod service;
pub mod settings;
#[cfg(feature = "tls")]
pub mod share;
mod signal;
pub mod support;
pub mod text;
pub mod transfer;
