//! Working memory of a shard, allocated once. One function computes its sizes, so that a stage takes the bytes that it
//! announces.

use schema::record::KvKinds;

use super::assignments::{Assignments, GROUPS_MAX, group_rows_max};
use super::attention::{CHUNK_TOKENS, QUERIES_MAX, Scratch, Sums};
use super::kv::{KvNumber, KvShape, padded_value};
use super::latent_attention::heads_of_part;
use super::rope::Angles;
use crate::kernels::Rows;
use crate::model::{AttentionSpec, FeedForward, LayerSpec, Mixer, ModelSpec, Rope, RopeSpec};
use crate::sampling::{SampledToken, Sampler, SamplingError};
use crate::shard::{RowRun, RowTile, TOKENS, TileRow};

/// Rows computed together: enough that reading the weights once for all of them costs little compared with multiplying,
/// and few, because a stage of one layer has as much scratch as a stage of all layers. Longer micro-batches take
/// several passes.
pub(super) const ROWS_MAX: usize = 128;
/// Rows whose logits are computed together: enough that a full batch of decoding sequences reads the output head twice,
/// few enough that logits of 150,000 tokens take 20 MB.
pub(super) const HEAD_ROWS_MAX: usize = 32;
/// Minimum units of attention for each thread. Long histories are cut into chunks if there are fewer.
pub(super) const UNITS_PER_THREAD: usize = 2;

/// Sizes of all buffers in an [`Arena`].
#[derive(Debug, Clone, Copy)]
pub(super) struct ArenaSizes {
    hidden: usize,
    query: usize,
    key: usize,
    value: usize,
    feed_forward: usize,
    /// Experts, and those that a row chooses. 0 in a model without experts.
    experts: usize,
    chosen: usize,
    /// Widest input of a group of rows of their own. 0 in a model without such groups.
    group_input: usize,
    /// Most rows of each of these groups.
    group_rows: [usize; GROUPS_MAX],
    /// Compressed queries of a row for all heads. 0 in a model without latent attention.
    latent: usize,
    /// Widest input of a product.
    input: usize,
    head_key: usize,
    head_value_padded: usize,
    /// Pairs of dimensions that are rotated, of all rotary embeddings together.
    rope_pairs: usize,
    threads: usize,
    /// Queries that attention processes on one thread.
    queries: usize,
    group: usize,
    /// Chunks whose sums are merged across threads.
    chunks: usize,
    /// Tokens in the vocabulary, or 0 if the shard has no output head.
    vocabulary: usize,
    /// Rows of whole texts. 0 in a model whose tokens do not attend to those after them.
    text_rows: usize,
}

/// Working memory of a shard.
#[derive(Debug)]
pub(super) struct Arena {
    /// The residual stream.
    pub(super) x: Vec<f32>,
    /// Input of the current products.
    pub(super) input: Rows,
    pub(super) query: Vec<f32>,
    pub(super) key: Vec<f32>,
    pub(super) value: Vec<f32>,
    /// Values to add to the residual stream.
    pub(super) out: Vec<f32>,
    pub(super) gate: Vec<f32>,
    pub(super) up: Vec<f32>,
    /// One for each rotary embedding of the model.
    pub(super) angles: Vec<Angles>,
    /// Logits of experts, `[row][expert]`, and working memory of their choice.
    pub(super) router: Vec<f32>,
    pub(super) ranks: Vec<f32>,
    pub(super) assignments: Assignments,
    /// Inputs of products with rows of their own.
    pub(super) groups: Vec<Rows>,
    /// Compressed queries of latent attention, and then its results: `[head][row][compressed value]`.
    pub(super) latent: Vec<f32>,
    /// Results of a batch of experts.
    pub(super) expert_out: Vec<f32>,
    /// Sums of the experts' results.
    pub(super) mixed: Vec<f32>,
    /// Weight of the result of the network beside the experts, for each row.
    pub(super) shared_gates: Vec<f32>,
    pub(super) tile: RowTile,
    /// One for each thread.
    pub(super) scratch: Vec<Scratch>,
    pub(super) chunks: Vec<Sums>,
    pub(super) logits: Vec<f32>,
    /// Rows of the tile that need a token or logits.
    pub(super) logit_rows: Vec<usize>,
    /// One for each thread, in the last stage.
    pub(super) samplers: Vec<Sampler>,
    pub(super) sampled: Vec<Option<Result<SampledToken, SamplingError>>>,
    /// The residual stream of whole texts, which go through a layer tile by tile before the next one begins.
    pub(super) text_rows: Vec<f32>,
}

