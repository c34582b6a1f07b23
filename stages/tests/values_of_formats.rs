//! The values of random blocks, compared with gguf-py's for the formats that candle does not know
//! (`etc/golden/blocks.py`).

use serde_json::Value;
use sha2::{Digest, Sha256};
use stages::format::Format;
use stages::kernels::dequantise_block_bytes;

/// Bytes of splitmix64, which the script draws too.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let byte = |place: u64| {
        let mut bits = seed.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) as u8
    };
    (1..=len as u64).map(byte).collect()
}

#[test]
fn values_of_random_blocks_are_those_of_gguf_py() {
    let golden: Value = serde_json::from_str(include_str!("../../tests/data/ggml_blocks.json")).unwrap();
    let formats = Format::ALL.into_iter().filter(|format| golden.get(format.name()).is_some());
    for format in formats.clone() {
        let golden = &golden[format.name()];
        let blocks = golden["blocks"].as_u64().unwrap() as usize;
        let bytes = noise(u64::from(format.ggml().unwrap()), blocks * format.block_bytes());
        let mut values = vec![f32::NAN; blocks * format.block_values()];
        dequantise_block_bytes(format, &bytes, &mut values);
        for shown in golden["shown"].as_array().unwrap() {
            let start = shown["block"].as_u64().unwrap() as usize * format.block_values();
            let expected = shown["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32);
            let expected: Vec<f32> = expected.collect();
            assert_eq!(values[start..start + format.block_values()], expected, "{}", format.name());
        }
        let mut digest = Sha256::new();
        for value in values {
            // The bits of a value that is no number differ from program to program.
            let bits = if value.is_nan() { 0x7fc0_0000 } else { (value + 0.0).to_bits() };
            digest.update(bits.to_le_bytes());
        }
        let found: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, golden["sha256"].as_str().unwrap(), "{}", format.name());
    }
    // The other entry says what the file was made with.
    assert_eq!(formats.count(), golden.as_object().unwrap().len() - 1);
}
