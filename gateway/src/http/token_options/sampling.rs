//! Reads the filters, the temperature and the seed.

use rand::Rng;
use schema::frame::Sampling;

use super::rules::SamplingRules;
use crate::http::error::ApiError;
use crate::http::limits::TEMPERATURE_MIN;
use crate::http::params::Params;

/// Reads the sampling.
///
/// # Errors
/// A 400 that names the parameter.
pub(super) fn read(params: &Params<'_>, rules: &SamplingRules) -> Result<Sampling, ApiError> {
    let defaults = rules.defaults;
    let share = |key: &str, default: f64| Ok::<_, ApiError>(params.number(key, 0.0..=1.0)?.unwrap_or(default) as f32);
    let temperature = params.number("temperature", 0.0..=rules.temperature_max)?.unwrap_or(defaults.temperature);
    let top_k = params.whole("top_k", -1..=i128::from(i32::MAX))?.map_or(defaults.top_k, |k| k.max(0) as u32);
    let top_p = share("top_p", defaults.top_p)?;
    // llama.cpp has -1 for "off".
    let top_n_sigma = params.number("top_n_sigma", -1.0..=100.0)?.unwrap_or(0.0).max(0.0) as f32;
    let xtc_probability = share("xtc_probability", defaults.xtc_probability)?;
    let xtc_threshold = share("xtc_threshold", defaults.xtc_threshold)?;
    // The smallest probability mass above 0 is already covered by the likeliest token alone.
    let (top_p, top_k) = if top_p > 0.0 { (top_p, top_k) } else { (1.0, 1) };
    Ok(Sampling {
        temperature: if temperature < TEMPERATURE_MIN { 0.0 } else { temperature as f32 },
        top_k,
        top_p,
        min_p: share("min_p", defaults.min_p)?,
        typical_p: share("typical_p", 1.0)?,
        top_n_sigma,
        xtc_probability,
        xtc_threshold: if xtc_probability > 0.0 { xtc_threshold } else { 0.0 },
        seed: seed(params, rules)?,
        choice: 0,
    })
}

/// The seed. Without one each request gets another.
fn seed(params: &Params<'_>, rules: &SamplingRules) -> Result<u64, ApiError> {
    let seed = params.whole("seed", i128::from(i64::MIN)..=i128::from(u64::MAX))?;
    let seed = seed.filter(|seed| !rules.is_llama_cpp || *seed != -1);
    // A negative seed keeps its bits, so that all seeds stay different.
    Ok(seed.map_or_else(|| rand::rng().random(), |seed| seed as u64))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::rules::SamplingDefaults;
    use super::*;

    fn read_value(value: &Value, rules: SamplingRules) -> Result<Sampling, ApiError> {
        read(&Params::new(value.as_object().unwrap()), &rules)
    }

    fn openai(value: &Value) -> Sampling {
        read_value(value, SamplingRules::OPENAI).unwrap()
    }

    fn ollama(value: &Value) -> Sampling {
        read_value(value, SamplingRules::OLLAMA).unwrap()
    }

    #[test]
    fn absent_parameters_have_the_defaults_of_the_api() {
        let seed = json!({"seed": 7});
        assert_eq!(openai(&seed), Sampling { seed: 7, ..Sampling::PLAIN });
        let llama = Sampling { temperature: 0.8, top_k: 40, top_p: 0.9, seed: 7, ..Sampling::PLAIN };
        assert_eq!(ollama(&seed), llama);
        let infill = read_value(&seed, SamplingRules::LLAMA_SERVER).unwrap();
        assert_eq!(infill, Sampling { top_p: 0.95, min_p: 0.05, ..llama });
    }

    #[test]
    fn a_request_comes_before_the_defaults() {
        let defaults =
            SamplingDefaults { temperature: 0.6, top_k: 20, xtc_probability: 0.5, ..SamplingRules::OPENAI.defaults };
        let rules = SamplingRules { defaults, ..SamplingRules::OPENAI };
        let absent = read_value(&json!({"seed": 1}), rules).unwrap();
        assert_eq!((absent.temperature, absent.top_k, absent.xtc_probability), (0.6, 20, 0.5));
        let given = json!({"seed": 1, "temperature": 1, "top_k": 0, "xtc_probability": 0});
        assert_eq!(read_value(&given, rules).unwrap(), Sampling { seed: 1, ..Sampling::PLAIN });
    }

    #[test]
    fn every_parameter_is_read() {
        let value = json!({
            "temperature": 0.5, "top_k": 7, "top_p": 0.5, "min_p": 0.25, "typical_p": 0.75, "top_n_sigma": 2,
            "xtc_probability": 0.5, "xtc_threshold": 0.25, "seed": 9
        });
        let sampling = Sampling {
            temperature: 0.5,
            top_k: 7,
            top_p: 0.5,
            min_p: 0.25,
            typical_p: 0.75,
            top_n_sigma: 2.0,
            xtc_probability: 0.5,
            xtc_threshold: 0.25,
            seed: 9,
            choice: 0,
        };
        assert_eq!([openai(&value), ollama(&value)], [sampling, sampling]);
    }

    #[test]
    fn a_top_p_of_zero_and_a_tiny_temperature_mean_the_likeliest_token() {
        let sampling = openai(&json!({"top_p": 0}));
        assert_eq!((sampling.top_p, sampling.top_k), (1.0, 1));
        assert_eq!(openai(&json!({"temperature": 1e-9})).temperature, 0.0);
    }

    #[test]
    fn values_that_switch_a_filter_off_do_so() {
        let value = json!({"seed": 1, "temperature": 1, "top_k": -1, "top_p": 1, "min_p": 0, "top_n_sigma": -1});
        assert_eq!([openai(&value), ollama(&value)], [Sampling { seed: 1, ..Sampling::PLAIN }; 2]);
    }

    #[test]
    fn a_seed_of_minus_one_is_none_to_llama_cpp_and_a_seed_to_others() {
        assert_ne!(openai(&json!({})).seed, openai(&json!({})).seed);
        assert_ne!(ollama(&json!({"seed": -1})).seed, ollama(&json!({"seed": -1})).seed);
        assert_eq!(openai(&json!({"seed": -1})).seed, u64::MAX);
        for read in [openai, ollama] {
            assert_eq!(read(&json!({"seed": -2})).seed, u64::MAX - 1);
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_their_path() {
        for (key, value) in [
            ("temperature", json!(-1)),
            ("temperature", json!(100.1)),
            ("top_k", json!(-2)),
            ("top_p", json!(1.5)),
            ("min_p", json!("0.1")),
            ("typical_p", json!(1.5)),
            ("top_n_sigma", json!(-2)),
            ("xtc_probability", json!(2)),
            ("xtc_threshold", json!(true)),
            ("seed", json!(1.5)),
        ] {
            let body = json!({"options": {key: value}});
            let options = Params::new(body.as_object().unwrap()).object("options").unwrap().unwrap();
            for rules in [SamplingRules::OPENAI, SamplingRules::OLLAMA] {
                assert_eq!(read(&options, &rules).unwrap_err().param(), Some(format!("options.{key}").as_str()));
            }
        }
        assert!(read_value(&json!({"temperature": 2.1}), SamplingRules::OPENAI).is_err());
        assert!(read_value(&json!({"temperature": 1.1}), SamplingRules::ANTHROPIC).is_err());
    }
}
