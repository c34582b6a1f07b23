//! Every bound of the dataflow core, with its unit and its reason.

use std::time::Duration;

/// Rows in a micro-batch: enough that weights are read for many prompt tokens at once, few enough that a step of a
/// slow stage stays well under a second for the models this is made for.
pub const BATCH_ROWS_MAX: u32 = 256;
/// Rows that a micro-batch of prompts may have however many stages there are: weights are read once for all of them.
pub const BATCH_ROWS_SHARE_MIN: u32 = 64;
/// Decoding sequences in a micro-batch: beyond this, reading the weights is no longer what a step spends its time on.
pub const DECODES_MAX: usize = 64;
/// How much longer a micro-batch may take for the sake of prompts, while sequences are being decoded: theirs is the time
/// between two tokens, which should stay under twice what it is undisturbed.
pub const STRETCH_MAX: f64 = 1.7;
/// Prompt tokens that go into a micro-batch in any case: a prompt must come to its end, however slow the stages.
pub const PROMPT_ROWS_MIN: u32 = 2;
/// Guessed tokens that are sent along to be verified: more are seldom all right.
pub const DRAFT_TOKENS_MAX: usize = 15;
/// How far back a sequence's own text is searched for guesses: a few microseconds' worth.
pub const LOOKBACK_TOKENS_MAX: usize = 8192;
/// How many later requests of higher priority may start before a waiting one; then it goes before all others.
pub const OVERTAKEN_MAX: u32 = 16;
/// Sequences that own blocks at a time: bounds the size of block tables in frames.
pub const RUNNING_MAX: usize = 256;
/// Sequences that wait for blocks before the door says 429: a queue longer than this is not worth waiting in.
pub const WAITING_MAX: usize = 256;
/// How often stages may refuse a sequence's work before it fails: a fault may hit twice, a third time it is the work.
pub const REFUSALS_MAX: u32 = 3;
/// Wait after a refusal before the next epoch: a few times what a watch takes to bring news.
pub const REFUSAL_PAUSE: Duration = Duration::from_millis(50);
/// The longest the head waits for a micro-batch, beside its rows, and as long as it does not know how long others took:
/// weights may have to come from a slow disk.
pub const FLIGHT_WAIT_MAX: Duration = Duration::from_secs(20);
/// What each row adds to that: a 14-billion-parameter model on two slow cores takes about a tenth of this.
pub const FLIGHT_WAIT_MAX_PER_ROW: Duration = Duration::from_millis(500);
/// The least it waits: what a busy machine may take for anything. A micro-batch that was lost without any other sign then
/// costs no more than a silent stage does.
pub const FLIGHT_WAIT_MIN: Duration = Duration::from_secs(2);
/// A pipeline without work is shown to be one by an empty micro-batch each time that so long has passed without any.
pub const PROVE_EVERY: Duration = Duration::from_secs(2);
/// The longest wait for an empty micro-batch that is alone on its way: other gateways' prompts may go before it.
pub const PROVE_WAIT: Duration = Duration::from_secs(5);
/// A gateway says in the store that nothing comes through when that has lasted for so long: usually it passes sooner.
pub const TROUBLE_TOLD_AFTER: Duration = Duration::from_millis(400);
/// Epochs that no micro-batch came through, one after the other, before the next one waits: what passes by itself has passed
/// by then.
pub const FUTILE_EPOCHS_FREE: u32 = 3;
/// The first such wait; each that follows is twice as long, up to the most.
pub const FUTILE_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The most: whoever mends a cluster looks whether it works.
pub const FUTILE_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often the head looks for cancelled and expired work, in the absence of other events.
pub const GATEWAY_TICK: Duration = Duration::from_millis(100);
/// How long a new request waits for layers that are changing hands before the door says 503: what it takes to notice a
/// stage that fell silent and to load its layers elsewhere, for models of a few gigabytes in the page cache.
pub const PIPELINE_WAIT_MAX: Duration = Duration::from_secs(8);
/// Submissions on their way from the doors to the head.
pub const SUBMISSIONS_MAX: usize = 64;
/// Gateways in a cluster: beyond this, shares of the keys and values would be too small to be worth having.
pub const GATEWAYS_MAX: u32 = 8;
/// A gateway waits for so long after it was registered, or before it uses blocks that were another's: a few times what a
/// watch takes to tell the stages, which refuse what they have not heard of.
pub const SHARE_SETTLE: Duration = Duration::from_millis(50);
/// Micro-batches on their way to a stage's compute thread: a head keeps at most one more in flight than there are stages,
/// so with [`GATEWAYS_MAX`] gateways and up to 63 stages this is reached only by a head that does not keep to its window.
pub const STAGE_QUEUE_MAX: usize = 64 * GATEWAYS_MAX as usize;
/// The least that a stage may be at one micro-batch before it takes its own compute thread for hanging, and goes: longer than
/// a machine that swaps takes for a step of a model that suits it.
pub const STEP_MAX: Duration = Duration::from_secs(10);
/// The most, and what the first micro-batch may take: weights may have to come from a slow disk.
pub const STEP_MAX_FIRST: Duration = Duration::from_secs(150);
/// The set of live stages must not have changed for so long before a placement is proposed.
pub const SETTLE: Duration = Duration::from_millis(300);
/// The same where stages have only left: everybody waits for their layers, and nobody is about to follow.
pub const SETTLE_LEFT: Duration = Duration::from_millis(50);
/// A placement stands for at least so long before layers are moved because stages have joined: requests that run are
/// interrupted by each change, and stages that start together come a moment apart.
pub const JOIN_MOVE_EVERY: Duration = Duration::from_secs(2);
/// A process that was struck off because nobody was at its endpoint is not struck off again for so long: if it is alive behind
/// something that refuses connections in its name or lets nothing through, layers must not move every moment. For as long
/// nobody strikes off two that are silent without having reached a third.
pub const EVICT_AGAIN: Duration = Duration::from_secs(10);
/// A last stage that has heard nothing of a gateway for so long, while the store still knows it, takes the way between them
/// for cut, and lets another stage be the last. Longer than the usual lease: a gateway that has stopped is gone by then.
pub const UNHEARD_MAX: Duration = Duration::from_secs(8);
/// How long a stage that was struck off though it is alive stands aside, unless the others cannot do without it: as long as
/// it is not struck off again in any case.
pub const QUARANTINE_MIN: Duration = Duration::from_secs(10);
/// The most it stands aside, when it is struck off each time that it has come back: a link that is out for an afternoon
/// then costs a pause every few minutes.
pub const QUARANTINE_MAX: Duration = Duration::from_secs(160);
/// Being struck off is forgotten after so long without another time: well above the longest standing aside.
pub const QUARANTINE_FORGOTTEN: Duration = Duration::from_secs(600);
/// A placement stands for at least so long before layers are moved for speed alone: what a machine measured while it
/// started or was busy with something else must not interrupt everybody's requests more often.
pub const SPEED_MOVE_EVERY: Duration = Duration::from_secs(60);
/// How long a stage that is told to stop waits for others to take over what it holds: service managers wait 30 s before they
/// kill.
pub const DRAIN_MAX: Duration = Duration::from_secs(25);
/// How often a stage reports what it did and used.
pub const REPORT_EVERY: Duration = Duration::from_secs(2);
/// How long a stage must have had nothing to do before it measures its speed: longer than a cluster takes from its first
/// loaded shard to its first request, so that neither waits for it.
pub const PROBE_QUIET: Duration = Duration::from_millis(250);
/// An emptied store is shown as it was for so long, while its members write their records again: a few of their retries. Who
/// has not come back by then is gone.
pub const HEAL_WAIT_MAX: Duration = Duration::from_secs(3);
/// A stage that lost its lease waits for the store's word for so long before it takes the lease for ended.
pub const STORE_LOOK_MAX: Duration = Duration::from_secs(1);
/// Wait before trying again what the store did not do.
pub const STORE_RETRY: Duration = Duration::from_millis(500);
/// How often the store is asked what is wrong with it: people look at the answer.
pub const ALARMS_EVERY: Duration = Duration::from_secs(3);
