//! A pipeline double that counts, and a text-model double with one token per byte. Every token depends on all tokens
//! before it, on the sampling and on the position. So a lost, doubled or reordered token changes all that follow.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use engine::generate::{
    Failure, Finish, Pipeline, PipelineStatus, Pooling, Rejection, Request, ScoredToken, SequenceReport, StageTime,
    Timings, TokenEvent, TokenStream,
};
use engine::view::ClusterView;
use gateway::http::{
    AccessControl, AnswerPlan, AnswerRequest, AppState, Conversation, Decoder, EmbeddingModel, FimTokens,
    GenerationConfig, LiveFeed, ModelDescription, ModelInfo, Models, ServedModel, ServerTls, Settings, SpecialTokens,
    TextError, TextModel, serve,
};
use gateway::text::{AnswerFormat, Detokenizer, ReasoningFormat, Tokenizer, ToolFormat, Vocabulary, VocabularyFields};
use schema::frame::{Alternative, Sampling};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub const MODEL: &str = "org/count-1";
pub const CONTEXT_TOKENS: u32 = 512;
/// The token that ends an answer.
pub const END: u32 = 256;
/// The token that begins a message.
pub const BEGIN: u32 = 257;
const VOCAB: u32 = 258;
/// The spellings of these tokens.
const END_TEXT: &str = "<END>";
const BEGIN_TEXT: &str = "<BEGIN>";
/// The tokens for filling in the middle: bytes that no test has in its text.
pub const FIM: FimTokens = FimTokens { prefix: 1, suffix: 2, middle: 3, repository: Some(4), file_separator: Some(5) };
/// The description of the double's model.
static DESCRIPTION: LazyLock<ModelDescription> = LazyLock::new(|| ModelDescription {
    file_name: "count-1.gguf".to_owned(),
    file_bytes: 1_000_000,
    fingerprint: "c0ffee".to_owned(),
    architecture: "count".to_owned(),
    parameters: 134_515_008,
    quantization: "Q4_1".to_owned(),
    metadata: [("count.context_length".to_owned(), serde_json::json!(8192))].into_iter().collect(),
    tool_use_template: None,
    chat_template: Some("{{ messages }}".to_owned()),
    takes_tools: true,
    reasons: false,
    bos: BEGIN_TEXT.to_owned(),
    eos: END_TEXT.to_owned(),
    fim: Some(FIM),
    embedding: EmbeddingModel { dimensions: DIMENSIONS as u32, pooling: Some(Pooling::Last), only: false },
});
/// Values of an embedding.
pub const DIMENSIONS: usize = 5;
/// The bytes that the double generates. There are few, so that short stop strings occur.
const ALPHABET: &[u8] = b"abcd \n";

/// The token after `history`. It depends on every token of it.
pub fn next_token(history: &[u32], sampling: &Sampling) -> u32 {
    let key = if sampling.temperature > 0.0 { sampling.seed ^ (u64::from(sampling.choice) << 32) } else { 0 };
    let sum = history.iter().fold(key ^ 7, |sum, token| sum.wrapping_mul(31).wrapping_add(u64::from(*token) + 1));
    let mixed = (sum ^ (sum >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    if mixed % 61 == 0 { END } else { u32::from(ALPHABET[mixed as usize % ALPHABET.len()]) }
}

/// The embedding of a prompt, not normalised. Each value depends on every token of it.
pub fn embedding(prompt: &[u32]) -> Vec<f32> {
    let value = |dimension: u64| {
        let sum = prompt.iter().fold(dimension + 3, |sum, token| (sum * 31 + u64::from(*token)) % 65_521);
        sum as f32 / 1024.0 - 32.0
    };
    (0..DIMENSIONS as u64).map(value).collect()
}

/// The log-probability that the double gives a token.
pub fn logprob(token: u32) -> f32 {
    -(token as f32) / 64.0
}

/// The expected answer to `prompt`: its text, its number of tokens, and true if it ended by itself.
pub fn expected(prompt: &[u32], sampling: &Sampling, tokens_max: usize) -> (String, usize, bool) {
    let mut history = prompt.to_vec();
    let mut text = String::new();
    for count in 1..=tokens_max {
        let token = next_token(&history, sampling);
        if token == END {
            return (text, count, true);
        }
        text.push(char::from(token as u8));
        history.push(token);
    }
    (text, tokens_max, false)
}

/// Number of tokens of `prompt` that the double reports as cached: most for the first choice.
fn cached_tokens(prompt: usize, choice: u32) -> u32 {
    (prompt as u32 / 2).saturating_sub(choice)
}

/// The usage of one answer with `choices` choices to each of the prompts, given the prompts' numbers of tokens.
pub fn usage(prompts: &[usize], choices: u32, completion_tokens: usize) -> serde_json::Value {
    let prompt_tokens: usize = prompts.iter().sum();
    let cached_tokens: u32 = prompts.iter().map(|prompt| cached_tokens(*prompt, choices - 1)).sum();
    serde_json::json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    })
}

