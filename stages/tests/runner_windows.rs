//! Models with windows, with block tables as a gateway makes them: blocks before the window are another sequence's as
//! soon as the window has moved on, and are overwritten. Every position must have the same bits as with a block for all
//! of a sequence.

mod runner_support;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use engine::runner::{KV_BLOCK_TOKENS, Output, Runner, Work};
use runner_support::golden::Golden;
use schema::frame::Slice;
use schema::record::{KvKinds, KvRoom, KvType};
use schema::{LayerRange, SequenceId};
use stages::cpu::CpuRunner;
use stages::kernels::ThreadPool;
use stages::model::ModelSpec;
use stages::shard::RunnerSetup;
use stages::weights::ModelFile;

/// Models whose layers have windows, all of them or some.
const MODELS: [&str; 17] = [
    "mistral",
    "mistral-odd",
    "mixtral-odd",
    "phi3-longrope",
    "gemma2",
    "gemma2-odd",
    "gemma3",
    "gemma3-odd",
    "gemma4-moe",
    "gemma4-odd",
    "gemma4-small",
    "gpt_oss",
    "gpt_oss-odd",
    "llama4",
    "llama4-odd",
    "lfm2",
    "lfm2-odd",
];
/// Room for keys and values: layers with a window have 64 blocks of it at least.
const KV_TOKENS: u32 = 4 * 64 * KV_BLOCK_TOKENS;
/// Tokens of a sequence: several blocks more than the windows.
const TOKENS: u32 = 170;

/// A model in shards that run one after the other.
struct Cut {
    runners: Vec<CpuRunner>,
    spec: ModelSpec,
}

impl Cut {
    fn new(path: &Path, cuts: &[u32], threads: usize) -> Self {
        let file = ModelFile::open(path).unwrap();
        let mut spec = ModelSpec::read(file.header()).unwrap();
        spec.context_tokens = spec.context_tokens.max(TOKENS);
        let pool = Arc::new(ThreadPool::new(NonZeroUsize::new(threads).unwrap()));
        let ends: Vec<u32> = [0].iter().chain(cuts).chain([&spec.layer_count()]).copied().collect();
        let runner = |ends: &[u32]| {
            let shard = file.map(LayerRange::new(ends[0], ends[1]).unwrap()).unwrap();
            let room = KvRoom { tokens: KV_TOKENS, kv_type: KvType::F16 };
            CpuRunner::new(RunnerSetup { spec: spec.clone(), shard, room }, Arc::clone(&pool)).unwrap()
        };
        Self { runners: ends.windows(2).map(runner).collect(), spec }
    }

    /// The logits at every position of the slices.
    fn logits(&mut self, mut slices: Vec<Slice>) -> Vec<u32> {
        let (last, others) = self.runners.split_last_mut().unwrap();
        let mut activations = Vec::new();
        for runner in others {
            let work = Work { slices: &slices, activations: &activations };
            let Output::Activations(rows) = runner.step(work).unwrap() else { panic!("only the last gives tokens") };
            activations = rows;
            slices.iter_mut().for_each(|slice| slice.tokens.clear());
        }
        let logits = last.logits(&Work { slices: &slices, activations: &activations }).unwrap();
        logits.iter().map(|logit| logit.to_bits()).collect()
    }
}

/// The block tables of one sequence, as a gateway keeps them.
#[derive(Default)]
struct Tables {
    number: u32,
    full_blocks: u32,
    first: u32,
    window: Vec<u32>,
}

impl Tables {
    /// The slice of `tokens` from `position` on. Takes its blocks for the window from the end of `free`.
    fn slice(&mut self, position: u32, tokens: &[u32], free: &mut Vec<u32>) -> Slice {
        let blocks = (position + tokens.len() as u32).div_ceil(KV_BLOCK_TOKENS);
        while self.first + (self.window.len() as u32) < blocks {
            self.window.push(free.pop().expect("the window's blocks suffice"));
        }
        self.full_blocks = self.full_blocks.max(blocks);
        Slice {
            position,
            count: tokens.len() as u32,
            tokens: tokens.to_vec(),
            blocks: (0..self.full_blocks).map(|block| 2 * block + self.number).collect(),
            window_first: self.first,
            window_blocks: self.window.clone(),
            logits: (0..tokens.len() as u32).collect(),
            ..Slice::empty(SequenceId(self.number.into()))
        }
    }

