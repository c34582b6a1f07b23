//! The rotary embedding of a configuration: under `rope_parameters` in newer ones, under `rope_theta` and
//! `rope_scaling` in older ones.

use serde_json::{Map, Value as Json};

use super::config::{Config, shown};
use super::gemma4;
use super::metadata::Entries;
use crate::checkpoint::{OpenError, Source, TensorInfo};
use crate::format::Format;

/// A rotary embedding's base and scaling.
pub(super) struct RopeParameters<'a> {
    config: &'a Config,
    /// Base of the frequencies, if the configuration names one.
    pub(super) theta: Option<f64>,
    kind: &'a str,
    scaling: Option<&'a Map<String, Json>>,
}

/// Widest head that factors are made for: twice that of any known model.
const HEAD_MAX: u32 = 1024;
/// Name of the tensor of divisors, in files whose context is stretched by Llama 3's method.
const FACTORS: &str = "rope_freqs.weight";

// === impl RopeParameters ===

impl<'a> RopeParameters<'a> {
    /// The rotary embedding of layers of `kind` (`full_attention` or `sliding_attention`), or of all layers in a
    /// configuration that has one only.
    pub(super) fn of(config: &'a Config, kind: &str) -> Result<Self, OpenError> {
        let (key, scaling) = match (config.get("rope_parameters"), config.get("rope_scaling")) {
            (Some(found), _) => {
                ("rope_parameters", Some(found.get(kind).filter(|own| own.is_object()).unwrap_or(found)))
            }
            (None, found) => ("rope_scaling", found),
        };
        let object =
            |value: &'a Json| value.as_object().ok_or_else(|| config.wrong(key, "an object".to_owned(), shown(value)));
        let scaling = scaling.map(object).transpose()?;
        let own = |key: &str| scaling.and_then(|own| own.get(key)).filter(|value| !value.is_null());
        let theta = match own("rope_theta").or_else(|| config.get("rope_theta")) {
            Some(theta) => Some(config.finite("rope_theta", theta)?),
            None => None,
        };
        let kind = match own("rope_type").or_else(|| own("type")) {
            None => "default",
            Some(kind) => kind.as_str().ok_or_else(|| config.wrong(key, "a text as type".to_owned(), shown(kind)))?,
        };
        Ok(Self { config, theta, kind, scaling })
    }

    /// The number under `key` of its own object.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, OpenError> {
        let found = self.scaling.and_then(|own| own.get(key)).filter(|value| !value.is_null());
        found.map(|value| self.config.finite(key, value)).transpose()
    }

    /// The flag under `key` of its own object.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, OpenError> {
        let Some(found) = self.scaling.and_then(|own| own.get(key)).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        found.as_bool().map(Some).ok_or_else(|| self.config.wrong(key, "true or false".to_owned(), shown(found)))
    }

    fn required(&self, key: &str) -> Result<f64, OpenError> {
        let absent = || self.config.wrong(key, format!("a number, as rope is {:?}", self.kind), "no such key");
        self.number(key)?.ok_or_else(absent)
    }

    /// Writes base and scaling.
    pub(super) fn describe(&self, architecture: &str, entries: &mut Entries) -> Result<(), OpenError> {
        if let Some(theta) = self.theta {
            entries.set("rope.freq_base", theta as f32);
        }
        if let Some(sections) = self.scaling.and_then(|own| own.get("mrope_section")) {
            let section = |section: &Json| section.as_i64().and_then(|section| i32::try_from(section).ok());
            let read = sections.as_array().and_then(|all| all.iter().map(section).collect::<Option<Vec<_>>>());
            let wrong = || self.config.wrong("mrope_section", "a list of whole numbers".to_owned(), shown(sections));
            entries.set("rope.dimension_sections", &read.ok_or_else(wrong)?[..]);
        }
        match self.kind {
            // These are in tensors (`factors`).
            "default" | "llama3" => Ok(()),
            "proportional" if architecture == "gemma4" => Ok(()),
            "longrope" | "su" if architecture == "phi3" => self.describe_long_rope(entries),
            // In a text, all parts of a position are equal.
            "mrope" if matches!(architecture, "qwen2vl" | "qwen3vl" | "qwen3vlmoe") => Ok(()),
            "linear" => {
                entries.set("rope.scaling.type", "linear");
                entries.set("rope.scaling.factor", self.required("factor")? as f32);
                Ok(())
            }
            "yarn" => self.describe_yarn(entries),
            other => {
                let expected = "rope of type default, linear, llama3 or yarn".to_owned();
                Err(self.config.wrong("rope_scaling", expected, format!("{other:?}")))
            }
        }
    }

    /// True if frequencies are stretched by YaRN.
    pub(super) fn is_yarn(&self) -> bool {
        self.kind == "yarn"
    }

    fn describe_long_rope(&self, entries: &mut Entries) -> Result<(), OpenError> {
        let original = match self.number("original_max_position_embeddings")? {
            Some(original) => original as u32,
            None => self.config.required(&["original_max_position_embeddings"])?,
        };
        let longer = f64::from(self.config.required(&["max_position_embeddings"])?) / f64::from(original.max(1));
        let usual = if longer > 1.0 { (1.0 + longer.ln() / f64::from(original).ln()).sqrt() } else { 1.0 };
        let magnitude = self.number("attention_factor")?.unwrap_or(usual);
        entries.set("rope.scaling.original_context_length", original);
        entries.set("rope.scaling.attn_factor", magnitude as f32);
        Ok(())
    }

    /// The tensor `name` of the factors in the list `key`.
    fn listed(&self, name: &str, key: &str) -> Result<TensorInfo, OpenError> {
        let list = self.scaling.and_then(|own| own.get(key));
        let factors = list.and_then(Json::as_array).and_then(|list| list.iter().map(Json::as_f64).collect());
        let found = list.map_or("no such key".to_owned(), shown);
        let factors: Vec<f64> = factors.ok_or_else(|| self.config.wrong(key, "a list of numbers".to_owned(), found))?;
        if factors.is_empty() || factors.len() > HEAD_MAX as usize {
            return Err(self.config.wrong(key, format!("1 to {HEAD_MAX} numbers"), factors.len()));
        }
        Ok(computed(name, &factors))
    }

    fn describe_yarn(&self, entries: &mut Entries) -> Result<(), OpenError> {
        let factor = self.required("factor")?;
        entries.set("rope.scaling.type", "yarn");
        entries.set("rope.scaling.factor", factor as f32);
        let original = match self.number("original_max_position_embeddings")? {
            Some(original) => original as u32,
            None => self.config.required(&["max_position_embeddings"])?,
        };
        entries.set("rope.scaling.original_context_length", original);
        for (ours, theirs) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
            if let Some(beta) = self.number(theirs)? {
                entries.set(&format!("rope.scaling.{ours}"), beta as f32);
            }
        }
        if let Some(magnitude) = self.number("attention_factor")? {
            // GGUF has the factor beside the usual growth with the logarithm.
            let usual = 1.0 + 0.1 * factor.max(1.0).ln();
            entries.set("rope.scaling.attn_factor", (magnitude / usual) as f32);
        }
        Ok(())
    }
}

