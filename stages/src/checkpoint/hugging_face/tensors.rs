//! The tensors of a folder, described as GGUF's: with its names and the order of its dimensions, in the places where
//! they lie. The matrices of experts, which may be a tensor each, become one tensor in several pieces.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::config::Config;
use super::family::Family;
use super::files::WeightFile;
use super::names::{Place, place};
use crate::checkpoint::{OpenError, Piece, Source, TensorInfo};
use crate::format::Format;
use crate::safetensors::StoredTensor;

/// Highest number of an expert, eight times that of the largest known model.
const EXPERTS_MAX: usize = 4096;
/// The ends of names of vectors that are stored as matrices of one row: the gate of a network beside experts, and in
/// some models the bias for choosing experts.
const SQUEEZED: [&str; 2] = [".ffn_gate_inp_shexp.weight", ".exp_probs_b.bias"];

/// A stored tensor, with the number of its file.
#[derive(Clone, Copy)]
struct Stored<'a> {
    part: usize,
    file: &'a WeightFile,
    tensor: &'a StoredTensor,
}

/// The tensors that a model of `family` has in `files`.
pub(super) fn translate(config: &Config, family: &Family, files: &[WeightFile]) -> Result<Vec<TensorInfo>, OpenError> {
    let layers = config.required(&["num_hidden_layers"])?;
    let further = config.count(&["num_nextn_predict_layers"])?.unwrap_or(0);
    let tied = config.flag("tie_word_embeddings")?;
    let mut found = Found::default();
    for (part, file) in files.iter().enumerate() {
        for tensor in &file.header.tensors {
            let stored = Stored { part, file, tensor };
            let Some(place) = place(family, &tensor.name, layers, further) else {
                let expected = format!("none of this name in a {} model", family.architecture);
                return Err(stored.wrong(expected, "one".to_owned()));
            };
            found.add(stored, place, family, tied == Some(true))?;
        }
    }
    if tied == Some(false) && !found.whole.contains_key(OUTPUT) {
        let expected = "true, or a tensor lm_head.weight".to_owned();
        return Err(config.wrong("tie_word_embeddings", expected, "false without one"));
    }
    found.finish()
}

/// Name of the output head's matrix, which is not read from a folder that ties it to the embedding.
const OUTPUT: &str = "output.weight";

/// Translated tensors, and the experts that are still to be joined.
#[derive(Default)]
struct Found<'a> {
    whole: BTreeMap<String, TensorInfo>,
    order: Vec<String>,
    /// The experts of each tensor that joins them, by number.
    experts: BTreeMap<String, BTreeMap<usize, Stored<'a>>>,
}

// === impl Found ===

impl<'a> Found<'a> {
    fn add(&mut self, stored: Stored<'a>, place: Place, family: &Family, tied: bool) -> Result<(), OpenError> {
        match place {
            Place::LeftOut => Ok(()),
            Place::Whole(name) if name == OUTPUT && tied => Ok(()),
            Place::Whole(name) => {
                let info = stored.whole(name, family)?;
                self.insert(stored, info)
            }
            Place::OfExpert(name, expert) => self.add_expert(stored, name, expert),
            Place::Halves(names) => {
                for (half, name) in (0..).zip(names) {
                    let info = stored.half(name, half)?;
                    self.insert(stored, info)?;
                }
                Ok(())
            }
        }
    }

    fn add_expert(&mut self, stored: Stored<'a>, name: String, expert: usize) -> Result<(), OpenError> {
        if expert >= EXPERTS_MAX {
            return Err(stored.wrong(format!("an expert below {EXPERTS_MAX}"), expert.to_string()));
        }
        let experts = self.experts.entry(name.clone()).or_default();
        if experts.is_empty() {
            self.order.push(name);
        }
        if let Some(first) = experts.values().next() {
            let (expected, own) = (first.tensor, stored.tensor);
            if (expected.dtype, &expected.shape) != (own.dtype, &own.shape) {
                let shown = |tensor: &StoredTensor| format!("{} {:?}", tensor.dtype.name(), tensor.shape);
                return Err(stored.wrong(format!("{}, as {} has", shown(expected), expected.name), shown(own)));
            }
        }
        match experts.insert(expert, stored) {
            Some(other) => Err(stored.wrong("it once".to_owned(), format!("{} as well", other.tensor.name))),
            None => Ok(()),
        }
    }

