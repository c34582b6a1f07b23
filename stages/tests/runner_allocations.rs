//! A step allocates only its output, once its buffers have grown to the size of the work.

mod runner_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use engine::runner::{Output, Work};
use runner_support::pipeline::{Piece, Pipeline, slice};
use schema::frame::{Sampling, Slice, TokenRule};
use stages::format::Format;
use stages::selftest::{Shape, write_random};

/// Counts each thread's requests to the system's allocator. The test reads the count of its own thread, which computes
/// a share of every step. Other threads are left out, because the test harness allocates in one of them.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the same contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const SHAPE: Shape = Shape {
    architecture: "llama",
    layers: 3,
    hidden: 64,
    feed_forward: 96,
    heads: 4,
    kv_heads: 2,
    head: 32,
    vocabulary: 500,
    context: 512,
    window: None,
    format: Format::Q4_1,
};

/// Allocations of one step.
fn allocations(pipeline: &mut Pipeline, slices: &[Slice]) -> u64 {
    let before = ALLOCATIONS.get();
    let output = pipeline.step(Work { slices, activations: &[] });
    let count = ALLOCATIONS.get() - before;
    assert!(matches!(output, Ok(Output::Tokens { .. })), "{output:?}");
    count
}

#[test]
fn a_step_allocates_its_output_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    write_random(&path, SHAPE).unwrap();
    for threads in [1, 2] {
        let mut pipeline = Pipeline::new(&path, &[], threads);
        let blocks_each = pipeline.blocks_each();
        let tokens: Vec<u32> = (0..300).collect();
        let piece = |sequence, position, count: usize| Piece { sequence, position, tokens: &tokens[..count] };
        let prefill = [slice(piece(0, 0, 300), blocks_each)];
        let drawn = Sampling { temperature: 0.8, top_k: 40, top_p: 0.9, min_p: 0.02, seed: 3, ..Sampling::GREEDY };
        let decode: Vec<Slice> = (0..3)
            .map(|sequence| Slice { rule: TokenRule::new(drawn), ..slice(piece(sequence, 300, 1), blocks_each) })
            .collect();
        for work in [&prefill[..], &decode, &decode[..1]] {
            allocations(&mut pipeline, work);
            assert_eq!(allocations(&mut pipeline, work), 1, "{} slices on {threads} threads", work.len());
        }
    }
}
