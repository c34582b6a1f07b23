//! The options of choosing tokens, read from a request: sampling, penalties, and tokens that are favoured or forbidden.
//! Names are those of OpenAI's API, of vLLM and of llama.cpp's server, in every API; their ranges and defaults differ
//! ([`SamplingRules`]).

mod penalties;
mod rules;
mod sampling;
mod words;

use engine::generate::TokenOptions;

use super::error::ApiError;
use super::params::Params;
use crate::http::generation::text_model::TextModel;

pub(crate) use rules::SamplingRules;

/// Reads the options.
///
/// # Errors
/// A 400 that names the parameter.
pub(crate) fn read(params: &Params<'_>, text: &dyn TextModel, rules: &SamplingRules) -> Result<TokenOptions, ApiError> {
    let tokens_min = params.whole("min_tokens", 0..=i128::from(u32::MAX))?.map_or(0, |tokens| tokens as u32);
    Ok(TokenOptions {
        bias: words::bias(params, text)?,
        penalties: penalties::read(params, text, rules)?,
        tokens_min,
        forbidden: words::forbidden(params, text)?,
        ..TokenOptions::new(sampling::read(params, rules)?)
    })
}

/// Most tokens of the answer, from a parameter in which llama.cpp has -1 for no limit and -2 for the rest of the
/// context. `None` if it is absent. The caller lowers a limit beyond the context.
///
/// # Errors
/// A 400 that names the parameter.
pub(crate) fn tokens_max(params: &Params<'_>, key: &str) -> Result<Option<u32>, ApiError> {
    let tokens = params.whole(key, -2..=i128::from(u32::MAX))?;
    Ok(tokens.map(|tokens| if tokens < 0 { u32::MAX } else { tokens as u32 }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::generation::text_model::ByteText;
    use schema::frame::Sampling;

    #[test]
    fn a_request_that_says_nothing_has_the_models_own_probabilities() {
        let body = json!({"seed": 7});
        let options = read(&Params::new(body.as_object().unwrap()), &ByteText, &SamplingRules::OPENAI).unwrap();
        assert_eq!(options, TokenOptions::new(Sampling { seed: 7, ..Sampling::PLAIN }));
    }

    #[test]
    fn an_answer_has_at_least_so_many_tokens_as_the_request_says() {
        let tokens_min = |tokens| {
            let body = json!({"min_tokens": tokens});
            read(&Params::new(body.as_object().unwrap()), &ByteText, &SamplingRules::OLLAMA)
        };
        assert_eq!(tokens_min(5).unwrap().tokens_min, 5);
        assert_eq!(tokens_min(-1).unwrap_err().param(), Some("min_tokens"));
    }

    #[test]
    fn limits_may_be_open() {
        let body = json!({"n": -1, "rest": -2, "some": 5});
        let params = Params::new(body.as_object().unwrap());
        let limits = ["n", "rest", "some", "absent"].map(|key| tokens_max(&params, key).unwrap());
        assert_eq!(limits, [Some(u32::MAX), Some(u32::MAX), Some(5), None]);
        let body = json!({"n": -3});
        assert!(tokens_max(&Params::new(body.as_object().unwrap()), "n").is_err());
    }
}
