//! A simulator of a whole cluster, driven by a seed: processes that crash, freeze and come back, links that delay,
//! lose, double and reorder frames, a store that goes away; and the laws that hold all the same.
//!
//! The code that decides is real: the planner, `decide`, `Member`, `FrameGate`, `Conductor`, the scheduler and its
//! ledger, the membership writes, the store's state machine, the frames. Its environment is simulated: time, processes,
//! links, and the ways to the store. One thread, one queue of events, one stream of random numbers: a seed always takes
//! the same course.
//!
//! `SIMULATOR_SEED=17` runs one seed and prints its course if it fails. `SIMULATOR_SEEDS=10000` runs that many seeds.

mod clients;
mod crowd;
mod dial;
mod environment;
mod event;
mod event_loop;
mod fault;
mod fault_injection;
mod fault_schedule;
mod gateway;
mod laws;
mod lease;
mod model;
mod network;
mod operator;
mod pin;
mod process_id;
mod rng;
mod route;
mod stage;
mod store;
mod taken;
mod tally;
mod thread;
mod time;
mod trace;
mod transport;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use self::event_loop::Violation;
use self::tally::Tally;
use self::time::SECOND;
use self::trace::Trace;
use self::world::World;

/// Seeds that a run tries by default: a few seconds' worth.
const SEEDS: u64 = 300;

/// Seeds that are run twice.
const SEEDS_COMPARED: u64 = 300;
/// Situations that some of them must run into.
const COVERED: &[&str] = &[
    "a client left",
    "a forced token came",
    "a frame was doubled",
    "a frame was lost on a broken link",
    "a frame was lost silently",
    "a frame was overtaken",
    "a gateway wrote its record again",
    "a draft token was accepted",
    "a draft token was rejected",
    "a healthy gateway got a request",
    "a lease was revoked",
    "a link broke with frames in flight",
    "a link broke",
    "a link was cut",
    "a pin could not be honoured",
    "a pin was deleted",
    "a pin was honoured",
    "a pin was put",
    "a process was barred",
    "a prompt was embedded after more than one attempt",
    "a prompt was embedded",
    "a process was cut off from the store",
    "a proposal came too late",
    "a record was forged",
    "a sequence began with cached blocks",
    "a sequence died with its gateway",
    "a sequence finished after more than one attempt",
    "a sequence missed its deadline",
    "a sequence stopped",
    "a sequence was preempted",
    "a share changed hands",
    "a stage crashed",
    "a stage did not take a frame",
    "a stage found the next one gone",
    "a stage froze",
    "a stage handed its layers over",
    "a stage got no answer from the next",
    "a stage joined again",
    "a stage kept its shard for a store that lost its data",
    "a stage lost its lease",
    "a stage measured itself",
    "a stage refused",
    "a stage stayed barred",
    "a stage stopped",
    "a stage was barred from the next",
    "a lookahead batch was wasted",
    "a lookahead batch was used",
    "a token of a prompt was scored",
    "a value was deleted",
    "a value was corrupted",
    "a window moved on",
    "the room for keys and values had grown",
    "a request was too long for the room",
    "a request needed more than the least room",
    "an answer was missing",
    "an answer was overdue",
    "claims were deleted",
    "layers moved without a cause",
    "several gateways had shares",
    "the cluster changed",
    "the gateway crashed",
    "the gateway found the first stage gone",
    "the gateway froze",
    "the gateway got no answer from the first stage",
    "the gateway was barred from the first stage",
    "the store lost its data",
    "the store went away",
];

/// Runs a seed. The error is the failure in words.
fn run(seed: u64, traced: bool) -> Result<Tally, String> {
    match catch_unwind(AssertUnwindSafe(|| World::new(seed, Trace::new(traced)).run())) {
        Ok(Ok(tally)) => Ok(tally),
        Ok(Err(Violation { at, invariant, trace })) => {
            Err(format!("{trace}\nafter {}.{:06} s: {invariant}", at / SECOND, at % SECOND))
        }
        Err(_) => Err("panicked; its message is above".to_owned()),
    }
}

/// A number from the environment, for developers who look for failures.
#[expect(clippy::disallowed_methods, reason = "a switch of a test, no setting of the program")]
fn number_from_environment(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is {value:?}: expected a number")))
}

#[test]
fn faults_change_no_answer_and_leave_nothing_behind() {
    if let Some(seed) = number_from_environment("SIMULATOR_SEED") {
        if let Err(failure) = run(seed, true) {
            panic!("{failure}\nseed {seed} failed");
        }
        return;
    }
    let seeds = number_from_environment("SIMULATOR_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(u64::MAX);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failed.load(Ordering::Relaxed) < seed {
                        return;
                    }
                    if run(seed, false).is_err() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    if failed < u64::MAX {
        let failure = run(failed, true).err().unwrap_or_else(|| "it went well the second time".to_owned());
        panic!("{failure}\nseed {failed} failed: SIMULATOR_SEED={failed} runs it alone");
    }
}

#[test]
fn a_seed_is_deterministic_and_seeds_cover_every_situation() {
    let course = || {
        let mut course = Tally::default();
        for seed in 1_000_000..1_000_000 + SEEDS_COMPARED {
            course.merge(&run(seed, false).unwrap_or_else(|failure| panic!("{failure}\nseed {seed} failed")));
        }
        course
    };
    let (first, second) = (course(), course());
    assert_eq!(first, second, "the same seeds took another course");
    let missed: Vec<_> = COVERED.iter().filter(|what| first.count(what) == 0).collect();
    assert!(missed.is_empty(), "never happened: {missed:?}; {first:#?}");
}
