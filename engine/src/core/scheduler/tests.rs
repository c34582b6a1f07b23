use std::time::Duration;

use proptest::prelude::*;
use schema::frame::{Chosen, HIDDEN_STATE_BYTES_MAX, HiddenState, Refusal, Spent, Tokens};

use super::*;
use crate::generate::{Constraint, ConstraintError, Finish, Grammar, NextTokens, Pooling, SharedGrammar, TokenOptions};
use crate::limits::{BATCH_ROWS_MAX, FORCED_BATCH_ROWS_MAX, OVERTAKEN_MAX};
use crate::runner::KV_BLOCK_TOKENS;

/// A pipeline that computes: the token after a history is a function of all of it, read back from the blocks that the
/// slices name, so a wrong block, a lost row or a mixed-up sequence changes the tokens.
struct Double {
    kinds: KvKinds,
    blocks: Vec<[u64; KV_BLOCK_TOKENS as usize]>,
    window_blocks: Vec<[u64; KV_BLOCK_TOKENS as usize]>,
    /// Time of each row of a micro-batch, in addition to 10 us.
    row_us: u32,
}

fn mix(sum: u64, token: u64) -> u64 {
    (sum.wrapping_mul(31).wrapping_add(token + 7)) % 1_000_003
}

/// The token after a history whose `mix` is `sum`: mostly one more than the last, so that draft tokens are accepted.
/// Both depend on the whole history.
fn following(sum: u64, last: u64) -> u64 {
    if sum.is_multiple_of(6) { sum } else { (last + 1) % 9 }
}

fn expected(prompt: &[u32], count: usize) -> Vec<u32> {
    expected_of(KvKinds::Full, prompt, count)
}

/// The `mix` of what the layers of a model see at the end of `history`: all of it, the last tokens, or both.
fn mix_visible(kinds: KvKinds, history: &[u64]) -> u64 {
    let all = if kinds.has_full() { history } else { &[] };
    let window = kinds.window().map_or(0, |window| history.len().min(window as usize));
    all.iter().chain(&history[history.len() - window..]).fold(1, |sum, token| mix(sum, *token))
}

fn expected_of(kinds: KvKinds, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut history: Vec<u64> = prompt.iter().map(|token| u64::from(*token)).collect();
    for _ in 0..count {
        let sum = mix_visible(kinds, &history);
        history.push(following(sum, history[history.len() - 1]));
    }
    history[prompt.len()..].iter().map(|token| *token as u32).collect()
}

/// The hidden state after a history whose `mix` is `sum`.
fn hidden_state(sum: u64, last: u64, hidden: u32) -> Vec<f32> {
    let mut values = vec![0.0; hidden as usize];
    (values[0], values[1]) = (sum as f32, last as f32);
    values
}

/// The embedding of a prompt by a model with two hidden dimensions.
fn expected_embedding(kinds: KvKinds, prompt: &[u32], pooling: Pooling) -> Vec<f32> {
    let mut sums = [0.0; 2];
    let positions = pooling.positions(prompt.len() as u32);
    let history: Vec<u64> = prompt.iter().map(|token| u64::from(*token)).collect();
    for (position, token) in (0..).zip(prompt) {
        if positions.contains(&position) {
            let sum = mix_visible(kinds, &history[..=position as usize]);
            let state = hidden_state(sum, u64::from(*token), 2);
            sums = [sums[0] + f64::from(state[0]), sums[1] + f64::from(state[1])];
        }
    }
    sums.map(|sum| (sum / positions.len() as f64) as f32).to_vec()
}

impl Double {
    fn new(blocks: u32) -> Self {
        Self::of(KvKinds::Full, KvBlocks { full: blocks, window: 0 })
    }

    fn of(kinds: KvKinds, blocks: KvBlocks) -> Self {
        let empty = |count: u32| vec![[u64::MAX; KV_BLOCK_TOKENS as usize]; count as usize];
        Self { kinds, blocks: empty(blocks.full), window_blocks: empty(blocks.window), row_us: 0 }
    }

