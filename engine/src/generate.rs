//! The requests that the gateway's HTTP server makes of the pipeline, and the replies.

use std::time::Duration;

use schema::frame::{Alternative, Spent};
use schema::record::KvBlocks;
use tokio::sync::mpsc;

mod constraint;
mod options;
mod pooling;
mod sequence_report;

pub use constraint::{Constraint, ConstraintError, Grammar, NextTokens, SharedGrammar};
pub use options::{Dry, Penalties, TokenOptions};
pub use pooling::Pooling;
pub use sequence_report::{SequencePhase, SequenceReport};

/// A sequence to be generated, scored or embedded.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// Maximum number of tokens to generate. A full context ends the sequence earlier. 0 if only the prompt is to be
    /// scored.
    pub tokens_max: u32,
    /// The method of choosing each generated token, and the scores to report.
    pub tokens: TokenOptions,
    /// Tokens that end the sequence. Such a token is reported, then the sequence finishes with [`Finish::Stop`].
    pub stop_tokens: Vec<u32>,
    /// Longest time it may take, queue included.
    pub deadline: Duration,
    /// Among the waiting requests, a smaller value goes first. 0 unless the client sets it.
    pub priority: i32,
    /// If the prompt is to be embedded, the way to do it. Then nothing is generated or scored, and the last event is
    /// [`TokenEvent::Embedded`].
    pub pooling: Option<Pooling>,
}

/// The reason for which a sequence ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// A stop token came.
    Stop,
    /// `tokens_max` tokens are generated, or the context is full.
    Length,
}

/// An event of a sequence: its beginning, one token, or its end.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenEvent {
    /// Work on the sequence has begun. This is the first event and comes once.
    Started {
        /// Number of tokens at the start of the prompt that need not be computed: their keys and values, which
        /// another sequence has put into the prefix cache, are used again.
        cached_tokens: u32,
    },
    /// The score of the next token of the prompt, from its second one on. They come before the first [`Self::Token`].
    Scored(ScoredToken),
    /// The next token.
    Token(ScoredToken),
    /// The sequence is complete. This is the last event.
    Finished {
        /// The reason.
        finish: Finish,
        /// The durations of its phases.
        timings: Timings,
    },
    /// The prompt's embedding. This is the last event.
    Embedded {
        /// One value for each of the model's hidden dimensions, not normalised.
        vector: Vec<f32>,
        /// The durations of its phases.
        timings: Timings,
    },
    /// The sequence ended with an error. This is the last event.
    Failed(Failure),
}

/// A token, and its probability under the model at its position.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoredToken {
    /// Its id.
    pub token: u32,
    /// Natural logarithm of its probability, before temperature, penalties and masks.
    pub logprob: f32,
    /// Its rank among all tokens by probability, from 1. 0 if the request asks for no alternatives.
    pub rank: u32,
    /// The likeliest tokens at its position, the likeliest first: as many as the request asks for.
    pub alternatives: Vec<Alternative>,
}

/// The durations of a sequence's phases, and the work of each stage for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timings {
    /// From admission to the first micro-batch.
    pub queued: Duration,
    /// From the first micro-batch to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
    /// The number of times that it was started: 1, and 1 more for each time that a fault, a new pipeline, or a
    /// sequence that goes first and needs its blocks made it start again.
    pub attempts: u32,
    /// The work of each stage for this sequence, in the order of the pipeline. A stage that had other layers in an
    /// earlier attempt has an entry for each layer range. Of a micro-batch, only this sequence's rows count.
    pub stages: Vec<StageTime>,
}

/// The work of one stage for a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct StageTime {
    /// The stage's name.
    pub stage: String,
    /// `[first, one past last]` layer.
    pub layers: [u32; 2],
    /// Token rows of this sequence that it computed.
    pub rows: u64,
    /// The stage's compute time for the micro-batches of those rows, shared out in proportion to rows.
    pub compute: Duration,
}

/// The reason for which an accepted sequence did not complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Its deadline passed.
    #[error("the request took longer than its limit of {limit_s} s")]
    Deadline {
        /// The limit in seconds.
        limit_s: u64,
    },
    /// The process is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// The grammar of its text takes more work than its limits allow.
    #[error(transparent)]
    Grammar(#[from] ConstraintError),
    /// A stage refused the sequence's work again and again.
    #[error("stage {stage} could not compute: {reason}")]
    Stage {
        /// The stage's name.
        stage: String,
        /// The reason that it gave.
        reason: String,
    },
}

