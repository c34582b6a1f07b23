//! A token with which machines join the cluster: the value of `tokens/<id>`.

use serde::{Deserialize, Serialize};

/// The right to join. The secret itself is in the token's text only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// A hash of the secret, which says nothing of it.
    pub secret_hash: String,
    /// The time at which it was made, in seconds since 1970.
    pub created_s: u64,
    /// The time at which it ends. `None` for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
    /// The time at which it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_s: Option<u64>,
}

/// The validity of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// It does.
    Valid,
    /// Its time is over.
    Expired,
    /// An operator took it back.
    Revoked,
}

// === impl TokenRecord ===

impl TokenRecord {
    /// The state at `now_s` seconds since 1970.
    pub fn state(&self, now_s: u64) -> TokenState {
        if self.revoked_s.is_some() {
            TokenState::Revoked
        } else if self.expires_s.is_some_and(|end| end <= now_s) {
            TokenState::Expired
        } else {
            TokenState::Valid
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_at_its_time_and_a_revoked_one_at_once() {
        let token = TokenRecord { secret_hash: String::new(), created_s: 1, expires_s: Some(10), revoked_s: None };
        assert_eq!((token.state(9), token.state(10)), (TokenState::Valid, TokenState::Expired));
        assert_eq!(TokenRecord { expires_s: None, ..token.clone() }.state(u64::MAX), TokenState::Valid);
        assert_eq!(TokenRecord { revoked_s: Some(2), ..token }.state(3), TokenState::Revoked);
    }
}
