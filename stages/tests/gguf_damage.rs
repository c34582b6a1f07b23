//! Damages a small valid GGUF file in many ways, and checks the error of `GgufHeader::parse` for each.

mod gguf_fixture;

use gguf_fixture::{HIDDEN, metadata, noise, norm};
use stages::format::Format;
use stages::gguf::{GgufHeader, GgufWriter};

/// A valid model of one layer: `split.count` 1, alignment 32, an array of texts and one of numbers, tensors in F32 and
/// in Q8_0. `some.numbers` is the last metadata key. The tensors are in the order in which they are added here.
fn valid() -> Vec<u8> {
    let writer = metadata(1)
        .metadata("general.alignment", 32u32)
        .metadata("split.count", 1u32)
        .metadata("some.flag", true)
        .metadata("some.numbers", &[1u32, 2, 3][..]);
    let writer = norm(writer, "token_embd.weight", 0.0);
    // Q8_0 stores 32 values in 34 bytes.
    let writer = writer.tensor("blk.0.ffn_up.weight", &[HIDDEN, 4], Format::Q8_0, noise(1, HIDDEN / 32 * 34 * 4));
    norm(writer.unwrap(), "output_norm.weight", 1.0).to_bytes().unwrap()
}

/// Offset of the first byte after the only occurrence of `text`. After a metadata key, the value's type is there. After
/// a tensor's name, its dimension count is there.
fn after(file: &[u8], text: &str) -> usize {
    let hits: Vec<usize> =
        file.windows(text.len()).enumerate().filter(|(_, bytes)| *bytes == text.as_bytes()).map(|(at, _)| at).collect();
    assert_eq!(hits.len(), 1, "{text:?} must be in the file once");
    hits[0] + text.len()
}

/// Overwrites the bytes from `at` on.
fn put<const N: usize>(file: &mut [u8], at: usize, bytes: [u8; N]) {
    file[at..at + N].copy_from_slice(&bytes);
}

/// Overwrites the bytes that begin `offset` bytes after the only occurrence of `text`.
fn put_after<const N: usize>(file: &mut [u8], text: &str, offset: usize, bytes: [u8; N]) {
    let at = after(file, text) + offset;
    put(file, at, bytes);
}

/// One kind of damage.
struct Damage {
    name: &'static str,
    apply: fn(&mut Vec<u8>),
    /// Expected parts of the error's text, in order.
    expected: &'static [&'static str],
}

/// Offsets in a file. The magic and the version are before, four bytes each.
const TENSOR_COUNT: usize = 8;
const METADATA_COUNT: usize = 16;
/// A key is its length in eight bytes, then its text.
const FIRST_KEY: usize = 24;

/// Offsets from a tensor's dimension count, which has four bytes. Each dimension has eight. The number of the format
/// (four bytes) and the offset of the data (eight) follow: the last two constants are for a tensor of one dimension,
/// whose description thus ends 24 bytes after the start of its dimension count.
const DIM_0: usize = 4;
const FORMAT_OF_1: usize = 12;
const OFFSET_OF_1: usize = 16;

