//! The doors of baton: HTTP for clients, the command line for people, and what puts the crates together.

pub mod bench;
pub mod cli;
pub mod http;
pub mod models;
pub mod run;
pub mod settings;
pub mod text;
