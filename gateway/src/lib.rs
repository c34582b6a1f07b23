//! The doors of baton.

pub mod models;
