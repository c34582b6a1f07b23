//! The dataflow core: the coordination store, the cluster view, the planner, links, and the two run loops.
//!
//! The files that decide (`view`, `planner`, `decide`, `head::scheduler`, `head::ledger`) are pure: no tokio, no
//! socket, no clock. This crate knows neither what a layer computes nor who asks for tokens.

pub mod decide;
pub mod generate;
pub mod head;
pub mod limits;
pub mod link;
pub mod membership;
pub mod planner;
mod route;
pub mod runner;
pub mod stage;
pub mod store;
pub mod view;

#[cfg(test)]
mod testing;