// === impl ArenaSizes ===

impl ArenaSizes {
    /// Sizes for a shard of this model on `threads` threads with room for `kv_tokens` tokens. They are enough for each
    /// of the model's layers, so that equal stages take equal scratch.
    pub(super) fn new(spec: &ModelSpec, last: bool, threads: usize, kv_tokens: u32) -> Self {
        let sequence = spec.sequence_tokens_max(kv_tokens.next_multiple_of(TOKENS as u32));
        // In layers with a window, rows attend to the chunks that the window begins and ends in, and those between.
        let visible = match spec.kv_kinds() {
            KvKinds::Window(window) => sequence.min(window.saturating_add(2 * CHUNK_TOKENS as u32)),
            KvKinds::Full | KvKinds::Both(_) => sequence,
        };
        let mut sizes = Self {
            hidden: spec.hidden,
            query: 0,
            key: 0,
            value: 0,
            feed_forward: 0,
            experts: 0,
            chosen: 0,
            group_input: 0,
            group_rows: [0; GROUPS_MAX],
            latent: 0,
            input: spec.hidden,
            head_key: 0,
            head_value_padded: 0,
            rope_pairs: spec.ropes.iter().map(RopeSpec::pairs).sum(),
            threads,
            queries: QUERIES_MAX,
            group: 0,
            chunks: if threads > 1 {
                threads * UNITS_PER_THREAD * (visible as usize).div_ceil(CHUNK_TOKENS)
            } else {
                0
            },
            vocabulary: if last && spec.head.is_some() { spec.vocabulary } else { 0 },
            text_rows: if spec.is_bidirectional() { spec.text_rows_max() } else { 0 },
        };
        spec.layers.iter().for_each(|layer| sizes.hold(layer));
        sizes
    }

    /// Makes the sizes enough for `layer`.
    fn hold(&mut self, layer: &LayerSpec) {
        let most = |size: &mut usize, needed: usize| *size = needed.max(*size);
        match &layer.mixer {
            Mixer::Attention(attention) => {
                most(&mut self.query, attention.query_width());
                most(&mut self.key, attention.key_width());
                most(&mut self.value, attention.value_width());
                most(&mut self.input, attention.output_width());
                most(&mut self.head_key, attention.key);
                most(&mut self.head_value_padded, padded_value(attention.value));
                most(&mut self.group, attention.group());
            }
            Mixer::Latent(latent) => {
                most(&mut self.query, latent.heads * latent.query().max(latent.value));
                most(&mut self.key, latent.stored());
                most(&mut self.value, latent.query_rank.unwrap_or(0));
                most(&mut self.input, latent.query_rank.unwrap_or(0).max(latent.heads * latent.value));
                most(&mut self.head_key, latent.stored());
                most(&mut self.head_value_padded, padded_value(latent.rank));
                most(&mut self.group, heads_of_part(latent));
                most(&mut self.latent, latent.heads * latent.rank);
                most(&mut self.group_input, latent.plain.max(latent.rank));
                self.group_rows.iter_mut().for_each(|rows| most(rows, ROWS_MAX));
            }
            Mixer::ShortConv(conv) => {
                most(&mut self.query, conv.parts());
                most(&mut self.key, conv.width);
                most(&mut self.input, conv.width);
            }
        }
        match &layer.feed_forward {
            FeedForward::Dense(dense) => {
                most(&mut self.feed_forward, dense.width);
                most(&mut self.input, dense.width);
            }
            FeedForward::Plain(plain) => {
                most(&mut self.feed_forward, plain.width);
                most(&mut self.input, plain.width);
            }
            FeedForward::Experts(experts) => {
                let shared = experts.shared.map_or(0, |shared| shared.dense.width);
                most(&mut self.feed_forward, experts.width.max(shared));
                most(&mut self.input, shared);
                most(&mut self.experts, experts.count);
                most(&mut self.chosen, experts.chosen);
                let hidden = self.hidden;
                most(&mut self.group_input, experts.width.max(hidden));
                let groups = self.group_rows.iter_mut().enumerate();
                groups.for_each(|(group, rows)| most(rows, group_rows_max(group)));
            }
        }
        most(&mut self.queries, self.group);
    }