/// Sampling parameters with temperature 0.
pub fn greedy() -> Sampling {
    Sampling::GREEDY
}

/// Numbers of sequences by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub started: usize,
    pub finished: usize,
    /// The server dropped them before their end.
    pub cancelled: usize,
    /// The server itself refused them.
    pub refused: usize,
}

/// The pipeline double.
pub struct CountingPipeline {
    /// Tokens that it may still generate, over all sequences.
    pub permits: Arc<Semaphore>,
    pub counts: watch::Sender<Counts>,
    pub status: Mutex<PipelineStatus>,
    pub view: Mutex<ClusterView>,
    pub rejection: Mutex<Option<Rejection>>,
    /// If set, every sequence fails after this number of tokens.
    pub failure: Mutex<Option<(usize, Failure)>>,
    /// If set, every sequence is this text, and then [`END`].
    pub script: Mutex<Option<String>>,
    pub requests: Mutex<Vec<Request>>,
    /// The reports on its sequences, all of which have the number [`SEQUENCE`].
    pub reports: Mutex<Arc<[SequenceReport]>>,
}

/// The number of every sequence.
pub const SEQUENCE: u64 = 7;

#[async_trait::async_trait]
impl Pipeline for CountingPipeline {
    async fn generate(&self, request: Request) -> Result<TokenStream, Rejection> {
        if let Some(rejection) = self.rejection.lock().unwrap().clone() {
            return Err(rejection);
        }
        self.requests.lock().unwrap().push(request.clone());
        self.counts.send_modify(|counts| counts.started += 1);
        // The channel is narrow, so that a server that does not take its events blocks the sequence.
        let (sender, events) = mpsc::channel(2);
        let sequence = Sequence {
            request,
            sender,
            permits: Arc::clone(&self.permits),
            failure: self.failure.lock().unwrap().clone(),
            script: self.script.lock().unwrap().clone(),
        };
        let counts = self.counts.clone();
        tokio::spawn(async move {
            let finished = sequence.run().await;
            counts.send_modify(|counts| if finished { counts.finished += 1 } else { counts.cancelled += 1 });
        });
        Ok(TokenStream::new(SEQUENCE, events))
    }

    fn refused(&self, _: &Rejection) {
        self.counts.send_modify(|counts| counts.refused += 1);
    }

    fn status(&self) -> PipelineStatus {
        self.status.lock().unwrap().clone()
    }

    fn metrics(&self) -> prometheus::Registry {
        let registry = prometheus::Registry::new();
        let started = prometheus::IntGauge::new("started", "sequences that were started").unwrap();
        started.set(self.counts.borrow().started as i64);
        registry.register(Box::new(started)).unwrap();
        registry
    }

    fn sequences(&self) -> Arc<[SequenceReport]> {
        Arc::clone(&self.reports.lock().unwrap())
    }

    fn view(&self) -> Arc<ClusterView> {
        Arc::new(self.view.lock().unwrap().clone())
    }
}

struct Sequence {
    request: Request,
    sender: mpsc::Sender<TokenEvent>,
    permits: Arc<Semaphore>,
    failure: Option<(usize, Failure)>,
    script: Option<String>,
}

impl Sequence {
    /// The score of a token: its alternatives are the tokens from 97 on.
    fn score(&self, token: u32) -> ScoredToken {
        let count = self.request.tokens.alternatives.unwrap_or(0);
        let alternative = |token| Alternative { token, logprob: logprob(token) };
        let alternatives: Vec<_> = (97..97 + count).map(alternative).collect();
        ScoredToken { token, logprob: logprob(token), rank: count.min(1) * 7, alternatives }
    }

    /// Generates the sequence. Returns false if the receiver is gone.
    async fn run(self) -> bool {
        let sender = self.sender.clone();
        tokio::select! {
            () = sender.closed() => false,
            sent = self.make() => sent,
        }
    }