    fn insert(&mut self, stored: Stored<'a>, info: TensorInfo) -> Result<(), OpenError> {
        let name = info.name.clone();
        if self.whole.insert(name.clone(), info).is_some() {
            return Err(stored.wrong("it once".to_owned(), format!("another tensor that is {name:?}")));
        }
        self.order.push(name);
        Ok(())
    }

    /// All tensors, in the order of the files.
    fn finish(mut self) -> Result<Vec<TensorInfo>, OpenError> {
        for (name, experts) in std::mem::take(&mut self.experts) {
            let Some(first) = experts.values().next().copied() else { continue };
            if let Some((missing, _)) = experts.keys().enumerate().find(|(expected, found)| expected != *found) {
                let expected = format!("{name:?} of expert {missing}, as there is expert {}", experts.len());
                return Err(first.wrong(expected, "none".to_owned()));
            }
            let (format, dims) = first.shape()?;
            let [cols, rows] = *dims.as_slice() else {
                return Err(first.wrong("two dimensions".to_owned(), format!("{:?}", first.tensor.shape)));
            };
            let pieces: Vec<Piece> = experts.values().map(Stored::piece).collect();
            let info = TensorInfo {
                name: name.clone(),
                dims: vec![cols, rows, experts.len() as u64],
                format,
                bytes: pieces.iter().map(|piece| piece.bytes).sum(),
                source: Source::Files(pieces),
                minus_one: false,
            };
            if self.whole.insert(name.clone(), info).is_some() {
                return Err(first.wrong("it once".to_owned(), format!("another tensor that is {name:?}")));
            }
        }
        let Self { mut whole, order, .. } = self;
        Ok(order.iter().filter_map(|name| whole.remove(name)).collect())
    }
}

// === impl Stored ===

impl Stored<'_> {
    fn wrong(&self, expected: String, found: String) -> OpenError {
        let path: PathBuf = self.file.part.path.clone();
        OpenError::Folder { path, field: format!("tensor {:?}", self.tensor.name), expected, found }
    }

    fn piece(&self) -> Piece {
        let range = &self.tensor.range;
        Piece { part: self.part, offset: range.start, bytes: range.end - range.start }
    }

    /// Its format, and its dimensions in ggml's order.
    fn shape(&self) -> Result<(Format, Vec<u64>), OpenError> {
        let Some(format) = self.tensor.dtype.format() else {
            return Err(self.wrong("F32, F16 or BF16".to_owned(), self.tensor.dtype.name().to_owned()));
        };
        if !(1..=4).contains(&self.tensor.shape.len()) {
            return Err(self.wrong("1 to 4 dimensions".to_owned(), format!("{:?}", self.tensor.shape)));
        }
        Ok((format, self.tensor.shape.iter().rev().copied().collect()))
    }

    /// The tensor `name`, which it is.
    fn whole(&self, name: String, family: &Family) -> Result<TensorInfo, OpenError> {
        let (format, mut dims) = self.shape()?;
        if SQUEEZED.iter().any(|end| name.ends_with(end)) {
            dims.retain(|dim| *dim > 1);
            // A single value is a vector of one.
            if dims.is_empty() {
                dims.push(1);
            }
        }
        let minus_one = family.norms_minus_one && name.ends_with("norm.weight");
        let piece = self.piece();
        Ok(TensorInfo { name, dims, format, bytes: piece.bytes, source: Source::Files(vec![piece]), minus_one })
    }

    /// The tensor `name`, which is half number `half` of the rows, or of each expert's rows.
    fn half(&self, name: String, half: u64) -> Result<TensorInfo, OpenError> {
        let (format, dims) = self.shape()?;
        let (cols, rows, experts) = match *dims.as_slice() {
            [cols, rows] => (cols, rows, 1),
            [cols, rows, experts] => (cols, rows, experts),
            _ => return Err(self.wrong("two or three dimensions".to_owned(), format!("{:?}", self.tensor.shape))),
        };
        if !rows.is_multiple_of(2) || experts as usize > EXPERTS_MAX {
            let expected = format!("an even number of rows of at most {EXPERTS_MAX} experts");
            return Err(self.wrong(expected, format!("{:?}", self.tensor.shape)));
        }
        let whole = self.piece();
        let bytes = whole.bytes / experts / 2;
        let piece = |expert: u64| Piece { part: whole.part, offset: whole.offset + (2 * expert + half) * bytes, bytes };
        Ok(TensorInfo {
            name,
            dims: if dims.len() == 2 { vec![cols, rows / 2] } else { vec![cols, rows / 2, experts] },
            format,
            bytes: bytes * experts,
            source: Source::Files((0..experts).map(piece).collect()),
            minus_one: false,
        })
    }
}
