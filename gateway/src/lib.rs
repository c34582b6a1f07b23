//! The doors of baton.

pub mod text;