/// The reason for which a sequence was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The pipeline cannot serve now.
    #[error("the model cannot be served now: {reason}")]
    NotServing {
        /// The missing part, such as "layers 9..21 are held by nobody".
        reason: String,
    },
    /// The queue is full.
    #[error("{waiting} requests wait already: try again later")]
    Busy {
        /// The number of requests that wait.
        waiting: usize,
    },
    /// The prompt leaves no room for an answer.
    #[error("this model's maximum context length is {context_tokens} tokens, the prompt has {prompt_tokens}")]
    TooLong {
        /// The length of the context, in tokens.
        context_tokens: u32,
        /// The length of the prompt, in tokens.
        prompt_tokens: u32,
    },
    /// The model embeds texts, and the prompt is not to be embedded.
    #[error("this model makes embeddings only, as its tokens attend to the whole text: ask it for embeddings")]
    EmbedsOnly,
}

/// A sequence being generated. Dropping it cancels the sequence and frees its blocks.
#[derive(Debug)]
pub struct TokenStream {
    id: u64,
    events: mpsc::Receiver<TokenEvent>,
}

// === impl TokenEvent ===

impl TokenEvent {
    /// True if no event follows.
    pub fn is_last(&self) -> bool {
        match self {
            Self::Started { .. } | Self::Scored(_) | Self::Token(_) => false,
            Self::Finished { .. } | Self::Embedded { .. } | Self::Failed(_) => true,
        }
    }
}

// === impl TokenStream ===

impl TokenStream {
    /// Wraps the receiving end of a sequence's events. `id` is the sequence's number in [`SequenceReport::id`].
    pub fn new(id: u64, events: mpsc::Receiver<TokenEvent>) -> Self {
        Self { id, events }
    }

    /// The sequence's number in [`SequenceReport::id`].
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The next event. After the last one there is none. Cancel-safe.
    pub async fn next(&mut self) -> Option<TokenEvent> {
        self.events.recv().await
    }
}

/// The state of the pipeline. On every change a complete new value is published.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PipelineStatus {
    /// True once a micro-batch has come through every stage of the current pipeline and back.
    pub serving: bool,
    /// If it does not serve, the reason: a plain sentence that names the missing layers.
    pub reason: String,
    /// Layer ranges that no stage serves, `[first, one past last]`.
    pub missing_layers: Vec<[u32; 2]>,
    /// True if the store answers.
    pub store_reachable: bool,
    /// Alarms that the store raises, such as a full disk. It still answers.
    pub store_alarms: Vec<String>,
    /// A sentence that names the records that the store has lost. If it has lost none, one that names the first value
    /// in it that cannot be used. `None` if there is neither.
    pub store_problem: Option<String>,
    /// Maximum number of tokens of a sequence, prompt and answer together: the model's context, or less if the stages
    /// have no memory for that many.
    pub context_tokens: u32,
    /// The number of sequences being generated.
    pub running: usize,
    /// The number of sequences that wait.
    pub waiting: usize,
    /// This gateway's blocks of keys and values of each kind.
    pub kv_blocks: KvBlocks,
    /// Those of them that sequences own.
    pub kv_blocks_used: KvBlocks,
    /// Tokens generated per second over the last complete period, which is one second or a little more.
    pub tokens_per_second: f64,
}

/// The pipeline as the HTTP server uses it. The gateway's core implements it, and a test double may.
#[async_trait::async_trait]
pub trait Pipeline: Send + Sync + 'static {
    /// Accepts a sequence or returns the reason for refusing it. An accepted one always ends with `Finished`,
    /// `Embedded` or `Failed`.
    ///
    /// # Errors
    /// [`Rejection`] if it is not accepted.
    async fn generate(&self, request: Request) -> Result<TokenStream, Rejection>;

    /// Counts a sequence that the HTTP server refuses by itself, as if it had been submitted and not accepted.
    fn refused(&self, rejection: &Rejection);

    /// The current state of the pipeline.
    fn status(&self) -> PipelineStatus;

    /// The counters, for Prometheus.
    fn metrics(&self) -> prometheus::Registry;

    /// The cluster as the store shows it now.
    fn view(&self) -> std::sync::Arc<crate::view::ClusterView>;

    /// The sequences that run or wait, as of the last tick. Empty where the pipeline does not tell.
    fn sequences(&self) -> std::sync::Arc<[SequenceReport]> {
        std::sync::Arc::default()
    }
}

/// A sequence's share of the time that a stage reports, in proportion to its rows.
pub(crate) fn compute_share(spent: &Spent, rows: u32) -> Duration {
    let rows_total = spent.rows.max(1);
    Duration::from_micros(u64::from(spent.compute_us) * u64::from(rows) / u64::from(rows_total))
}
