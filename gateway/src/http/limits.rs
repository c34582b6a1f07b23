//! The door's bounds, each with its unit and its reason.

use std::time::Duration;

/// Connections at once: as many streams as can run and wait, and as many again that are idle. Each holds a socket and at
/// most one body. At the cap the one that has been half open or idle for longest is closed for a newcomer.
pub(crate) const CONNECTIONS_MAX: usize = 1024;
/// Connections of one address: three quarters of all, so that clients who read nothing of their answers leave some to
/// others. A reverse proxy and a load generator stay below it.
pub(crate) const CONNECTIONS_PER_ADDRESS_MAX: usize = 768;
/// Connections of one address that are half open or idle: half of all. A proxy's or a load generator's pool fits, and
/// sockets that are only held open leave the other half to others.
pub(crate) const WAITING_PER_ADDRESS_MAX: usize = 512;
/// Connections over the cap that are told so at once; the rest are closed without a word.
pub(crate) const TURNED_AWAY_MAX: usize = 32;
/// How long a connection over the cap may take to read that it is.
pub(crate) const TURNED_AWAY_TIME: Duration = Duration::from_secs(1);
/// From the moment a connection may send a request until its head is complete; so it ends idle connections too.
pub(crate) const HEAD_TIME: Duration = Duration::from_secs(30);
/// Bytes of a request's head: cookies of a shared localhost fit, a header bomb does not.
pub(crate) const HEAD_BYTES_MAX: usize = 32 << 10;
/// Headers of a request.
pub(crate) const HEADERS_MAX: usize = 100;
/// From the head until the whole body is there: 4 MiB over a poor wireless link.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(30);
/// Bytes of a body: some 500,000 tokens of history, more than any context served here.
pub(crate) const BODY_BYTES_MAX: usize = 4 << 20;
/// Bytes from which on a body counts as large: a chat of some ten thousand tokens is smaller.
pub(crate) const LARGE_BODY_BYTES: usize = 64 << 10;
/// Large bodies at once; others wait, within their time, with as much of them unread. All bodies together so hold at most
/// 192 MiB.
pub(crate) const LARGE_BODIES_MAX: usize = 32;
/// Bytes of a body nobody reads that are thrown away to keep the connection, as many as Go's server takes; with more to
/// come, the answer says that the connection closes.
pub(crate) const UNREAD_BYTES_MAX: u64 = 256 << 10;
/// The longest time for those bytes: they were under way when the answer was sent.
pub(crate) const UNREAD_TIME: Duration = Duration::from_secs(5);
/// Bytes that are thrown away after an answer that closes its connection. While they come, the client has not yet read
/// the answer, and closing would reset the connection under it: a body of 100 MB fits, an endless one does not.
pub(crate) const LINGER_BYTES_MAX: u64 = 256 << 20;
/// The longest time for them: 100 MB at 30 Mbit/s.
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(30);
/// Silence after which such a client has read its answer, or never will.
pub(crate) const LINGER_SILENCE: Duration = Duration::from_secs(2);
/// How long a client may read nothing of an answer that waits for it, before its work is given up.
pub(crate) const STALL_TIME: Duration = Duration::from_secs(120);
/// How often a connection looks whether its client is still there, where hyper does not.
pub(crate) const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// How long running requests may go on after the order to stop; `baton up` is to be gone within 2 s.
pub(crate) const DRAIN_TIME: Duration = Duration::from_millis(1000);
/// Silence after which a stream says that it lives: proxies cut quiet connections after 15 s and more.
pub(crate) const PING_PERIOD: Duration = Duration::from_secs(10);
/// The longest a generation may take, queue included: 4,096 tokens at 2 a second fit.
pub(crate) const GENERATION_TIME: Duration = Duration::from_secs(2400);
/// Most tokens of a chat's answer when its request does not say: some 3,000 words, half of the keys and values that a
/// cluster keeps by default, and within the default deadline at 7 tokens a second. A model that never ends stops there.
pub(crate) const DEFAULT_MAX_TOKENS: u32 = 4096;
/// Choices of one request (`n` times prompts): each takes a sequence's share of the key and value blocks.
pub(crate) const CHOICES_MAX: u32 = 16;
/// Strings in `stop`, as in OpenAI's reference.
pub(crate) const STOP_STRINGS_MAX: usize = 4;
/// Bytes of one stop string: so much text may be held back.
pub(crate) const STOP_STRING_BYTES_MAX: usize = 512;
/// Token ids in `stop_token_ids`.
pub(crate) const STOP_TOKENS_MAX: usize = 64;
/// Characters of a refused value that are repeated to its sender.
pub(crate) const FOUND_CHARS_MAX: usize = 60;
/// Temperatures below this divide logits into infinities; they mean the likeliest token.
pub(crate) const TEMPERATURE_MIN: f64 = 1e-4;
/// Seconds after which a refused client may try again.
pub(crate) const RETRY_AFTER_S: u64 = 2;
/// Bytes of a client's own request id.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 128;
