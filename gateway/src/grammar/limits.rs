//! The bounds of constrained decoding, each with its unit and its reason.

use std::time::Duration;

use llguidance::api::ParserLimits;

/// Bytes of a grammar's source, a schema's as JSON text: twice the longest schema that OpenAI accepts (120,000
/// characters).
pub(super) const SOURCE_BYTES_MAX: usize = 256 << 10;
/// Strings of a choice, as many as a long list of labels has.
pub(super) const CHOICES_MAX: usize = 4096;
/// Schemas in a JSON schema, each referenced one counted once: twice the properties that OpenAI accepts. llguidance
/// recurses as deep as schemas refer to each other, so [`COMPILE_STACK_BYTES`] rests on this bound.
pub(super) const SCHEMAS_MAX: usize = 10_000;
/// Patterns in all `patternProperties` of a schema. Each pair of an object's patterns is checked for overlap, for up to
/// a millisecond.
pub(super) const PATTERN_PROPERTIES_MAX: usize = 32;
/// Spaces after a line break in JSON: ten levels, indented by four each. So a model that prefers white space to an
/// answer has to go on.
pub(super) const INDENT_SPACES_MAX: usize = 40;
/// Deepest nesting of groups in a GBNF grammar. llguidance's Lark parser takes 30 levels, and the translation adds two.
pub(super) const GBNF_NESTING_MAX: usize = 24;
/// Largest count in a GBNF repetition (`{m,n}`), as in llama.cpp.
pub(super) const GBNF_REPEAT_MAX: u32 = 2000;

/// Time for compiling one grammar. Schemas in use take milliseconds. llguidance cannot be interrupted while it
/// compiles, so a thread that takes longer goes on, without a waiting caller, until it reaches a limit below.
pub(super) const COMPILE_TIME: Duration = Duration::from_secs(5);
/// Grammars that are compiled at the same time, those whose callers no longer wait included. They take processor time
/// from other requests only.
pub(super) const COMPILES_MAX: usize = 4;
/// Stack of a compiling thread, in bytes. Only the used part takes memory. The deepest recursion is that of
/// [`SCHEMAS_MAX`] schemas that refer to each other in a chain, and of as many rules as fit [`SOURCE_BYTES_MAX`].
pub(super) const COMPILE_STACK_BYTES: usize = 512 << 20;
/// Compiled grammars that are kept for requests with the same source: the response formats and tools of an application.
pub(super) const CACHE_GRAMMARS_MAX: usize = 64;
/// Bytes of all sources and lexer tables of kept grammars. A usual schema takes about one megabyte.
pub(super) const CACHE_BYTES_MAX: usize = 64 << 20;

/// Bytes of a token that a grammar can choose. The trie's nodes count their parents in 10 bits. Longer tokens (long
/// runs of spaces) are left out, and their text is made of shorter ones.
pub(super) const TOKEN_BYTES_MAX: usize = 1023;
/// Bytes of all tokens. The trie counts its nodes in 22 bits, and each byte takes at most one. The largest vocabularies
/// in use have about half of this.
pub(super) const VOCABULARY_BYTES_MAX: usize = (1 << 22) - 2;
/// Forced tokens that one call returns. More of them are returned by the next call, once these are accepted.
pub(super) const FORCED_TOKENS_MAX: usize = 256;
/// Bytes of forced text that are divided into tokens for one mask. Dividing 16 KiB takes some milliseconds, and only
/// the first token is needed.
pub(super) const FORCED_BYTES_MAX: usize = 16 << 10;
/// Tokens at the end of text that was cut at [`FORCED_BYTES_MAX`] which may be others in the whole text. They are left
/// out. There are more: 16 KiB are 17 tokens of [`TOKEN_BYTES_MAX`] at least.
pub(super) const UNSURE_TOKENS: usize = 8;
/// Tokens accepted without a mask, after which the matcher computes one itself. llguidance renews its budget for new
/// lexer states only with a mask, so a replay without masks would use up the budget of one step.
pub(super) const UNMASKED_TOKENS_MAX: usize = 64;

/// llguidance's own bounds. Units of fuel are about 0.1 µs each.
pub(super) fn parser_limits() -> ParserLimits {
    ParserLimits {
        // Earley items after a token: how many ways the text can be read.
        max_items_in_row: 2000,
        // Fuel for compiling: about 0.1 s. The largest schemas in public collections take half of it.
        initial_lexer_fuel: 1_000_000,
        // Fuel and Earley items of one mask: about 20 ms, as long as a token takes to compute.
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        // Lexer states of one sequence, of about 1 kB each. Schemas in use make some hundreds.
        max_lexer_states: 20_000,
        // Symbols of all rules.
        max_grammar_size: 200_000,
        precompute_large_lexemes: true,
        // Errors would otherwise repeat the whole grammar.
        verbose_errors: false,
    }
}
