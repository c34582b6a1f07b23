//! Activations on the wire: f32 values, little endian, one after the other. Knows nothing of rows.

use bytes::Bytes;

/// The values as bytes, the least significant byte first on every machine.
pub fn activations_to_bytes(values: &[f32]) -> Bytes {
    let mut bytes = vec![0; size_of_val(values)];
    for (bytes, value) in bytes.chunks_exact_mut(size_of::<f32>()).zip(values) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    bytes.into()
}

/// Replaces the contents of `values` by the values in `bytes`. The bytes may lie at any address. A rest of less than
/// one value, which no checked message has, is left out.
pub fn bytes_to_activations(bytes: &Bytes, values: &mut Vec<f32>) {
    values.clear();
    let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    values.extend(bytes.chunks_exact(size_of::<f32>()).map(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_bit_for_bit_from_any_address() {
        let values = [0.0, -0.0, 1.5, f32::MIN_POSITIVE / 2.0, f32::INFINITY, f32::from_bits(0x7fc0_1234)];
        let bytes = activations_to_bytes(&values);
        let mut back = vec![9.0];
        for shift in 0..4 {
            let shifted = Bytes::from([&vec![0xaa; shift][..], &bytes[..]].concat()).slice(shift..);
            bytes_to_activations(&shifted, &mut back);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&back), bits(&values));
        }
    }

    #[test]
    fn the_least_significant_byte_comes_first() {
        assert_eq!(activations_to_bytes(&[1.0])[..], [0, 0, 0x80, 0x3f]);
    }
}
