//! Ways to set a cluster up wrongly, one a row, with real processes beside a cluster that serves: what `/health`,
//! `baton status` and `baton doctor` show, how the process that is wrong ends, and what its last line says. The
//! table is printed at the end, also when all is as expected, and kept as `misconfiguration.md` in the folder of
//! builds. `TEST_ROWS` names a part of the rows.
//!
//! Rows that need machines of their own (`etc/prepare netns`) or root say so where they are left out.
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
fn every_mistake_is_named_where_people_look_and_nobody_else_stops_serving() {
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
        table.add(case.hold(&mut fixture));
    }
    table.show();
    assert!(table.differences().is_empty(), "{}", table.differences().join("\n"));
    fixture.fleet.whole();
    fixture.fleet.answers_as_before();
}

/// A part of the names of the rows to hold; all where nothing is said.
#[expect(clippy::disallowed_methods, reason = "who mends one row need not wait for all")]
fn wanted_rows() -> String {
    std::env::var("TEST_ROWS").unwrap_or_default()
}
