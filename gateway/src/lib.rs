//! The doors of baton.
