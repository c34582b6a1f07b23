//! The boundary between the pipeline and grammars: a constraint says which tokens may follow.

use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;

use schema::frame::TokenMask;

/// A grammar that a sequence's text must fit.
pub trait Grammar: Debug + Send + Sync + 'static {
    /// The constraint of a new sequence, which has no tokens yet.
    fn begin(&self) -> Box<dyn Constraint>;
}

/// A grammar that the choices of a request share. Two are equal if they are the same one.
#[derive(Debug, Clone)]
pub struct SharedGrammar(Arc<dyn Grammar>);

/// One sequence's place in its grammar. Deterministic: it depends on the grammar and the accepted tokens alone. Every
/// call takes a bounded time.
pub trait Constraint: Debug + Send {
    /// The tokens that may follow the accepted ones.
    ///
    /// # Errors
    /// [`ConstraintError`] if the grammar takes more work than its limits allow.
    fn next(&mut self) -> Result<NextTokens, ConstraintError>;

    /// Takes the next token of the text. Returns false, and changes nothing, if the grammar does not allow it.
    ///
    /// # Errors
    /// As for [`Self::next`].
    fn accept(&mut self, token: u32) -> Result<bool, ConstraintError>;

    /// Takes back the last `tokens` accepted tokens.
    fn rollback(&mut self, tokens: usize);
}

/// The tokens that may follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextTokens {
    /// Any.
    Any,
    /// One of those that the mask allows.
    Masked(TokenMask),
    /// Exactly these, one after the other. At least one.
    Forced(Vec<u32>),
    /// None: the text is complete.
    End,
}

/// A grammar could not be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the grammar cannot be followed: {0}")]
pub struct ConstraintError(pub String);

// === impl SharedGrammar ===

impl SharedGrammar {
    /// Shares `grammar`.
    pub fn new(grammar: impl Grammar) -> Self {
        Self(Arc::new(grammar))
    }
}

impl From<Arc<dyn Grammar>> for SharedGrammar {
    fn from(grammar: Arc<dyn Grammar>) -> Self {
        Self(grammar)
    }
}

impl Deref for SharedGrammar {
    type Target = dyn Grammar;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for SharedGrammar {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
