//! The tokens of a cluster in its store: made, listed, revoked, and looked at when a machine comes with one.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::store::{Committed, Compare, Revision, Store, StoreError, Txn, Write};
use schema::record::{TokenRecord, TokenState};
use schema::{Key, Keyspace, TokenId};
use subtle::ConstantTimeEq;

use super::limits::{TOKEN_KEPT, TOKENS_MAX};
use super::protocol::Refusal;
use super::token::{JoinToken, Secret};

/// The reason that a token was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenStoreError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such token.
    #[error("there is no token {id}: expected one that `baton token list` shows")]
    Unknown {
        /// The id.
        id: TokenId,
    },
    /// There are too many.
    #[error("the cluster has {TOKENS_MAX} tokens, which is the most: those that are over go after 30 days")]
    Many,
    /// Another process changed it at the same time.
    #[error("the token {id} was just changed by another process: look again")]
    Changed {
        /// The id.
        id: TokenId,
    },
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// All tokens by id, each with the revision of its record.
///
/// # Errors
/// [`StoreError`] if the store does not answer.
pub(crate) async fn list(
    store: &dyn Store,
    keyspace: &Keyspace,
) -> Result<BTreeMap<TokenId, (TokenRecord, Revision)>, StoreError> {
    let snapshot = store.read(&format!("{}tokens/", keyspace.prefix())).await?;
    let tokens = snapshot.entries.iter().filter_map(|entry| match keyspace.parse(&entry.key) {
        Ok(Key::Token(id)) => Some((id, (serde_json::from_slice(&entry.value).ok()?, entry.mod_revision))),
        _ => None,
    });
    Ok(tokens.collect())
}

/// Writes the record of a new token that is valid for `ttl`, and removes those that were over long ago.
///
/// # Errors
/// [`TokenStoreError`] if there are too many, or if the store fails.
pub(crate) async fn add(
    store: &dyn Store,
    keyspace: &Keyspace,
    token: &JoinToken,
    ttl: Option<Duration>,
) -> Result<TokenRecord, TokenStoreError> {
    let now_s = now_s();
    let known = list(store, keyspace).await?;
    let over = |record: &TokenRecord| match record.state(now_s) {
        TokenState::Valid => None,
        TokenState::Expired => record.expires_s,
        TokenState::Revoked => record.revoked_s,
    };
    let old = |record: &TokenRecord| over(record).is_some_and(|end| end + TOKEN_KEPT.as_secs() < now_s);
    let gone: Vec<_> = known.iter().filter(|(_, (record, _))| old(record)).map(|(id, _)| id.clone()).collect();
    if known.len() - gone.len() >= TOKENS_MAX {
        return Err(TokenStoreError::Many);
    }
    let expires_s = ttl.map(|ttl| now_s.saturating_add(ttl.as_secs()));
    let record = TokenRecord { secret_hash: token.secret.hash(), created_s: now_s, expires_s, revoked_s: None };
    let key = keyspace.name(&Key::Token(token.id.clone()));
    // At most 128 writes fit a transaction. What is left goes with the next token.
    let deletes = gone.into_iter().take(100).map(|id| Write::Delete { key: keyspace.name(&Key::Token(id)) });
    let put = Write::Put { key: key.clone(), value: json(&record), lease: None };
    let txn = Txn { compares: vec![Compare::Absent { key }], writes: deletes.chain([put]).collect() };
    match store.commit(txn).await? {
        Committed::Applied { .. } => Ok(record),
        Committed::Refused => Err(TokenStoreError::Changed { id: token.id.clone() }),
    }
}

/// Revokes a token. Machines that have joined with it stay.
///
/// # Errors
/// [`TokenStoreError`] if there is no such token, or if the store fails.
pub(crate) async fn revoke(store: &dyn Store, keyspace: &Keyspace, id: &TokenId) -> Result<(), TokenStoreError> {
    let found = list(store, keyspace).await?.remove(id);
    let (record, mod_revision) = found.ok_or_else(|| TokenStoreError::Unknown { id: id.clone() })?;
    let record = TokenRecord { revoked_s: record.revoked_s.or(Some(now_s())), ..record };
    let key = keyspace.name(&Key::Token(id.clone()));
    let put = Write::Put { key: key.clone(), value: json(&record), lease: None };
    match store.commit(Txn { compares: vec![Compare::Unchanged { key, mod_revision }], writes: vec![put] }).await? {
        Committed::Applied { .. } => Ok(()),
        Committed::Refused => Err(TokenStoreError::Changed { id: id.clone() }),
    }
}

