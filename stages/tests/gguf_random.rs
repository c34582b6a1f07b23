//! For any bytes the reader returns a header or an error, and takes memory in proportion to the file's size.

mod gguf_fixture;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use gguf_fixture::{HIDDEN, metadata, noise, norm};
use proptest::prelude::*;
use stages::format::Format;
use stages::gguf::{GgufError, GgufHeader, Keep};

/// Counts each thread's live bytes and their peak.
struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged. The counters neither allocate nor fail.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get().saturating_add(layout.size()));
        PEAK.set(PEAK.get().max(LIVE.get()));
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get().saturating_sub(layout.size()));
        // SAFETY: the caller keeps the same contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Maximum memory at the peak of a parse, in bytes: entries take more bytes in memory than in the file, by a constant
/// factor.
fn bytes_max(file_bytes: usize) -> usize {
    32 * file_bytes + (16 << 10)
}

fn parse_within_bounds(file: &[u8], keep: Keep) -> Result<GgufHeader, GgufError> {
    let before = LIVE.get();
    PEAK.set(before);
    let result = GgufHeader::parse_keeping(file, keep);
    let taken = PEAK.get() - before;
    assert!(taken <= bytes_max(file.len()), "{taken} bytes taken for a file of {}", file.len());
    result
}

fn valid() -> Vec<u8> {
    let writer = metadata(1).metadata("some.numbers", &[1u32, 2, 3][..]).metadata("some.flag", true);
    let writer = norm(writer, "token_embd.weight", 0.0);
    let writer = writer.tensor("blk.0.ffn_up.weight", &[HIDDEN, 4], Format::Q8_0, noise(1, HIDDEN / 32 * 34 * 4));
    norm(writer.unwrap(), "output_norm.weight", 1.0).to_bytes().unwrap()
}

/// One kind of damage to a file.
#[derive(Debug, Clone)]
enum Mutation {
    Flip { at: usize, bit: u8 },
    Number { at: usize, value: u64 },
    Small { at: usize, value: u32 },
    Cut { at: usize },
    Remove { at: usize, bytes: usize },
    Repeat { at: usize, bytes: usize },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<usize>();
    let number =
        prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(1 << 63), Just(1 << 32), 0u64..100_000, any::<u64>()];
    prop_oneof![
        4 => (at, 0u8..8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        3 => (at, number).prop_map(|(at, value)| Mutation::Number { at, value }),
        3 => (at, 0u32..45).prop_map(|(at, value)| Mutation::Small { at, value }),
        1 => at.prop_map(|at| Mutation::Cut { at }),
        1 => (at, 1usize..64).prop_map(|(at, bytes)| Mutation::Remove { at, bytes }),
        1 => (at, 1usize..64).prop_map(|(at, bytes)| Mutation::Repeat { at, bytes }),
    ]
}

fn apply(file: &mut Vec<u8>, mutation: &Mutation) {
    // Positions wrap around at the file's end. Most of the file is header on purpose.
    let wrapped = |at: usize, file: &[u8]| at % file.len().max(1);
    match *mutation {
        _ if file.is_empty() => {}
        Mutation::Flip { at, bit } => {
            let at = wrapped(at, file);
            file[at] ^= 1 << bit;
        }
        Mutation::Number { at, value } => {
            let at = wrapped(at, file);
            file.iter_mut().skip(at).zip(value.to_le_bytes()).for_each(|(byte, new)| *byte = new);
        }
        Mutation::Small { at, value } => {
            let at = wrapped(at, file);
            file.iter_mut().skip(at).zip(value.to_le_bytes()).for_each(|(byte, new)| *byte = new);
        }
        Mutation::Cut { at } => file.truncate(wrapped(at, file)),
        Mutation::Remove { at, bytes } => {
            let at = wrapped(at, file);
            file.drain(at..(at + bytes).min(file.len()));
        }
        Mutation::Repeat { at, bytes } => {
            let at = wrapped(at, file);
            let piece = file[at..(at + bytes).min(file.len())].to_vec();
            file.splice(at..at, piece);
        }
    }
}

