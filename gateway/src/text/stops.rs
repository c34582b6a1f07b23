//! The tokens that end an answer.

use super::token_kind::TokenKind;

/// Spellings that end a turn in some model family. A file names one end token (`eos`) but its model may use another,
/// and some files mark these as ordinary tokens. The list and the practice are llama.cpp's.
const END_SPELLINGS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Spellings that end a file when a model fills in code. No useful text follows them either.
const FILE_END_SPELLINGS: &[&str] = &[
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// The ids that end an answer: those in `named`, which the file names, and those with a spelling listed above. The
/// latter become control tokens.
pub(super) fn stops(tokens: &[String], kinds: &mut [TokenKind], named: &[u32]) -> Vec<u32> {
    let mut stops: Vec<u32> = named.to_vec();
    for (id, token) in (0_u32..).zip(tokens) {
        let spelling = token.as_str();
        if END_SPELLINGS.contains(&spelling) || FILE_END_SPELLINGS.contains(&spelling) {
            kinds[id as usize] = TokenKind::Control;
            stops.push(id);
        }
    }
    // A model with one of these pairs ends the messages within a turn with `<|end|>` and then continues.
    let has = |spelling: &str| stops.iter().any(|&id| tokens[id as usize] == spelling);
    if has("<|call|>") && has("<|return|>") || has("<|calls|>") && has("<|flush|>") {
        stops.retain(|&id| tokens[id as usize] != "<|end|>");
    }
    // Gemma 4 ends with other tokens, and `</s>` is the HTML tag.
    if stops.iter().any(|&id| tokens[id as usize] == "<|tool_response>") {
        for &tag in stops.iter().filter(|&&id| tokens[id as usize] == "</s>") {
            kinds[tag as usize] = TokenKind::Normal;
        }
        stops.retain(|&id| tokens[id as usize] != "</s>");
    }
    stops.sort_unstable();
    stops.dedup();
    stops
}

#[cfg(test)]
mod tests {
    use crate::text::{Vocabulary, VocabularyFields};

    #[test]
    fn a_token_that_ends_turns_is_a_control_token_even_if_the_file_says_text() {
        let mut fields = VocabularyFields::bytes_and(&["<|im_end|>"]);
        fields.token_types[256] = 1;
        let vocabulary = Vocabulary::new(fields).unwrap();
        assert_eq!(vocabulary.stops(), [256]);
        assert_eq!(vocabulary.control().collect::<Vec<_>>(), ["<|im_end|>"]);
    }

    #[test]
    fn named_and_spelled_ends_are_listed_once_and_in_order() {
        let mut fields = VocabularyFields::bytes_and(&["<|im_end|>", "<|endoftext|>"]);
        fields.ends = vec![257, 7];
        assert_eq!(Vocabulary::new(fields).unwrap().stops(), [7, 256, 257]);
    }

    #[test]
    fn gemma_4_has_an_html_tag_that_ends_nothing() {
        let fields = VocabularyFields::bytes_and(&["</s>", "<turn|>", "<|tool_response>"]);
        let vocabulary = Vocabulary::new(fields).unwrap();
        assert_eq!(vocabulary.stops(), [257, 258]);
        assert_eq!(vocabulary.control().collect::<Vec<_>>(), ["<turn|>", "<|tool_response>"]);
    }

    #[test]
    fn with_call_and_return_tokens_the_end_of_a_message_does_not_end_a_turn() {
        let vocabulary = Vocabulary::new(VocabularyFields::bytes_and(&["<|end|>", "<|return|>", "<|call|>"])).unwrap();
        assert_eq!(vocabulary.stops(), [257, 258]);
    }
}
