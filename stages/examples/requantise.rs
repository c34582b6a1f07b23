//! Writes the default model in another format, widened to rows of whole blocks of 256. These are exactly the files that
//! `tests/perplexity_of_formats.rs` reads, so that llama.cpp can read them too (`etc/golden/formats.py`).
//!
//! `cargo run --release -p baton-stages --example requantise -- <format> <out.gguf> [expanded]` prints the SHA-256 of
//! the file. `expanded` writes the values of the format's blocks as 32-bit floats.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/requantise/mod.rs"]
mod requantise;

use std::path::Path;

use requantise::Stored;
use stages::format::Format;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (format, out, stored) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [format, out] => (format, out, Stored::Quantised),
        [format, out, "expanded"] => (format, out, Stored::Expanded),
        _ => return Err("usage: requantise <format> <out.gguf> [expanded]".into()),
    };
    let in_files = || Format::ALL.into_iter().filter(|format| format.ggml().is_some());
    let known = || in_files().map(Format::name).collect::<Vec<_>>().join(", ");
    let format = in_files().find(|known| known.name() == format);
    let format = format.ok_or_else(|| format!("expected a format ({})", known()))?;
    println!("{}", requantise::write(&common::default_model(), format, stored, Path::new(out))?);
    Ok(())
}