/// Checks the guarantees of every accepted header.
fn check_guarantees(header: &GgufHeader, file: &[u8]) {
    assert_eq!(header.file_bytes, file.len() as u64);
    let mut ends = 0;
    let mut tensors: Vec<_> = header.tensors.iter().collect();
    tensors.sort_by_key(|tensor| tensor.offset);
    for tensor in tensors {
        assert!(tensor.offset >= header.data_offset.max(ends) && tensor.end() <= header.file_bytes, "{tensor:?}");
        assert!(tensor.bytes > 0 && (1..=4).contains(&tensor.dims.len()), "{tensor:?}");
        assert_eq!(header.tensor(&tensor.name), Some(tensor));
        ends = tensor.end();
    }
    for (key, value) in header.metadata.iter() {
        assert!(!value.describe().is_empty(), "{key}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_file_gives_a_header_or_an_error_within_bounds(
        mutations in prop::collection::vec(mutation(), 1..4),
        without_vocabulary in any::<bool>(),
    ) {
        let mut file = valid();
        mutations.iter().for_each(|mutation| apply(&mut file, mutation));
        let keep = if without_vocabulary { Keep::NoVocabulary } else { Keep::Everything };
        match parse_within_bounds(&file, keep) {
            Ok(header) => check_guarantees(&header, &file),
            Err(error) => prop_assert!(error.to_string().contains("expected"), "{error}"),
        }
    }

    #[test]
    fn random_bytes_after_the_magic_give_a_header_or_an_error_within_bounds(
        tensors in 0u64..50,
        entries in 0u64..50,
        noise in prop::collection::vec(prop_oneof![3 => Just(0u8), 2 => 0u8..14, 1 => any::<u8>()], 0..600),
    ) {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(tensors.to_le_bytes());
        file.extend(entries.to_le_bytes());
        file.extend(noise);
        if let Ok(header) = parse_within_bounds(&file, Keep::Everything) {
            check_guarantees(&header, &file);
        }
    }
}

#[test]
fn the_densest_files_stay_within_bounds() {
    // As many of the smallest entries, and of the smallest tensors, as the reader accepts.
    let mut entries = b"GGUF\x03\0\0\0".to_vec();
    entries.extend(0u64.to_le_bytes());
    entries.extend(16_384u64.to_le_bytes());
    for index in 0..16_384u32 {
        let key = format!("{index:x}");
        entries.extend((key.len() as u64).to_le_bytes());
        entries.extend(key.as_bytes());
        entries.extend(0u32.to_le_bytes());
        entries.push(1);
    }
    assert_eq!(parse_within_bounds(&entries, Keep::Everything).unwrap().metadata.len(), 16_384);

    let mut tensors = b"GGUF\x03\0\0\0".to_vec();
    tensors.extend(65_536u64.to_le_bytes());
    tensors.extend(0u64.to_le_bytes());
    for index in 0..65_536u64 {
        let name = format!("{index:x}");
        tensors.extend((name.len() as u64).to_le_bytes());
        tensors.extend(name.as_bytes());
        tensors.extend(1u32.to_le_bytes());
        tensors.extend(1u64.to_le_bytes());
        tensors.extend(0u32.to_le_bytes());
        tensors.extend((index * 32).to_le_bytes());
    }
    tensors.resize(tensors.len() + 32 + 65_536 * 32, 0);
    assert_eq!(parse_within_bounds(&tensors, Keep::Everything).unwrap().tensors.len(), 65_536);
}

#[test]
fn more_than_the_maximum_of_entries_or_tensors_is_refused() {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(65_537u64.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.resize(4 << 20, 0);
    let error = parse_within_bounds(&file, Keep::Everything).unwrap_err();
    assert_eq!(error.to_string(), "tensor count at byte 8: expected at most 65536, found 65537");
    file[8..16].fill(0);
    file[16..24].copy_from_slice(&16_385u64.to_le_bytes());
    let error = parse_within_bounds(&file, Keep::Everything).unwrap_err();
    assert_eq!(error.to_string(), "metadata count at byte 16: expected at most 16384, found 16385");
}
