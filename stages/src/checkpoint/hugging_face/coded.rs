//! Finds the tensors that belong together: those of a quantised matrix, and experts that lie transposed.

use std::collections::HashMap;

use super::family::{ExpertLayout, Family};
use super::files::WeightFile;
use super::quantisation::{MlxMode, Quantisation};
use super::stored::{Coded, EXPERTS_MAX, Form, Stored, StoredPart};
use crate::checkpoint::{OpenError, Piece};
use crate::format::Format;
use crate::repack::Encoding;
use crate::safetensors::Dtype;

/// All tensors of a folder, by their names.
pub(super) struct Grouping<'a> {
    quantisation: &'a Quantisation,
    family: &'a Family,
    all: HashMap<&'a str, StoredPart<'a>>,
}

// === impl Grouping ===

impl<'a> Grouping<'a> {
    pub(super) fn of(quantisation: &'a Quantisation, family: &'a Family, files: &'a [WeightFile]) -> Self {
        let parts = files.iter().enumerate().flat_map(|(number, file)| {
            file.header.tensors.iter().map(move |tensor| StoredPart { number, file, tensor })
        });
        Self { quantisation, family, all: parts.map(|part| (part.tensor.name.as_str(), part)).collect() }
    }

    /// The model's tensor whose values `part` holds. `None` if it belongs to another that is there.
    pub(super) fn tensor(&self, part: StoredPart<'a>) -> Result<Option<Stored<'a>>, OpenError> {
        let name = part.tensor.name.as_str();
        if let Some((main, marks)) = self.main_of(name) {
            if self.all.get(main.as_str()).is_some_and(|main| marks.contains(&main.tensor.dtype)) {
                return Ok(None);
            }
            return Err(part.wrong(format!("{main:?} of {} beside it", marks[0].name()), "none"));
        }
        let (name, form) = match self.coded(part)? {
            Some((name, coded)) => (name, Form::Coded(coded)),
            None => (name.to_owned(), part.floats()?),
        };
        Ok(Some(Stored { name, main: part, form }))
    }

    /// The tensor that the one called `name` belongs to, and the types that mark it.
    fn main_of(&self, name: &str) -> Option<(String, &'static [Dtype])> {
        let (ends, main, marks): (&[&str], &str, &[Dtype]) = match self.quantisation {
            Quantisation::None => return None,
            Quantisation::Mlx(_) => (&[".scales", ".biases"], ".weight", &[Dtype::U32]),
            Quantisation::Fp8 { .. } => (&["_scale_inv"], "", &[Dtype::F8E4M3]),
            Quantisation::Gptq { .. } => (&[".qzeros", ".scales", ".g_idx"], ".qweight", &[Dtype::I32]),
            Quantisation::Awq { .. } => (&[".qzeros", ".scales"], ".qweight", &[Dtype::I32]),
            Quantisation::Mxfp4 => (&["_scales"], "_blocks", &[Dtype::U8]),
        };
        let path = ends.iter().find_map(|end| name.strip_suffix(end))?;
        Some((format!("{path}{main}"), marks))
    }

    /// The name and the form of the matrices that `part` holds in another order. `None` for floats in their places.
    fn coded(&self, part: StoredPart<'a>) -> Result<Option<(String, Coded)>, OpenError> {
        let (name, dtype) = (part.tensor.name.as_str(), part.tensor.dtype);
        let (path, coded) = match self.quantisation {
            Quantisation::Mlx(mlx) if dtype == Dtype::U32 => {
                let Some(path) = name.strip_suffix(".weight") else { return Ok(None) };
                match mlx.mode(path) {
                    Some(MlxMode::Affine { bits, group }) => (path, self.affine(part, path, bits, group)?),
                    Some(MlxMode::Mxfp4) => (path, self.mlx_mxfp4(part, path)?),
                    None => return Err(part.wrong("floats, as the configuration has false for it", dtype.name())),
                }
            }
            Quantisation::Fp8 { block } if dtype == Dtype::F8E4M3 => {
                let Some(path) = name.strip_suffix(".weight") else {
                    return self.fp8(part, *block).map(|c| Some((name.to_owned(), c)));
                };
                (path, self.fp8(part, *block)?)
            }
            Quantisation::Gptq { group, zeros_below } if name.ends_with(".qweight") => {
                let path = name.trim_end_matches(".qweight");
                (path, self.gptq(part, path, *group, *zeros_below)?)
            }
            Quantisation::Awq { group } if name.ends_with(".qweight") => {
                let path = name.trim_end_matches(".qweight");
                (path, self.awq(part, path, *group)?)
            }
            Quantisation::Mxfp4 if name.ends_with("_blocks") => {
                let path = name.trim_end_matches("_blocks");
                return Ok(Some((path.to_owned(), self.mxfp4(part, path)?)));
            }
            _ => return self.transposed(part),
        };
        Ok(Some((format!("{path}.weight"), coded)))
    }

    /// The tensor called `name`, which belongs to `part`, of one of these types, with its shape.
    fn beside(
        &self,
        part: StoredPart<'a>,
        name: &str,
        dtypes: &[Dtype],
        shape: &[u64],
    ) -> Result<StoredPart<'a>, OpenError> {
        let Some(found) = self.all.get(name) else {
            return Err(part.wrong(format!("a tensor {name:?} beside it"), "none"));
        };
        if !dtypes.contains(&found.tensor.dtype) || found.tensor.shape != shape {
            let names = dtypes.iter().map(|dtype| dtype.name()).collect::<Vec<_>>().join(" or ");
            let shown = format!("{} {:?}", found.tensor.dtype.name(), found.tensor.shape);
            return Err(found.wrong(format!("{names} {shape:?}, as {} asks for", part.tensor.name), shown));
        }
        Ok(*found)
    }

