//! The grammars of one model: the compiler, made when the first grammar is asked for.

use std::sync::{Arc, OnceLock};

use engine::generate::SharedGrammar;

use crate::grammar::{GrammarCompiler, GrammarError, GrammarSource};
use crate::text::Tokenizer;

/// Compiles grammars for one model. Preparing its vocabulary takes up to a second, so that is done with the first
/// grammar.
pub(super) struct Grammars {
    tokenizer: Arc<Tokenizer>,
    compiler: OnceLock<Result<GrammarCompiler, String>>,
}

// === impl Grammars ===

impl Grammars {
    pub(super) fn new(tokenizer: &Arc<Tokenizer>) -> Self {
        Self { tokenizer: Arc::clone(tokenizer), compiler: OnceLock::new() }
    }

    /// The grammar of `source`. Blocks.
    ///
    /// # Errors
    /// [`GrammarError`] when it cannot be compiled.
    pub(super) fn compile(&self, source: &GrammarSource) -> Result<SharedGrammar, GrammarError> {
        let make = || GrammarCompiler::new(Arc::clone(&self.tokenizer)).map_err(|error| error.to_string());
        match self.compiler.get_or_init(make) {
            Ok(compiler) => compiler.compile(source).map(SharedGrammar::new),
            Err(reason) => Err(GrammarError::Vocabulary { reason: reason.clone() }),
        }
    }
}
