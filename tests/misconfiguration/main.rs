//! Ways to set a cluster up wrongly, one per row, with real processes next to a cluster that serves. Each row checks
//! the output of `/health`, `baton status` and `baton doctor`, the exit status of the wrong process, and its last line.
//! The test prints the table at the end, even if all is as expected, and writes it to `misconfiguration.md` in the
//! target folder. `TEST_ROWS` selects the rows whose names contain it.
//!
//! Rows that need machines of their own (`etc/prepare netns`) or root are marked if they are skipped.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod addresses;
mod case;
mod disk;
mod environment;
mod fixture;
mod keys;
mod memory;
mod models;
mod names;
mod network;
mod pins;
mod process;
mod store;
mod table;
mod versions;

use fixture::Fixture;
use table::Table;

#[test]
fn every_mistake_is_reported_and_the_cluster_keeps_serving() {
    let families = [
        keys::cases(),
        names::cases(),
        addresses::cases(),
        models::cases(),
        memory::cases(),
        pins::cases(),
        disk::cases(),
        environment::cases(),
        versions::cases(),
        network::cases(),
        store::cases(),
    ];
    let wanted = wanted_rows();
    let mut fixture = Fixture::new();
    let mut table = Table::default();
    for case in families.iter().flatten().filter(|case| case.name.contains(&wanted)) {
        table.add(case.run(&mut fixture));
    }
    table.show();
    assert!(table.differences().is_empty(), "{}", table.differences().join("\n"));
    fixture.fleet.wait_until_complete();
    fixture.fleet.answers_as_before();
}

/// The fragment of row names that selects the rows. Empty, and so all rows, if the variable is not set.
#[expect(clippy::disallowed_methods, reason = "a switch of a test, no setting of the program")]
fn wanted_rows() -> String {
    std::env::var("TEST_ROWS").unwrap_or_default()
}
