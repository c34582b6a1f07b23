//! Every parser of bytes from outside against damaged inputs: it gives a value or an error, never a panic, within named
//! bounds of memory and of time.
//!
//! As a test each target gets a few thousand inputs. `etc/fuzz TARGET SECONDS` runs one for longer. An input that
//! gives an outcome which none gave before is kept and damaged further, so a run goes deeper than the first check.
//! The same seed (`FUZZ_SEED`) gives the same inputs. An input that breaks a bound is written to `target/fuzz`.

mod allocator;
mod damage;
#[path = "../http_api/double.rs"]
#[allow(dead_code, reason = "the tests of the HTTP server use more of it")]
mod double;
mod export;
mod http_head;
#[cfg(feature = "tls")]
mod layers;
#[cfg(feature = "tls")]
mod liar;
mod link;
#[path = "../http_api/fuzz/mutator.rs"]
mod mutator;
mod records;
#[cfg(feature = "tls")]
mod sharing;
mod store;
mod targets;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use damage::{Piece, damaged};
use mutator::Mutator;
use targets::Target;

/// Panics of all threads so far.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Inputs of a target, if no time is set.
const INPUTS: u64 = 2000;
/// Most inputs that are kept to be damaged further.
const KEPT_MAX: usize = 2000;
/// Longest time of the processor for one input: a thousand times the usual, as the machine may be busy.
const INPUT_TIME_MAX: Duration = Duration::from_secs(2);

/// The value of a variable of the environment.
#[expect(clippy::disallowed_methods, reason = "these are settings of a test, not of baton")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    variable(name).map(|text| text.parse().unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// Time that this process has computed.
fn process_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// An outcome without what differs from input to input: numbers, and what stands in quotes.
fn shape(outcome: &str) -> String {
    let mut in_quotes = false;
    let plain = outcome.chars().filter(|letter| {
        in_quotes ^= *letter == '"';
        !in_quotes && !letter.is_ascii_digit()
    });
    plain.take(200).collect()
}

/// Runs the target that `make` makes on damaged inputs. Returns at once if another one is named.
fn fuzz(make: fn() -> Target) {
    // One after the other: memory and time are those of the process.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut target = make();
    if variable("FUZZ_TARGET").is_some_and(|named| named != target.name) {
        return;
    }
    let (seconds, first) = (number("FUZZ_SECONDS"), number("FUZZ_SEED").unwrap_or(1) << 32);
    let started = Instant::now();
    let mut kept: Vec<Vec<Piece>> = target.seeds.clone();
    // Those of them that were taken.
    let mut good = kept.clone();
    // Of every thread: one of a parser's own may end in a panic that the parser makes an error of.
    std::panic::set_hook(Box::new(|panic| {
        PANICS.fetch_add(1, Relaxed);
        eprintln!("{panic}");
    }));
    let mut outcomes = HashSet::new();
    let (mut worst_bytes, mut worst_time, mut accepted) = (0, Duration::ZERO, 0);
    let mut count = 0;
    loop {
        let ended = seconds.map_or(count >= INPUTS, |seconds| started.elapsed() >= Duration::from_secs(seconds));
        if ended && count >= kept.len().min(target.seeds.len()) as u64 {
            break;
        }
        let input = match kept.get(count as usize).filter(|_| count < target.seeds.len() as u64) {
            // The seeds themselves come first.
            Some(seed) => seed.clone(),
            None => {
                let mut mutator = Mutator::new(first + count);
                let from = if mutator.below(2) == 0 { &good } else { &kept };
                let (one, other) = (mutator.below(from.len()), mutator.below(kept.len()));
                damaged(&from[one], &kept[other], &mut mutator)
            }
        };
        let length: usize = input.iter().map(|piece| piece.bytes.len()).sum();
        let (before, panics) = (process_time(), PANICS.load(Relaxed));
        let (ran, bytes) = allocator::counted(|| catch_unwind(AssertUnwindSafe(|| (target.run)(&input))));
        let time = process_time().saturating_sub(before);
        let bytes_max = target.bytes_max(length);
        let Some(outcome) = ran.ok().filter(|_| PANICS.load(Relaxed) == panics) else {
            report(target.name, first + count, &input, "a panic");
        };
        if bytes > bytes_max {
            let reason = format!("{bytes} bytes of memory, expected at most {bytes_max}");
            report(target.name, first + count, &input, &reason);
        }
        if time > INPUT_TIME_MAX {
            report(target.name, first + count, &input, &format!("{time:?}, expected at most {INPUT_TIME_MAX:?}"));
        }
        if count < target.seeds.len() as u64 {
            assert!(outcome.is_ok(), "{}: seed {count} is refused: {outcome:?}", target.name);
        }
        accepted += u64::from(outcome.is_ok());
        let is_good = outcome.is_ok();
        let text = outcome.map_or_else(|refusal| refusal, |value| format!("value: {value}"));
        if outcomes.insert(shape(&text)) && kept.len() < KEPT_MAX {
            if is_good {
                good.push(input.clone());
            }
            kept.push(input);
        }
        (worst_bytes, worst_time) = (worst_bytes.max(bytes), worst_time.max(time));
        count += 1;
    }
    let took = started.elapsed().as_secs_f64();
    println!(
        "{}: {count} inputs in {took:.1} s ({:.0} a second), {accepted} taken, {} outcomes, at most {worst_bytes} \
         bytes and {worst_time:?} an input",
        target.name,
        count as f64 / took,
        outcomes.len()
    );
    // Damage that is always refused, or always taken, would show nothing.
    assert!(outcomes.len() >= 5 && accepted > 0 && accepted < count, "{}: {outcomes:?}", target.name);
}

