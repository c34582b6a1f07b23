//! The HTTP server's bounds, each with its unit and its reason.

use std::time::Duration;

use crate::json_size::JsonSize;

/// Connections at once: as many streams as can run and wait, and the same number of idle connections. Each holds a
/// socket and at most one body. At the cap, the server closes the connection that has been half open or idle for
/// longest, and admits the new one.
pub(crate) const CONNECTIONS_MAX: usize = 1024;
/// Connections of one address: three quarters of all. If clients of one address read nothing of their answers, the rest
/// stays free for others. A reverse proxy and a load generator stay below it.
pub(crate) const CONNECTIONS_PER_ADDRESS_MAX: usize = 768;
/// Connections of one address that are half open or idle: half of all. The connection pool of a proxy or a load
/// generator fits. If one address only holds sockets open, the other half stays free for others.
pub(crate) const WAITING_PER_ADDRESS_MAX: usize = 512;
/// Connections over the cap that get a 503 at the same time. The server closes further ones without an answer.
pub(crate) const OVERLOAD_REPLIES_MAX: usize = 32;
/// Longest time for such a connection to take the 503, and for one that speaks http instead of https to take its 400.
pub(crate) const BARE_REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// Timeout from the moment a connection may send a request until that request's head is complete. So it also closes
/// idle connections. The handshake of TLS has as much before it.
pub(crate) const HEAD_TIME: Duration = Duration::from_secs(30);
/// Bytes of a request's head: the cookies of a localhost that several programs share fit, a header bomb does not.
pub(crate) const HEAD_BYTES_MAX: usize = 32 << 10;
/// Most headers of a request.
pub(crate) const HEADERS_MAX: usize = 100;
/// Timeout from the head until the whole body has arrived: 4 MiB over a poor wireless link.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(30);
/// Bytes of a body: about 500,000 tokens of history, more than any context served here.
pub(crate) const BODY_BYTES_MAX: usize = 4 << 20;
/// Models that a server serves at once, each with a thread of its own for its pipeline: more than one machine has
/// memory for, and few enough to list in an error.
pub(crate) const MODELS_MAX: usize = 16;
/// JSON of a body: as many values as tokens that [`BODY_BYTES_MAX`] holds of history, and the lists and objects of a
/// thousand messages with sixty parts each.
pub(crate) const JSON_MAX: JsonSize = JsonSize { values: 512 << 10, lists: 64 << 10 };
/// Bytes above which a body counts as large: a chat of about ten thousand tokens is smaller.
pub(crate) const LARGE_BODY_BYTES: usize = 64 << 10;
/// Large bodies at once. Further ones wait, within their timeout, with the rest of their bytes unread. So all bodies
/// together hold at most 192 MiB: 32 of 4 MiB, and 64 KiB on each of 1024 connections.
pub(crate) const LARGE_BODIES_MAX: usize = 32;
/// Bytes of an unread body that the server reads and discards to keep the connection, as many as Go's server takes. If
/// more are to come, the answer says that the connection closes.
pub(crate) const UNREAD_BYTES_MAX: u64 = 256 << 10;
/// Longest time for reading those bytes: they were in flight when the answer was sent.
pub(crate) const UNREAD_TIME: Duration = Duration::from_secs(5);
/// Bytes that the server reads and discards after an answer that closes its connection. While bytes arrive, the client
/// has not yet read the answer, and closing would reset the connection before it does. A body of 100 MB fits, an
/// endless one does not.
pub(crate) const LINGER_BYTES_MAX: u64 = 256 << 20;
/// Longest time for reading those bytes: 100 MB at 30 Mbit/s.
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(30);
/// Time without bytes after which such a client has read its answer, or never will.
pub(crate) const LINGER_SILENCE: Duration = Duration::from_secs(2);
/// Longest time that a client may read nothing of a waiting answer, before its work is cancelled.
pub(crate) const STALL_TIME: Duration = Duration::from_secs(120);
/// Interval at which a connection checks that its client is still there, while hyper does not check.
pub(crate) const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Time for running requests to finish after the order to stop: `baton up` must end within 2 s.
pub(crate) const DRAIN_TIME: Duration = Duration::from_millis(1000);
/// Time without an event after which a stream sends a comment: proxies cut quiet connections after 15 s and more.
pub(crate) const PING_PERIOD: Duration = Duration::from_secs(10);
/// Interval at which a stream says how much of its prompt is computed, if its client asks for that.
pub(crate) const PROGRESS_PERIOD: Duration = Duration::from_millis(250);
/// Longest time of a generation, queue included: 4,096 tokens at 2 a second fit.
pub(crate) const GENERATION_TIME: Duration = Duration::from_secs(2400);
/// Most tokens of a chat's answer if its request sets no limit: about 3,000 words, and half of the keys and values that
/// a cluster keeps by default. They fit the default deadline at 7 tokens a second. A model that never ends stops there.
pub(crate) const DEFAULT_MAX_TOKENS: u32 = 4096;
/// Responses that are kept for `previous_response_id` unless a setting says otherwise: about a hundred conversations of
/// ten turns. The oldest one goes first.
pub(crate) const STORED_RESPONSES_MAX: u32 = 1024;
/// Bytes of all kept responses together: sixteen of the largest bodies, or 64 KiB for each of the default number. Each
/// response counts with its whole conversation, as if it shared no text with others.
pub(crate) const STORED_BYTES_MAX: usize = 64 << 20;
/// Time for which a response is kept: a conversation of one day can go on the next morning.
pub(crate) const STORED_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Most items in one list of a response's input items, as in OpenAI's reference.
pub(crate) const INPUT_ITEMS_MAX: usize = 100;
/// Items in one such list if the request sets no limit, as in OpenAI's reference.
pub(crate) const INPUT_ITEMS_DEFAULT: usize = 20;
/// Pairs in `metadata`, as in OpenAI's reference.
pub(crate) const METADATA_PAIRS_MAX: usize = 16;
/// Characters of a key of `metadata`, as in OpenAI's reference.
pub(crate) const METADATA_KEY_CHARS_MAX: usize = 64;
/// Characters of a value of `metadata`, as in OpenAI's reference.
pub(crate) const METADATA_VALUE_CHARS_MAX: usize = 512;
/// Tools that a request offers, twice as many as OpenAI takes: several MCP servers together.
pub(crate) const TOOLS_MAX: usize = 256;
/// Characters of a tool's name, as in OpenAI's reference. A name with its namespace may be twice as long.
pub(crate) const TOOL_NAME_CHARS_MAX: usize = 128;
/// If a conversation is cut to fit the context, at most one part in this many of the context is left to the answer.
pub(crate) const TRUNCATION_ANSWER_SHARE: u32 = 4;
/// Pings between two that are events: Codex gives a stream up after 300 s without an event, and comments are none.
pub(crate) const PINGS_PER_KEEPALIVE: u32 = 12;
/// Interval at which the producer of live events looks for changes that are worth a sentence: people take a quarter of
/// a second for at once.
pub(crate) const LIVE_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Interval of the patches of figures that change all the time: they can be read, and 128 subscribers cost little.
pub(crate) const LIVE_STATE_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of the series' samples: stages report every few seconds.
pub(crate) const LIVE_SAMPLE_INTERVAL: Duration = Duration::from_secs(2);
/// Samples that are kept: 15 minutes.
pub(crate) const LIVE_SAMPLES_MAX: usize = 450;
/// Lines of the log of decisions that are kept: more than anybody reads, and at most 200 KB.
pub(crate) const LIVE_LOG_LINES_MAX: usize = 400;
/// Characters of one such line: a reason with its remedies fits.
pub(crate) const LIVE_LOG_CHARS_MAX: usize = 480;
/// Stages that one sentence or one look at the cluster names. The others are counted.
pub(crate) const LIVE_STAGES_NAMED_MAX: usize = 8;
/// Events that are kept for subscribers that come back or read slowly: several minutes.
pub(crate) const LIVE_EVENTS_MAX: usize = 1024;
/// Bytes of those events. A patch of a cluster of 1,000 stages has up to 500 KB.
pub(crate) const LIVE_EVENTS_BYTES_MAX: usize = 4 << 20;
/// Streams of events at a time: every operator of a large cluster with several tabs.
pub(crate) const LIVE_SUBSCRIBERS_MAX: usize = 128;
/// Steps of a drill that dashboards show: its eight, and some pauses between them.
pub(crate) const DRILL_STEPS_MAX: usize = 24;
/// Longest time of a drill that a request started: two answers on a slow machine, and a cluster that becomes whole.
pub(crate) const DRILL_TIME_MAX: Duration = Duration::from_secs(600);
/// Choices of one request (`n` times prompts). Each takes a sequence's share of the KV cache blocks.
pub(crate) const CHOICES_MAX: u32 = 16;
/// Inputs of one request for embeddings, as in OpenAI's reference.
pub(crate) const EMBEDDING_INPUTS_MAX: usize = 2048;
/// Values of all embeddings of a request: 2,048 inputs of 2,048 dimensions, about 50 MB of JSON.
pub(crate) const EMBEDDING_VALUES_MAX: usize = 4 << 20;
/// Sequences of one request for embeddings at a time: enough to fill micro-batches with short texts, and few enough
/// that several such requests fit the queue.
pub(crate) const EMBEDDINGS_IN_FLIGHT_MAX: usize = 32;
/// Strings in `stop`, as in OpenAI's reference.
pub(crate) const STOP_STRINGS_MAX: usize = 4;
/// Strings in `stop_sequences` of Anthropic's API, whose reference has no limit. Each takes time at every token.
pub(crate) const STOP_SEQUENCES_MAX: usize = 64;
/// Strings in `stop` on pages of Ollama and llama-server, whose clients send the markers of several templates.
pub(crate) const LLAMA_STOP_STRINGS_MAX: usize = 16;
/// Bytes of one stop string: a stream holds back up to this much text.
pub(crate) const STOP_STRING_BYTES_MAX: usize = 512;
/// Levels of a tool's schema. Those in use have under twenty.
pub(crate) const SCHEMA_DEPTH_MAX: usize = 32;
/// Calls of one message in a conversation: as many as there may be tools.
pub(crate) const MESSAGE_CALLS_MAX: usize = 128;
/// Token ids in `stop_token_ids`.
pub(crate) const STOP_TOKENS_MAX: usize = 64;
/// Tokens in `logit_bias`: as many as a rule carries with a penalty for every token of a long history beside them.
pub(crate) const BIASED_TOKENS_MAX: usize = 1024;
/// Strings in `bad_words`.
pub(crate) const BAD_WORDS_MAX: usize = 256;
/// Strings in `dry_sequence_breakers`.
pub(crate) const DRY_BREAKERS_MAX: usize = 64;
/// Bytes of one such string.
pub(crate) const WORD_BYTES_MAX: usize = 256;
/// Tokens at the end of prompt and answer searched for repeated passages: at most tens of microseconds a token.
pub(crate) const DRY_TOKENS_MAX: u32 = 8192;
/// Bytes of a request's own chat template: more than the longest known ones have, and no more, because compiling takes
/// time that grows with the square of the nesting.
pub(crate) const TEMPLATE_BYTES_MAX: usize = 24 << 10;
/// Characters of a refused value that the error message repeats.
pub(crate) const FOUND_CHARS_MAX: usize = 60;
/// Temperatures below this would divide logits into infinities. They mean the likeliest token instead.
pub(crate) const TEMPERATURE_MIN: f64 = 1e-4;
/// Seconds after which a refused client may try again, for the `Retry-After` header.
pub(crate) const RETRY_AFTER_S: u64 = 2;
/// Bytes of a request id that the client sets.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 128;
/// Bytes of a text to be tokenised: more than any context served here takes. The answer lists each token, with its text
/// if that is asked for, and may have thirty times as many bytes.
pub(crate) const TOKENIZED_BYTES_MAX: usize = 1 << 20;
/// Token ids to be turned into text: the longest contexts in use.
pub(crate) const DETOKENIZED_TOKENS_MAX: usize = 1 << 18;
/// API keys of one server. A request's key is compared with each of them, which takes microseconds for so many.
pub(crate) const API_KEYS_MAX: usize = 256;
/// Shortest secret of an API key, in bytes. One of 16 random letters or digits is out of reach of guesses over HTTP.
pub(crate) const API_SECRET_BYTES_MIN: usize = 16;
/// Longest secret of an API key, in bytes: four of those that `baton key` prints.
pub(crate) const API_SECRET_BYTES_MAX: usize = 256;
/// Longest name of an API key, in bytes. It stands in each line of the log and in each sample of a metric.
pub(crate) const KEY_NAME_BYTES_MAX: usize = 64;
/// Most requests per minute that a limit may allow. A key that needs more needs no limit.
pub(crate) const REQUESTS_PER_MINUTE_MAX: u32 = 100_000;
/// Most requests at the same time that a limit may allow: each takes a connection.
pub(crate) const CONCURRENT_REQUESTS_MAX: u32 = CONNECTIONS_MAX as u32;
/// Interval at which the server looks for changes of its certificate, its key, and the file of API keys. What has
/// changed is read once it has stayed the same for this long, so that a file that is being replaced is not read by
/// halves.
pub(crate) const FILE_WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes of a file with a certificate or a key: a chain of ten certificates fits many times.
#[cfg(feature = "tls")]
pub(crate) const TLS_FILE_BYTES_MAX: u64 = 256 << 10;
/// Links between machines that a status shows: those of a hundred machines in a row, each with a few addresses.
pub(crate) const LINKS_MAX: usize = 512;
