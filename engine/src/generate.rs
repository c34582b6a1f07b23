//! What the doors ask of the pipeline, and what they get back.

use std::time::Duration;

use schema::frame::{Sampling, Spent};
use tokio::sync::mpsc;

/// A sequence to be generated.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Token ids of the prompt; at least one.
    pub prompt: Vec<u32>,
    /// Most tokens to generate; at least one. The context may end it earlier.
    pub tokens_max: u32,
    /// How to choose them.
    pub sampling: Sampling,
    /// Tokens that end the sequence (they are reported, then it finishes with [`Finish::Stop`]).
    pub stop_tokens: Vec<u32>,
    /// The longest it may take, queue included.
    pub deadline: Duration,
    /// Among those that wait, smaller goes first; 0 unless the client says.
    pub priority: i32,
}

/// Why a sequence ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// A stop token came.
    Stop,
    /// `tokens_max` tokens are made, or the context is full.
    Length,
}

/// The beginning, one token, or the end.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenEvent {
    /// Work on it has begun; the first event, once.
    Began {
        /// Tokens at the start of the prompt that need not be computed: another sequence's keys and values serve.
        cached_tokens: u32,
    },
    /// The next token.
    Token {
        /// Its id.
        token: u32,
        /// Natural logarithm of its probability under the model.
        logprob: f32,
    },
    /// The sequence is complete; the last event.
    Finished {
        /// Why.
        finish: Finish,
        /// How long it took, where.
        timings: Timings,
    },
    /// The sequence ended with an error; the last event.
    Failed(Failure),
}

/// How long a sequence took, and where.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timings {
    /// From admission to the first micro-batch.
    pub queued: Duration,
    /// From the first micro-batch to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
    /// How often it was started again after a fault.
    pub attempts: u32,
    /// What each stage did for the micro-batches this sequence was in, by slot; its own rows only.
    pub stages: Vec<StageTime>,
}

/// What one stage did for a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct StageTime {
    /// The stage's name.
    pub stage: String,
    /// `[first, one past last]` layer.
    pub layers: [u32; 2],
    /// Token rows of this sequence that it computed.
    pub rows: u64,
    /// Its share of the time computing them.
    pub compute: Duration,
}

/// Why an accepted sequence did not complete.
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
    /// A stage refused the sequence's work again and again.
    #[error("stage {stage} could not compute: {reason}")]
    Stage {
        /// The stage's name.
        stage: String,
        /// Its words.
        reason: String,
    },
}

/// Why a sequence was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The pipeline cannot serve now.
    #[error("the model cannot be served now: {reason}")]
    NotServing {
        /// What is missing, such as "layers 9..21 are held by nobody".
        reason: String,
    },
    /// The queue is full.
    #[error("{waiting} requests wait already: try again later")]
    Busy {
        /// How many wait.
        waiting: usize,
    },
    /// The prompt leaves no room for an answer.
    #[error("this model's maximum context length is {context_tokens} tokens, the prompt has {prompt_tokens}")]
    TooLong {
        /// The context.
        context_tokens: u32,
        /// The prompt.
        prompt_tokens: u32,
    },
}

/// A sequence being generated. Dropping it cancels the sequence and frees its blocks.
#[derive(Debug)]
pub struct TokenStream {
    events: mpsc::Receiver<TokenEvent>,
}

// === impl TokenStream ===

impl TokenStream {
    /// Wraps the receiving end of a sequence's events.
    pub fn new(events: mpsc::Receiver<TokenEvent>) -> Self {
        Self { events }
    }

    /// The next event; after `Finished` or `Failed` there is none. Cancel-safe.
    pub async fn next(&mut self) -> Option<TokenEvent> {
        self.events.recv().await
    }
}

/// Whether the pipeline can serve, and what it looks like; published whole on every change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PipelineStatus {
    /// Whether every layer is held exactly once by a serving stage of the newest generation.
    pub serving: bool,
    /// If not, why, in a plain sentence naming the missing layers.
    pub reason: String,
    /// Layer ranges nobody serves, `[first, one past last]`.
    pub missing_layers: Vec<[u32; 2]>,
    /// Whether the store answers.
    pub store_reachable: bool,
    /// What the store complains of, such as a full disk; it still answers.
    pub store_alarms: Vec<String>,
    /// The first thing that the store has lost, or shows and that cannot be used.
    pub store_oddity: Option<String>,
    /// Most tokens in a sequence, prompt and answer together: the model's context, or less where memory is short.
    pub context_tokens: u32,
    /// Sequences in work.
    pub running: usize,
    /// Sequences waiting.
    pub waiting: usize,
    /// Tokens generated per second over the last period.
    pub tokens_per_second: f64,
}

/// What a door needs of the pipeline. The head implements it; a test double may.
#[async_trait::async_trait]
pub trait Pipeline: Send + Sync + 'static {
    /// Accepts a sequence or says why not. An accepted one always ends with `Finished` or `Failed`.
    ///
    /// # Errors
    /// [`Rejection`] when it is not accepted.
    async fn generate(&self, request: Request) -> Result<TokenStream, Rejection>;

    /// Counts a sequence that a door refuses by itself, as if it had been handed over and not accepted.
    fn refused(&self, rejection: &Rejection);

    /// How the pipeline is now.
    fn status(&self) -> PipelineStatus;

    /// What was counted, for Prometheus.
    fn metrics(&self) -> prometheus::Registry;

    /// The cluster as the store shows it now.
    fn view(&self) -> std::sync::Arc<crate::view::ClusterView>;
}

/// Adds what a stage reports to a sequence's account: the sequence's share is by rows.
pub(crate) fn share(spent: &Spent, rows: u32) -> Duration {
    let rows_total = spent.rows.max(1);
    Duration::from_micros(u64::from(spent.compute_us) * u64::from(rows) / u64::from(rows_total))
}
