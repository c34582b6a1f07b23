//! The unchecked text metadata of a model file.

use stages::gguf::Metadata;

use super::TextError;
use super::fim::FimFields;
use super::normalizer::NormalizerFields;
use super::strips::StripFields;
use super::vocabulary_model::VocabularyModel;

/// Begins the keys of the chat templates beside the usual one.
const TEMPLATE_PREFIX: &str = "tokenizer.chat_template.";

/// The unchecked fields that a [`super::Vocabulary`] is made of.
#[derive(Debug, Clone, Default)]
pub struct VocabularyFields {
    /// `tokenizer.ggml.model`: the kind of vocabulary.
    pub model: VocabularyModel,
    /// `tokenizer.ggml.tokens`: every token, spelled.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`: one for each token, or none at all.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.scores`: one for each token of a SentencePiece or Unigram vocabulary, otherwise none.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.merges`: pairs `left right`, highest priority first. Only byte-pair encoding has them.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.pre`: name of the rule that splits text into words. Only byte-pair encoding has one.
    pub pre: String,
    /// The changes to a text before it is divided.
    pub normalizer: NormalizerFields,
    /// The special tokens that take the white space beside them.
    pub strips: StripFields,
    /// `tokenizer.ggml.bos_token_id`: the token that begins a text.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`, `eot_token_id`, `eom_token_id`: the tokens that end a text, a turn, a message.
    pub ends: Vec<u32>,
    /// `tokenizer.ggml.eos_token_id`: the end token that a chat template gets.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`: the token of text that has no token.
    pub unknown: Option<u32>,
    /// `tokenizer.ggml.seperator_token_id`: the token that ends a text of a WordPiece vocabulary.
    pub separator: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`: true if a text begins with bos. Absent in many files.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`: true if a text that is embedded ends with eos. Absent in most files.
    pub add_eos: Option<bool>,
    /// The tokens for filling in the middle.
    pub fim: FimFields,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
    /// `tokenizer.chat_template.NAME`, by name: templates for some occasions, such as `tool_use`.
    pub named_templates: Vec<(String, String)>,
}

// === impl VocabularyFields ===

impl VocabularyFields {
    /// Reads the fields from a model file's metadata.
    pub(super) fn read(metadata: &Metadata) -> Result<Self, TextError> {
        let name = metadata.str("tokenizer.ggml.model")?;
        let model = VocabularyModel::named(name)?;
        let pre = match (model, name) {
            (_, "gemma4") => name,
            (VocabularyModel::BytePair, _) => metadata.str("tokenizer.ggml.pre")?,
            _ => "",
        };
        let merges = match model {
            VocabularyModel::BytePair => strings(metadata, "tokenizer.ggml.merges")?,
            _ => Vec::new(),
        };
        let tokens = strings(metadata, "tokenizer.ggml.tokens")?;
        let token_types = metadata.get_i32_array("tokenizer.ggml.token_type")?.unwrap_or_default();
        let usual = model.special_ids();
        // An id that a file does not name counts only if there is such a token.
        let or_usual = |named: Option<u32>, usual: Option<u32>| {
            named.or(usual.filter(|&id| usize::try_from(id).is_ok_and(|id| id < tokens.len())))
        };
        let id = |name: &str| metadata.get_u32(&format!("tokenizer.ggml.{name}_token_id"));
        let eos = or_usual(id("eos")?, usual.eos);
        let mut ends = Vec::from_iter(eos);
        ends.extend(id("eot")?);
        ends.extend(id("eom")?);
        Ok(Self {
            model,
            scores: if model.has_scores() { scores(metadata)? } else { Vec::new() },
            merges,
            pre: pre.to_owned(),
            normalizer: NormalizerFields::read(metadata)?,
            strips: StripFields::read(metadata, &tokens, &token_types)?,
            bos: or_usual(id("bos")?.or(id("cls")?), usual.bos),
            ends,
            eos,
            unknown: or_usual(id("unknown")?, usual.unknown),
            // The name has this spelling in model files.
            separator: or_usual(id("seperator")?, usual.separator),
            add_bos: metadata.get_bool("tokenizer.ggml.add_bos_token")?,
            add_eos: metadata.get_bool("tokenizer.ggml.add_eos_token")?,
            fim: FimFields::read(metadata)?,
            chat_template: metadata.get_str("tokenizer.chat_template")?.map(str::to_owned),
            named_templates: named_templates(metadata)?,
            tokens,
            token_types,
        })
    }

    /// A small vocabulary for tests: the 256 bytes in order, then `control` tokens.
    #[cfg(test)]
    pub(crate) fn bytes_and(control: &[&str]) -> Self {
        let mut fields = Self { pre: "gpt-2".to_owned(), ..Self::default() };
        for byte in 0..=255_u8 {
            fields.tokens.push(super::alphabet::spell_byte(byte).to_string());
            fields.token_types.push(1);
        }
        for token in control {
            fields.tokens.push((*token).to_owned());
            fields.token_types.push(3);
        }
        fields
    }

    /// A small SentencePiece vocabulary for tests: `<unk>`, `<s>`, `</s>`, the 256 bytes from id 3, then `pieces` with
    /// their scores.
    #[cfg(test)]
    pub(crate) fn pieces_and(pieces: &[(&str, f32)]) -> Self {
        let mut fields = Self { model: VocabularyModel::SentencePiece, bos: Some(1), eos: Some(2), ..Self::default() };
        fields.ends = vec![2];
        fields.unknown = Some(0);
        let mut add = |token: &str, kind, score| {
            fields.tokens.push(token.to_owned());
            fields.token_types.push(kind);
            fields.scores.push(score);
        };
        [("<unk>", 2), ("<s>", 3), ("</s>", 3)].into_iter().for_each(|(token, kind)| add(token, kind, 0.0));
        (0..=255_u8).for_each(|byte| add(&format!("<0x{byte:02X}>"), 6, 0.0));
        pieces.iter().for_each(|(token, score)| add(token, 1, *score));
        fields
    }
}

fn strings(metadata: &Metadata, key: &str) -> Result<Vec<String>, TextError> {
    Ok(metadata.str_array(key)?.iter().map(str::to_owned).collect())
}

/// The tokens' scores. Some files have them as integers.
fn scores(metadata: &Metadata) -> Result<Vec<f32>, TextError> {
    const KEY: &str = "tokenizer.ggml.scores";
    match metadata.get_i32_array(KEY) {
        Ok(integers) => Ok(integers.unwrap_or_default().into_iter().map(|score| score as f32).collect()),
        Err(_) => Ok(metadata.f32_array(KEY)?),
    }
}

/// The templates beside the usual one, by name.
fn named_templates(metadata: &Metadata) -> Result<Vec<(String, String)>, TextError> {
    let names = metadata.iter().filter_map(|(key, _)| key.strip_prefix(TEMPLATE_PREFIX));
    let read = |name: &str| Ok((name.to_owned(), metadata.str(&format!("{TEMPLATE_PREFIX}{name}"))?.to_owned()));
    names.map(read).collect()
}
