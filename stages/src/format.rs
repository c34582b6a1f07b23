//! The weight formats that have kernels, and the sizes of their blocks. The modules for files, weights and kernels
//! share these definitions. This module does not interpret the bits in a block.

/// Storage format of the values of a weight row, in ggml's block layouts or our own (little endian).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// IEEE 16-bit floats.
    F16,
    /// The upper halves of 32-bit floats.
    BF16,
    /// 32 values of 4 bits, one scale.
    Q4_0,
    /// 32 values of 4 bits, one scale and one minimum.
    Q4_1,
    /// 32 values of 5 bits, one scale.
    Q5_0,
    /// 32 values of 5 bits, one scale and one minimum.
    Q5_1,
    /// 32 values of 8 bits, one scale.
    Q8_0,
    /// 256 values of 2 bits, in 16 sub-blocks with a scale and a minimum each.
    Q2K,
    /// 256 values of 3 bits, in 16 sub-blocks with a scale each.
    Q3K,
    /// 256 values of 4 bits, in 8 sub-blocks with a scale and a minimum each.
    Q4K,
    /// 256 values of 5 bits, in 8 sub-blocks with a scale and a minimum each.
    Q5K,
    /// 256 values of 6 bits, in 16 sub-blocks with a scale each.
    Q6K,
    /// 32 values of 4 bits that choose from 16 uneven steps, one scale.
    Iq4Nl,
    /// 256 values of 4 bits that choose from 16 uneven steps, in 8 sub-blocks with a scale each.
    Iq4Xs,
    /// 32 floats of 4 bits, one power of two as scale.
    Mxfp4,
    /// 256 values of -1, 0 or 1, five in a byte, one scale.
    Tq1_0,
    /// 256 values of -1, 0 or 1 in 2 bits, one scale.
    Tq2_0,
    /// 256 values: indices of 8 bits for eight values each, signs, 8 sub-blocks with a scale each.
    Iq2Xxs,
    /// 256 values: indices of 9 bits for eight values each, signs, 16 sub-blocks with a scale each.
    Iq2Xs,
    /// 256 values: indices of 10 bits for eight values each, signs, 16 sub-blocks with a scale each.
    Iq2S,
    /// 256 values: indices of 8 bits for four values each, signs, 8 sub-blocks with a scale each.
    Iq3Xxs,
    /// 256 values: indices of 9 bits for four values each, signs, 8 sub-blocks with a scale each.
    Iq3S,
    /// 256 values: indices of 11 bits for eight values each, 8 sub-blocks with a scale and a shift each.
    Iq1S,
    /// 256 values: indices of 11 bits and a shift for eight values each, 16 sub-blocks with a scale each.
    Iq1M,
    /// 32 values of 4 bits, one scale and one minimum in single precision. Made from folders; no GGUF file has it.
    Affine4G32,
    /// The same for 64 values.
    Affine4G64,
    /// The same for 128 values.
    Affine4G128,
    /// 32 values of 8 bits, one scale and one minimum in single precision. Made from folders; no GGUF file has it.
    Affine8G32,
    /// The same for 64 values.
    Affine8G64,
    /// 64 floats of 8 bits (E4M3), one scale in single precision. Made from folders; no GGUF file has it.
    F8E4M3,
}

/// A ggml tensor type that has no kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tensor type {} has no kernel; supported are {}", type_name(*.id), supported())]
pub struct UnsupportedFormat {
    /// The type's number in a GGUF file.
    pub id: u32,
}

// === impl Format ===

