//! The doors of baton: the command line for people.

pub mod cli;
pub mod models;
pub mod run;
pub mod settings;