const DAMAGES: &[Damage] = &[
    Damage { name: "no bytes", apply: |f| f.clear(), expected: &["magic at byte 0: expected 4 bytes, found 0"] },
    Damage {
        name: "half a magic",
        apply: |f| f.truncate(2),
        expected: &["magic at byte 0: expected 4 bytes, found 2"],
    },
    Damage {
        name: "another magic",
        apply: |f| put(f, 0, *b"RIFF"),
        expected: &["magic at byte 0: expected \"GGUF\", found \"RIFF\""],
    },
    Damage { name: "big-endian magic", apply: |f| put(f, 0, *b"FUGG"), expected: &["magic at byte 0", "big-endian"] },
    Damage {
        name: "a file from before GGUF",
        apply: |f| put(f, 0, *b"tjgg"),
        expected: &["magic at byte 0", "before GGUF: convert it"],
    },
    Damage {
        name: "a Git LFS pointer",
        apply: |f| *f = b"version https://git-lfs.github.com/spec/v1\n".to_vec(),
        expected: &["magic at byte 0", "Git LFS pointer"],
    },
    Damage {
        name: "version 1",
        apply: |f| put(f, 4, 1u32.to_le_bytes()),
        expected: &["version at byte 4: expected 2 or 3, found 1"],
    },
    Damage {
        name: "version 4",
        apply: |f| put(f, 4, 4u32.to_le_bytes()),
        expected: &["version at byte 4: expected 2 or 3, found 4"],
    },
    Damage {
        name: "big-endian version",
        apply: |f| put(f, 4, 3u32.to_be_bytes()),
        expected: &["version at byte 4: expected 2 or 3, little endian, found 3, byte-swapped: a big-endian file"],
    },
    Damage {
        name: "cut in the version",
        apply: |f| f.truncate(6),
        expected: &["version at byte 4: expected 4 bytes, found 2"],
    },
    Damage {
        name: "cut in the tensor count",
        apply: |f| f.truncate(12),
        expected: &["tensor count at byte 8: expected 8 bytes, found 4"],
    },
    Damage {
        name: "more tensors than fit",
        apply: |f| put(f, TENSOR_COUNT, u64::MAX.to_le_bytes()),
        expected: &["tensor count at byte 8: expected at most", "can hold", "found 18446744073709551615"],
    },
    Damage {
        name: "one tensor too many",
        apply: |f| put(f, TENSOR_COUNT, 4u64.to_le_bytes()),
        expected: &["tensor 3 at byte", "expected"],
    },
    Damage {
        name: "more metadata than fits",
        apply: |f| put(f, METADATA_COUNT, (1u64 << 40).to_le_bytes()),
        expected: &["metadata count at byte 16: expected at most", "found 1099511627776"],
    },
    Damage {
        name: "one metadata entry too many",
        apply: |f| {
            let n = f[METADATA_COUNT] + 1;
            f[METADATA_COUNT] = n;
        },
        expected: &["tensor", "at byte", "expected"],
    },
    // The reader takes the last entry for a tensor, and the number of its type (9, an array) for the dimension count.
    Damage {
        name: "one metadata entry too few",
        apply: |f| {
            let n = f[METADATA_COUNT] - 1;
            f[METADATA_COUNT] = n;
        },
        expected: &["dimension count of tensor \"some.numbers\" at byte", "expected 1 to 4, found 9"],
    },
    Damage {
        name: "key longer than the file",
        apply: |f| put(f, FIRST_KEY, u64::MAX.to_le_bytes()),
        expected: &["length of key of metadata entry 0 at byte 24: expected at most"],
    },
    Damage {
        name: "empty key",
        apply: |f| put(f, FIRST_KEY, 0u64.to_le_bytes()),
        expected: &["key of metadata entry 0 at byte 24: expected 1 to 65535 bytes, found 0"],
    },
    Damage {
        name: "key that is not UTF-8",
        apply: |f| f[FIRST_KEY + 8 + 3] = 0xff,
        expected: &[
            "key of metadata entry 0 at byte 35: expected UTF-8 text, found a byte that is not UTF-8 after \"gen\"",
        ],
    },
    Damage {
        name: "key twice",
        apply: |f| {
            let at = after(f, "some.numbers");
            put(f, at - 12, *b"general.name");
        },
        expected: &["key of metadata entry", "expected a key of its own, found a second \"general.name\""],
    },
    Damage {
        name: "unknown value type",
        apply: |f| put_after(f, "general.name", 0, 13u32.to_le_bytes()),
        expected: &[
            "value type of metadata key \"general.name\" at byte",
            "expected a value type from 0 to 12, found 13",
        ],
    },
    Damage {
        name: "text longer than the file",
        apply: |f| put_after(f, "general.name", 4, (1u64 << 63).to_le_bytes()),
        expected: &["length of value of metadata key \"general.name\" at byte", "expected at most"],
    },
    Damage {
        name: "text that is not UTF-8",
        apply: |f| {
            let at = after(f, "Synthetic");
            f[at - 1] = 0xc3;
        },
        expected: &["value of metadata key \"general.name\" at byte", "expected UTF-8 text", "after \"Syntheti\""],
    },
    Damage {
        name: "bool of 2",
        apply: |f| {
            let at = after(f, "some.flag");
            f[at + 4] = 2;
        },
        expected: &["value of metadata key \"some.flag\" at byte", "expected a bool, 0 or 1, found 2"],
    },
    Damage {
        name: "array of an unknown type",
        apply: |f| put_after(f, "some.numbers", 4, 77u32.to_le_bytes()),
        expected: &["element type of the value of metadata key \"some.numbers\"", "found 77"],
    },
    Damage {
        name: "array longer than the file",
        apply: |f| put_after(f, "some.numbers", 8, (u64::MAX / 4).to_le_bytes()),
        expected: &["element count of the value of metadata key \"some.numbers\"", "expected at most"],
    },
    Damage {
        name: "array whose bytes overflow",
        apply: |f| put_after(f, "some.numbers", 8, (u64::MAX / 4 + 2).to_le_bytes()),
        expected: &["element count of the value of metadata key \"some.numbers\"", "expected at most"],
    },
    Damage {
        name: "text in an array longer than the file",
        apply: |f| put_after(f, "tokenizer.ggml.tokens", 16, u64::MAX.to_le_bytes()),
        expected: &["length of element 0 of the value of metadata key \"tokenizer.ggml.tokens\""],
    },
    Damage {
        name: "text in an array that is not UTF-8",
        apply: |f| {
            let at = after(f, "tokenizer.ggml.tokens");
            f[at + 24] = 0x80;
        },
        expected: &["element 0 of the value of metadata key \"tokenizer.ggml.tokens\"", "UTF-8"],
    },
    Damage {
        name: "arrays nested too deep",
        apply: nest,
        expected: &["value of metadata key \"nested\"", "expected arrays nested at most 4 deep, found a deeper one"],
    },
    Damage {
        name: "alignment 0",
        apply: |f| put_after(f, "general.alignment", 4, 0u32.to_le_bytes()),
        expected: &["general.alignment at byte", "expected a power of two from 8 to 2097152, found u32 0"],
    },
    Damage {
        name: "alignment 48",
        apply: |f| put_after(f, "general.alignment", 4, 48u32.to_le_bytes()),
        expected: &["general.alignment", "found u32 48"],
    },
    Damage {
        name: "alignment 1",
        apply: |f| put_after(f, "general.alignment", 4, 1u32.to_le_bytes()),
        expected: &["general.alignment", "found u32 1"],
    },
    Damage {
        name: "alignment 2 GiB",
        apply: |f| put_after(f, "general.alignment", 4, (1u32 << 31).to_le_bytes()),
        expected: &["general.alignment", "found u32 2147483648"],
    },
    Damage {
        name: "alignment of another type",
        apply: |f| put_after(f, "general.alignment", 0, 6u32.to_le_bytes()),
        expected: &["general.alignment", "expected a power of two", "found f32"],
    },
    Damage {
        name: "empty tensor name",
        apply: |f| {
            let at = after(f, "output_norm.weight");
            put(f, at - 18 - 8, 0u64.to_le_bytes());
        },
        expected: &["name of tensor 2 at byte", "expected 1 to 64 bytes, found 0 bytes"],
    },
    Damage {
        name: "tensor name too long",
        apply: |f| {
            let at = after(f, "output_norm.weight");
            put(f, at - 18 - 8, 65u64.to_le_bytes());
            f[at..at + 47].fill(b'x');
        },
        expected: &["name of tensor 2 at byte", "expected 1 to 64 bytes, found 65 bytes"],
    },
    Damage {
        name: "tensor name not UTF-8",
        apply: |f| {
            let at = after(f, "output_norm.weight");
            f[at - 1] = 0xfe;
        },
        expected: &["name of tensor 2 at byte", "expected UTF-8 text"],
    },
    // The new name is a byte shorter. A byte is inserted after the description, so that the data stay where they were.
    Damage {
        name: "tensor name twice",
        apply: |f| {
            let at = after(f, "output_norm.weight");
            let n = *b"token_embd.weight";
            put(f, at - 18, n);
            put(f, at - 26, 17u64.to_le_bytes());
            f.remove(at - 1);
            f.insert(at + 23, 0);
        },
        expected: &["name of tensor 2 at byte", "expected a name of its own, found a second \"token_embd.weight\""],
    },
    Damage {
        name: "no dimensions",
        apply: |f| put_after(f, "token_embd.weight", 0, 0u32.to_le_bytes()),
        expected: &["dimension count of tensor \"token_embd.weight\" at byte", "expected 1 to 4, found 0"],
    },
    Damage {
        name: "five dimensions",
        apply: |f| put_after(f, "token_embd.weight", 0, 5u32.to_le_bytes()),
        expected: &["dimension count of tensor \"token_embd.weight\"", "found 5"],
    },
    Damage {
        name: "dimension 0",
        apply: |f| put_after(f, "token_embd.weight", DIM_0, 0u64.to_le_bytes()),
        expected: &["dimension 0 of tensor \"token_embd.weight\" at byte", "expected at least 1, found 0"],
    },
    Damage {
        name: "dimensions whose product overflows",
        apply: |f| {
            let at = after(f, "blk.0.ffn_up.weight");
            put(f, at + DIM_0, (1u64 << 40).to_le_bytes());
            put(f, at + DIM_0 + 8, (1u64 << 40).to_le_bytes());
        },
        expected: &[
            "dimensions of tensor \"blk.0.ffn_up.weight\" at byte",
            "expected a product below 2^64, found [1099511627776, 1099511627776]",
        ],
    },
    Damage {
        name: "half a block in a row",
        apply: |f| put_after(f, "blk.0.ffn_up.weight", DIM_0, 48u64.to_le_bytes()),
        expected: &[
            "dimensions of tensor \"blk.0.ffn_up.weight\"",
            "expected rows of a multiple of 32 values for Q8_0, found rows of 48",
        ],
    },
    Damage {
        name: "integers",
        apply: |f| put_after(f, "token_embd.weight", FORMAT_OF_1, 26u32.to_le_bytes()),
        expected: &["format of tensor \"token_embd.weight\" at byte", "I32", "supported are F32, F16"],
    },
    Damage {
        name: "NVFP4",
        apply: |f| put_after(f, "token_embd.weight", FORMAT_OF_1, 40u32.to_le_bytes()),
        expected: &["format of tensor \"token_embd.weight\"", "NVFP4"],
    },
    Damage {
        name: "an unknown format",
        apply: |f| put_after(f, "token_embd.weight", FORMAT_OF_1, u32::MAX.to_le_bytes()),
        expected: &["format of tensor \"token_embd.weight\"", "4294967295"],
    },
    Damage {
        name: "unaligned offset",
        apply: |f| {
            let at = after(f, "output_norm.weight");
            let o = f[at + OFFSET_OF_1];
            f[at + OFFSET_OF_1] = o + 4;
        },
        expected: &[
            "offset of tensor \"output_norm.weight\" at byte",
            "expected a multiple of the alignment 32, found",
        ],
    },
    Damage {
        name: "offset past the end",
        apply: |f| put_after(f, "output_norm.weight", OFFSET_OF_1, (1u64 << 20).to_le_bytes()),
        expected: &[
            "data of tensor \"output_norm.weight\" at byte",
            "expected 1024 bytes from there within the file's",
            "found an end at byte",
        ],
    },
    Damage {
        name: "offset that wraps around",
        apply: |f| put_after(f, "output_norm.weight", OFFSET_OF_1, (u64::MAX - 31).to_le_bytes()),
        expected: &["data of tensor \"output_norm.weight\"", "past any file"],
    },
    Damage {
        name: "overlapping tensors",
        apply: |f| put_after(f, "output_norm.weight", OFFSET_OF_1, 512u64.to_le_bytes()),
        expected: &[
            "data of tensor \"output_norm.weight\" at byte",
            "expected a start at or after the end of tensor \"token_embd.weight\"",
        ],
    },
    Damage {
        name: "last tensor cut by a byte",
        apply: |f| {
            let end = f.len() - 1;
            f.truncate(end);
        },
        expected: &["data of tensor \"output_norm.weight\"", "expected 1024 bytes"],
    },
    Damage {
        name: "all data cut",
        apply: |f| {
            let end = after(f, "output_norm.weight") + 24;
            f.truncate(end);
        },
        expected: &["data of tensor \"token_embd.weight\""],
    },
    Damage {
        name: "cut in a tensor's description",
        apply: |f| {
            let end = after(f, "blk.0.ffn_up.weight") + 9;
            f.truncate(end);
        },
        expected: &["dimension 0 of tensor \"blk.0.ffn_up.weight\" at byte", "expected 8 bytes, found 5"],
    },
];