    /// Bytes that an arena of these sizes takes.
    pub(super) fn bytes(&self) -> u64 {
        let row = 2 * self.hidden + self.query + self.key + self.value + 2 * self.feed_forward + 2 * self.rope_pairs;
        let rows = ROWS_MAX * row + HEAD_ROWS_MAX * self.vocabulary + self.text_rows * self.hidden;
        let floats = rows * size_of::<f32>();
        // Rows of an input are kept as floats and in 8 bits with their scales (2 bytes a value). The 8-bit buffer
        // counts twice.
        let input = ROWS_MAX * self.input * (size_of::<f32>() + 2 * 2);
        let plan = ROWS_MAX * (size_of::<TileRow>() + size_of::<RowRun>() + size_of::<usize>());
        let scratch = Scratch::bytes(self.head_key, self.head_value_padded, self.queries) * self.threads as u64;
        let chunks = Sums::bytes(self.head_value_padded, self.group) * self.chunks as u64;
        let samplers = Sampler::bytes(self.vocabulary) * self.threads as u64;
        (floats + input + plan + self.group_bytes()) as u64 + scratch + chunks + samplers
    }

    /// Bytes that groups of rows take: those of experts, with their choice, and those of the heads of latent attention.
    fn group_bytes(&self) -> usize {
        let row = self.experts + if self.experts > 0 { 2 * self.hidden + 1 } else { 0 };
        let groups: usize = self.group_rows.iter().sum();
        let groups = groups * self.group_input * (size_of::<f32>() + 2 * 2);
        let floats = (ROWS_MAX * (row + self.latent) + self.experts) * size_of::<f32>();
        floats + groups + Assignments::bytes(self.experts, self.chosen)
    }
}

// === impl Arena ===

impl Arena {
    /// Allocates everything. Memory that is not used is not touched, so it takes only address space.
    pub(super) fn new(sizes: &ArenaSizes, ropes: Vec<Rope>) -> Self {
        let floats = |width: usize| vec![0.0; ROWS_MAX * width];
        let last = sizes.vocabulary > 0;
        let mut input = Rows::new();
        input.prepare(ROWS_MAX, sizes.input);
        let group = |group: &usize| {
            let mut rows = Rows::new();
            rows.prepare(*group, sizes.group_input);
            rows
        };
        let hidden_of_experts = if sizes.experts > 0 { sizes.hidden } else { 0 };
        Self {
            x: floats(sizes.hidden),
            input,
            query: floats(sizes.query),
            key: floats(sizes.key),
            value: floats(sizes.value),
            out: floats(sizes.hidden),
            gate: floats(sizes.feed_forward),
            up: floats(sizes.feed_forward),
            router: floats(sizes.experts),
            ranks: vec![0.0; sizes.experts],
            assignments: Assignments::with_capacity(sizes.experts, sizes.chosen),
            groups: sizes.group_rows.iter().map(group).collect(),
            latent: floats(sizes.latent),
            expert_out: floats(hidden_of_experts),
            mixed: floats(hidden_of_experts),
            shared_gates: floats(if sizes.experts > 0 { 1 } else { 0 }),
            angles: ropes.into_iter().map(|rope| Angles::new(rope, ROWS_MAX)).collect(),
            tile: RowTile::with_capacity(ROWS_MAX),
            scratch: (0..sizes.threads)
                .map(|_| Scratch::new(sizes.head_key, sizes.head_value_padded, sizes.queries))
                .collect(),
            chunks: (0..sizes.chunks).map(|_| Sums::new(sizes.head_value_padded, sizes.group)).collect(),
            logits: vec![0.0; HEAD_ROWS_MAX * sizes.vocabulary],
            logit_rows: Vec::with_capacity(ROWS_MAX),
            samplers: (0..if last { sizes.threads } else { 0 }).map(|_| Sampler::new(sizes.vocabulary)).collect(),
            sampled: vec![None; HEAD_ROWS_MAX],
            text_rows: vec![0.0; sizes.text_rows * sizes.hidden],
        }
    }
}