    fn affine(&self, part: StoredPart<'a>, path: &str, bits: u32, group: u64) -> Result<Coded, OpenError> {
        let (experts, rows, words) = matrices(part)?;
        let cols = words.saturating_mul(u64::from(32 / bits));
        let groups = whole_groups(part, cols, group)?;
        let shape = shape(experts, [rows, groups]);
        let scales = self.beside(part, &format!("{path}.scales"), FLOATS, &shape)?;
        let biases = self.beside(part, &format!("{path}.biases"), &[scales.tensor.dtype], &shape)?;
        let factors = float(scales)?;
        Ok(Coded {
            encoding: Encoding::Affine { bits, group, factors },
            experts,
            rows,
            cols,
            pieces: pieces(&[part, scales, biases]),
        })
    }

    fn mlx_mxfp4(&self, part: StoredPart<'a>, path: &str) -> Result<Coded, OpenError> {
        let (experts, rows, words) = matrices(part)?;
        let cols = words.saturating_mul(8);
        let groups = whole_groups(part, cols, 32)?;
        let scales = self.beside(part, &format!("{path}.scales"), &[Dtype::U8], &shape(experts, [rows, groups]))?;
        Ok(Coded { encoding: Encoding::Mxfp4, experts, rows, cols, pieces: pieces(&[part, scales]) })
    }

    fn fp8(&self, part: StoredPart<'a>, block: [u64; 2]) -> Result<Coded, OpenError> {
        let (experts, rows, cols) = matrices(part)?;
        let shape = shape(experts, [rows.div_ceil(block[0]), cols.div_ceil(block[1])]);
        let scales = self.beside(part, &format!("{}_scale_inv", part.tensor.name), FLOATS, &shape)?;
        let encoding = Encoding::Fp8 { block, factors: float(scales)? };
        Ok(Coded { encoding, experts, rows, cols, pieces: pieces(&[part, scales]) })
    }

    fn gptq(&self, part: StoredPart<'a>, path: &str, group: Option<u64>, zeros_below: u32) -> Result<Coded, OpenError> {
        let (words, rows) = words(part)?;
        let cols = words.saturating_mul(8);
        let (group, zeros, scales) = self.zeros_and_scales(part, path, group, [rows, cols])?;
        let (mut parts, index) = (vec![part, zeros, scales], &format!("{path}.g_idx"));
        if self.all.contains_key(index.as_str()) {
            let index = self.beside(part, index, &[Dtype::I32], &[cols])?;
            parts.push(index);
        }
        let encoding = Encoding::Gptq { group, zeros_below, factors: float(scales)?, listed: parts.len() > 3 };
        Ok(Coded { encoding, experts: None, rows, cols, pieces: pieces(&parts) })
    }

    fn awq(&self, part: StoredPart<'a>, path: &str, group: Option<u64>) -> Result<Coded, OpenError> {
        let (cols, words) = words(part)?;
        let rows = words.saturating_mul(8);
        let (group, zeros, scales) = self.zeros_and_scales(part, path, group, [rows, cols])?;
        let encoding = Encoding::Awq { group, factors: float(scales)? };
        Ok(Coded { encoding, experts: None, rows, cols, pieces: pieces(&[part, zeros, scales]) })
    }

