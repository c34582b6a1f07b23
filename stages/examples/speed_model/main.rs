//! Writes a model file of a real shape with random weights, for speed measurements with weights that exceed the caches.
//!
//! `cargo run --release -p baton-stages --example speed_model -- <shape> <format> <out.gguf> [<vocabulary.gguf>]`
//!
//! Shapes: those of `shape.rs`; a name says where a model was cut to fit. Formats: the names in README.md. Matrices,
//! embedding table and output head are in this format, or in Q8_0 where their rows are not whole blocks of it and, as
//! in published files of gpt-oss, beside experts in MXFP4; norms, biases and routers in F32. The vocabulary is that of
//! the file given last (of the default model, if none is given), lengthened by unused tokens, so that baton and
//! llama.cpp both load the file. The same arguments make the same bytes. The complete file replaces an existing one of
//! its name, and its path is printed. It is never committed.

mod blocks;
#[path = "../../tests/common/mod.rs"]
mod common;
mod shape;
mod vocabulary;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use blocks::Random;
use shape::{Shape, Tensor, Values};
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
        file = add(file, tensor, format, seed)?;
    }
    let unfinished = tempfile::NamedTempFile::new_in(out.parent().unwrap_or(Path::new(".")))?;
    file.write_file(unfinished.path())?;
    unfinished.persist(out)?;
    println!("{}", out.display());
    Ok(())
}

fn find_format(name: &str) -> Result<Format, String> {
    let in_files = || Format::ALL.into_iter().filter(|format| format.ggml().is_some());
    let known = || in_files().map(Format::name).collect::<Vec<_>>().join(", ");
    let found = in_files().find(|format| format.name() == name);
    found.ok_or_else(|| format!("expected a format ({}), found {name:?}", known()))
}

fn add(file: GgufWriter, tensor: &Tensor, format: Format, seed: u64) -> Result<GgufWriter, WriteError> {
    let Tensor { name, dims, .. } = tensor;
    let (values, inputs) = (dims.iter().product::<u64>() as usize, dims[0] as usize);
    let constant = match tensor.values {
        Values::Ones => Some(1.0_f32),
        Values::Zeros => Some(0.0),
        Values::Floats | Values::Weights | Values::Experts => None,
    };
    if let Some(constant) = constant {
        return file.tensor(name, dims, Format::F32, constant.to_le_bytes().repeat(values));
    }
    let format = match tensor.values {
        Values::Floats => Format::F32,
        _ if inputs % format.block_values() != 0 => Format::Q8_0,
        Values::Weights if format == Format::Mxfp4 => Format::Q8_0,
        _ => format,
    };
    let stream = move |out: &mut dyn std::io::Write| blocks::write(format, values, inputs, &mut Random::new(seed), out);
    file.tensor_from(name, dims, format, TensorSource::Stream(Box::new(stream)))
}
