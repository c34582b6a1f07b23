//! The vocabulary of a Hugging Face folder, as the metadata that GGUF files have: from `tokenizer.json`, with
//! `tokenizer_config.json`, `chat_template.jinja`, `generation_config.json` and `config.json` beside it.
//!
//! Byte-level BPE is read, and the rule that splits text into words is recognised by its patterns; BPE with spaces
//! as `▁`, as SentencePiece's vocabularies become it, is read as such a vocabulary; so are WordPiece and the unigram
//! model, which encoders have. Anything else is refused by name, because a wrong rule gives plausible tokens and a
//! worse model.

mod encoders;
mod kind;
mod pre_tokenizer;
mod special;
mod templates;
mod tokens;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};
use stages::gguf::Metadata;

use super::TextError;
use crate::json_size::JsonSize;
use kind::Kind;

/// Largest accepted `tokenizer.json`, in bytes: eight times the largest in use.
const TOKENIZER_BYTES_MAX: u64 = 256 << 20;
/// JSON of a file: four times that of the largest in use, whose half a million merges are a list each. Parsed, so much
/// takes 1.2 GB; files of that many bytes could take 36.
const JSON_MAX: JsonSize = JsonSize { values: 8 << 20, lists: 2 << 20 };

/// The files of a folder that a vocabulary is read from.
#[derive(Debug, Default)]
pub struct FolderFiles {
    /// `tokenizer.json`.
    pub tokenizer: Map<String, Json>,
    /// `tokenizer_config.json`, empty without one.
    pub tokenizer_config: Map<String, Json>,
    /// `generation_config.json`, empty without one.
    pub generation_config: Map<String, Json>,
    /// `config.json`.
    pub config: Map<String, Json>,
    /// `chat_template.jinja`, if there is one.
    pub chat_template: Option<String>,
}

// === impl FolderFiles ===

impl FolderFiles {
    /// Reads the files in `folder`.
    ///
    /// # Errors
    /// [`TextError::Vocabulary`] when there is no `tokenizer.json`, or a file cannot be read or is no JSON object.
    pub fn read(folder: &Path) -> Result<Self, TextError> {
        let object = |name: &str| {
            let path = folder.join(name);
            let Some(bytes) = read_file(&path)? else { return Ok(None) };
            let wrong = |cause: serde_json::Error| bad(format!("{}: expected a JSON object: {cause}", path.display()));
            JsonSize::of(&bytes)
                .within(JSON_MAX)
                .map_err(|error| bad(format!("{}: {error} in the JSON", path.display())))?;
            serde_json::from_slice(&bytes).map(Some).map_err(wrong)
        };
        let Some(tokenizer) = object("tokenizer.json")? else {
            let expected = "expected tokenizer.json in it, found none (tokenizer.model and vocab.json are not read)";
            return Err(bad(format!("{}: {expected}", folder.display())));
        };
        let template = folder.join("chat_template.jinja");
        let chat_template = match read_file(&template)? {
            Some(bytes) => Some(
                String::from_utf8(bytes)
                    .map_err(|_| bad(format!("{}: expected UTF-8 text, found other bytes", template.display())))?,
            ),
            None => None,
        };
        Ok(Self {
            tokenizer,
            tokenizer_config: object("tokenizer_config.json")?.unwrap_or_default(),
            generation_config: object("generation_config.json")?.unwrap_or_default(),
            config: object("config.json")?.unwrap_or_default(),
            chat_template,
        })
    }

    /// The metadata of a model whose embedding has `rows` rows: tokens, types, merges, the rule that splits text into
    /// words, special ids and chat templates.
    ///
    /// # Errors
    /// [`TextError`] when the tokenizer is of a kind that is not read, or contradicts itself.
    pub fn metadata(&self, rows: usize) -> Result<Metadata, TextError> {
        let (kind, model) = kind::of(&self.tokenizer)?;
        let merges = match kind {
            Kind::ByteLevel | Kind::MarkedSpaces { .. } => tokens::merges(model)?,
            Kind::WordPiece | Kind::Unigram => Vec::new(),
        };
        let mut tokens = tokens::Tokens::read(model, &self.tokenizer, rows)?;
        let mut metadata = Metadata::default();
        let name = match kind {
            Kind::ByteLevel => {
                metadata.insert("tokenizer.ggml.pre", pre_tokenizer::name(&self.tokenizer)?.into());
                "gpt2"
            }
            Kind::MarkedSpaces { add_space_prefix } => {
                metadata.insert("tokenizer.ggml.add_space_prefix", add_space_prefix.into());
                if self.model_type().starts_with(GEMMA4) { GEMMA4 } else { "llama" }
            }
            Kind::WordPiece => {
                encoders::describe_word_piece(&self.tokenizer, &mut metadata);
                "bert"
            }
            Kind::Unigram => {
                encoders::describe_unigram(&self.tokenizer, &mut metadata)?;
                "t5"
            }
        };
        metadata.insert("tokenizer.ggml.model", name.into());
        if self.model_type() == "phi3" && tokens::takes_space_behind(&self.tokenizer) {
            // GGUF files do not say it of tokens: it is known of models of this name.
            metadata.insert("general.name", "phi-3".into());
        }
        if name == "llama" {
            metadata.insert("tokenizer.ggml.scores", tokens.scores(&merges).as_slice().into());
        } else if kind == Kind::Unigram {
            metadata.insert("tokenizer.ggml.scores", encoders::scores(model, tokens.len())?.as_slice().into());
        } else if kind != Kind::WordPiece {
            metadata.insert("tokenizer.ggml.merges", merges.as_slice().into());
        }
        special::describe(self, model, &tokens, &mut metadata)?;
        if kind == Kind::WordPiece {
            tokens.mark_words();
        }
        templates::describe(self, &mut metadata)?;
        tokens.describe(&mut metadata);
        Ok(metadata)
    }
}

// === impl FolderFiles ===

impl FolderFiles {
    /// The kind of model, as its configuration names it.
    fn model_type(&self) -> &str {
        let of = |config: &Json| config["model_type"].as_str().map(str::len);
        let text = self.config.get("text_config").filter(|text| of(text).is_some());
        let named = text.map_or(self.config.get("model_type"), |text| text.get("model_type"));
        named.and_then(Json::as_str).unwrap_or_default()
    }
}

/// The name of the vocabularies of Gemma 4 in GGUF files, whose merges count and not their tokens' scores.
const GEMMA4: &str = "gemma4";

/// The bytes of the file at `path`. `None` if there is none.
fn read_file(path: &Path) -> Result<Option<Vec<u8>>, TextError> {
    let failed = |path: PathBuf, cause: &std::io::Error| bad(format!("cannot read {}: {cause}", path.display()));
    match std::fs::metadata(path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed(path.to_owned(), &cause)),
        Ok(found) if found.len() > TOKENIZER_BYTES_MAX => {
            let path = path.display();
            Err(bad(format!("{path}: expected at most {TOKENIZER_BYTES_MAX} bytes, found {}", found.len())))
        }
        Ok(_) => std::fs::read(path).map(Some).map_err(|cause| failed(path.to_owned(), &cause)),
    }
}

fn bad(message: String) -> TextError {
    TextError::Vocabulary(message)
}

/// A value on one line, cut to 96 characters.
fn shown(value: Option<&Json>) -> String {
    const CHARACTERS_MAX: usize = 96;
    let text = value.map_or("none".to_owned(), Json::to_string);
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
