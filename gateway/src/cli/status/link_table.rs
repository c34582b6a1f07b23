//! The table of links between machines. Pure.

use engine::link_lines::LinkLine;

use super::super::output::replace_control_chars;
use super::super::table::Table;

/// The table of links. `None` if no stage has one to another machine.
pub(super) fn render(links: &[LinkLine]) -> Option<String> {
    let mut table = Table::new(&["LINK FROM", "TO", "INTERFACE", "ADDRESS", "RTT", "GBIT/S", "MTU", "USE"]);
    for link in links {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let kind = link.kind.map(|kind| format!(" ({})", format!("{kind:?}").to_lowercase())).unwrap_or_default();
        table.row([
            link.from.clone(),
            replace_control_chars(&link.to),
            or_dash(link.interface.as_deref().map(|name| replace_control_chars(name) + &kind)),
            replace_control_chars(link.address.strip_prefix("tcp://").unwrap_or(&link.address)),
            or_dash(link.rtt_us.map(|us| format!("{:.2} ms", f64::from(us) / 1000.0))),
            or_dash(link.measured_megabits_per_second.or(link.megabits_per_second).map(gigabits)),
            or_dash(link.mtu.map(|bytes| bytes.to_string())),
            link.state.word().to_owned(),
        ]);
    }
    (!links.is_empty()).then(|| table.render())
}

/// Two digits say all that a burst measures.
pub(in crate::cli) fn gigabits(megabits: u32) -> String {
    match megabits {
        ..100 => format!("{:.3}", f64::from(megabits) / 1000.0),
        100..1000 => format!("{:.2}", f64::from(megabits) / 1000.0),
        _ => format!("{:.1}", f64::from(megabits) / 1000.0),
    }
}