    /// The places of `positions` in the blocks of layers without a window, and then in those of layers with one.
    fn places(slice: &Slice, position: u32) -> [impl Fn() -> (usize, usize); 2] {
        let (index, offset) = ((position / KV_BLOCK_TOKENS) as usize, (position % KV_BLOCK_TOKENS) as usize);
        let of = move |blocks: &'static str, found: Option<u32>| {
            move || (found.unwrap_or_else(|| panic!("position {position} has no block {blocks}")) as usize, offset)
        };
        let in_window = index.checked_sub(slice.window_first as usize);
        [
            of("without a window", slice.blocks.get(index).copied()),
            of("of its window", in_window.and_then(|index| slice.window_blocks.get(index)).copied()),
        ]
    }

    fn run(&mut self, shape: &Shape, batch: &Batch) -> Tokens {
        let (mut chosen, mut hidden_states) = (Vec::new(), Vec::new());
        for slice in &batch.slices {
            for (position, token) in (slice.position..).zip(&slice.tokens) {
                let [full, window] = Self::places(slice, position);
                if self.kinds.has_full() {
                    let (block, offset) = full();
                    self.blocks[block][offset] = u64::from(*token);
                }
                if self.kinds.window().is_some() {
                    let (block, offset) = window();
                    self.window_blocks[block][offset] = u64::from(*token);
                }
            }
            let read = |end: u32| {
                let (mut sum, mut last) = (1, 0);
                let mut add = |token: u64| {
                    assert_ne!(token, u64::MAX, "a row was read before it was written");
                    (sum, last) = (mix(sum, token), token);
                };
                for position in (0..end).filter(|_| self.kinds.has_full()) {
                    let (block, offset) = Self::places(slice, position)[0]();
                    add(self.blocks[block][offset]);
                }
                let first = self.kinds.window().map_or(end, |window| end.saturating_sub(window));
                for position in first..end {
                    let (block, offset) = Self::places(slice, position)[1]();
                    add(self.window_blocks[block][offset]);
                }
                (sum, last)
            };
            let (sequence, attempt) = (slice.sequence, slice.attempt);
            for offset in &slice.hidden_states {
                let position = slice.position + offset;
                let (sum, last) = read(position + 1);
                let values = hidden_state(sum, last, shape.hidden);
                hidden_states.push(HiddenState { sequence, attempt, position, values });
            }
            for (index, offset) in slice.logits.iter().enumerate() {
                let position = slice.position + offset + 1;
                let (sum, last) = read(position);
                let token = slice.scored.get(index).copied().unwrap_or(following(sum, last) as u32);
                chosen.push(Chosen {
                    sequence,
                    attempt,
                    position,
                    token,
                    logprob: -1.0,
                    rank: 0,
                    alternatives: vec![],
                });
            }
        }
        let rows = batch.slices.iter().map(|slice| slice.count).sum();
        let compute_us = 10 + self.row_us * rows;
        let spent = (0..shape.stages.len() as u32).map(|slot| Spent { slot, rows, compute_us, queue_us: 1 }).collect();
        Tokens { generation: shape.generation, epoch: shape.epoch, step: batch.step, chosen, spent, hidden_states }
    }
}

fn shape(stages: usize, kv_blocks: u32, epoch: u64) -> Shape {
    let label = |index: usize| StageLabel { stage: format!("s{index}"), layers: [index as u32, index as u32 + 1] };
    Shape {
        generation: Generation(1),
        epoch: Epoch(epoch),
        stages: (0..stages).map(label).collect(),
        kinds: KvKinds::Full,
        blocks: (0..kv_blocks).collect(),
        window_blocks: Vec::new(),
        hidden: 2,
        bidirectional: false,
    }
}

/// The same for a model with windows.
fn shape_of(kinds: KvKinds, stages: usize, blocks: KvBlocks, epoch: u64) -> Shape {
    Shape { kinds, window_blocks: (0..blocks.window).collect(), ..shape(stages, blocks.full, epoch) }
}

fn request(prompt: Vec<u32>, tokens_max: u32) -> Request {
    let tokens = TokenOptions::GREEDY;
    let deadline = Duration::from_secs(60);
    Request { prompt, tokens_max, tokens, stop_tokens: vec![], deadline, priority: 0, pooling: None }
}

fn embedding_request(prompt: Vec<u32>, pooling: Pooling) -> Request {
    Request { pooling: Some(pooling), ..request(prompt, 0) }
}

fn embeddings_of(events: &[(SequenceId, TokenEvent)], id: SequenceId) -> Vec<Vec<f32>> {
    let vector = |(of, event): &(SequenceId, TokenEvent)| match event {
        TokenEvent::Embedded { vector, .. } if *of == id => Some(vector.clone()),
        _ => None,
    };
    events.iter().filter_map(vector).collect()
}

fn tokens_of(events: &[(SequenceId, TokenEvent)], id: SequenceId) -> Vec<u32> {
    let token = |(of, event): &(SequenceId, TokenEvent)| match event {
        TokenEvent::Token(score) if *of == id => Some(score.token),
        _ => None,
    };
    events.iter().filter_map(token).collect()
}

#[test]
fn the_window_is_one_more_than_the_stages() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(true);
    for _ in 0..8 {
        scheduler.admit(request(vec![1; 1000], 4), now);
    }
    assert!(scheduler.next_batch(now).is_none(), "there is no pipeline yet");
    scheduler.rebuild(Some(shape(2, 1000, 1)));
    let sent = std::iter::from_fn(|| scheduler.next_batch(now)).count();
    assert_eq!(sent, 3);
}

#[test]
fn decoding_sequences_split_into_as_many_groups_as_stages() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(true);
    let shape = shape(2, 100, 1);
    let mut double = Double::new(100);
    scheduler.rebuild(Some(shape.clone()));
    for token in 0..4 {
        scheduler.admit(request(vec![token; 3], 8), now);
    }
    let prefill = scheduler.next_batch(now).unwrap();
    assert_eq!(prefill.slices.len(), 4);
    scheduler.complete(&double.run(&shape, &prefill), now).unwrap();
    let groups: Vec<_> = std::iter::from_fn(|| scheduler.next_batch(now)).map(|batch| batch.slices.len()).collect();
    assert_eq!(groups, [2, 2]);
}