impl Format {
    /// All formats that have a kernel.
    pub const ALL: [Self; 31] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Iq4Nl,
        Self::Iq4Xs,
        Self::Mxfp4,
        Self::Tq1_0,
        Self::Tq2_0,
        Self::Iq2Xxs,
        Self::Iq2Xs,
        Self::Iq2S,
        Self::Iq3Xxs,
        Self::Iq3S,
        Self::Iq1S,
        Self::Iq1M,
        Self::Affine4G32,
        Self::Affine4G64,
        Self::Affine4G128,
        Self::Affine8G32,
        Self::Affine8G64,
        Self::F8E4M3,
    ];

    /// The format with this number in a GGUF file (`ggml_type`).
    ///
    /// # Errors
    /// [`UnsupportedFormat`] for a type without a kernel. Its text names the type.
    pub fn from_ggml(id: u32) -> Result<Self, UnsupportedFormat> {
        Self::ALL.into_iter().find(|format| format.ggml() == Some(id)).ok_or(UnsupportedFormat { id })
    }

    /// The format's number in a GGUF file. `None` for a format of our own.
    pub fn ggml(self) -> Option<u32> {
        Some(match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2K => 10,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Iq2Xxs => 16,
            Self::Iq2Xs => 17,
            Self::Iq3Xxs => 18,
            Self::Iq1S => 19,
            Self::Iq4Nl => 20,
            Self::Iq3S => 21,
            Self::Iq2S => 22,
            Self::Iq4Xs => 23,
            Self::Iq1M => 29,
            Self::BF16 => 30,
            Self::Tq1_0 => 34,
            Self::Tq2_0 => 35,
            Self::Mxfp4 => 39,
            Self::Affine4G32 | Self::Affine4G64 | Self::Affine4G128 => return None,
            Self::Affine8G32 | Self::Affine8G64 | Self::F8E4M3 => return None,
        })
    }

    /// The format's common name, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::Iq4Nl => "IQ4_NL",
            Self::Iq4Xs => "IQ4_XS",
            Self::Mxfp4 => "MXFP4",
            Self::Tq1_0 => "TQ1_0",
            Self::Tq2_0 => "TQ2_0",
            Self::Iq2Xxs => "IQ2_XXS",
            Self::Iq2Xs => "IQ2_XS",
            Self::Iq2S => "IQ2_S",
            Self::Iq3Xxs => "IQ3_XXS",
            Self::Iq3S => "IQ3_S",
            Self::Iq1S => "IQ1_S",
            Self::Iq1M => "IQ1_M",
            Self::Affine4G32 => "AFFINE4_32",
            Self::Affine4G64 => "AFFINE4_64",
            Self::Affine4G128 => "AFFINE4_128",
            Self::Affine8G32 => "AFFINE8_32",
            Self::Affine8G64 => "AFFINE8_64",
            Self::F8E4M3 => "F8_E4M3",
        }
    }

    /// Number of values in a block.
    pub fn block_values(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::Iq4Nl | Self::Mxfp4 => 32,
            Self::Affine4G32 | Self::Affine8G32 => 32,
            Self::Affine4G64 | Self::Affine8G64 | Self::F8E4M3 => 64,
            Self::Affine4G128 => 128,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
            Self::Iq4Xs | Self::Tq1_0 | Self::Tq2_0 => 256,
            Self::Iq2Xxs | Self::Iq2Xs | Self::Iq2S | Self::Iq3Xxs | Self::Iq3S | Self::Iq1S | Self::Iq1M => 256,
        }
    }

    /// Size of a block, in bytes.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Mxfp4 => 17,
            Self::Q4_0 | Self::Iq4Nl => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 | Self::Affine4G32 => 24,
            Self::Q8_0 => 34,
            Self::Affine4G64 | Self::Affine8G32 => 40,
            Self::F8E4M3 => 68,
            Self::Affine4G128 | Self::Affine8G64 => 72,
            Self::Iq1S => 50,
            Self::Tq1_0 => 54,
            Self::Iq1M => 56,
            Self::Tq2_0 | Self::Iq2Xxs => 66,
            Self::Iq2Xs => 74,
            Self::Iq2S => 82,
            Self::Q2K => 84,
            Self::Iq3Xxs => 98,
            Self::Q3K | Self::Iq3S => 110,
            Self::Iq4Xs => 136,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// True if values are integers with scales, which are multiplied with activations of 8 bits. The others are floats,
    /// which are multiplied in single precision.
    pub fn has_integers(self) -> bool {
        !matches!(self, Self::F32 | Self::F16 | Self::BF16 | Self::F8E4M3)
    }

    /// Size of a row of `cols` values, in bytes. `None` if the row is not a whole number of blocks or its size
    /// overflows.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let whole = cols.is_multiple_of(self.block_values());
        whole.then(|| (cols / self.block_values()).checked_mul(self.block_bytes()))?
    }
}

/// ggml's names of the types without a kernel, so that an error can name the type found.
const UNSUPPORTED_NAMES: [(u32, &str); 10] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (40, "NVFP4"),
    (4, "Q4_2"),
    (5, "Q4_3"),
];

fn type_name(id: u32) -> String {
    match UNSUPPORTED_NAMES.iter().find(|(known, _)| *known == id) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("number {id}"),
    }
}

fn supported() -> String {
    let in_files = Format::ALL.into_iter().filter(|format| format.ggml().is_some());
    in_files.map(Format::name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_found_by_its_number() {
        for format in Format::ALL {
            let number = format.ggml();
            assert!(number.is_none_or(|number| Format::from_ggml(number) == Ok(format)), "{}", format.name());
        }
    }

    #[test]
    fn a_type_without_a_kernel_is_refused_by_name() {
        let message = Format::from_ggml(40).unwrap_err().to_string();
        assert!(message.starts_with("tensor type NVFP4 has no kernel; supported are F32, F16,"), "{message}");
        assert!(Format::from_ggml(777).unwrap_err().to_string().contains("number 777"));
    }

    #[test]
    fn a_row_is_whole_blocks() {
        assert_eq!(Format::Q4_1.row_bytes(576), Some(360));
        assert_eq!(Format::Q4K.row_bytes(576), None);
        assert_eq!(Format::F32.row_bytes(usize::MAX), None);
    }
}