/// Sizes of the keys and values of a layer with this mixer.
pub(super) fn kv_shape(mixer: &Mixer, number: KvNumber) -> KvShape {
    match mixer {
        Mixer::Attention(AttentionSpec { kv_heads, key, value, .. }) => {
            KvShape { number, heads: *kv_heads, key: *key, value: *value, latent: false }
        }
        Mixer::ShortConv(conv) => {
            KvShape { number: KvNumber::Float, heads: 1, key: 0, value: conv.width, latent: false }
        }
        Mixer::Latent(latent) => KvShape { number, heads: 1, key: latent.stored(), value: latent.rank, latent: true },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announced_bytes_are_those_allocated() {
        let sizes = ArenaSizes {
            hidden: 96,
            query: 128,
            key: 64,
            value: 48,
            feed_forward: 160,
            experts: 6,
            chosen: 2,
            group_input: 100,
            group_rows: std::array::from_fn(group_rows_max),
            latent: 24,
            input: 160,
            head_key: 32,
            head_value_padded: 32,
            rope_pairs: 16,
            threads: 3,
            queries: 50,
            group: 2,
            chunks: 5,
            vocabulary: 700,
            text_rows: 300,
        };
        let frequencies = vec![1.0; sizes.rope_pairs];
        let arena = Arena::new(&sizes, vec![Rope::from_frequencies(frequencies, crate::model::RopeStyle::Halves)]);
        let floats =
            [&arena.x, &arena.query, &arena.key, &arena.value, &arena.out, &arena.gate, &arena.up, &arena.text_rows];
        let of_experts = [
            &arena.logits,
            &arena.latent,
            &arena.router,
            &arena.ranks,
            &arena.expert_out,
            &arena.mixed,
            &arena.shared_gates,
        ];
        let floats: usize = floats.iter().chain(&of_experts).map(|values| values.capacity() * 4).sum();
        let group_rows = 128 + 64 + 42 + 32 + 25 + 21 + 18 + 16;
        let experts = group_rows * 100 * 8 + ROWS_MAX * 2 * (8 + 4 + 4 + 4) + 7 * 4;
        let input = ROWS_MAX * sizes.input * 8;
        let plan =
            ROWS_MAX * (2 * sizes.rope_pairs * 4 + size_of::<TileRow>() + size_of::<RowRun>() + size_of::<usize>());
        let scratch = 3 * 50 * (32 * 4 + TOKENS * 4) + 2 * 3 * 50 * (32 * 4 + 12);
        let merged = 5 * 2 * (32 * 4 + 12);
        let samplers = 3 * 700 * (8 + 2 * 4);
        assert_eq!(sizes.bytes(), (floats + input + plan + experts + scratch + merged + samplers) as u64);
        assert_eq!((arena.scratch.len(), arena.chunks.len(), arena.samplers.len()), (3, 5, 3));
    }
}