#[test]
fn an_answer_out_of_order_is_a_fault_and_a_stale_one_is_nothing() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(true);
    let first = shape(2, 100, 1);
    let mut double = Double::new(100);
    scheduler.rebuild(Some(first.clone()));
    scheduler.admit(request(vec![1; 600], 4), now);
    let batches: Vec<_> = std::iter::from_fn(|| scheduler.next_batch(now)).collect();
    let answers: Vec<_> = batches.iter().map(|batch| double.run(&first, batch)).collect();
    assert!(matches!(scheduler.complete(&answers[1], now), Err(PipelineFault::Gap { .. })));
    scheduler.complete(&answers[0], now).unwrap();
    assert!(scheduler.complete(&answers[0], now).unwrap().is_empty(), "a duplicate counted");
    scheduler.rebuild(Some(shape(2, 100, 2)));
    assert!(scheduler.complete(&answers[1], now).unwrap().is_empty(), "an old epoch counted");
}

#[test]
fn a_missing_or_foreign_token_is_a_fault() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(true);
    let shape = shape(1, 100, 1);
    scheduler.rebuild(Some(shape.clone()));
    scheduler.admit(request(vec![1; 3], 4), now);
    let batch = scheduler.next_batch(now).unwrap();
    let mut answer = Double::new(100).run(&shape, &batch);
    answer.chosen[0].position += 1;
    assert!(matches!(scheduler.complete(&answer, now), Err(PipelineFault::Mismatch(_))));
}

#[test]
fn work_refused_three_times_fails_and_other_work_goes_on() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(true);
    let id = scheduler.admit(request(vec![1; 3], 4), now);
    for attempt in 1..=3 {
        let shape = shape(1, 100, attempt);
        scheduler.rebuild(Some(shape.clone()));
        let batch = scheduler.next_batch(now).unwrap();
        let refusal = Refusal {
            generation: shape.generation,
            epoch: shape.epoch,
            step: batch.step,
            slot: 0,
            reason: "no".into(),
            passing: false,
            epoch_known: Epoch(0),
        };
        let (_, events) = scheduler.refused(&refusal).unwrap();
        assert_eq!(!events.is_empty(), attempt == 3);
    }
    assert_eq!(scheduler.load(), (0, 0));
    assert!(!scheduler.sequences.contains_key(&id));
}

#[test]
fn a_sequence_past_its_deadline_fails_and_frees_its_blocks() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(true);
    scheduler.rebuild(Some(shape(1, 10, 1)));
    scheduler.admit(request(vec![1; 40], 4), now);
    scheduler.next_batch(now).unwrap();
    assert_eq!(scheduler.free_blocks().full, 8);
    let events = scheduler.expire(now + Duration::from_secs(61));
    assert!(matches!(events[..], [(_, TokenEvent::Failed(Failure::Deadline { limit_s: 60 }))]));
    assert_eq!(scheduler.free_blocks().full, 10);
}

/// Runs everything to its end, one micro-batch at a time. Returns the events and the micro-batches.
fn run(scheduler: &mut Scheduler, shape: &Shape, double: &mut Double) -> (SequenceEvents, Vec<Batch>) {
    let now = Instant::now();
    let (mut events, mut batches) = (Vec::new(), Vec::new());
    while let Some(batch) = scheduler.next_batch(now) {
        events.extend(scheduler.complete(&double.run(shape, &batch), now).unwrap());
        batches.push(batch);
    }
    (events, batches)
}

/// Like `run`, with as many micro-batches in flight as allowed.
fn run_full(scheduler: &mut Scheduler, shape: &Shape, double: &mut Double) -> (SequenceEvents, Vec<Batch>) {
    let now = Instant::now();
    let (mut events, mut batches, mut done) = (Vec::new(), Vec::new(), 0);
    loop {
        batches.extend(std::iter::from_fn(|| scheduler.next_batch(now)));
        let Some(oldest) = batches.get(done) else { return (events, batches) };
        events.extend(scheduler.complete(&double.run(shape, oldest), now).unwrap());
        scheduler.audit().unwrap();
        done += 1;
    }
}

/// A grammar that forces ten tokens after every third one that is chosen.
#[derive(Debug)]
struct Keys;

/// The number of accepted tokens.
#[derive(Debug)]
struct KeysPlace(usize);

impl Grammar for Keys {
    fn begin(&self) -> Box<dyn Constraint> {
        Box::new(KeysPlace(0))
    }
}

impl Constraint for KeysPlace {
    fn next(&mut self) -> Result<NextTokens, ConstraintError> {
        let at = self.0 % 13;
        Ok(if at < 3 { NextTokens::Any } else { NextTokens::Forced((at as u32..13).collect()) })
    }

    fn accept(&mut self, _: u32) -> Result<bool, ConstraintError> {
        self.0 += 1;
        Ok(true)
    }

    fn rollback(&mut self, tokens: usize) {
        self.0 -= tokens;
    }
}

#[test]
fn forced_tokens_of_several_sequences_are_sent_in_micro_batches_of_bounded_rows() {
    let now = Instant::now();
    for (stages, rows_max) in [(2, FORCED_BATCH_ROWS_MAX), (1, BATCH_ROWS_MAX)] {
        let mut scheduler = Scheduler::new(false);
        let (shape, mut double) = (shape(stages, 200, 1), Double::new(200));
        scheduler.rebuild(Some(shape.clone()));
        let tokens = TokenOptions { grammar: Some(SharedGrammar::new(Keys)), ..TokenOptions::GREEDY };
        let constrained = |token| Request { tokens: tokens.clone(), ..request(vec![token; 3], 65) };
        let ids: Vec<_> = (0..8).map(|token| scheduler.admit(constrained(token), now)).collect();
        let (events, batches) = run_full(&mut scheduler, &shape, &mut double);
        for id in ids {
            let tokens = tokens_of(&events, id);
            assert_eq!(tokens.len(), 65);
            assert_eq!(tokens[3..13], (3..13).collect::<Vec<u32>>()[..]);
        }
        let most = batches.iter().map(|batch| batch.slices.iter().map(|slice| slice.count).sum::<u32>()).max();
        assert!(most.is_some_and(|most| (12..=rows_max).contains(&most)), "{stages} stages: {most:?}");
        // A run goes in one piece.
        let counts = batches.iter().flat_map(|batch| &batch.slices).map(|slice| slice.count);
        assert!(counts.clone().any(|count| count == 11) && counts.max() == Some(11), "{stages} stages");
    }
}

