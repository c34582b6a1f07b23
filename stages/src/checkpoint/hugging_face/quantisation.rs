//! The quantisation that a configuration names: which of the supported orders weights are stored in, and its sizes.
//!
//! Sources of the facts: MLX's `quantize` and mlx-lm's `load_model`, transformers' `finegrained_fp8` and `mxfp4`
//! integrations, GPTQModel's and AutoAWQ's linear layers.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::config::{Config, shown};
use crate::checkpoint::OpenError;

/// The way in which a folder's weights are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Quantisation {
    /// As floats.
    None,
    /// MLX's.
    Mlx(Mlx),
    /// Floats of 8 bits with a scale for each block of so many rows and columns.
    Fp8 { block: [u64; 2] },
    /// GPTQ's groups of 4 bits. `None`: a row is one group. Stored zeros are so much less than the real ones.
    Gptq { group: Option<u64>, zeros_below: u32 },
    /// AWQ's groups of 4 bits.
    Awq { group: Option<u64> },
    /// Experts as blocks and scales of floats of 4 bits.
    Mxfp4,
}

/// The modes of a folder that MLX wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mlx {
    usual: MlxMode,
    /// Those of single layers, by their paths. `None` for one that is not quantised.
    own: BTreeMap<String, Option<MlxMode>>,
}

/// The form of one quantised matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MlxMode {
    /// Integers of `bits` bits in groups with a scale and a minimum.
    Affine { bits: u32, group: u64 },
    /// Floats of 4 bits in groups of 32.
    Mxfp4,
}

/// Multiple of the groups of GPTQ and AWQ.
const GROUP_STEP: u64 = 32;
/// Multiple of the columns of a block with one scale.
const FP8_COLUMNS_STEP: u64 = 64;
/// The accepted values of `quant_method`, beside MLX's configurations, which have none.
const METHODS: &str = "fp8 with weight_block_size, gptq of 4 bits, awq of 4 bits, mxfp4, or MLX's group_size and bits; \
                       a GGUF file of the model has other kinds";

// === impl Quantisation ===

impl Quantisation {
    /// The quantisation of the model that `config` describes.
    pub(super) fn of(config: &Config) -> Result<Self, OpenError> {
        if let Some(found) = config.get("quantization") {
            return Ok(Self::Mlx(Section::of(config, "quantization", found)?.mlx()?));
        }
        let Some(found) = config.get("quantization_config") else { return Ok(Self::None) };
        let section = Section::of(config, "quantization_config", found)?;
        match section.text("quant_method")? {
            None if section.object.contains_key("group_size") => Ok(Self::Mlx(section.mlx()?)),
            Some("fp8") => section.fp8(),
            Some("gptq") => section.gptq(),
            Some("awq") => section.awq(),
            Some("mxfp4") => Ok(Self::Mxfp4),
            other => Err(section.wrong("quant_method", METHODS, other.unwrap_or("none"))),
        }
    }
}

// === impl Mlx ===

impl Mlx {
    /// The mode of the matrix of the layer at `path`. `None` if the configuration says that it has none.
    pub(super) fn mode(&self, path: &str) -> Option<MlxMode> {
        self.own.get(path).copied().unwrap_or(Some(self.usual))
    }
}

/// An object of the configuration.
struct Section<'a> {
    config: &'a Config,
    name: String,
    object: &'a Map<String, Json>,
}

// === impl Section ===

impl<'a> Section<'a> {
    fn of(config: &'a Config, name: &str, found: &'a Json) -> Result<Self, OpenError> {
        let wrong = || config.wrong(name, "an object".to_owned(), shown(found));
        Ok(Self { config, name: name.to_owned(), object: found.as_object().ok_or_else(wrong)? })
    }

    fn wrong(&self, key: &str, expected: &str, found: impl ToString) -> OpenError {
        self.config.wrong(&format!("{key} of {}", self.name), expected.to_owned(), found)
    }

