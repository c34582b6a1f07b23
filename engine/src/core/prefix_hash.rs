//! The name of a prefix of a sequence in the prefix cache: a digest of its tokens. Knows nothing of blocks' numbers.

use crate::runner::KV_BLOCK_TOKENS;

/// A BLAKE3 digest of the tokens of a sequence from position 0 to the end of a block, chained block by block. Nobody
/// knows two prefixes with the same digest, so equal digests mean equal tokens, whoever sent the prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PrefixHash([u8; 32]);

// === impl PrefixHash ===

impl PrefixHash {
    /// The empty prefix.
    const EMPTY: Self = Self([0; 32]);

    /// The prefixes of `tokens` that end with a block, the shortest first.
    #[cfg(test)]
    pub fn chain(tokens: &[u32]) -> Vec<Self> {
        let mut chain = Vec::new();
        Self::extend(&mut chain, tokens);
        chain
    }

    /// Extends `chain`, the first prefixes of `tokens` that end with a block, to all of them.
    pub fn extend(chain: &mut Vec<Self>, tokens: &[u32]) {
        let (blocks, _) = tokens.as_chunks::<{ KV_BLOCK_TOKENS as usize }>();
        for block in blocks.iter().skip(chain.len()) {
            let parent = chain.last().copied().unwrap_or(Self::EMPTY);
            chain.push(parent.followed_by(block));
        }
    }

    fn followed_by(self, block: &[u32]) -> Self {
        let mut digest = blake3::Hasher::new();
        digest.update(&self.0);
        let mut bytes = [0; size_of::<u32>() * KV_BLOCK_TOKENS as usize];
        for (to, token) in bytes.as_chunks_mut().0.iter_mut().zip(block) {
            *to = token.to_le_bytes();
        }
        digest.update(&bytes);
        Self(digest.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_named_by_all_of_its_tokens() {
        let tokens: Vec<u32> = (0..100).collect();
        let chain = PrefixHash::chain(&tokens);
        assert_eq!(chain.len(), 3, "four tokens are no block");
        for changed in [0, 31, 32, 95] {
            let mut other = tokens.clone();
            other[changed] ^= 1 << 31;
            let same = PrefixHash::chain(&other).iter().zip(&chain).filter(|(a, b)| a == b).count();
            assert_eq!(same, changed / 32, "token {changed} is in that block");
        }
    }

    #[test]
    fn a_chain_grows_with_its_sequence() {
        let tokens: Vec<u32> = (0..130).collect();
        let mut chain = Vec::new();
        for len in [0, 31, 40, 64, 130] {
            PrefixHash::extend(&mut chain, &tokens[..len]);
            assert_eq!(chain.len(), len / 32);
        }
        assert_eq!(chain, PrefixHash::chain(&tokens));
    }
}