fn rows(batches: &[Batch], id: SequenceId) -> u32 {
    batches.iter().flat_map(|batch| &batch.slices).filter(|slice| slice.sequence == id).map(|slice| slice.count).sum()
}

fn cached(events: &[(SequenceId, TokenEvent)], id: SequenceId) -> Vec<u32> {
    let started = |(of, event): &(SequenceId, TokenEvent)| match event {
        TokenEvent::Started { cached_tokens } if *of == id => Some(*cached_tokens),
        _ => None,
    };
    events.iter().filter_map(started).collect()
}

#[test]
fn a_second_turn_computes_only_new_tokens() {
    let mut scheduler = Scheduler::new(false);
    let shape = shape(2, 100, 1);
    let mut double = Double::new(100);
    scheduler.rebuild(Some(shape.clone()));
    let prompt: Vec<u32> = (0..300).map(|at| at * 3 % 50).collect();
    let first = scheduler.admit(request(prompt.clone(), 20), Instant::now());
    let (events, _) = run(&mut scheduler, &shape, &mut double);
    assert_eq!(cached(&events, first), [0]);
    let turn = [prompt, tokens_of(&events, first), vec![1, 2, 3]].concat();
    let second = scheduler.admit(request(turn.clone(), 20), Instant::now());
    let (events, batches) = run(&mut scheduler, &shape, &mut double);
    // 319 tokens were computed: nine whole blocks.
    assert_eq!(cached(&events, second), [288]);
    assert_eq!(rows(&batches, second), 323 - 288 + 19);
    assert_eq!(tokens_of(&events, second), expected(&turn, 20));
}

#[test]
fn choices_of_one_prompt_compute_its_blocks_once() {
    let mut scheduler = Scheduler::new(false);
    let shape = shape(1, 100, 1);
    let mut double = Double::new(100);
    scheduler.rebuild(Some(shape.clone()));
    let prompt: Vec<u32> = (0..70).collect();
    let choices: Vec<_> = (0..3).map(|_| scheduler.admit(request(prompt.clone(), 3), Instant::now())).collect();
    let (events, batches) = run(&mut scheduler, &shape, &mut double);
    assert_eq!(choices.iter().map(|id| rows(&batches, *id)).collect::<Vec<_>>(), [72, 8, 8]);
    for id in choices {
        assert_eq!(tokens_of(&events, id), expected(&prompt, 3));
    }
}

#[test]
fn a_common_prefix_is_computed_again_once() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(false);
    let prompt: Vec<u32> = (0..70).collect();
    let (before, after) = (shape(1, 100, 1), shape(1, 100, 2));
    scheduler.rebuild(Some(before.clone()));
    let choices: Vec<_> = (0..3).map(|_| scheduler.admit(request(prompt.clone(), 9), now)).collect();
    let (mut events, mut double) = (Vec::new(), Double::new(100));
    for _ in 0..6 {
        let batch = scheduler.next_batch(now).unwrap();
        events.extend(scheduler.complete(&double.run(&before, &batch), now).unwrap());
    }
    assert!(choices.iter().all(|id| !tokens_of(&events, *id).is_empty()), "all had begun");
    scheduler.rebuild(Some(after.clone()));
    let (rest, batches) = run(&mut scheduler, &after, &mut Double::new(100));
    events.extend(rest);
    // 70 tokens of the prompt and the first 8 of the answer. Of the other sequences only the tokens after their two
    // full blocks.
    assert_eq!(choices.iter().map(|id| rows(&batches, *id)).collect::<Vec<_>>(), [78, 14, 14]);
    for id in choices {
        assert_eq!(tokens_of(&events, id), expected(&prompt, 9));
    }
}

#[test]
fn a_long_prompt_is_cut_small_next_to_a_stream_and_large_alone() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(false);
    let shape = shape(1, 1000, 1);
    let mut double = Double::new(1000);
    scheduler.rebuild(Some(shape.clone()));
    // A step takes a millisecond, and a hundredth more for each row.
    let mut turn = |scheduler: &mut Scheduler| {
        let batch = scheduler.next_batch(now).unwrap();
        let mut answer = double.run(&shape, &batch);
        answer.spent[0].compute_us = 1000 + 10 * answer.spent[0].rows;
        scheduler.complete(&answer, now).unwrap();
        batch.slices.iter().map(|slice| slice.count).sum::<u32>()
    };
    scheduler.admit(request(vec![1; 40], 2000), now);
    for _ in 0..50 {
        turn(&mut scheduler);
    }
    scheduler.admit(request(vec![2; 2000], 5), now);
    let rows: Vec<_> = (0..20).map(|_| turn(&mut scheduler)).collect();
    assert!(rows.iter().all(|rows| (2..=80).contains(rows)), "{rows:?}");
    assert!(rows[19] > 50, "the prompt gets less than its share: {rows:?}");
    scheduler.cancel(SequenceId(1));
    assert_eq!(turn(&mut scheduler), BATCH_ROWS_MAX);
}

