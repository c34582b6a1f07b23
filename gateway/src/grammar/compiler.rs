//! Compiles grammars for one model, and keeps those that were used last.

use std::sync::{Arc, Mutex, PoisonError};

use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, TokEnv};

use super::cache::GrammarCache;
use super::compile_thread::CompileThreads;
use super::limits::{CACHE_BYTES_MAX, CACHE_GRAMMARS_MAX, parser_limits};
use super::token_trie::TokenTrie;
use super::translation::Translation;
use super::{Grammar, GrammarError, GrammarSource};
use crate::text::Tokenizer;

/// Compiles grammars for one model. Clones share their work.
#[derive(Clone)]
pub struct GrammarCompiler(Arc<Shared>);

struct Shared {
    factory: ParserFactory,
    tokens: Arc<TokenTrie>,
    threads: CompileThreads,
    cache: Mutex<GrammarCache>,
}

// === impl GrammarCompiler ===

impl GrammarCompiler {
    /// Prepares a model's vocabulary. It takes about a second for 150,000 tokens, so it is made once for each model.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`] when the vocabulary has no token that ends an answer or does not fit the bounds.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Result<Self, GrammarError> {
        let tokens = Arc::new(TokenTrie::new(tokenizer)?);
        let environment: TokEnv = Arc::<TokenTrie>::clone(&tokens);
        // The capabilities are those of llguidance's other interface. Its matcher forces tokens without them.
        let capabilities = InferenceCapabilities::default();
        let factory = ParserFactory::new(&environment, capabilities, &SlicedBiasComputer::general_slices());
        let mut factory = factory.map_err(|error| GrammarError::Vocabulary { reason: error.to_string() })?;
        *factory.limits_mut() = parser_limits();
        factory.quiet();
        let cache = Mutex::new(GrammarCache::new(CACHE_GRAMMARS_MAX, CACHE_BYTES_MAX));
        Ok(Self(Arc::new(Shared { factory, tokens, threads: CompileThreads::default(), cache })))
    }

    /// Compiles `source`, or returns the same grammar as before if it is kept.
    ///
    /// It blocks, for milliseconds in most cases and for five seconds at most, while a thread of its own compiles. So
    /// call it from a thread that may block.
    ///
    /// # Errors
    /// [`GrammarError`] when the source is malformed, unsupported, contradictory or over a bound, or when too many
    /// other grammars are being compiled.
    pub fn compile(&self, source: &GrammarSource) -> Result<Grammar, GrammarError> {
        let (key, source_bytes) = source.key()?;
        if let Some(grammar) = self.cached(|cache| cache.get(&key)) {
            return Ok(grammar);
        }
        let (shared, source) = (Arc::clone(&self.0), source.clone());
        let (grammar, lexer_bytes) = self.0.threads.run(move || {
            let translation = Translation::new(&source)?;
            Grammar::new(&shared.factory, Arc::clone(&shared.tokens), translation)
        })?;
        self.cached(|cache| cache.insert(key, grammar.clone(), source_bytes + lexer_bytes));
        Ok(grammar)
    }

    fn cached<T>(&self, with: impl FnOnce(&mut GrammarCache) -> T) -> T {
        with(&mut self.0.cache.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