    /// Gives up the blocks that no row from `position` on reads.
    fn release(&mut self, kinds: KvKinds, position: u32, free: &mut Vec<u32>) -> usize {
        let past = (kinds.first_block(position) - self.first).min(self.window.len() as u32);
        free.extend(self.window.drain(..past as usize));
        self.first += past;
        past as usize
    }
}

fn tokens(vocabulary: usize, seed: u32) -> Vec<u32> {
    (0..TOKENS).map(|at| (at * at * 31 + at * 17 + seed * 101 + 5) % vocabulary as u32).collect()
}

/// Two sequences in chunks of `rows` rows, in the same micro-batches if `together`. They have the fewest blocks of a
/// window that suffice, so that each overwrites what the other has released. Returns the bits of the logits of each.
fn in_few_blocks(cut: &mut Cut, rows: usize, together: bool) -> [Vec<u32>; 2] {
    let kinds = cut.spec.kv_kinds();
    let window = kinds.window().expect("a window");
    let blocks = 2 * ((window + rows as u32).div_ceil(KV_BLOCK_TOKENS) + 1);
    let mut free: Vec<u32> = (0..blocks).collect();
    let mut tables = [0, 1].map(|number| Tables { number, ..Tables::default() });
    let texts = [0, 1].map(|seed| tokens(cut.spec.vocabulary, seed));
    let mut found = [Vec::new(), Vec::new()];
    let mut released = 0;
    for position in (0..TOKENS as usize).step_by(rows) {
        let end = (position + rows).min(TOKENS as usize);
        let steps: &[&[usize]] = if together { &[&[0, 1]] } else { &[&[0], &[1]] };
        for members in steps {
            let slice =
                |member: &usize| tables[*member].slice(position as u32, &texts[*member][position..end], &mut free);
            let logits = cut.logits(members.iter().map(slice).collect());
            for (member, own) in members.iter().zip(logits.chunks_exact(logits.len() / members.len())) {
                found[*member].extend_from_slice(own);
                released += tables[*member].release(kinds, end as u32, &mut free);
            }
        }
    }
    assert!(released >= 4, "{released} blocks were released");
    found
}

#[test]
fn rows_have_the_same_bits_when_blocks_before_their_windows_are_overwritten() {
    for name in MODELS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        Golden::read(name).write_gguf(&path);
        let mut whole = Cut::new(&path, &[], 1);
        let vocabulary = whole.spec.vocabulary;
        let expected = [0, 1].map(|seed| {
            let mut free: Vec<u32> = (0..TOKENS.div_ceil(KV_BLOCK_TOKENS)).collect();
            let slice = Tables::default().slice(0, &tokens(vocabulary, seed), &mut free);
            whole.logits(vec![slice])
        });
        let layers = whole.spec.layer_count();
        for (cuts, threads) in [(vec![], 2), (vec![1], 1), ((1..layers).collect(), 1)] {
            let mut cut = Cut::new(&path, &cuts, threads);
            for (rows, together) in [(1, true), (7, false), (40, true), (64, false)] {
                let found = in_few_blocks(&mut cut, rows, together);
                assert!(found == expected, "{name}: cuts {cuts:?}, {rows} rows, together: {together}");
            }
        }
    }
}

#[test]
fn a_table_that_begins_behind_the_window_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    Golden::read("mistral").write_gguf(&path);
    let mut cut = Cut::new(&path, &[], 1);
    let mut refuse = |first: u32, blocks: Vec<u32>| {
        let slice = Slice {
            position: 100,
            count: 1,
            tokens: vec![1],
            window_first: first,
            window_blocks: blocks,
            ..Slice::empty(SequenceId(1))
        };
        let refused = cut.runners[0].step(Work { slices: &[slice], activations: &[] });
        refused.err().map(|error| error.to_string())
    };
    // The row at 100 reads from 85 on: blocks 2 and 3.
    assert_eq!(refuse(2, vec![0, 1]), None);
    assert_eq!(refuse(3, vec![0]).unwrap(), "window_first is 3: expected at most 2");
    assert_eq!(refuse(1, vec![0, 1]).unwrap(), "window_blocks is 2: expected at least 3 from block 1 on");
    let blocks = KV_TOKENS / KV_BLOCK_TOKENS;
    assert_eq!(refuse(2, vec![0, blocks]).unwrap(), format!("window_block is {blocks}: expected below {blocks}"));
}
