//! The doors of baton.

pub mod http;
