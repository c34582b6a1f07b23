//! Reads the body of `POST /tokenize`. llama-server's has `content`; vLLM's has `prompt` or `messages`.

use super::conversation;
use crate::http::app_state::Settings;
use crate::http::error::ApiError;
use crate::http::generation::text_model::{Conversation, PromptEnding, SpecialTokens};
use crate::http::limits::TOKENIZED_BYTES_MAX;
use crate::http::params::{Params, missing};

/// A request that can be answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ValidTokenize {
    pub(super) source: Source,
    pub(super) form: Form,
}

/// The text to be tokenised.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    Text { text: String, special: SpecialTokens },
    Chat(Conversation),
}

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// llama-server's, with the text of each token if `pieces` is true.
    LlamaServer { pieces: bool },
    /// vLLM's, with the spelling of each token if `spellings` is true.
    Vllm { spellings: bool },
}

/// The keys of which a body has exactly one.
const SOURCES: [&str; 3] = ["content", "prompt", "messages"];

// === impl ValidTokenize ===

impl ValidTokenize {
    /// Reads a request of either form.
    ///
    /// # Errors
    /// A 400 that names the parameter, or says that the form cannot be told.
    pub(super) fn read(params: &Params<'_>, settings: &Settings) -> Result<Self, ApiError> {
        let given: Vec<_> = SOURCES.into_iter().filter(|key| params.get(key).is_some()).collect();
        if let [first, second, ..] = given[..] {
            let message = format!(
                "'{first}' and '{second}' are of different forms of this request: expected either content \
                 (llama-server), or one of prompt and messages (vLLM)."
            );
            return Err(ApiError::bad_request("invalid_value", message).about(second));
        }
        match given.first() {
            None => Err(missing("content", "content (llama-server), or prompt or messages (vLLM)")),
            Some(&"content") => Self::llama_server(params),
            Some(&"prompt") => Self::vllm_text(params),
            Some(_) => Self::vllm_chat(params, settings),
        }
    }

    fn llama_server(params: &Params<'_>) -> Result<Self, ApiError> {
        let special =
            SpecialTokens { added: params.flag("add_special")?, parsed: flag_or(params, "parse_special", true)? };
        let source = Source::Text { text: text(params, "content")?, special };
        Ok(Self { source, form: Form::LlamaServer { pieces: params.flag("with_pieces")? } })
    }

    fn vllm_text(params: &Params<'_>) -> Result<Self, ApiError> {
        let special = SpecialTokens { added: flag_or(params, "add_special_tokens", true)?, parsed: true };
        let source = Source::Text { text: text(params, "prompt")?, special };
        Ok(Self { source, form: Form::Vllm { spellings: params.flag("return_token_strs")? } })
    }

    fn vllm_chat(params: &Params<'_>, settings: &Settings) -> Result<Self, ApiError> {
        if params.flag("add_special_tokens")? {
            let message =
                "'add_special_tokens' is not supported with messages: the chat template writes special tokens.";
            return Err(ApiError::unsupported("add_special_tokens", message));
        }
        let ending = ending(params)?;
        let conversation = Conversation { ending, ..conversation::read(params, settings)? };
        let bytes: usize = conversation.messages.iter().map(|message| message.content.len()).sum();
        check_length("messages", bytes)?;
        let source = Source::Chat(conversation);
        Ok(Self { source, form: Form::Vllm { spellings: params.flag("return_token_strs")? } })
    }
}

fn ending(params: &Params<'_>) -> Result<PromptEnding, ApiError> {
    let continued = params.flag("continue_final_message")?;
    let generation = flag_or(params, "add_generation_prompt", !continued)?;
    match (generation, continued) {
        (true, true) => {
            let message = "'add_generation_prompt' and 'continue_final_message' exclude each other: set one of them.";
            Err(ApiError::bad_request("invalid_value", message).about("continue_final_message"))
        }
        (true, false) => Ok(PromptEnding::Generation),
        (false, true) => Ok(PromptEnding::Continued),
        (false, false) => Ok(PromptEnding::Complete),
    }
}

fn text(params: &Params<'_>, key: &str) -> Result<String, ApiError> {
    let text = params.required_text(key)?;
    check_length(key, text.len())?;
    Ok(text.to_owned())
}

fn check_length(key: &str, bytes: usize) -> Result<(), ApiError> {
    if bytes <= TOKENIZED_BYTES_MAX {
        return Ok(());
    }
    let message = format!("Invalid value for '{key}': expected at most {TOKENIZED_BYTES_MAX} bytes, found {bytes}.");
    Err(ApiError::bad_request("invalid_value", message).about(key))
}

fn flag_or(params: &Params<'_>, key: &str, default: bool) -> Result<bool, ApiError> {
    if params.get(key).is_none() { Ok(default) } else { params.flag(key) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: &Value) -> Result<ValidTokenize, ApiError> {
        ValidTokenize::read(&Params::new(value.as_object().unwrap()), &Settings::default())
    }

    fn text(text: &str, added: bool, parsed: bool) -> Source {
        Source::Text { text: text.to_owned(), special: SpecialTokens { added, parsed } }
    }

    #[test]
    fn the_keys_tell_the_form_and_each_has_its_own_defaults() {
        let llama = read(&json!({"content": "a"})).unwrap();
        assert_eq!(llama, ValidTokenize { source: text("a", false, true), form: Form::LlamaServer { pieces: false } });
        let all = json!({"content": "a", "add_special": true, "parse_special": false, "with_pieces": true});
        let llama = read(&all).unwrap();
        assert_eq!(llama, ValidTokenize { source: text("a", true, false), form: Form::LlamaServer { pieces: true } });
        let vllm = read(&json!({"prompt": "a", "return_token_strs": true})).unwrap();
        assert_eq!(vllm, ValidTokenize { source: text("a", true, true), form: Form::Vllm { spellings: true } });
    }

    #[test]
    fn a_chat_ends_as_its_flags_say() {
        let ending = |flags: Value| {
            let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
            body.as_object_mut().unwrap().extend(flags.as_object().unwrap().clone());
            read(&body).map(|request| match request.source {
                Source::Chat(conversation) => conversation.ending,
                Source::Text { .. } => panic!("a chat became text"),
            })
        };
        assert_eq!(ending(json!({})).unwrap(), PromptEnding::Generation);
        assert_eq!(ending(json!({"add_generation_prompt": false})).unwrap(), PromptEnding::Complete);
        assert_eq!(ending(json!({"continue_final_message": true})).unwrap(), PromptEnding::Continued);
        let both = json!({"continue_final_message": true, "add_generation_prompt": true});
        assert_eq!(ending(both).unwrap_err().json()["error"]["param"], "continue_final_message");
        assert!(ending(json!({"add_special_tokens": true})).is_err());
    }

    #[test]
    fn a_body_of_two_forms_or_of_none_is_refused() {
        for (body, param) in [
            (json!({"content": "a", "prompt": "b"}), "prompt"),
            (json!({"content": "a", "messages": []}), "messages"),
            (json!({"prompt": "a", "messages": []}), "messages"),
            (json!({}), "content"),
            (json!({"prompt": null}), "content"),
            (json!({"content": ["a"]}), "content"),
            (json!({"content": "a", "with_pieces": 1}), "with_pieces"),
            (json!({"content": "x".repeat(TOKENIZED_BYTES_MAX + 1)}), "content"),
            (json!({"messages": [{"role": "user", "content": "x".repeat(TOKENIZED_BYTES_MAX + 1)}]}), "messages"),
        ] {
            assert_eq!(read(&body).unwrap_err().json()["error"]["param"], param);
        }
    }
}