#[test]
fn accepted_draft_tokens_save_steps_and_change_no_token() {
    let prompt: Vec<u32> = (0..9).cycle().take(60).collect();
    let steps = [false, true].map(|speculates| {
        let mut scheduler = Scheduler::new(speculates);
        let shape = shape(2, 100, 1);
        let mut double = Double::new(100);
        scheduler.rebuild(Some(shape.clone()));
        let id = scheduler.admit(request(prompt.clone(), 200), Instant::now());
        let (events, batches) = run(&mut scheduler, &shape, &mut double);
        assert_eq!(tokens_of(&events, id), expected(&prompt, 200));
        assert_eq!(scheduler.free_blocks().full, 100);
        batches.len()
    });
    assert!(3 * steps[1] < 2 * steps[0], "{steps:?} steps");
}

#[test]
fn lookahead_batches_change_no_token() {
    let prompt: Vec<u32> = (0..9).cycle().take(60).collect();
    let mut scheduler = Scheduler::new(true);
    let shape = shape(2, 100, 1);
    // Rows cost as much as steps, so no draft tokens are sent along.
    let mut double = Double { row_us: 10, ..Double::new(100) };
    scheduler.rebuild(Some(shape.clone()));
    let id = scheduler.admit(request(prompt.clone(), 200), Instant::now());
    let (events, batches) = run_full(&mut scheduler, &shape, &mut double);
    assert_eq!(tokens_of(&events, id), expected(&prompt, 200));
    assert_eq!(scheduler.free_blocks().full, 100);
    let Counts { lookahead_batches: sent, lookahead_batches_used: used, .. } = scheduler.counts();
    assert!(used > 50 && sent > used, "{used} of {sent}");
    assert!(batches.len() as u64 - (sent - used) <= 201, "accepted tokens were computed twice");
}

#[test]
fn there_is_no_lookahead_while_there_is_other_work() {
    let prompt: Vec<u32> = (0..9).cycle().take(60).collect();
    let mut scheduler = Scheduler::new(true);
    let shape = shape(2, 200, 1);
    let mut double = Double::new(200);
    scheduler.rebuild(Some(shape.clone()));
    let ids = [0, 1].map(|_| scheduler.admit(request(prompt.clone(), 100), Instant::now()));
    let (events, _) = run_full(&mut scheduler, &shape, &mut double);
    for id in ids {
        assert_eq!(tokens_of(&events, id), expected(&prompt, 100));
    }
    assert_eq!(scheduler.counts().lookahead_batches, 0, "two sequences run on two stages");
}

#[test]
fn a_higher_priority_starts_first_but_overtakes_a_bounded_number_of_times() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(false);
    let shape = shape(1, 20, 1);
    let mut double = Double::new(20);
    scheduler.rebuild(Some(shape.clone()));
    // Each sequence takes all blocks, so that one runs at a time.
    let urgent = |token: u32| Request { priority: -1, ..request(vec![token; 600], 2) };
    scheduler.admit(urgent(0), now);
    let overtaken = scheduler.admit(request(vec![1; 600], 2), now);
    for token in 2..=OVERTAKEN_MAX + 3 {
        scheduler.admit(urgent(token), now);
    }
    let (events, _) = run(&mut scheduler, &shape, &mut double);
    let ends = events.iter().filter(|(_, event)| matches!(event, TokenEvent::Finished { .. })).map(|(id, _)| *id);
    let place = ends.into_iter().position(|id| id == overtaken);
    assert_eq!(place, Some(OVERTAKEN_MAX as usize + 1));
}

const POOLINGS: [Pooling; 3] = [Pooling::Mean, Pooling::Cls, Pooling::Last];

#[test]
fn an_embedding_has_the_same_bits_however_its_prompt_is_cut_and_batched() {
    let prompt: Vec<u32> = (0..700).map(|index| index * 13 % 47).collect();
    for stages in 1..5 {
        let shape = shape(stages, 200, 1);
        let (mut scheduler, mut double) = (Scheduler::new(true), Double::new(200));
        scheduler.rebuild(Some(shape.clone()));
        let other = scheduler.admit(request(vec![5; 40], 60), Instant::now());
        let wanted = POOLINGS
            .map(|pooling| (scheduler.admit(embedding_request(prompt.clone(), pooling), Instant::now()), pooling));
        let (events, _) = run(&mut scheduler, &shape, &mut double);
        for (id, pooling) in wanted {
            assert_eq!(
                embeddings_of(&events, id),
                [expected_embedding(KvKinds::Full, &prompt, pooling)],
                "{stages}, {pooling:?}"
            );
            assert!(tokens_of(&events, id).is_empty());
            assert_eq!(events.iter().filter(|(of, event)| *of == id && event.is_last()).count(), 1);
        }
        assert_eq!(tokens_of(&events, other), expected(&[5; 40], 60));
        assert_eq!((scheduler.load(), scheduler.free_blocks().full), ((0, 0), 200));
    }
}

