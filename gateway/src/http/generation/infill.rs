//! Prompts for filling in the middle (FIM): the text before a gap and the text after it, each behind its token, then
//! the token behind which the model writes the text of the gap. Files of the same repository may come before.
//!
//! All of it is text of clients, so nothing in it becomes a control token.

use super::text_model::{FimTokens, SpecialTokens, TextError, TextModel};
use crate::http::error::ApiError;

/// The text around a gap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) suffix: &'a str,
}

/// A file of the same repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContextFile {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A prompt that was made to fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FittedPrompt {
    pub(crate) tokens: Vec<u32>,
    /// True if a part of the text around the gap was left out.
    pub(crate) truncated: bool,
}

/// The names that llama-server gives the repository and the file with the gap.
const REPOSITORY: &str = "myproject\n";
const FILE: &str = "filename\n";
/// Stands before each file if the model has no token for that.
const SNIPPET: &str = "\n\n--- snippet ---\n\n";

/// Checks that the model can fill in the middle. `param` is the parameter that asks for it.
///
/// # Errors
/// A 400 if it cannot.
pub(crate) fn check(text: &dyn TextModel, param: &str) -> Result<FimTokens, ApiError> {
    text.description().fim.ok_or_else(|| {
        let message = "This model cannot fill in the middle of a text: expected one whose vocabulary has tokens for a \
                       prefix, a suffix and a middle.";
        ApiError::unsupported(param, message)
    })
}

/// The prompt for `gap`: all of its text. OpenAI's `suffix` and Ollama's ask for it.
///
/// # Errors
/// [`TextError`] if the model cannot fill in the middle, or if the text cannot be encoded.
pub(crate) fn encode(text: &dyn TextModel, gap: Gap<'_>) -> Result<Vec<u32>, TextError> {
    let fim = tokens(text)?;
    Ok(join(fim, &begin(text)?, &plain(text, gap.prefix)?, &plain(text, gap.suffix)?))
}

/// The prompt for `gap` in a repository with `files`, as llama-server makes it, in at most `tokens_max` tokens. If it
/// would be longer, the beginnings of the files are left out, then text that is far from the gap.
///
/// # Errors
/// As for [`encode`].
pub(crate) fn encode_in_repository(
    text: &dyn TextModel,
    gap: Gap<'_>,
    files: &[ContextFile],
    tokens_max: usize,
) -> Result<FittedPrompt, TextError> {
    let fim = tokens(text)?;
    let (mut before, repository) = (begin(text)?, repository(text, fim, files)?);
    let (prefix, suffix) = (plain(text, gap.prefix)?, plain(text, gap.suffix)?);
    let room = tokens_max.saturating_sub(before.len() + 3);
    let (prefix_take, suffix_take) = fit(prefix.len(), suffix.len(), room);
    let repository_take = repository.len().min(room - prefix_take - suffix_take);
    before.extend(&repository[repository.len() - repository_take..]);
    let tokens = join(fim, &before, &prefix[prefix.len() - prefix_take..], &suffix[..suffix_take]);
    Ok(FittedPrompt { tokens, truncated: prefix_take < prefix.len() || suffix_take < suffix.len() })
}

/// Numbers of tokens to take of `prefix` and `suffix` so that both have at most `room`: three parts of the prefix to
/// one of the suffix, if both are too long.
fn fit(prefix: usize, suffix: usize, room: usize) -> (usize, usize) {
    let suffix_take = suffix.min((room / 4).max(room.saturating_sub(prefix)));
    (prefix.min(room - suffix_take), suffix_take)
}

fn join(fim: FimTokens, before: &[u32], prefix: &[u32], suffix: &[u32]) -> Vec<u32> {
    [before, &[fim.prefix], prefix, &[fim.suffix], suffix, &[fim.middle]].concat()
}

/// The files and their names, and at the end the name of the file with the gap.
fn repository(text: &dyn TextModel, fim: FimTokens, files: &[ContextFile]) -> Result<Vec<u32>, TextError> {
    let mut tokens = Vec::new();
    if let Some(token) = fim.repository {
        tokens.push(token);
        tokens.extend(plain(text, REPOSITORY)?);
    }
    for file in files {
        match fim.file_separator {
            Some(token) => {
                tokens.push(token);
                tokens.extend(plain(text, &format!("{}\n", file.name))?);
            }
            None => tokens.extend(plain(text, SNIPPET)?),
        }
        tokens.extend(plain(text, &file.text)?);
    }
    if let Some(token) = fim.file_separator {
        tokens.push(token);
        tokens.extend(plain(text, FILE)?);
    }
    Ok(tokens)
}

fn tokens(text: &dyn TextModel) -> Result<FimTokens, TextError> {
    let none = || TextError("the vocabulary has no tokens for filling in the middle".to_owned());
    text.description().fim.ok_or_else(none)
}

/// The token that begins a text, if the model wants one.
fn begin(text: &dyn TextModel) -> Result<Vec<u32>, TextError> {
    text.encode_text("", SpecialTokens { added: true, parsed: false })
}

fn plain(text: &dyn TextModel, part: &str) -> Result<Vec<u32>, TextError> {
    text.encode_text(part, SpecialTokens::PLAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_far_from_the_gap_is_left_out_and_unused_room_goes_to_the_other_side() {
        assert_eq!(fit(10, 10, 20), (10, 10));
        assert_eq!(fit(100, 100, 40), (30, 10));
        assert_eq!(fit(100, 4, 40), (36, 4));
        assert_eq!(fit(5, 100, 40), (5, 35));
        assert_eq!(fit(100, 100, 0), (0, 0));
        assert_eq!(fit(0, 0, 9), (0, 0));
    }

    #[test]
    fn the_gap_comes_last() {
        let fim = FimTokens { prefix: 1, suffix: 2, middle: 3, repository: None, file_separator: None };
        assert_eq!(join(fim, &[9], &[10, 11], &[12]), [9, 1, 10, 11, 2, 12, 3]);
    }
}
