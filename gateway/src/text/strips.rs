//! The special tokens that take the white space beside them.
//!
//! Model files do not say which these are. llama.cpp knows them by the model's name, and so does this file.

use stages::gguf::Metadata;

use super::TextError;

/// Kinds of tokens (`tokenizer.ggml.token_type`) that are searched for as a whole: unknown, control, added by hand.
const WHOLE: [i32; 3] = [2, 3, 4];
/// Tokens of Phi-3 that leave the white space alone.
const PHI3_PLAIN: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// The tokens that take white space, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StripFields {
    /// Those that take the white space before them.
    pub left: Vec<u32>,
    /// Those that take the white space after them.
    pub right: Vec<u32>,
}

// === impl StripFields ===

impl StripFields {
    /// The tokens of the model in `metadata`, whose tokens are spelled `tokens` and have the kinds `types`.
    pub(super) fn read(metadata: &Metadata, tokens: &[String], types: &[i32]) -> Result<Self, TextError> {
        let name = metadata.get_str("general.name")?.unwrap_or_default().to_lowercase();
        let architecture = metadata.get_str("general.architecture")?.unwrap_or_default();
        let pre = metadata.get_str("tokenizer.ggml.pre")?.unwrap_or_default();
        let spelled =
            |spelling: &str| Vec::from_iter((0_u32..).zip(tokens).find(|(_, t)| *t == spelling).map(|(id, _)| id));
        if ["jina-v2-de", "jina-v2-es", "jina-v2-code"].iter().any(|known| pre.contains(known))
            || ["nomic-bert-moe", "jina-bert-v3"].iter().any(|known| architecture.contains(known))
        {
            return Ok(Self { left: spelled("<mask>"), right: Vec::new() });
        }
        if name.contains("phi-3") || name.contains("phi3") {
            let takes = |(_, (token, kind)): &(u32, (&String, &i32))| {
                (WHOLE.contains(kind) || *token == "</s>") && !PHI3_PLAIN.contains(&token.as_str())
            };
            let right = (0_u32..).zip(tokens.iter().zip(types)).filter(takes).map(|(id, _)| id).collect();
            return Ok(Self { left: Vec::new(), right });
        }
        if name.contains("modern-bert") {
            return Ok(Self { left: spelled("[MASK]"), right: Vec::new() });
        }
        Ok(Self::default())
    }

    /// The ids that are there.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.left.iter().chain(&self.right).copied()
    }
}