#[test]
fn only_a_last_tokens_embedding_begins_with_cached_blocks() {
    let prompt: Vec<u32> = (0..200).collect();
    let shape = shape(1, 100, 1);
    let (mut scheduler, mut double) = (Scheduler::new(true), Double::new(100));
    scheduler.rebuild(Some(shape.clone()));
    scheduler.admit(request(prompt.clone(), 4), Instant::now());
    run(&mut scheduler, &shape, &mut double);
    for (pooling, cached) in [(Pooling::Mean, 0), (Pooling::Cls, 0), (Pooling::Last, 192)] {
        let id = scheduler.admit(embedding_request(prompt.clone(), pooling), Instant::now());
        let (events, _) = run(&mut scheduler, &shape, &mut double);
        assert_eq!(events[0], (id, TokenEvent::Started { cached_tokens: cached }), "{pooling:?}");
        assert_eq!(embeddings_of(&events, id), [expected_embedding(KvKinds::Full, &prompt, pooling)]);
    }
}

#[test]
fn texts_of_a_bidirectional_model_go_through_whole_and_leave_nothing_cached() {
    let now = Instant::now();
    let shape = Shape { bidirectional: true, ..shape(3, 100, 1) };
    let (mut scheduler, mut double) = (Scheduler::new(true), Double::new(100));
    scheduler.rebuild(Some(shape.clone()));
    let lengths = [700, 20, 30, 40, 700, 85];
    let text = |length: u32| (0..length).map(|index| index * 13 % 47).collect::<Vec<u32>>();
    let ids = lengths.map(|length| scheduler.admit(embedding_request(text(length), Pooling::Mean), now));
    let (mut events, mut sent) = (Vec::new(), Vec::new());
    while let Some(batch) = scheduler.next_batch(now) {
        for slice in &batch.slices {
            assert_eq!((slice.position, slice.count), (0, slice.prompt_tokens));
            assert_eq!(slice.hidden_states.len(), slice.count as usize);
        }
        sent.push(batch.slices.iter().map(|slice| slice.count).collect::<Vec<_>>());
        events.extend(scheduler.complete(&double.run(&shape, &batch), now).unwrap());
    }
    assert_eq!(sent, [vec![700], vec![20, 30], vec![40], vec![700], vec![85]], "85 rows are a stage's share");
    for (id, length) in ids.into_iter().zip(lengths) {
        let expected = expected_embedding(KvKinds::Full, &text(length), Pooling::Mean);
        assert_eq!(embeddings_of(&events, id), [expected]);
        let started = TokenEvent::Started { cached_tokens: 0 };
        assert!(events.contains(&(id, started)), "a text of {length} tokens began with cached blocks");
    }
    assert_eq!((scheduler.load(), scheduler.free_blocks().full), ((0, 0), 100));
}

#[test]
fn a_text_waits_until_there_is_room_for_all_of_it() {
    let now = Instant::now();
    let shape = Shape { bidirectional: true, ..shape(1, 20, 1) };
    let (mut scheduler, mut double) = (Scheduler::new(true), Double::new(20));
    scheduler.rebuild(Some(shape.clone()));
    let text: Vec<u32> = (0..500).collect();
    let ids = [(); 2].map(|()| scheduler.admit(embedding_request(text.clone(), Pooling::Mean), now));
    let first = scheduler.next_batch(now).unwrap();
    assert_eq!((first.slices.len(), scheduler.next_batch(now)), (1, None), "16 of 20 blocks are in use");
    // The pipeline is lost, and both texts are sent again from their beginnings.
    let second = Shape { epoch: Epoch(2), ..shape };
    scheduler.rebuild(Some(second.clone()));
    let (events, _) = run(&mut scheduler, &second, &mut double);
    for id in ids {
        assert_eq!(embeddings_of(&events, id), [expected_embedding(KvKinds::Full, &text, Pooling::Mean)]);
    }
}

#[test]
fn a_mean_goes_on_from_the_hidden_states_that_it_had_before_a_fault() {
    let prompt: Vec<u32> = (0..400).collect();
    let now = Instant::now();
    let first = shape(1, 100, 1);
    let (mut scheduler, mut double) = (Scheduler::new(true), Double::new(100));
    scheduler.rebuild(Some(first.clone()));
    let id = scheduler.admit(embedding_request(prompt.clone(), Pooling::Mean), now);
    let batch = scheduler.next_batch(now).unwrap();
    let (sent, rest) = (batch.slices[0].count, 400 - batch.slices[0].count);
    assert_eq!(batch.slices[0].hidden_states.len(), sent as usize);
    scheduler.complete(&double.run(&first, &batch), now).unwrap();
    let second = shape(2, 100, 2);
    scheduler.rebuild(Some(second.clone()));
    double = Double::new(100);
    let mut asked = 0;
    let mut events = Vec::new();
    while let Some(batch) = scheduler.next_batch(now) {
        asked += batch.slices[0].hidden_states.len();
        events.extend(scheduler.complete(&double.run(&second, &batch), now).unwrap());
    }
    assert_eq!(asked, rest as usize, "hidden states were asked for again");
    assert_eq!(embeddings_of(&events, id), [expected_embedding(KvKinds::Full, &prompt, Pooling::Mean)]);
}

