//! Services of this machine that keep a part of a cluster running: their files and the commands that start and stop
//! them, for systemd and for launchd. Pure: `baton service` writes the files and runs the commands.

mod launchd;
mod plan;
mod systemd;

pub use plan::{Action, Part, Plan, PlanError, Scope, ServiceManager, ServiceRequest};