/// The tensors of divisors of frequencies that GGUF files of such a model have, and folders do not.
pub(super) fn factors(config: &Config) -> Result<Vec<TensorInfo>, OpenError> {
    let rope = RopeParameters::of(config, "full_attention")?;
    match rope.kind {
        "llama3" => Ok(vec![llama3_factors(config, &rope)?]),
        "proportional" => Ok(vec![proportional_factors(config, &rope)?]),
        "longrope" | "su" => Ok(vec![
            rope.listed("rope_factors_long.weight", "long_factor")?,
            rope.listed("rope_factors_short.weight", "short_factor")?,
        ]),
        _ => Ok(Vec::new()),
    }
}

/// The divisors of frequencies by Llama 3's method, which GGUF files have as a tensor: pairs whose wavelength is short
/// against the original context stay, long ones are divided, those between by a part. Source: the model card's code.
fn llama3_factors(config: &Config, rope: &RopeParameters<'_>) -> Result<TensorInfo, OpenError> {
    let (factor, low, high) =
        (rope.required("factor")?, rope.required("low_freq_factor")?, rope.required("high_freq_factor")?);
    let context = rope.required("original_max_position_embeddings")?;
    let theta = rope.theta.unwrap_or(10_000.0);
    let heads = config.required(&["num_attention_heads"])?.max(1);
    let head = match config.count(&["head_dim"])? {
        Some(head) => head,
        None => config.required(&["hidden_size"])? / heads,
    };
    if !(2..=HEAD_MAX).contains(&head) {
        return Err(config.wrong("head_dim", format!("2 to {HEAD_MAX}"), head));
    }
    let of_pair = |pair: u32| {
        let wavelength = 2.0 * std::f64::consts::PI * theta.powf(2.0 * f64::from(pair) / f64::from(head));
        if wavelength < context / high {
            1.0
        } else if wavelength > context / low {
            factor
        } else {
            let smooth = (context / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    Ok(computed(FACTORS, &(0..head / 2).map(of_pair).collect::<Vec<_>>()))
}

/// Gemma 4's divisors: a part of the pairs turns, and the others turn so slowly that they stay.
fn proportional_factors(config: &Config, rope: &RopeParameters<'_>) -> Result<TensorInfo, OpenError> {
    /// The divisor of pairs that stay. llama.cpp's converter has it, too.
    const STAYS: f64 = 1e30;
    let pairs = gemma4::pairs(config)?;
    if !(1..=HEAD_MAX).contains(&pairs) {
        return Err(config.wrong("head_dim", format!("2 to {}", 2 * HEAD_MAX), 2 * u64::from(pairs)));
    }
    let part = rope.number("partial_rotary_factor")?.unwrap_or(1.0);
    let rotated = (f64::from(pairs) * part) as u32;
    let factors: Vec<f64> = (0..pairs).map(|pair| if pair < rotated { 1.0 } else { STAYS }).collect();
    Ok(computed(FACTORS, &factors))
}

/// A tensor of these values as 32-bit floats.
fn computed(name: &str, values: &[f64]) -> TensorInfo {
    let bytes: Vec<u8> = values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
    TensorInfo {
        name: name.to_owned(),
        dims: vec![values.len() as u64],
        format: Format::F32,
        bytes: bytes.len() as u64,
        source: Source::Computed(bytes.into()),
        minus_one: false,
    }
}
