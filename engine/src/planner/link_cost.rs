//! Leaves out stages that are not worth their links. The time of a link counts for the number of stages, though not for
//! the places at which the layers are cut.
//!
//! One micro-batch more is in flight than there are stages. So the pipeline hides as much of the links as the slowest
//! stage takes. Every request waits for the time that they take beyond that, and then fewer stages may be faster.

use std::collections::BTreeSet;

use schema::record::{ModelRecord, Shard};

use super::{Candidate, PlanError, ROWS, has_measured, plan, times_ps};

/// With up to this many stages that have a link time, every choice of stages to leave out is tried.
const CHOICES_MAX: usize = 5;
/// With more, only these numbers of stages with the slowest links are left out together: each choice takes a plan.
const LEFT_OUT: [usize; 2] = [2, 16];
const MICROSECOND_PS: u128 = 1_000_000;

/// The time from one micro-batch to the next, in picoseconds: that of the slowest stage, or that of the way through all
/// stages and links divided by the micro-batches in flight, whichever is longer. While a stage that holds layers has
/// not measured itself, its times are guesses, and links do not count.
pub fn interval_ps(model: &ModelRecord, candidates: &[Candidate], shards: &[Shard]) -> u128 {
    let (slowest_ps, through_ps) = slowest_and_through_ps(model, candidates, shards);
    slowest_ps.max(through_ps)
}

/// The time of the slowest stage, and each micro-batch's share of the time through all stages and links.
fn slowest_and_through_ps(model: &ModelRecord, candidates: &[Candidate], shards: &[Shard]) -> (u128, u128) {
    let times = times_ps(model, candidates, shards, ROWS);
    let slowest = times.iter().copied().max().map_or(0, u128::from);
    let through = times.into_iter().map(u128::from).sum::<u128>() + links_ps(model, candidates, shards);
    (slowest, through / (shards.len() as u128 + 1))
}

fn links_ps(model: &ModelRecord, candidates: &[Candidate], shards: &[Shard]) -> u128 {
    let names: BTreeSet<_> = shards.iter().map(|shard| &shard.stage).collect();
    let holders = || candidates.iter().filter(|stage| names.contains(&stage.name));
    if !holders().all(|stage| has_measured(model, &stage.speed)) {
        return 0;
    }
    holders().map(|stage| link_ps(model, stage)).sum()
}

/// The time of a stage's link: its latency, and the time of a micro-batch's rows by its throughput.
fn link_ps(model: &ModelRecord, stage: &Candidate) -> u128 {
    let bits = u128::from(ROWS) * u128::from(model.hidden) * 8 * size_of::<f32>() as u128;
    // A bit takes a microsecond at 1 Mbit/s.
    let transfer_ps = |megabits: u32| bits * MICROSECOND_PS / u128::from(megabits.max(1));
    u128::from(stage.link_us) * MICROSECOND_PS + stage.link_megabits_per_second.map_or(0, transfer_ps)
}

/// The best division among `candidates`. It may leave some out because of their links. One that gives layers to a stage
/// only to have one more micro-batch in flight is not looked for.
///
/// # Errors
/// Those of [`plan`] with all of them.
pub fn plan_with_links(model: &ModelRecord, candidates: &[Candidate]) -> Result<Vec<Shard>, PlanError> {
    let all = plan(model, candidates)?;
    let (slowest_ps, through_ps) = slowest_and_through_ps(model, candidates, &all);
    // No choice of stages has a faster slowest stage than all stages. So if that takes longest, no choice is better.
    if slowest_ps >= through_ps {
        return Ok(all);
    }
    let (mut best, mut best_ps) = (all, through_ps);
    let times: Vec<_> = candidates.iter().map(|stage| link_ps(model, stage)).collect();
    let mut slow: Vec<_> =
        (0..candidates.len()).filter(|at| candidates[*at].fixed.is_none() && times[*at] > 0).collect();
    slow.sort_by_key(|at| std::cmp::Reverse(times[*at]));
    for left_out in stages_to_leave_out(slow.len()) {
        let is_left_out = |at: &usize| left_out.iter().any(|choice| slow[*choice] == *at);
        let others: Vec<_> =
            (0..candidates.len()).filter(|at| !is_left_out(at)).map(|at| candidates[at].clone()).collect();
        let Ok(shards) = plan(model, &others) else { continue };
        let found_ps = interval_ps(model, candidates, &shards);
        if found_ps < best_ps {
            (best, best_ps) = (shards, found_ps);
        }
    }
    Ok(best)
}

/// The choices of stages to be left out together, of `count` stages. Stage 0 has the slowest link.
fn stages_to_leave_out(count: usize) -> Vec<Vec<usize>> {
    if count > CHOICES_MAX {
        return LEFT_OUT.into_iter().filter(|most| *most <= count).map(|most| (0..most).collect()).collect();
    }
    let mut choices: Vec<Vec<usize>> =
        (1..1_u32 << count).map(|set| (0..count).filter(|at| set & (1 << at) != 0).collect()).collect();
    choices.sort_by_key(Vec::len);
    choices
}