/// Inserts a metadata entry before the others: 100 arrays, each with the next one as its only element. The last has an
/// empty array of u32 as its element.
fn nest(file: &mut Vec<u8>) {
    // The numbers of the types are 9 for an array and 4 for a u32.
    let mut entry = 6u64.to_le_bytes().to_vec();
    entry.extend(b"nested");
    entry.extend(9u32.to_le_bytes());
    for _ in 0..100 {
        entry.extend(9u32.to_le_bytes());
        entry.extend(1u64.to_le_bytes());
    }
    entry.extend(4u32.to_le_bytes());
    entry.extend(0u64.to_le_bytes());
    file.splice(FIRST_KEY..FIRST_KEY, entry);
    file[METADATA_COUNT] += 1;
}

#[test]
fn the_undamaged_file_is_fine() {
    let header = GgufHeader::parse(&valid()).unwrap();
    assert_eq!(header.tensors.len(), 3);
    assert_eq!(header.metadata.u32_array("some.numbers").unwrap(), [1, 2, 3]);
}

#[test]
fn each_kind_of_damage_is_named_with_its_offset() {
    for Damage { name, apply, expected } in DAMAGES {
        let mut file = valid();
        apply(&mut file);
        let message = match GgufHeader::parse(&file) {
            Ok(_) => panic!("{name}: accepted"),
            Err(error) => error.to_string(),
        };
        println!("{name}: {message}");
        let mut rest = message.as_str();
        for part in *expected {
            let Some(at) = rest.find(part) else { panic!("{name}: expected {part:?} in {rest:?} of {message:?}") };
            rest = &rest[at + part.len()..];
        }
        assert!(!message.contains('\n') && message.len() < 500, "{name}: not one readable line: {message}");
    }
}