/// Lets in or refuses a machine that brings this id and secret. A wrong secret is not told from a wrong id.
pub(super) fn admit(record: Option<&TokenRecord>, secret: Option<&Secret>, now_s: u64) -> Result<(), Refusal> {
    let (Some(record), Some(secret)) = (record, secret) else { return Err(Refusal::Unknown) };
    if !bool::from(record.secret_hash.as_bytes().ct_eq(secret.hash().as_bytes())) {
        return Err(Refusal::Unknown);
    }
    match record.state(now_s) {
        TokenState::Valid => Ok(()),
        TokenState::Expired => Err(Refusal::Expired),
        TokenState::Revoked => Err(Refusal::Revoked),
    }
}

fn json(record: &TokenRecord) -> Vec<u8> {
    // Cannot fail: the record has only texts and numbers.
    serde_json::to_vec(record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use engine::store::MemoryStore;

    use super::super::token::AuthorityPin;
    use super::*;

    fn token() -> JoinToken {
        JoinToken::generate("home".parse().unwrap(), AuthorityPin([1; 32])).unwrap()
    }

    #[tokio::test]
    async fn a_token_is_made_listed_and_revoked_and_its_secret_is_not_in_the_store() {
        let (store, keyspace) = (MemoryStore::new(), Keyspace::new(&"home".parse().unwrap()));
        let token = token();
        let made = add(&store, &keyspace, &token, Some(Duration::from_secs(60))).await.unwrap();
        let listed = list(&store, &keyspace).await.unwrap();
        assert_eq!(listed[&token.id].0, made);
        assert!(!String::from_utf8(json(&made)).unwrap().contains(&token.secret.to_hex()));
        revoke(&store, &keyspace, &token.id).await.unwrap();
        assert_eq!(list(&store, &keyspace).await.unwrap()[&token.id].0.state(0), TokenState::Revoked);
        let other = "00000000".parse().unwrap();
        assert!(matches!(revoke(&store, &keyspace, &other).await, Err(TokenStoreError::Unknown { .. })));
    }

    #[tokio::test]
    async fn there_are_at_most_so_many_tokens_and_old_ones_make_room() {
        let (store, keyspace) = (MemoryStore::new(), Keyspace::new(&"home".parse().unwrap()));
        let over = TokenRecord { secret_hash: String::new(), created_s: 1, expires_s: Some(2), revoked_s: None };
        for at in 0..TOKENS_MAX {
            let key = keyspace.name(&Key::Token(format!("{at:08x}").parse().unwrap()));
            let write = Write::Put { key, value: json(&over), lease: None };
            store.commit(Txn { compares: vec![], writes: vec![write] }).await.unwrap();
        }
        add(&store, &keyspace, &token(), None).await.unwrap();
        assert_eq!(list(&store, &keyspace).await.unwrap().len(), TOKENS_MAX + 1 - 100);
        while list(&store, &keyspace).await.unwrap().len() < TOKENS_MAX {
            add(&store, &keyspace, &token(), None).await.unwrap();
        }
        assert!(matches!(add(&store, &keyspace, &token(), None).await, Err(TokenStoreError::Many)));
    }

    #[test]
    fn only_the_right_secret_of_a_valid_token_is_let_in() {
        let token = token();
        let record =
            TokenRecord { secret_hash: token.secret.hash(), created_s: 1, expires_s: Some(9), revoked_s: None };
        assert_eq!(admit(Some(&record), Some(&token.secret), 8), Ok(()));
        assert_eq!(admit(Some(&record), Some(&token.secret), 9), Err(Refusal::Expired));
        assert_eq!(admit(None, Some(&token.secret), 8), Err(Refusal::Unknown));
        assert_eq!(admit(Some(&record), None, 8), Err(Refusal::Unknown));
        assert_eq!(admit(Some(&record), Some(&self::token().secret), 8), Err(Refusal::Unknown));
        let revoked = TokenRecord { revoked_s: Some(3), ..record };
        assert_eq!(admit(Some(&revoked), Some(&token.secret), 8), Err(Refusal::Revoked));
        // Whoever has no right learns nothing of the token's state.
        assert_eq!(admit(Some(&revoked), Some(&self::token().secret), 8), Err(Refusal::Unknown));
    }
}
