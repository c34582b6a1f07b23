//! The links between machines of the page: where frames go, and where they could. Pure.

use std::collections::BTreeMap;

use super::super::status::gigabits;
use super::fitted_table::{self, Column, column};
use super::picture::Link;
use super::units::duration;

const COLUMNS: [Column; 8] = [
    column("LINK FROM", 0),
    column("TO", 0),
    column("INTERFACE", 2),
    column("ADDRESS", 3),
    column("RTT", 0),
    column("GBIT/S", 0),
    column("MTU", 4),
    column("USE", 0),
];

/// The first `rows_max` links, by sender, those that are used before the others.
pub(super) fn render(links: &BTreeMap<String, Link>, rows_max: usize, width: usize) -> Vec<String> {
    let mut sorted: Vec<_> = links.values().collect();
    sorted.sort_by_key(|link| link.state != "used");
    let rows: Vec<_> = sorted.into_iter().take(rows_max).map(row).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    fitted_table::render(&COLUMNS, &rows, width)
}

fn row(link: &Link) -> [String; 8] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let kind = link.kind.as_ref().map(|kind| format!(" ({kind})")).unwrap_or_default();
    [
        link.from.clone(),
        link.to.clone(),
        or_dash(link.interface.as_ref().map(|name| name.clone() + &kind)),
        link.address.strip_prefix("tcp://").unwrap_or(&link.address).to_owned(),
        or_dash(link.rtt_us.map(|us| duration(f64::from(us) / 1000.0))),
        or_dash(link.measured_megabits_per_second.or(link.megabits_per_second).map(gigabits)),
        or_dash(link.mtu.map(|bytes| bytes.to_string())),
        link.state.clone(),
    ]
}
