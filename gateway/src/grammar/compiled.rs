//! A compiled grammar.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::earley::lexerspec::LexerSpec;
use llguidance::{ParserFactory, panic_utils};

use super::token_trie::TokenTrie;
use super::translation::Translation;
use super::{GrammarError, Matcher, llguidance_error};

/// A grammar, compiled for one model. Clones share it.
#[derive(Clone)]
pub struct Grammar(Arc<Compiled>);

struct Compiled {
    /// A matcher at the beginning. It is never advanced, only copied.
    template: llguidance::Matcher,
    tokens: Arc<TokenTrie>,
    /// The control tokens that it may choose.
    marks: Vec<u32>,
    unenforced: Vec<String>,
}

// === impl Grammar ===

impl Grammar {
    /// Compiles a translated source. Returns the bytes of its lexer's tables, too.
    ///
    /// # Errors
    /// [`GrammarError`] when llguidance refuses it, or when it uses what a matcher here cannot follow.
    pub(super) fn new(
        factory: &ParserFactory,
        tokens: Arc<TokenTrie>,
        translation: Translation,
    ) -> Result<(Self, usize), GrammarError> {
        let Translation { source, mut unenforced, definitions, marks } = translation;
        let parser = factory.create_parser(source);
        let mut parser = parser.map_err(|error| llguidance_error::compiling(&error.to_string(), &definitions))?;
        check_followable(parser.parser.grammar().lexer_spec(), &marks)?;
        unenforced.extend(parser.grammar_warnings());
        parser.start_without_prompt();
        // The first mask finds grammars without a text, and makes the lexer states that every matcher begins with.
        let first = panic_utils::catch_unwind(AssertUnwindSafe(|| {
            parser.compute_mask()?;
            parser.check_stop()
        }));
        first.map_err(|error| llguidance_error::compiling(&error.to_string(), &definitions))?;
        let lexer_bytes = parser.parser.lexer_stats().num_bytes;
        let template = llguidance::Matcher::new(Ok(parser));
        Ok((Self(Arc::new(Compiled { template, tokens, marks, unenforced })), lexer_bytes))
    }

    /// A matcher at the grammar's beginning.
    #[must_use]
    pub fn matcher(&self) -> Matcher {
        Matcher::new(self.clone())
    }

    /// The parts of a schema that are not enforced, each with its place if it is known. It is empty unless the schema
    /// was compiled with `strict: false`.
    #[must_use]
    pub fn unenforced(&self) -> &[String] {
        &self.0.unenforced
    }

    /// A copy of the template that shares nothing with it that changes.
    pub(super) fn parser(&self) -> llguidance::Matcher {
        self.0.template.deep_clone()
    }

    pub(super) fn tokens(&self) -> &TokenTrie {
        &self.0.tokens
    }

    /// The control tokens that it may choose, where it names them.
    pub(super) fn marks(&self) -> &[u32] {
        &self.0.marks
    }

    /// True if `token` can be chosen somewhere: as text, as a mark, or to end an answer.
    pub(super) fn can_choose(&self, token: u32) -> bool {
        self.0.tokens.choosable().contains(token) || self.0.marks.contains(&token)
    }
}

/// Refuses what the library can do but a matcher here cannot follow: a matcher goes back by tokens, advances by their
/// text, and chooses no token without text but `marks`.
fn check_followable(spec: &LexerSpec, marks: &[u32]) -> Result<(), GrammarError> {
    let refused = [
        (
            spec.special_token_rx.is_some() && marks.is_empty(),
            "special tokens (<…>)",
            "a grammar can require text only",
        ),
        (spec.has_stop, "stop=", "use suffix=, which belongs to the text"),
        (spec.has_max_tokens, "max_tokens=", "bound a terminal by a repetition, such as /[a-z]{1,20}/"),
        (spec.has_temperature, "temperature=", "a request has one temperature"),
    ];
    match refused.into_iter().find(|(found, ..)| *found) {
        Some((_, keyword, hint)) => {
            Err(GrammarError::Unsupported { keyword: keyword.to_owned(), hint: hint.to_owned(), position: None })
        }
        None => Ok(()),
    }
}
