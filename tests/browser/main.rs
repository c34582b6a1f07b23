//! The pages for browsers in a real Chromium, in front of a running `baton up`. Each test is one work of `works.mjs`,
//! which says what it checks; every request that goes to another server than baton fails it.
//!
//! Chromium is the system's (`etc/prepare chromium`); Node.js, its driver and axe-core are fetched once, into the
//! target folder, from PyPI and npm.

#[path = "../clients/bounded.rs"]
mod bounded;
#[path = "../common/mod.rs"]
mod common;
mod driver;

use std::time::Duration;

use common::cluster::Cluster;

/// Longest time of a work, on a machine that does other things, too.
const WORK_TIME_MAX: Duration = Duration::from_secs(150);

/// Runs one work of the script on a cluster with this number of stages, and fails with the script's output.
fn run(work: &str, stages: u32, variables: &[(&str, &str)]) {
    let driver = driver::get();
    let cluster = Cluster::start(stages, &[], variables);
    let url = format!("http://{}", cluster.http);
    let mut command = driver.command("works.mjs");
    command.args(["--url", &url, "--browser"]).arg(&driver.browser).arg(work);
    let output = bounded::output(command.env("SECRET", SECRET), WORK_TIME_MAX);
    println!("{}", output.unwrap_or_else(|error| panic!("{work} {error}")));
}

const SECRET: &str = "a-secret-of-the-browser-test";

#[test]
fn the_dashboard_follows_the_cluster_and_writes_pins() {
    run("dashboard", 3, &[("BATON_RESTART", "off")]);
}

#[test]
fn a_drill_is_started_by_its_button_and_says_that_the_text_is_the_same() {
    let variables =
        [("BATON_WEB_DRILL", "on"), ("BATON_ADVERTISE", "127.0.0.1"), ("BATON_CLUSTER_KEY", &"5b".repeat(32))];
    run("drill", 3, &variables);
}

#[test]
fn the_chat_streams_and_takes_answers_for_hostile() {
    run("chat", 2, &[]);
}

#[test]
fn both_pages_are_accessible_and_a_thousand_stages_are_drawn_smoothly() {
    run("shape", 2, &[("BATON_WEB_DRILL", "on")]);
}

#[test]
fn both_pages_ask_for_the_api_key_where_there_is_one() {
    run("key", 1, &[("BATON_API_KEY", SECRET)]);
}