#[test]
fn there_are_at_least_thirty_kinds_of_damage() {
    assert!(DAMAGES.len() >= 30, "{}", DAMAGES.len());
    let mut names: Vec<_> = DAMAGES.iter().map(|damage| damage.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), DAMAGES.len());
}

#[test]
fn a_file_cut_anywhere_in_its_header_is_an_error() {
    let file = valid();
    let header_bytes = GgufHeader::parse(&file).unwrap().data_offset as usize;
    for end in 0..header_bytes {
        assert!(GgufHeader::parse(&file[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn an_array_of_arrays_within_reason_is_checked_and_skipped() {
    let mut file = GgufWriter::new().metadata("after", 5u32).to_bytes().unwrap();
    // An array (type 9) of two arrays of u8 (type 0), with three elements and with none.
    let mut entry = 6u64.to_le_bytes().to_vec();
    entry.extend(b"nested");
    entry.extend([9u32.to_le_bytes(), 9u32.to_le_bytes()].concat());
    entry.extend(2u64.to_le_bytes());
    for count in [3u64, 0] {
        entry.extend(0u32.to_le_bytes());
        entry.extend(count.to_le_bytes());
        entry.extend(vec![7; count as usize]);
    }
    file.splice(FIRST_KEY..FIRST_KEY, entry);
    file[METADATA_COUNT] += 1;
    let metadata = GgufHeader::parse(&file).unwrap().metadata;
    assert_eq!(metadata.u32("after").unwrap(), 5);
    let error = metadata.u32_array("nested").unwrap_err();
    assert_eq!(error.to_string(), r#"metadata key "nested": expected array of u32, found array of 2 arrays"#);
}