#[test]
fn the_hidden_states_of_a_micro_batch_keep_their_bound() {
    let now = Instant::now();
    let wide = Shape { hidden: HIDDEN_STATE_BYTES_MAX as u32 / 4 / 5, ..shape(1, 100, 1) };
    let (mut scheduler, mut double) = (Scheduler::new(true), Double::new(100));
    scheduler.rebuild(Some(wide.clone()));
    let mean = scheduler.admit(embedding_request((0..12).collect(), Pooling::Mean), now);
    let last: Vec<_> =
        (0..9).map(|token| scheduler.admit(embedding_request(vec![token; 3], Pooling::Last), now)).collect();
    let (mut events, mut asked) = (Vec::new(), Vec::new());
    while let Some(batch) = scheduler.next_batch(now) {
        asked.push(batch.slices.iter().map(|slice| slice.hidden_states.len()).sum::<usize>());
        events.extend(scheduler.complete(&double.run(&wide, &batch), now).unwrap());
    }
    assert_eq!(asked.iter().sum::<usize>(), 12 + 9, "{asked:?}");
    assert!(asked.iter().all(|states| *states <= 5), "{asked:?}");
    assert_eq!(
        embeddings_of(&events, mean)[0][..2],
        expected_embedding(KvKinds::Full, &(0..12).collect::<Vec<_>>(), Pooling::Mean)
    );
    for (token, id) in (0..).zip(last) {
        assert_eq!(embeddings_of(&events, id)[0][..2], expected_embedding(KvKinds::Full, &[token; 3], Pooling::Last));
    }
}

#[test]
fn hidden_states_that_were_not_asked_for_or_have_another_width_are_a_fault() {
    let now = Instant::now();
    let changes: [fn(&mut Tokens); 4] = [
        |tokens| drop(tokens.hidden_states.pop()),
        |tokens| tokens.hidden_states[0].position += 1,
        |tokens| tokens.hidden_states[0].values.push(0.0),
        |tokens| tokens.hidden_states.push(tokens.hidden_states[0].clone()),
    ];
    for change in changes {
        let shape = shape(1, 100, 1);
        let (mut scheduler, mut double) = (Scheduler::new(true), Double::new(100));
        scheduler.rebuild(Some(shape.clone()));
        scheduler.admit(embedding_request(vec![1, 2, 3], Pooling::Last), now);
        let batch = scheduler.next_batch(now).unwrap();
        let mut tokens = double.run(&shape, &batch);
        change(&mut tokens);
        assert!(matches!(scheduler.complete(&tokens, now), Err(PipelineFault::Mismatch(_))));
    }
}

/// Runs one sequence to its end alone. Returns its tokens, and the most blocks of a window that it had.
fn run_alone(scheduler: &mut Scheduler, double: &mut Double, shape: &Shape, request: Request) -> (Vec<u32>, usize) {
    let now = Instant::now();
    let id = scheduler.admit(request, now);
    let (mut events, mut blocks_max) = (Vec::new(), 0);
    while let Some(batch) = scheduler.next_batch(now) {
        blocks_max = blocks_max.max(batch.slices[0].window_blocks.len());
        events.extend(scheduler.complete(&double.run(shape, &batch), now).unwrap());
    }
    (tokens_of(&events, id), blocks_max)
}

#[test]
fn an_answer_is_longer_than_all_blocks_of_a_model_of_windows() {
    let (kinds, blocks) = (KvKinds::Window(40), KvBlocks { full: 0, window: 3 });
    let shape = shape_of(kinds, 2, blocks, 1);
    let (mut scheduler, mut double) = (Scheduler::new(true), Double::of(kinds, blocks));
    scheduler.rebuild(Some(shape.clone()));
    let prompt: Vec<u32> = (0..500).map(|at| at * 7 % 50).collect();
    let (tokens, blocks_max) = run_alone(&mut scheduler, &mut double, &shape, request(prompt.clone(), 300));
    assert_eq!(tokens, expected_of(kinds, &prompt, 300));
    assert_eq!((blocks_max, scheduler.free_blocks()), (3, blocks));
    assert!(scheduler.counts().window_blocks_released >= 20, "{:?}", scheduler.counts());
}

#[test]
fn a_prefix_is_shortened_until_its_window_is_cached() {
    for kinds in [KvKinds::Window(70), KvKinds::Both(70)] {
        let blocks = kinds.blocks_needed(400);
        let blocks = KvBlocks { full: blocks.full * 2, window: 10 };
        let shape = shape_of(kinds, 1, blocks, 1);
        let (mut scheduler, mut double) = (Scheduler::new(false), Double::of(kinds, blocks));
        scheduler.rebuild(Some(shape.clone()));
        let first: Vec<u32> = (0..300).map(|at| at * 7 % 50).collect();
        let (tokens, _) = run_alone(&mut scheduler, &mut double, &shape, request(first.clone(), 20));
        // The second turn begins where the first one ended.
        let second = [&first[..], &tokens, &[3; 9]].concat();
        let (tokens, _) = run_alone(&mut scheduler, &mut double, &shape, request(second.clone(), 5));
        assert_eq!(tokens, expected_of(kinds, &second, 5), "{kinds:?}");
        // A text that leaves it where the window's blocks are no longer cached.
        let third = [&first[..100], &[4; 50]].concat();
        let (tokens, _) = run_alone(&mut scheduler, &mut double, &shape, request(third.clone(), 5));
        assert_eq!(tokens, expected_of(kinds, &third, 5), "{kinds:?}");
        assert_eq!(scheduler.free_blocks(), blocks);
    }
}

