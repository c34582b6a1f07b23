//! The ids of calls: those that clients get, and those that some families' templates want.

use sha2::{Digest, Sha256};

use super::format::ToolFormat;

/// Letters and digits of an id.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters of an id that clients get, after its prefix, as in OpenAI's API.
const ID_LENGTH: usize = 24;
/// Characters of an id that Mistral's templates take.
const MISTRAL_ID_LENGTH: usize = 9;

/// The ids of the calls in one answer. They depend on its request and its number only, so that they stay the same if a
/// fault makes the pipeline generate the answer again.
#[derive(Debug, Clone)]
pub struct CallIds(Sha256);

/// The ids that a family's templates write into the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::text) enum TemplateCallId {
    /// Those that the client has.
    Same,
    /// Nine letters and digits.
    Mistral,
    /// The tool's name and the call's number in the conversation.
    Kimi,
}

// === impl CallIds ===

impl CallIds {
    /// The ids of calls in the choice with the number `choice` of the answer to `prompt` with the random `seed`.
    #[must_use]
    pub fn new(prompt: &[u32], seed: u64, choice: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(choice.to_le_bytes());
        // Requests with the same seed in one conversation differ in their prompts.
        prompt.iter().for_each(|token| hash.update(token.to_le_bytes()));
        Self(hash)
    }

    /// The id of the call with the number `index`.
    #[must_use]
    pub fn id(&self, index: usize) -> String {
        let hash = self.0.clone().chain_update((index as u64).to_le_bytes());
        format!("call_{}", spelled(hash, ID_LENGTH))
    }
}

// === impl TemplateCallId ===

impl TemplateCallId {
    /// Those of the templates of `format`.
    pub(in crate::text) fn of(format: ToolFormat) -> Self {
        match format {
            ToolFormat::Mistral | ToolFormat::MistralArray => Self::Mistral,
            ToolFormat::Kimi => Self::Kimi,
            _ => Self::Same,
        }
    }

    /// The id in the prompt of the call of the tool `name` that clients know as `id`. `number` is its number in the
    /// conversation.
    pub(in crate::text) fn written(self, id: &str, name: &str, number: usize) -> String {
        match self {
            Self::Same => id.to_owned(),
            Self::Mistral => {
                let end = id.len().checked_sub(MISTRAL_ID_LENGTH).and_then(|at| id.get(at..));
                match end.filter(|end| end.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
                    Some(end) => end.to_owned(),
                    None => spelled(Sha256::new().chain_update(id), MISTRAL_ID_LENGTH),
                }
            }
            Self::Kimi if id.starts_with("functions.") => id.to_owned(),
            Self::Kimi => format!("functions.{name}:{number}"),
        }
    }
}

/// The first characters of a hash in [`ALPHABET`].
fn spelled(hash: Sha256, length: usize) -> String {
    let spell = |byte: u8| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]);
    hash.finalize().into_iter().take(length).map(spell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_depends_on_prompt_seed_choice_and_index_alone() {
        let id = |prompt: &[u32], seed, choice, index| CallIds::new(prompt, seed, choice).id(index);
        let one = id(&[1, 2], 7, 0, 0);
        assert_eq!(one, id(&[1, 2], 7, 0, 0));
        assert_eq!((one.len(), &one[..5]), (29, "call_"));
        assert!(one[5..].bytes().all(|byte| byte.is_ascii_alphanumeric()));
        for other in [id(&[1, 3], 7, 0, 0), id(&[1, 2], 8, 0, 0), id(&[1, 2], 7, 1, 0), id(&[1, 2], 7, 0, 1)] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn templates_get_ids_as_they_take_them() {
        let mistral = |id| TemplateCallId::Mistral.written(id, "f", 0);
        assert_eq!(mistral("call_abcdefgh123456789"), "123456789");
        assert_eq!(mistral("abc"), mistral("abc"));
        assert_ne!(mistral("abc"), mistral("abd"));
        assert_eq!(mistral("call_<|im_end|>").len(), 9);
        assert_eq!(TemplateCallId::Kimi.written("call_x", "f", 3), "functions.f:3");
        assert_eq!(TemplateCallId::Same.written("call_x", "f", 3), "call_x");
    }
}
