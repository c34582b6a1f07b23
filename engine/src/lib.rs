//! The dataflow core: the coordination store, the cluster view, the planner, links, and the two run loops.
//!
//! The files that decide (`view`, `planner`, `decide`, `head::scheduler`, `head::ledger`) are pure: no tokio, no
//! socket, no clock. This crate knows neither what a layer computes nor who asks for tokens.

pub mod decide;
pub mod generate;
pub mod head;
pub mod limits;
pub mod planner;
pub mod runner;
pub mod view;

#[cfg(test)]
mod testing;
