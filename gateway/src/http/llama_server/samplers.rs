//! llama-server's `samplers`: the list of the filters that apply. Those that are not in it are switched off.

use schema::frame::Sampling;
use serde_json::Value;

use crate::http::error::ApiError;
use crate::http::params::{Params, out_of_range};

/// Switches a filter off.
type SwitchOff = fn(&mut Sampling);

/// The known samplers. `dry` and `penalties`, which are off unless a request sets them, stay as they are, and `infill`,
/// a filter for code that this server does not have, has no effect.
const SAMPLERS: &[(&str, SwitchOff)] = &[
    ("temperature", |sampling| sampling.temperature = 1.0),
    ("top_k", |sampling| sampling.top_k = 0),
    ("top_p", |sampling| sampling.top_p = 1.0),
    ("min_p", |sampling| sampling.min_p = 0.0),
    ("typ_p", |sampling| sampling.typical_p = 1.0),
    ("top_n_sigma", |sampling| sampling.top_n_sigma = 0.0),
    ("xtc", |sampling| sampling.xtc_probability = 0.0),
    ("dry", |_| ()),
    ("penalties", |_| ()),
    ("infill", |_| ()),
];

/// Switches off what is not in `samplers`, if it is given. Their order is fixed here.
///
/// # Errors
/// A 400 if it has an unknown name.
pub(super) fn apply(params: &Params<'_>, sampling: &mut Sampling) -> Result<(), ApiError> {
    let Some(list) = params.list("samplers")? else { return Ok(()) };
    let is_known = |name: &Value| SAMPLERS.iter().any(|(known, _)| name.as_str() == Some(*known));
    if let Some((index, found)) = list.iter().enumerate().find(|(_, name)| !is_known(name)) {
        let known: Vec<_> = SAMPLERS.iter().map(|(name, _)| *name).collect();
        return Err(out_of_range(&format!("samplers[{index}]"), &format!("one of {}", known.join(", ")), found));
    }
    for (name, switch_off) in SAMPLERS {
        if !list.iter().any(|listed| listed.as_str() == Some(*name)) {
            switch_off(sampling);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn applied(samplers: &Value) -> Result<Sampling, ApiError> {
        let body = json!({"samplers": samplers});
        let mut sampling = Sampling { temperature: 0.5, top_k: 40, top_p: 0.9, min_p: 0.1, ..Sampling::PLAIN };
        apply(&Params::new(body.as_object().unwrap()), &mut sampling).map(|()| sampling)
    }

    #[test]
    fn filters_that_are_not_listed_are_off() {
        let sampling = applied(&json!(["top_k", "top_p", "infill"])).unwrap();
        assert_eq!(sampling, Sampling { top_k: 40, top_p: 0.9, ..Sampling::PLAIN });
        let all = applied(&json!(null)).unwrap();
        assert_eq!((all.temperature, all.min_p), (0.5, 0.1));
    }

    #[test]
    fn an_unknown_sampler_is_refused_with_the_known_ones() {
        let error = applied(&json!(["top_k", "magic"])).unwrap_err().json();
        assert_eq!(error["error"]["param"], "samplers[1]");
        assert!(error["error"]["message"].as_str().unwrap().contains("one of temperature, top_k"));
    }
}