    async fn make(self) -> bool {
        let mut history = self.request.prompt.clone();
        let cached_tokens = cached_tokens(history.len(), self.request.tokens.sampling.choice);
        if self.sender.send(TokenEvent::Started { cached_tokens }).await.is_err() {
            return false;
        }
        if self.request.pooling.is_some() {
            return self.embed().await;
        }
        let scored = if self.request.tokens.scores_prompt { &self.request.prompt[1..] } else { &[] };
        for token in scored {
            if self.sender.send(TokenEvent::Scored(self.score(*token))).await.is_err() {
                return false;
            }
        }
        let mut finish = Finish::Length;
        for made in 0..self.request.tokens_max as usize {
            if let Some((after, failure)) = &self.failure
                && made == *after
            {
                return self.sender.send(TokenEvent::Failed(failure.clone())).await.is_ok();
            }
            self.permits.acquire().await.unwrap().forget();
            let token = match &self.script {
                Some(script) => script.as_bytes().get(made).map_or(END, |byte| u32::from(*byte)),
                None => next_token(&history, &self.request.tokens.sampling),
            };
            history.push(token);
            if self.sender.send(TokenEvent::Token(self.score(token))).await.is_err() {
                return false;
            }
            if self.request.stop_tokens.contains(&token) {
                finish = Finish::Stop;
                break;
            }
        }
        let timings = timings(history.len() as u64 - 1);
        self.sender.send(TokenEvent::Finished { finish, timings }).await.is_ok()
    }

    /// Embeds the prompt, as soon as there is a permit.
    async fn embed(self) -> bool {
        if let Some((_, failure)) = &self.failure {
            return self.sender.send(TokenEvent::Failed(failure.clone())).await.is_ok();
        }
        self.permits.acquire().await.unwrap().forget();
        let prompt = &self.request.prompt;
        let (vector, timings) = (embedding(prompt), timings(prompt.len() as u64));
        self.sender.send(TokenEvent::Embedded { vector, timings }).await.is_ok()
    }
}

/// The timings of a sequence of which `rows` rows were computed.
fn timings(rows: u64) -> Timings {
    let stages =
        vec![StageTime { stage: "one".to_owned(), layers: [0, 4], rows, compute: Duration::from_micros(rows) }];
    Timings {
        queued: Duration::from_millis(3),
        prefill: Duration::from_millis(20),
        decode: Duration::from_millis(40),
        attempts: 1,
        stages,
    }
}

/// The text double. It remembers the chats that it encoded.
#[derive(Default)]
pub struct ByteTextModel {
    pub chats: Mutex<Vec<Conversation>>,
}

/// The token ids of a chat for [`ByteTextModel`].
pub fn chat_tokens(messages: &[(&str, &str)]) -> Vec<u32> {
    let one = |(role, content): &(&str, &str)| {
        let text = format!("{role}:{content}");
        std::iter::once(BEGIN).chain(text.bytes().map(u32::from).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    messages.iter().flat_map(one).chain([BEGIN]).collect()
}

impl TextModel for ByteTextModel {
    fn encode_chat(&self, conversation: &Conversation) -> Result<Vec<u32>, TextError> {
        let messages = &conversation.messages;
        if messages.iter().any(|message| message.content == "panic") {
            panic!("a mistake of our own");
        }
        if messages.first().is_some_and(|message| message.role == "tool") {
            return Err(TextError("a chat cannot begin with a tool".to_owned()));
        }
        self.chats.lock().unwrap().push(conversation.clone());
        let pairs: Vec<_> = messages.iter().map(|message| (message.role.as_str(), message.content.as_str())).collect();
        Ok(chat_tokens(&pairs))
    }

    /// Calls are as Hermes writes them. There is reasoning only if the chat asks for it.
    fn plan_answer(&self, request: &AnswerRequest, _: &[u32]) -> AnswerPlan {
        let thinks = request.conversation.template_kwargs.get("enable_thinking") == Some(&true.into());
        let reasoning = ReasoningFormat { open: "<think>", close: "</think>" };
        let format = AnswerFormat { tools: ToolFormat::Hermes, reasoning: thinks.then_some(reasoning) };
        AnswerPlan::new(format, request, "")
    }

    fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>, TextError> {
        Ok(prompt.bytes().map(u32::from).collect())
    }

    /// As [`Self::encode_prompt`], with [`BEGIN`] and [`END`] if they are wanted.
    fn encode_text(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TextError> {
        let mut parts = vec![text];
        if special.parsed {
            parts = text.split(END_TEXT).collect();
        }
        let parts: Vec<Vec<u32>> = parts.into_iter().map(|part| part.bytes().map(u32::from).collect()).collect();
        let begin = special.added.then_some(BEGIN);
        Ok(begin.into_iter().chain(parts.join(&END)).collect())
    }

    fn render_chat(&self, conversation: &Conversation) -> Result<String, TextError> {
        let tokens = self.encode_chat(conversation)?;
        Ok(tokens.into_iter().flat_map(|token| self.token_piece(token)).map(char::from).collect())
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(ByteDecoder(Detokenizer::new(&TOKENIZER)))
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        u8::try_from(token).into_iter().collect()
    }

    fn token_piece(&self, token: u32) -> Vec<u8> {
        match token {
            END => END_TEXT.into(),
            BEGIN => BEGIN_TEXT.into(),
            byte => self.token_bytes(byte),
        }
    }

    fn token_spelling(&self, token: u32) -> String {
        String::from_utf8_lossy(&self.token_piece(token)).replace(' ', "Ġ")
    }

    fn stop_tokens(&self) -> &[u32] {
        &[END]
    }

    fn vocab_size(&self) -> u32 {
        VOCAB
    }

    fn description(&self) -> &ModelDescription {
        &DESCRIPTION
    }
}

/// The tokenizer of the 256 bytes, each spelled as GPT-2 spells it.
static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let mut others = '\u{100}'..;
    let spell = |byte: u8| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE.. => char::from(byte),
        _ => others.next().unwrap(),
    };
    let tokens: Vec<_> = (0..=255).map(spell).map(String::from).collect();
    let fields = VocabularyFields { pre: "gpt-2".to_owned(), token_types: vec![1; 256], tokens, ..Default::default() };
    Tokenizer::new(&Vocabulary::new(fields).unwrap()).unwrap()
});

