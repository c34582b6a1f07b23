//! The rotary embedding of a configuration: under `rope_parameters` in newer ones, under `rope_theta` and
//! `rope_scaling` in older ones.

use serde_json::{Map, Value as Json};

use super::config::{Config, shown};
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

    fn required(&self, key: &str) -> Result<f64, OpenError> {
        let absent = || self.config.wrong(key, format!("a number, as rope is {:?}", self.kind), "no such key");
        self.number(key)?.ok_or_else(absent)
    }

    /// Writes base and scaling.
    pub(super) fn describe(&self, entries: &mut Entries) -> Result<(), OpenError> {
        if let Some(theta) = self.theta {
            entries.set("rope.freq_base", theta as f32);
        }
        match self.kind {
            // Llama 3's method is in a tensor (`factors`).
            "default" | "llama3" => Ok(()),
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

/// The divisors of frequencies by Llama 3's method, which GGUF files have as a tensor: pairs whose wavelength is short
/// against the original context stay, long ones are divided, those between by a part. Source: the model card's code.
pub(super) fn factors(config: &Config) -> Result<Option<TensorInfo>, OpenError> {
    let rope = RopeParameters::of(config, "full_attention")?;
    if rope.kind != "llama3" {
        return Ok(None);
    }
    let (factor, low, high) =
        (rope.required("factor")?, rope.required("low_freq_factor")?, rope.required("high_freq_factor")?);
    let context = rope.required("original_max_position_embeddings")?;
    let theta = rope.theta.unwrap_or(10_000.0);
    let heads = config.required(&["num_attention_heads"])?.max(1);
    let head = match config.count(&["head_dim"])? {
        Some(head) => head,
        None => config.required(&["hidden_size"])? / heads,
    };
    /// Twice the widest head of any known model.
    const HEAD_MAX: u32 = 1024;
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
    let bytes: Vec<u8> = (0..head / 2).flat_map(|pair| (of_pair(pair) as f32).to_le_bytes()).collect();
    Ok(Some(TensorInfo {
        name: FACTORS.to_owned(),
        dims: vec![u64::from(head / 2)],
        format: Format::F32,
        bytes: bytes.len() as u64,
        source: Source::Computed(bytes.into()),
        minus_one: false,
    }))
}
