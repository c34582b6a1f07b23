//! Writes the default model in any format, as a file that baton and llama.cpp both read: its weights are expanded to
//! floats, widened so that every row is whole blocks of 256, and quantised again. This is a fixture: simple and
//! repeatable, not the best quality that a format allows.
//!
//! Only exactly rounded operations in a fixed order are used, so the bytes are the same on every machine.

mod codebook;
mod grid;
mod k;
mod own;
mod quantise;
mod search;
mod small;
mod source;
mod ternary;
mod wide;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use source::Source;
use stages::format::Format;
use stages::gguf::{GgufWriter, TensorInfo};
use stages::kernels::dequantise_block_bytes;

/// Storage of the weights in the written file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// In the requested format.
    Quantised,
    /// As 32-bit floats with exactly the values of the format's blocks. A difference that remains between two programs
    /// then does not come from the rounding of activations for that format.
    Expanded,
}

/// Writes the model at `model` to `out` with all matrices in `format`. Returns the SHA-256 of the written file in hex.
///
/// # Errors
/// If `model` is not a GGUF file, or reading or writing a file fails.
pub fn write(model: &Path, format: Format, stored: Stored, out: &Path) -> io::Result<String> {
    let source = Arc::new(Source::read(model)?);
    let mut file = wide::metadata(source.metadata());
    for tensor in source.tensors() {
        file = add(file, &source, tensor, format, stored);
    }
    let mut hashed = Hashed { out: BufWriter::with_capacity(1 << 20, File::create(out)?), digest: Sha256::new() };
    file.write_to(&mut hashed).map_err(io::Error::other)?;
    hashed.out.flush()?;
    Ok(hashed.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn add(file: GgufWriter, source: &Arc<Source>, tensor: &TensorInfo, format: Format, stored: Stored) -> GgufWriter {
    let dims: Vec<u64> = tensor.dims.iter().map(|dim| wide::width(*dim)).collect();
    let is_norm = dims.len() == 1;
    let format = if is_norm { Format::F32 } else { format_for(&tensor.name, format) };
    let written = if stored == Stored::Expanded { Format::F32 } else { format };
    let (source, info, cols) = (source.clone(), tensor.clone(), dims[0] as usize);
    let row = move |index: u64, out: &mut [u8]| {
        let mut values = vec![0.0; cols];
        source.row(&info, index, &mut values);
        if is_norm {
            wide::scale_norm(&mut values, info.cols());
        }
        if written == format {
            return quantise::row(format, &values, out);
        }
        let mut blocks = vec![0; format.row_bytes(cols).expect("rows are whole blocks")];
        quantise::row(format, &values, &mut blocks);
        dequantise_block_bytes(format, &blocks, &mut values);
        quantise::row(written, &values, out);
    };
    let (rows, row_bytes) =
        (dims[1..].iter().product::<u64>(), written.row_bytes(cols).expect("rows are whole blocks"));
    let stream = move |out: &mut dyn Write| {
        let mut bytes = vec![0; row_bytes];
        (0..rows).try_for_each(|index| {
            // Quantisers OR their bits into the buffer.
            bytes.fill(0);
            row(index, &mut bytes);
            out.write_all(&bytes)
        })
    };
    let source = stages::gguf::TensorSource::Stream(Box::new(stream));
    file.tensor_from(&tensor.name, &dims, written, source).expect("the dimensions fit the format")
}

/// The format of a matrix. Two bits per weight in all matrices ruin a model this small (a perplexity of 49,000, worse
/// than guessing). So, as in common files, only the matrices that tolerate it best are in formats of fewer than three
/// bits; and only those of every tenth layer in formats whose values are points of a grid or thirds, which are made for
/// models that were trained for them or for a search with sample texts. The perplexity of a ruined model tells little:
/// its answers hang on the last bits.
fn format_for(name: &str, format: Format) -> Format {
    let tolerates = name.ends_with("ffn_gate.weight") || name.ends_with("ffn_up.weight");
    let few_bits = 8 * format.block_bytes() < 3 * format.block_values();
    let kept = match format {
        Format::Iq1S
        | Format::Iq1M
        | Format::Iq2Xxs
        | Format::Iq2Xs
        | Format::Iq2S
        | Format::Iq3Xxs
        | Format::Iq3S
        | Format::Tq1_0
        | Format::Tq2_0 => tolerates && is_tenth_layer(name),
        _ => tolerates || !few_bits,
    };
    if kept { format } else { Format::Q8_0 }
}

/// True for the tensors of layers 0, 10, 20, and so on.
fn is_tenth_layer(name: &str) -> bool {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()).and_then(|layer| layer.parse().ok());
    layer.is_some_and(|layer: usize| layer.is_multiple_of(10))
}

/// Hashes the bytes that are written through it.
struct Hashed {
    out: BufWriter<File>,
    digest: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