/// The real detokenizer, which spells [`END`].
struct ByteDecoder(Detokenizer);

impl Decoder for ByteDecoder {
    fn push(&mut self, token: u32) -> String {
        if token == END { END_TEXT.to_owned() } else { self.0.push(token) }
    }
}

/// A running HTTP server and its pipeline.
pub struct RunningServer {
    pub address: SocketAddr,
    pub pipeline: Arc<CountingPipeline>,
    pub text: Arc<ByteTextModel>,
    pub stop: oneshot::Sender<()>,
    pub serving: JoinHandle<()>,
}

/// Starts an open server on a free port. Its pipeline may generate `permits` tokens.
pub async fn start_server(settings: Settings, permits: usize) -> RunningServer {
    start_closed_server(settings, AccessControl::default(), None, permits).await
}

/// Starts a server with API keys, and with TLS if there is a certificate.
pub async fn start_closed_server(
    settings: Settings,
    access: AccessControl,
    tls: Option<ServerTls>,
    permits: usize,
) -> RunningServer {
    start_server_of(GenerationConfig::default(), settings, access, tls, permits).await
}

/// Starts a server of a model whose file recommends a sampling.
pub async fn start_server_of(
    generation_config: GenerationConfig,
    settings: Settings,
    access: AccessControl,
    tls: Option<ServerTls>,
    permits: usize,
) -> RunningServer {
    let status = PipelineStatus { serving: true, store_reachable: true, ..PipelineStatus::default() };
    let pipeline = Arc::new(CountingPipeline {
        permits: Arc::new(Semaphore::new(permits)),
        counts: watch::channel(Counts::default()).0,
        status: Mutex::new(status),
        view: Mutex::default(),
        rejection: Mutex::default(),
        failure: Mutex::default(),
        script: Mutex::default(),
        requests: Mutex::default(),
        reports: Mutex::default(),
    });
    let model = ModelInfo {
        name: MODEL.to_owned(),
        context_tokens: CONTEXT_TOKENS,
        created_s: 1_700_000_000,
        generation_config,
    };
    let text = Arc::new(ByteTextModel::default());
    let settings = Arc::new(settings);
    let served = ServedModel {
        cluster: "home".parse().unwrap(),
        pipeline: Arc::<CountingPipeline>::clone(&pipeline),
        text: Arc::<ByteTextModel>::clone(&text),
        model,
        settings: Arc::clone(&settings),
        live: LiveFeed::default(),
        pins: None,
        drills: None,
    };
    let state = Arc::new(AppState { models: Models::new(Arc::new(served)), access, settings });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(serve(listener, tls, state, async {
        let _ = stopped.await;
    }));
    RunningServer { address, pipeline, text, stop, serving }
}

/// Starts a server with default settings. Its pipeline may generate any number of tokens.
pub async fn start_default_server() -> RunningServer {
    start_server(Settings::default(), Semaphore::MAX_PERMITS).await
}

impl RunningServer {
    /// Waits until `wanted` holds for the pipeline's counts. Panics if it does not hold soon.
    pub async fn until(&self, wanted: impl FnMut(&Counts) -> bool) {
        let mut counts = self.pipeline.counts.subscribe();
        let soon = tokio::time::timeout(Duration::from_secs(10), counts.wait_for(wanted)).await;
        assert!(soon.is_ok(), "the counts stay {:?}", *self.pipeline.counts.borrow());
    }
}
