//! Writes a model file of a real shape with random weights, for speed measurements with weights that exceed the caches.
//!
//! `cargo run --release -p baton-stages --example speed_model -- <shape> <format> <out.gguf> [<vocabulary.gguf>]`
//!
//! Shapes: `llama-3.2-1b`, `qwen3-4b-8-layers` (cut to fit), `smollm2-135m` (the default model's). Formats: the names
//! in README.md, if the rows of the shape are whole blocks of the format. Matrices, embedding table and output head are
//! in this format, norms in F32. The vocabulary is that of the file given last (of the default model, if none is
//! given), lengthened by unused tokens, so that baton and llama.cpp both load the file. The same arguments make the
//! same bytes. The complete file replaces an existing one of its name, and its path is printed. It is never committed.

mod blocks;
#[path = "../../tests/common/mod.rs"]
mod common;
mod shape;
mod vocabulary;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use blocks::Random;
use shape::{Shape, Tensor};
use stages::format::Format;
use stages::gguf::{GgufWriter, TensorSource, WriteError};

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: speed_model <shape> <format> <out.gguf> [<vocabulary.gguf>]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match make(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot make a speed model: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(arguments: &[String]) -> Result<(), Failure> {
    let [shape, format, out, vocabulary @ ..] = arguments else { return Err(USAGE.into()) };
    let (shape, format, out) = (Shape::find(shape)?, find_format(format)?, Path::new(out));
    let vocabulary = match vocabulary {
        [] => common::default_model(),
        [path] => PathBuf::from(path),
        _ => return Err(USAGE.into()),
    };
    let mut file = vocabulary::copy(&vocabulary, shape.vocabulary as usize, shape.describe(GgufWriter::new()))?;
    for (seed, tensor) in (0..).zip(shape.tensors()) {
        file = add(file, &tensor, format, seed)?;
    }
    let unfinished = tempfile::NamedTempFile::new_in(out.parent().unwrap_or(Path::new(".")))?;
    file.write_file(unfinished.path())?;
    unfinished.persist(out)?;
    println!("{}", out.display());
    Ok(())
}

fn find_format(name: &str) -> Result<Format, String> {
    let known = || Format::ALL.map(Format::name).join(", ");
    let found = Format::ALL.into_iter().find(|format| format.name() == name);
    found.ok_or_else(|| format!("expected a format ({}), found {name:?}", known()))
}

fn add(file: GgufWriter, tensor: &Tensor, format: Format, seed: u64) -> Result<GgufWriter, WriteError> {
    let Tensor { name, dims } = tensor;
    if tensor.is_norm() {
        let ones = 1.0_f32.to_le_bytes().repeat(dims[0] as usize);
        return file.tensor(name, dims, Format::F32, ones);
    }
    let (values, inputs) = (dims.iter().product::<u64>() as usize, dims[0] as usize);
    let stream = move |out: &mut dyn std::io::Write| blocks::write(format, values, inputs, &mut Random::new(seed), out);
    file.tensor_from(name, dims, format, TensorSource::Stream(Box::new(stream)))
}