#[derive(Debug, Clone)]
enum Incident {
    Admit { prompt: Vec<u32>, tokens_max: u32, priority: i32, pooling: Option<Pooling> },
    Cancel(usize),
    Answer,
    Rebuild { stages: usize, spare: u32 },
}

/// No window, windows of different lengths only, and windows beside layers without one.
fn kinds() -> impl Strategy<Value = KvKinds> {
    prop_oneof![Just(KvKinds::Full), (1_u32..100).prop_map(KvKinds::Window), (1_u32..100).prop_map(KvKinds::Both),]
}

/// Blocks for one sequence of the longest request, and `spare` more of each kind that there is.
fn few_blocks(kinds: KvKinds, spare: u32) -> KvBlocks {
    let needed = kinds.blocks_needed(12 * KV_BLOCK_TOKENS);
    let of = |needed| if needed > 0 { needed + spare } else { 0 };
    KvBlocks { full: of(needed.full), window: of(needed.window) }
}

/// The beginnings of a few texts, with endings of their own.
fn prompt() -> impl Strategy<Value = Vec<u32>> {
    let shared =
        (0_u32..3, 0_usize..250).prop_map(|(text, len)| (0..len as u32).map(|at| (at * 7 + text) % 50).collect());
    (shared, prop::collection::vec(0_u32..9, 1..50)).prop_map(|(shared, own): (Vec<u32>, _)| [shared, own].concat())
}

fn pooling() -> impl Strategy<Value = Option<Pooling>> {
    prop::option::weighted(0.3, prop::sample::select(&POOLINGS[..]))
}

fn incident() -> impl Strategy<Value = Incident> {
    prop_oneof![
        3 => (prompt(), 1_u32..60, -1_i32..2, pooling()).prop_map(
            |(prompt, tokens_max, priority, pooling)| Incident::Admit { prompt, tokens_max, priority, pooling }
        ),
        1 => (0_usize..20).prop_map(Incident::Cancel),
        20 => Just(Incident::Answer),
        1 => (1_usize..6, 0_u32..18).prop_map(|(stages, spare)| Incident::Rebuild { stages, spare }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Sequences are admitted, cancelled, preempted (there are few blocks) and started again at random. Each one ends
    /// with exactly the tokens it has when it is alone, and all blocks come back.
    #[test]
    fn every_sequence_ends_with_its_own_tokens(
        kinds in kinds(), incidents in prop::collection::vec(incident(), 1..120)
    ) {
        let now = Instant::now();
        let mut scheduler = Scheduler::new(true);
        let mut current = shape_of(kinds, 2, few_blocks(kinds, 0), 1);
        let mut double = Double::of(kinds, few_blocks(kinds, 0));
        scheduler.rebuild(Some(current.clone()));
        let mut wanted: BTreeMap<SequenceId, (Vec<u32>, u32, Option<Pooling>)> = BTreeMap::new();
        let mut events: SequenceEvents = Vec::new();
        let mut answers: VecDeque<Tokens> = VecDeque::new();
        let endless = std::iter::repeat_n(Incident::Answer, 20_000);
        for (turn, incident) in incidents.into_iter().chain(endless).enumerate() {
            match incident {
                Incident::Admit { prompt, tokens_max, priority, pooling } => {
                    let request = Request { priority, pooling, ..request(prompt.clone(), tokens_max) };
                    let id = scheduler.admit(request, now);
                    wanted.insert(id, (prompt, tokens_max, pooling));
                }
                Incident::Cancel(index) => {
                    if let Some(id) = wanted.keys().nth(index).copied() {
                        scheduler.cancel(id);
                        wanted.remove(&id);
                    }
                }
                Incident::Answer => {
                    if let Some(answer) = answers.pop_front() {
                        events.extend(scheduler.complete(&answer, now).unwrap());
                    }
                }
                Incident::Rebuild { stages, spare } => {
                    let blocks = few_blocks(kinds, spare);
                    current = shape_of(kinds, stages, blocks, turn as u64 + 2);
                    double = Double::of(kinds, blocks);
                    scheduler.rebuild(Some(current.clone()));
                }
            }
            while let Some(batch) = scheduler.next_batch(now) {
                prop_assert!(batch.slices.iter().map(|slice| slice.count).sum::<u32>() <= BATCH_ROWS_MAX);
                answers.push_back(double.run(&current, &batch));
                prop_assert_eq!(scheduler.audit(), Ok(()));
            }
            if answers.is_empty() && scheduler.load() == (0, 0) && turn > 120 {
                break;
            }
        }
        prop_assert_eq!(scheduler.load(), (0, 0));
        prop_assert_eq!(scheduler.free_blocks(), scheduler.total_blocks());
        for (id, (prompt, tokens_max, pooling)) in wanted {
            if let Some(pooling) = pooling {
                prop_assert_eq!(embeddings_of(&events, id), [expected_embedding(kinds, &prompt, pooling)]);
                continue;
            }
            prop_assert_eq!(tokens_of(&events, id), expected_of(kinds, &prompt, tokens_max as usize));
            let is_end = |event: &TokenEvent| matches!(event, TokenEvent::Finished { finish: Finish::Length, .. });
            prop_assert_eq!(events.iter().filter(|(of, event)| *of == id && is_end(event)).count(), 1);
        }
    }
}
