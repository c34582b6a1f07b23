//! The table of the speeds that the stages measured. Pure.

use super::super::output::billions;
use super::super::table::Table;
use super::stage_line::StageLine;

/// The table of the speeds that the stages measured. `None` if no stage has measured itself.
pub(super) fn render(stages: &[StageLine]) -> Option<String> {
    let mut table = Table::new(&["STAGE", "WEIGHTS", "READS", "MULTIPLIES"]);
    let measured = stages.iter().flat_map(|stage| stage.speed.iter().flatten().map(|speed| (&stage.stage, speed)));
    let mut any = false;
    for (stage, (format, speed)) in measured {
        any = true;
        let (reads, multiplies) = (billions(speed.bytes_per_second), billions(speed.multiplications_per_second));
        table.row([stage.clone(), format.clone(), format!("{reads} GB/s"), format!("{multiplies} GMAC/s")]);
    }
    any.then(|| table.render())
}
