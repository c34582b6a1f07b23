//! The dataflow core: the coordination store, the cluster view, the planner, links, and the run loops of a stage and of
//! a gateway.
//!
//! The files that decide (`view`, `planner`, `decide`, `report`, `stage::member`, `core::conductor`, `core::scheduler`,
//! `core::ledger`) are pure: no tokio, no socket, no clock. This crate knows neither the arithmetic of a layer nor the
//! clients that ask for tokens.

#[cfg(feature = "cluster")]
pub mod core;
#[cfg(feature = "cluster")]
pub mod decide;
#[cfg(feature = "cluster")]
mod epochs;
#[cfg(feature = "cluster")]
pub mod expert_report;
#[cfg(feature = "cluster")]
pub mod generate;
#[cfg(feature = "cluster")]
pub mod limits;
#[cfg(feature = "cluster")]
pub mod link;
#[cfg(feature = "cluster")]
pub mod link_lines;
#[cfg(feature = "cluster")]
pub mod membership;
#[cfg(feature = "cluster")]
pub mod planner;
#[cfg(feature = "cluster")]
pub mod report;
#[cfg(feature = "cluster")]
mod route;
pub mod runner;
#[cfg(feature = "cluster")]
mod share;
#[cfg(feature = "cluster")]
pub mod stage;
#[cfg(feature = "cluster")]
pub mod store;
#[cfg(feature = "cluster")]
pub mod strangers;
#[cfg(feature = "cluster")]
pub mod view;

#[cfg(all(test, feature = "cluster"))]
mod simulator;
#[cfg(all(test, feature = "cluster"))]
mod testing;
