//! A simulator of a whole cluster, driven by a seed: processes that crash, freeze and come back, links that delay, lose,
//! double and reorder frames, a store that goes away; and the laws that hold all the same.
//!
//! What decides is the real code: the planner, `decide`, `Member`, `FrameGate`, `Conductor`, the scheduler and its ledger, the
//! membership writes, the store's state machine, the frames. What is simulated is what surrounds it: time, processes,
//! links, and the ways to the store. One thread, one queue of events, one stream of random numbers: a seed always takes the
//! same course.
//!
//! `SIMULATOR_SEED=17` runs one seed and tells its course when it fails; `SIMULATOR_SEEDS=10000` runs so many.

mod clients;
mod depot;
mod dice;
mod faults;
mod gateway;
mod laws;
mod lease;
mod model;
mod network;
mod operator;
mod route;
mod stage;
mod surroundings;
mod taken;
mod tally;
mod thread;
mod trace;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::surroundings::SECOND;
use self::tally::Tally;
use self::trace::Trace;
use self::world::{Broken, World};

/// Times to live of all leases.
const LEASE_TTL: Duration = Duration::from_secs(3);
/// The deadline of requests that are not meant to miss it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3600);
/// Seeds that a run tries unless told otherwise: a few seconds' worth.
const SEEDS: u64 = 300;

/// Seeds that are run twice.
const SEEDS_COMPARED: u64 = 300;
/// What some of them must meet.
const MEETS: &[&str] = &[
    "a client left",
    "a frame was doubled",
    "a frame was lost on a broken link",
    "a frame was lost without a sign",
    "a frame was overtaken",
    "a gateway wrote its record again",
    "a guess came true",
    "a guess was wrong",
    "a healthy gateway got a request",
    "a lease was revoked",
    "a link broke under way",
    "a link broke",
    "a link was cut",
    "a pin could not be honoured",
    "a pin was deleted",
    "a pin was honoured",
    "a pin was put",
    "a process was barred",
    "a process was cut off from the store",
    "a proposal came too late",
    "a record was forged",
    "a sequence began with what was known",
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
    "a stage heard nothing of the next",
    "a stage joined again",
    "a stage kept what it held for a store that lost its data",
    "a stage lost its lease",
    "a stage measured itself",
    "a stage refused",
    "a stage stayed barred",
    "a stage stopped",
    "a stage was barred from the next",
    "a stage went on from guesses for nothing",
    "a stage went on from guesses",
    "a value was deleted",
    "a value was spoilt",
    "an answer was missing",
    "an answer was overdue",
    "claims were deleted",
    "layers moved while nobody asked",
    "several gateways had shares",
    "the cluster changed",
    "the gateway crashed",
    "the gateway found the first stage gone",
    "the gateway froze",
    "the gateway heard nothing of the first stage",
    "the gateway was barred from the first stage",
    "the store lost its data",
    "the store went away",
];

/// Runs a seed; what went wrong, in words.
fn run(seed: u64, traced: bool) -> Result<Tally, String> {
    match catch_unwind(AssertUnwindSafe(|| World::new(seed, Trace::new(traced)).run())) {
        Ok(Ok(tally)) => Ok(tally),
        Ok(Err(Broken { at, law, trace })) => {
            Err(format!("{trace}\nafter {}.{:06} s: {law}", at / SECOND, at % SECOND))
        }
        Err(_) => Err("panicked; its words are above".to_owned()),
    }
}

/// A number from the environment, for those who look for failures.
#[expect(clippy::disallowed_methods, reason = "a switch of a test, no setting of the program")]
fn asked(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is {value:?}: expected a number")))
}

#[test]
fn whatever_happens_to_processes_links_and_store_every_answer_is_right_and_nothing_is_left() {
    if let Some(seed) = asked("SIMULATOR_SEED") {
        if let Err(words) = run(seed, true) {
            panic!("{words}\nseed {seed} failed");
        }
        return;
    }
    let seeds = asked("SIMULATOR_SEEDS").unwrap_or(SEEDS);
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
        let words = run(failed, true).err().unwrap_or_else(|| "it went well the second time".to_owned());
        panic!("{words}\nseed {failed} failed: SIMULATOR_SEED={failed} runs it alone");
    }
}

#[test]
fn a_seed_always_takes_the_same_course_and_seeds_meet_all_that_they_are_made_for() {
    let course = || {
        let mut course = Tally::default();
        for seed in 1_000_000..1_000_000 + SEEDS_COMPARED {
            course.merge(&run(seed, false).unwrap_or_else(|words| panic!("{words}\nseed {seed} failed")));
        }
        course
    };
    let (first, second) = (course(), course());
    assert_eq!(first, second, "the same seeds took another course");
    let missed: Vec<_> = MEETS.iter().filter(|what| first.count(what) == 0).collect();
    assert!(missed.is_empty(), "never happened: {missed:?}; {first:#?}");
}
