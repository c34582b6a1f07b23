//! `baton probe`: measures the speed of the kernels on this machine.

use std::num::NonZeroUsize;

use schema::record::Speeds;
use serde::Serialize;
use stages::format::Format;
use stages::kernels::{Isa, ThreadPool};
use stages::probe::measure;

use super::exit::{CliError, Exit};
use super::output::{self, billions};
use super::table::Table;
use crate::settings::ComputeSettings;

/// The document that `baton probe --json` prints.
#[derive(Debug, Serialize)]
struct ProbeDocument {
    /// The processor's model name.
    chip: String,
    /// Threads that computed.
    threads: usize,
    /// The instruction set of the kernels.
    instructions: String,
    /// The measured speeds, by format.
    speed: Speeds,
}

/// Measures the kernels and prints the result.
pub(super) fn run(compute: &ComputeSettings, json: bool) -> Result<Exit, CliError> {
    let pool = ThreadPool::new(NonZeroUsize::new(compute.threads).unwrap_or(NonZeroUsize::MIN));
    let document = ProbeDocument {
        chip: stages::memory::machine().chip,
        threads: pool.threads(),
        instructions: format!("{:?}", Isa::best()).to_lowercase(),
        speed: measure(&pool, &Format::ALL),
    };
    let text = if json {
        format!("{}\n", serde_json::to_string_pretty(&document).map_err(std::io::Error::other)?)
    } else {
        render(&document)
    };
    output::print(&text)?;
    Ok(Exit::Ok)
}

fn render(document: &ProbeDocument) -> String {
    let ProbeDocument { chip, threads, instructions, speed } = document;
    let mut table = Table::new(&["WEIGHTS", "READS", "MULTIPLIES"]);
    // Rows are in the order of the formats, not in alphabetical order.
    let found = Format::ALL.iter().filter_map(|format| speed.get_key_value(format.name()));
    for (format, speed) in found {
        let (reads, multiplies) = (billions(speed.bytes_per_second), billions(speed.multiplications_per_second));
        table.row([format.clone(), format!("{reads} GB/s"), format!("{multiplies} GMAC/s")]);
    }
    let threads = if *threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    format!("{}, {threads}, {instructions}\n\n{}", output::replace_control_chars(chip), table.render())
}

#[cfg(test)]
mod tests {
    use schema::record::FormatSpeed;

    use super::*;

    #[test]
    fn formats_come_in_their_own_order() {
        let speed =
            |bytes_per_second, multiplications_per_second| FormatSpeed { bytes_per_second, multiplications_per_second };
        let speeds = [("Q4_1", speed(9_840_000_000, 141_000_000_000)), ("F32", speed(19_000_000_000, 40_120_000_000))];
        let document = ProbeDocument {
            chip: "chip".to_owned(),
            threads: 2,
            instructions: "avx2".to_owned(),
            speed: speeds.map(|(format, speed)| (format.to_owned(), speed)).into(),
        };
        insta::assert_snapshot!(render(&document), @r"
        chip, 2 threads, avx2

        WEIGHTS  READS      MULTIPLIES
        F32      19.0 GB/s  40.1 GMAC/s
        Q4_1     9.8 GB/s   141.0 GMAC/s
        ");
    }
}
