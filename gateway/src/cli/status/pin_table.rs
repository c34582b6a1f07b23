//! The table of pins and their effect. Pure.

use engine::view::PinReport;

use super::super::table::Table;

/// The table of pins and their effect.
pub(super) fn render(reports: &[PinReport]) -> String {
    let mut table = Table::new(&["PINNED", "TO", "HONOURED", "WHY NOT"]);
    for PinReport { stage, pin, honoured, reason } in reports {
        let honoured = honoured.map_or("-", |honoured| if honoured { "yes" } else { "no" });
        let pin = pin.map_or("?".to_owned(), |pin| pin.to_string());
        table.row([stage.to_string(), pin, honoured.to_owned(), reason.clone().unwrap_or_default()]);
    }
    table.render()
}
