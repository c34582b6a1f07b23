//! The weight formats that have kernels, and the sizes of their blocks. The modules for files, weights and kernels
//! share these definitions. This module does not interpret the bits in a block.

/// Storage format of the values of a weight row, in ggml's block layouts (little endian).
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
    pub const ALL: [Self; 13] = [
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
    ];

    /// The format with this number in a GGUF file (`ggml_type`).
    ///
    /// # Errors
    /// [`UnsupportedFormat`] for a type without a kernel. Its text names the type.
    pub fn from_ggml(id: u32) -> Result<Self, UnsupportedFormat> {
        Self::ALL.into_iter().find(|format| format.ggml() == id).ok_or(UnsupportedFormat { id })
    }

    /// The format's number in a GGUF file.
    pub fn ggml(self) -> u32 {
        match self {
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
            Self::BF16 => 30,
        }
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
        }
    }

    /// Number of values in a block.
    pub fn block_values(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Size of a block, in bytes.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Size of a row of `cols` values, in bytes. `None` if the row is not a whole number of blocks or its size
    /// overflows.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let whole = cols.is_multiple_of(self.block_values());
        whole.then(|| (cols / self.block_values()).checked_mul(self.block_bytes()))?
    }
}

/// ggml's names of the types without a kernel, so that an error can name the type found.
const UNSUPPORTED_NAMES: [(u32, &str); 22] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
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
    Format::ALL.map(Format::name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_found_by_its_number() {
        for format in Format::ALL {
            assert_eq!(Format::from_ggml(format.ggml()), Ok(format));
        }
    }

    #[test]
    fn a_type_without_a_kernel_is_refused_by_name() {
        let message = Format::from_ggml(39).unwrap_err().to_string();
        assert!(message.starts_with("tensor type MXFP4 has no kernel; supported are F32, F16,"), "{message}");
        assert!(Format::from_ggml(777).unwrap_err().to_string().contains("number 777"));
    }

    #[test]
    fn a_row_is_whole_blocks() {
        assert_eq!(Format::Q4_1.row_bytes(576), Some(360));
        assert_eq!(Format::Q4K.row_bytes(576), None);
        assert_eq!(Format::F32.row_bytes(usize::MAX), None);
    }
}