    /// The group size, the zeros and the scales of a matrix of GPTQ or AWQ.
    fn zeros_and_scales(
        &self,
        part: StoredPart<'a>,
        path: &str,
        group: Option<u64>,
        [rows, cols]: [u64; 2],
    ) -> Result<(u64, StoredPart<'a>, StoredPart<'a>), OpenError> {
        // These tables are read by row, and here its values are no neighbours.
        if path.ends_with("embed_tokens") {
            return Err(part.wrong("an embedding of floats", "a quantised one"));
        }
        if !rows.is_multiple_of(8) {
            return Err(part.wrong("a multiple of 8 outputs", rows.to_string()));
        }
        let group = group.unwrap_or(cols);
        let groups = whole_groups(part, cols, group)?;
        if !group.is_multiple_of(32) {
            return Err(part.wrong("groups of a multiple of 32 values", group.to_string()));
        }
        let zeros = self.beside(part, &format!("{path}.qzeros"), &[Dtype::I32], &[groups, rows / 8])?;
        let scales = self.beside(part, &format!("{path}.scales"), FLOATS, &[groups, rows])?;
        Ok((group, zeros, scales))
    }

    fn mxfp4(&self, part: StoredPart<'a>, path: &str) -> Result<Coded, OpenError> {
        let (experts, rows, groups) = match *part.tensor.shape.as_slice() {
            [experts, rows, groups, 16] if experts <= EXPERTS_MAX as u64 && part.tensor.dtype == Dtype::U8 => {
                (experts, rows, groups)
            }
            _ => {
                return Err(part.wrong(
                    "U8 [experts, rows, groups, 16]",
                    format!("{} {:?}", part.tensor.dtype.name(), part.tensor.shape),
                ));
            }
        };
        let scales = self.beside(part, &format!("{path}_scales"), &[Dtype::U8], &[experts, rows, groups])?;
        let cols = groups.saturating_mul(32);
        Ok(Coded { encoding: Encoding::Mxfp4, experts: Some(experts), rows, cols, pieces: pieces(&[part, scales]) })
    }

    /// Experts whose columns lie one after the other, and what gates and ups in turns share.
    fn transposed(&self, part: StoredPart<'a>) -> Result<Option<(String, Coded)>, OpenError> {
        let name = &part.tensor.name;
        if self.family.experts == ExpertLayout::Rows {
            return Ok(None);
        }
        let Form::Floats(format, shape) = part.floats()? else { return Ok(None) };
        let in_turns = self.family.experts == ExpertLayout::TransposedInTurns;
        let (experts, cols, rows) = match *shape.as_slice() {
            [experts, cols, rows] if name.ends_with("experts.gate_up_proj") || name.ends_with("experts.down_proj") => {
                (experts, cols, rows)
            }
            // One value in each row.
            [experts, rows] if in_turns && name.ends_with("experts.gate_up_proj_bias") => (experts, 1, rows),
            _ => return Ok(None),
        };
        if experts > EXPERTS_MAX as u64 {
            return Err(part.wrong(format!("at most {EXPERTS_MAX} experts"), experts.to_string()));
        }
        let encoding = Encoding::Transposed(format);
        Ok(Some((name.clone(), Coded { encoding, experts: Some(experts), rows, cols, pieces: pieces(&[part]) })))
    }
}

/// Types of scales.
const FLOATS: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::BF16];

fn float(part: StoredPart<'_>) -> Result<Format, OpenError> {
    part.tensor.dtype.format().ok_or_else(|| part.wrong("F32, F16 or BF16", part.tensor.dtype.name()))
}

fn pieces(parts: &[StoredPart<'_>]) -> Vec<Piece> {
    parts.iter().map(StoredPart::piece).collect()
}

/// Experts, rows and columns of stored matrices.
fn matrices(part: StoredPart<'_>) -> Result<(Option<u64>, u64, u64), OpenError> {
    match *part.tensor.shape.as_slice() {
        [rows, cols] => Ok((None, rows, cols)),
        [experts, rows, cols] if experts <= EXPERTS_MAX as u64 => Ok((Some(experts), rows, cols)),
        _ => Err(part.wrong(
            format!("two dimensions, or three of at most {EXPERTS_MAX} experts"),
            format!("{:?}", part.tensor.shape),
        )),
    }
}

/// The two dimensions of a matrix of 32-bit words.
fn words(part: StoredPart<'_>) -> Result<(u64, u64), OpenError> {
    match (part.tensor.dtype, part.tensor.shape.as_slice()) {
        (Dtype::I32, &[high, wide]) => Ok((high, wide)),
        (dtype, shape) => Err(part.wrong("I32 of two dimensions", format!("{} {shape:?}", dtype.name()))),
    }
}

/// Groups of a row of `cols` values.
fn whole_groups(part: StoredPart<'_>, cols: u64, group: u64) -> Result<u64, OpenError> {
    if cols == 0 || group == 0 || !cols.is_multiple_of(group) {
        return Err(part.wrong(format!("rows of whole groups of {group} values"), format!("{cols} values")));
    }
    Ok(cols / group)
}

fn shape(experts: Option<u64>, rows_and_groups: [u64; 2]) -> Vec<u64> {
    experts.into_iter().chain(rows_and_groups).collect()
}
