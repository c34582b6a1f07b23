//! Every bound of the dataflow core, with its unit and its reason.

use std::time::Duration;

/// Rows in a micro-batch: enough to read the weights once for many prompt tokens, few enough that a step of a slow
/// stage stays well under a second for the models that this program is made for.
pub const BATCH_ROWS_MAX: u32 = 256;
/// Prompt rows that a micro-batch may have, however many stages there are: weights are read once for all of them.
pub const BATCH_ROWS_SHARE_MIN: u32 = 64;
/// Decoding sequences in a micro-batch: with more, reading the weights no longer takes most of a step's time.
pub const DECODES_MAX: usize = 64;
/// Factor by which prompts may lengthen a micro-batch while sequences are being decoded. The time between two tokens of
/// such a sequence should stay under twice the undisturbed time.
pub const STRETCH_MAX: f64 = 1.7;
/// Prompt tokens that go into a micro-batch in any case: a prompt must be finished, however slow the stages are.
pub const PROMPT_ROWS_MIN: u32 = 2;
/// Speculative (draft) tokens that are sent along to be verified: more are seldom all right.
pub const DRAFT_TOKENS_MAX: usize = 15;
/// Tokens forced by a grammar that are sent with a generated token as one row more each: the key of an object is seldom
/// longer. A longer run is sent as a prompt is.
pub const FORCED_ROWS_MAX: u32 = 32;
/// Rows of a micro-batch in which more than one sequence sends forced tokens, in a pipeline of several stages.
/// Sequences with the same grammar come to its forced parts together; a stage that has all of these at once keeps the
/// others waiting. A run of forced tokens is as long, and a stage's weights are read once for it.
pub const FORCED_BATCH_ROWS_MAX: u32 = FORCED_ROWS_MAX;
/// Tokens at the end of a sequence's own text that are searched for draft tokens: the search takes a few microseconds.
pub const LOOKBACK_TOKENS_MAX: usize = 8192;
/// Later requests of higher priority that may start before a waiting one. After that, the waiting one goes before all
/// others.
pub const OVERTAKEN_MAX: u32 = 16;
/// A room for keys and values that follows the stages' memory leaves one in so many parts of what a stage has left
/// free: for what no bound counts (the heap, the weights of other layers that are read ahead) and for programs that
/// start later.
pub const ROOM_FREE_PARTS: u64 = 8;
/// Gain of room, in hundredths, for which the stages load their layers again while no layer moves: every sequence is
/// computed again, which a few more tokens are not worth.
pub const ROOM_GAIN_PERCENT: u64 = 25;
/// Time for which a gateway keeps its need of a larger room in its record when the sequences that need it have ended:
/// the next long one may come soon, and each change is a write that all members read.
pub const ROOM_NEED_LINGER: Duration = Duration::from_secs(10);
/// Sequences that own blocks at a time. It bounds the size of block tables in frames.
pub const RUNNING_MAX: usize = 256;
/// Sequences that wait for blocks before the HTTP server answers 429: a queue longer than this is not worth waiting in.
pub const WAITING_MAX: usize = 256;
/// Refusals of a sequence's work by stages before the sequence fails: a fault may hit it twice, a third refusal is due
/// to the work.
pub const REFUSALS_MAX: u32 = 3;
/// Wait after a refusal before the next epoch: a few times the delay of a watch.
pub const REFUSAL_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait of the gateway for a micro-batch, to which its rows add. The gateway waits this long while the times of
/// earlier micro-batches are not known: weights may have to come from a slow disk.
pub const FLIGHT_WAIT_MAX: Duration = Duration::from_secs(20);
/// Time that each row adds to that: a 14-billion-parameter model on two slow cores takes about a tenth of this.
pub const FLIGHT_WAIT_MAX_PER_ROW: Duration = Duration::from_millis(500);
/// Shortest such wait: the time that a busy machine may take for anything. So a micro-batch that is lost without any
/// other sign costs no more than a silent stage does.
pub const FLIGHT_WAIT_MIN: Duration = Duration::from_secs(2);
/// A pipeline without work is checked by an empty micro-batch each time that this has passed without any micro-batch.
pub const PROOF_INTERVAL: Duration = Duration::from_secs(2);
/// Wait for an empty micro-batch that is alone in flight: other gateways' prompts may go before it.
pub const PROOF_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without a micro-batch that comes through before a gateway reports that in the store: usually it passes sooner.
pub const TROUBLE_REPORT_AFTER: Duration = Duration::from_millis(400);
/// Epochs in a row without a micro-batch that comes through, before the next epoch waits. A fault that passes by itself
/// has passed by then.
pub const EPOCH_BACKOFF_FREE: u32 = 3;
/// The first such wait. Each one that follows is twice as long, up to [`EPOCH_BACKOFF_MAX`].
pub const EPOCH_BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest such wait: an operator who repairs a cluster wants to see if it works.
pub const EPOCH_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Interval at which the gateway looks for cancelled and expired work, in the absence of other events.
pub const GATEWAY_TICK: Duration = Duration::from_millis(100);
/// Longest wait of a new request for layers that are changing hands, before the HTTP server answers 503: the time to
/// notice a silent stage and to load its layers elsewhere, for models of a few gigabytes in the page cache.
pub const PIPELINE_WAIT_MAX: Duration = Duration::from_secs(8);
/// Submissions in the channel from the HTTP handlers to the gateway's core.
pub const SUBMISSIONS_MAX: usize = 64;
/// Gateways in a cluster: with more, shares of the keys and values would be too small to be worth having.
pub const GATEWAYS_MAX: u32 = 8;
/// Wait of a gateway after its registration, and before it uses blocks that were another's: a few times the delay of
/// the watch that informs the stages. A stage refuses frames of a gateway that it has not heard of.
pub const SHARE_SETTLE: Duration = Duration::from_millis(50);
/// Micro-batches that wait for a stage's compute thread. A gateway keeps at most one more in flight than there are
/// stages. So with [`GATEWAYS_MAX`] gateways and up to 63 stages, only a gateway that exceeds its window reaches this.
pub const STAGE_QUEUE_MAX: usize = 64 * GATEWAYS_MAX as usize;
/// Shortest time at one micro-batch after which a stage takes its own compute thread for hanging, and ends: longer than
/// a machine that swaps takes for a step of a model that suits it.
pub const STEP_MAX: Duration = Duration::from_secs(10);
/// The longest such time, which also holds for the first micro-batch: weights may have to come from a slow disk.
pub const STEP_MAX_FIRST: Duration = Duration::from_secs(150);
/// Time for which the set of live stages must not have changed before a placement is proposed.
pub const SETTLE: Duration = Duration::from_millis(300);
/// The same if stages have only left: every request waits for their layers, and no more changes are expected.
pub const SETTLE_LEFT: Duration = Duration::from_millis(50);
/// Least age of a placement before layers are moved because stages have joined: each change interrupts running
/// requests, and stages that start together join a moment apart.
pub const JOIN_MOVE_EVERY: Duration = Duration::from_secs(2);
/// Pause before the same process is evicted again. If it is alive behind something that refuses connections in its name
/// or lets nothing through, layers must not move every moment. Within the same time, no process evicts two silent peers
/// without having reached a third.
pub const EVICT_AGAIN: Duration = Duration::from_secs(10);
/// Longest time that a live stage may leave a slot of the placement unclaimed. A stage that reaches the store claims
/// its slot at once, before it loads anything: one that does not is cut off from the store, and its lease may be long.
pub const CLAIM_WAIT_MAX: Duration = Duration::from_secs(3);
/// A last stage whose answers a gateway has not taken for this time, while the store still knows the gateway, takes the
/// way between them for cut and lets another stage be the last. Longer than the usual lease: a gateway that has stopped
/// is gone by then.
pub const UPSTREAM_SILENCE_MAX: Duration = Duration::from_secs(8);
/// Quarantine of a stage that was evicted though it is alive, unless the others cannot do without it. It is as long as
/// [`EVICT_AGAIN`], for which the stage is not evicted again in any case.
pub const QUARANTINE_MIN: Duration = Duration::from_secs(10);
/// Longest quarantine, of a stage that is evicted each time that it has come back: a link that is out for an afternoon
/// then costs a pause every few minutes.
pub const QUARANTINE_MAX: Duration = Duration::from_secs(160);
/// An eviction is forgotten after this time without another one: well above the longest quarantine.
pub const QUARANTINE_FORGOTTEN: Duration = Duration::from_secs(600);
/// Least age of a placement before layers are moved for speed alone: measurements of a machine while it started or was
/// busy with other work must not interrupt every request more often.
pub const SPEED_MOVE_EVERY: Duration = Duration::from_secs(60);
/// Longest time that a stage that is told to stop waits for others to take over its layers: service managers wait 30 s
/// before they kill.
pub const DRAIN_MAX: Duration = Duration::from_secs(25);
/// Shortest interval at which a stage reports its work and its use of resources.
pub const REPORT_EVERY: Duration = Duration::from_secs(2);
/// Reports of all stages of a cluster together, in a second: an etcd on a small machine takes some thousand writes a
/// second, and people who look at a hundred stages want figures of the last two seconds.
pub const LOADS_PER_SECOND_MAX: u32 = 50;
/// Time after which a stage writes its load again though it is the same: the store may have lost it.
pub const LOAD_REFRESH: Duration = Duration::from_secs(60);
/// Building a view takes at most one part in this many of the time, so that a thousand stages that join at once cost
/// each member a few views, not one each. Without many members, a view takes some microseconds, and none waits.
pub const VIEW_TIME_PARTS: u32 = 10;
/// Longest wait of a view for more changes, however long building it takes.
pub const VIEW_WAIT_MAX: Duration = Duration::from_millis(250);
/// Time without work after which a stage measures its speed: longer than a cluster takes from its first loaded shard to
/// its first request, so that neither waits for the measurement.
pub const PROBE_QUIET: Duration = Duration::from_millis(250);
/// Time for which an emptied store is shown as it was, while its members write their records again: a few of their
/// retries. A member that has not come back by then is gone.
pub const HEAL_WAIT_MAX: Duration = Duration::from_secs(3);
/// Longest time that a stage that lost its lease waits for an answer of the store, before it takes the lease for ended.
pub const STORE_LOOK_MAX: Duration = Duration::from_secs(1);
/// Wait before a store operation that failed is tried again.
pub const STORE_RETRY: Duration = Duration::from_millis(500);
/// Interval at which the store is asked for its alarms: people read the answer.
pub const ALARMS_EVERY: Duration = Duration::from_secs(3);