    fn get(&self, key: &str) -> Option<&'a Json> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn shown(&self, key: &str) -> String {
        self.get(key).map_or("no such key".to_owned(), shown)
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, OpenError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a text", shown(value)))
    }

    /// Refuses a key that is there with another value than `value`.
    fn fixed(&self, key: &str, value: &Json) -> Result<(), OpenError> {
        match self.get(key) {
            Some(found) if found != value => Err(self.wrong(key, &value.to_string(), shown(found))),
            _ => Ok(()),
        }
    }

    fn mlx(&self) -> Result<Mlx, OpenError> {
        let usual = self.mlx_mode()?;
        let mut own = BTreeMap::new();
        for (path, value) in self.object {
            let mode = match value {
                Json::Bool(false) => None,
                Json::Bool(true) => Some(usual),
                Json::Object(object) => {
                    let name = format!("{path:?} of {}", self.name);
                    Some(Section { config: self.config, name, object }.mlx_mode()?)
                }
                _ => continue,
            };
            own.insert(path.clone(), mode);
        }
        Ok(Mlx { usual, own })
    }

    fn mlx_mode(&self) -> Result<MlxMode, OpenError> {
        let number = |key: &str| self.get(key).and_then(Json::as_u64);
        match self.text("mode")?.unwrap_or("affine") {
            "affine" => {
                let Some(bits @ (4 | 8)) = number("bits") else {
                    return Err(self.wrong("bits", "4 or 8", self.shown("bits")));
                };
                let Some(group @ (32 | 64 | 128)) = number("group_size") else {
                    return Err(self.wrong("group_size", "32, 64 or 128", self.shown("group_size")));
                };
                Ok(MlxMode::Affine { bits: bits as u32, group })
            }
            "mxfp4" => {
                self.fixed("bits", &4.into())?;
                self.fixed("group_size", &32.into())?;
                Ok(MlxMode::Mxfp4)
            }
            other => Err(self.wrong("mode", "affine or mxfp4", format!("{other:?}"))),
        }
    }

    fn fp8(&self) -> Result<Quantisation, OpenError> {
        if let Some(other) = self.text("fmt")?.filter(|fmt| *fmt != "e4m3") {
            return Err(self.wrong("fmt", "e4m3", other));
        }
        let block = self.get("weight_block_size");
        let block: Option<[u64; 2]> = block.and_then(|block| serde_json::from_value(block.clone()).ok());
        match block {
            Some(block @ [high, wide]) if high > 0 && wide > 0 && u64::is_multiple_of(wide, FP8_COLUMNS_STEP) => {
                Ok(Quantisation::Fp8 { block })
            }
            _ => {
                let expected = "[rows, columns] of blocks with a scale, the columns a multiple of 64";
                Err(self.wrong("weight_block_size", expected, self.shown("weight_block_size")))
            }
        }
    }

    /// The group size of GPTQ and AWQ, whose bits are checked. `None` for -1, which means whole rows.
    fn group_of_four_bits(&self) -> Result<Option<u64>, OpenError> {
        let bits = self.get("bits").or_else(|| self.get("w_bit"));
        if bits.and_then(Json::as_u64) != Some(4) {
            return Err(self.wrong("bits", "4", bits.map_or("no such key".to_owned(), shown)));
        }
        let size = self.get("group_size").or_else(|| self.get("q_group_size"));
        match size.and_then(Json::as_i64) {
            Some(-1) => Ok(None),
            Some(size) if size > 0 && u64::is_multiple_of(size as u64, GROUP_STEP) => Ok(Some(size as u64)),
            _ => {
                let found = size.map_or("no such key".to_owned(), shown);
                Err(self.wrong("group_size", "-1 or a multiple of 32", found))
            }
        }
    }

    fn gptq(&self) -> Result<Quantisation, OpenError> {
        let group = self.group_of_four_bits()?;
        if let Some(found) = self.get("dynamic").filter(|rules| rules.as_object().is_none_or(|own| !own.is_empty())) {
            return Err(self.wrong("dynamic", "none, as all layers have the same sizes", shown(found)));
        }
        // A group that is a whole row has no order.
        if let (Some(_), Some(Json::Bool(true))) = (group, self.get("desc_act")) {
            let expected = "false, as columns in the order of activations are not supported";
            return Err(self.wrong("desc_act", expected, true));
        }
        let zeros_below = match self.text("checkpoint_format")?.unwrap_or("gptq") {
            "gptq" => 1,
            "gptq_v2" => 0,
            other => return Err(self.wrong("checkpoint_format", "gptq or gptq_v2", format!("{other:?}"))),
        };
        Ok(Quantisation::Gptq { group, zeros_below })
    }

    fn awq(&self) -> Result<Quantisation, OpenError> {
        let group = self.group_of_four_bits()?;
        self.fixed("zero_point", &true.into())?;
        if let Some(other) = self.text("version")?.filter(|version| !version.eq_ignore_ascii_case("gemm")) {
            return Err(self.wrong("version", "gemm", format!("{other:?}")));
        }
        Ok(Quantisation::Awq { group })
    }
}
