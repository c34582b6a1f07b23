//! The grammars of one model: the compiler, made when the first grammar is asked for.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use engine::generate::SharedGrammar;

use crate::grammar::{GrammarCompiler, GrammarError, GrammarSource};
use crate::text::Tokenizer;

/// Compiles grammars for one model. Preparing its vocabulary takes up to a second, so that is done with the first
/// grammar.
pub(super) struct Grammars {
    tokenizer: Arc<Tokenizer>,
    compiler: OnceLock<Result<GrammarCompiler, String>>,
    /// Grammars are compiled one at a time, so that of several requests for the same one the first compiles it and the
    /// others find it. Each takes a bounded time.
    turn: Mutex<()>,
}

// === impl Grammars ===

impl Grammars {
    pub(super) fn new(tokenizer: &Arc<Tokenizer>) -> Self {
        Self { tokenizer: Arc::clone(tokenizer), compiler: OnceLock::new(), turn: Mutex::new(()) }
    }

    /// The grammar of `source`. Blocks.
    ///
    /// # Errors
    /// [`GrammarError`] when it cannot be compiled.
    pub(super) fn compile(&self, source: &GrammarSource) -> Result<SharedGrammar, GrammarError> {
        let make = || GrammarCompiler::new(Arc::clone(&self.tokenizer)).map_err(|error| error.to_string());
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match self.compiler.get_or_init(make) {
            Ok(compiler) => compiler.compile(source).map(SharedGrammar::new),
            Err(reason) => Err(GrammarError::Vocabulary { reason: reason.clone() }),
        }
    }
}