/// Writes an input that breaks a bound, and ends the test.
fn report(name: &str, number: u64, input: &[Piece], reason: &str) -> ! {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
    std::fs::create_dir_all(&folder).unwrap();
    for (index, piece) in input.iter().enumerate() {
        std::fs::write(folder.join(format!("{name}-{number}-{index}")), &piece.bytes).unwrap();
    }
    panic!("{name}, input {number}: {reason}; the input is {}/{name}-{number}-*", folder.display());
}

#[test]
fn a_set_of_gguf_files_is_a_model_or_refused() {
    fuzz(targets::gguf);
}

#[test]
fn the_first_bytes_of_a_gguf_file_give_its_headers_extent_or_are_refused() {
    fuzz(targets::gguf_extent);
}

#[test]
fn the_headers_and_the_list_of_safetensors_files_are_a_model_or_refused() {
    fuzz(targets::safetensors);
}

#[test]
fn a_folders_configuration_is_a_model_or_refused() {
    fuzz(targets::config);
}

#[test]
fn a_folders_tokenizer_is_a_vocabulary_or_refused() {
    fuzz(targets::tokenizer);
}

#[test]
fn a_manifest_of_ollama_names_a_file_or_is_refused() {
    fuzz(targets::ollama);
}

#[test]
fn a_chat_template_renders_a_prompt_or_is_refused() {
    fuzz(targets::template);
}

#[test]
fn a_frame_is_decoded_or_refused() {
    fuzz(targets::frame);
}

#[test]
fn a_set_of_experts_is_read_or_refused() {
    fuzz(targets::experts);
}

#[test]
fn keys_and_values_of_a_cluster_are_read_and_planned_by_or_named() {
    fuzz(records::records);
}

#[test]
fn a_peer_with_the_key_says_anything_and_others_are_served() {
    fuzz(link::link);
}

#[test]
fn a_client_of_the_embedded_store_sends_anything_and_others_are_served() {
    fuzz(store::store);
}

#[test]
fn an_exported_cluster_is_read_or_refused() {
    fuzz(export::export);
}

#[cfg(feature = "tls")]
#[test]
fn a_strangers_announcement_is_read_or_dropped() {
    fuzz(sharing::announced);
}

#[cfg(feature = "tls")]
#[test]
fn a_stranger_says_anything_at_the_shared_port_and_others_join() {
    fuzz(sharing::join_port);
}

#[cfg(feature = "tls")]
#[test]
fn the_answer_to_a_machine_that_joins_is_taken_or_refused() {
    fuzz(sharing::join_reply);
}

#[cfg(feature = "tls")]
#[test]
fn a_manifest_of_chunks_is_read_or_refused() {
    fuzz(layers::manifest);
}

#[cfg(feature = "tls")]
#[test]
fn a_member_asks_for_any_layers_and_others_are_served() {
    fuzz(layers::layers_port);
}

#[cfg(feature = "tls")]
#[test]
fn the_answer_to_a_machine_that_fetches_layers_is_taken_or_refused() {
    fuzz(layers::layers_reply);
}

#[test]
fn a_client_sends_anything_for_a_request_and_others_are_answered() {
    fuzz(http_head::http_head);
}
