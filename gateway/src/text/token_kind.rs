//! The kinds of tokens.

use super::TextError;

/// The kind of a token. The numbers are the file format's (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// 1: text.
    Normal,
    /// 2: stands for text that has no token.
    Unknown,
    /// 3: structure. It is never text, and never made from a client's text.
    Control,
    /// 4: text that was added by hand and is always found as a whole.
    UserDefined,
    /// 5: a gap in the numbering.
    Unused,
    /// 6: one byte.
    Byte,
}

// === impl TokenKind ===

impl TokenKind {
    /// True if a token is structure: found in a template's text, never in a client's.
    #[must_use]
    pub fn is_control(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }

    fn new(number: i32) -> Option<Self> {
        match number {
            // 0 is "undefined" in old files.
            0 | 1 => Some(Self::Normal),
            2 => Some(Self::Unknown),
            3 => Some(Self::Control),
            4 => Some(Self::UserDefined),
            5 => Some(Self::Unused),
            6 => Some(Self::Byte),
            _ => None,
        }
    }
}

/// The kinds of `count` tokens. All are text if a file lists no types.
pub(super) fn kinds(types: &[i32], count: usize) -> Result<Vec<TokenKind>, TextError> {
    if types.is_empty() {
        return Ok(vec![TokenKind::Normal; count]);
    }
    let known = |number: &i32| {
        TokenKind::new(*number)
            .ok_or_else(|| TextError::Vocabulary(format!("expected token types from 0 to 6, found {number}")))
    };
    types.iter().map(known).collect()
}
