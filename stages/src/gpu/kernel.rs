//! The kernels by name, with the threads of a group that their source expects.

use schema::record::KvType;

use crate::format::Format;

/// A kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Norm of rows: `kernels/norm.h`.
    RmsNorm,
    /// Product of up to three matrices with up to this number of rows at once: `kernels/product.h`.
    Product(Format, RowsAtOnce),
    /// The inner values of a gated network: `kernels/gated.h`.
    Gated(Format, RowsAtOnce),
    /// Norms, rotates and stores heads: `kernels/heads.h`.
    WriteHeads(KvType),
    /// Attention over splits: `kernels/attention.h`.
    Attend(KvType),
    /// The sum of its splits.
    MergeAttention,
    /// Finds rows with values that are not finite: `kernels/finite.h`.
    FindUnusable,
    /// Chooses a token: `kernels/choose.h`.
    ChooseToken,
}

/// Number of rows that a simdgroup computes with one reading of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsAtOnce {
    /// One.
    One = 1,
    /// Two.
    Two = 2,
    /// Four.
    Four = 4,
    /// Eight.
    Eight = 8,
}

// === impl Kernel ===

impl Kernel {
    /// Outputs that a group of [`Self::Product`] or [`Self::Gated`] computes for each row.
    pub const OUTPUTS_OF_GROUP: usize = 8;

    /// Its name in the source. `None` if the source has no such kernel.
    pub fn name(self) -> Option<String> {
        Some(match self {
            Self::RmsNorm => "rms_norm".to_owned(),
            Self::Product(format, rows) => format!("product_{}_{}", format_name(format)?, rows as u32),
            Self::Gated(format, rows) => format!("gated_{}_{}", format_name(format)?, rows as u32),
            Self::WriteHeads(kv_type) => format!("write_heads_{kv_type}"),
            Self::Attend(kv_type) => format!("attend_{kv_type}"),
            Self::MergeAttention => "merge_attention".to_owned(),
            Self::FindUnusable => "find_unusable".to_owned(),
            Self::ChooseToken => "choose_token".to_owned(),
        })
    }

    /// The format of the weights that it multiplies. `None` for a kernel that multiplies none.
    pub fn format(self) -> Option<Format> {
        match self {
            Self::Product(format, _) | Self::Gated(format, _) => Some(format),
            _ => None,
        }
    }

    /// Threads of a group.
    pub fn threads(self) -> u32 {
        match self {
            Self::WriteHeads(_) | Self::MergeAttention => 32,
            Self::RmsNorm | Self::Product(..) | Self::Gated(..) | Self::Attend(_) | Self::FindUnusable => 128,
            Self::ChooseToken => 256,
        }
    }
}

// === impl RowsAtOnce ===

impl RowsAtOnce {
    /// The fewest that hold `rows` rows, or the most there are.
    pub fn of(rows: usize) -> Self {
        match rows {
            0 | 1 => Self::One,
            2 => Self::Two,
            3 | 4 => Self::Four,
            _ => Self::Eight,
        }
    }

    /// Groups of so many rows that hold `rows` rows.
    pub fn groups(self, rows: usize) -> u32 {
        rows.div_ceil(self as usize) as u32
    }
}

/// The name of a format in kernels' names: `FOR_EACH_FORMAT` in `kernels/formats.h`. `None` for one without kernels.
pub(super) fn format_name(format: Format) -> Option<&'static str> {
    match format {
        Format::F32 => Some("f32"),
        Format::F16 => Some("f16"),
        Format::BF16 => Some("bf16"),
        Format::Q4_0 => Some("q4_0"),
        Format::Q4_1 => Some("q4_1"),
        Format::Q5_0 => Some("q5_0"),
        Format::Q5_1 => Some("q5_1"),
        Format::Q8_0 => Some("q8_0"),
        Format::Q2K => Some("q2_k"),
        Format::Q3K => Some("q3_k"),
        Format::Q4K => Some("q4_k"),
        Format::Q5K => Some("q5_k"),
        Format::Q6K => Some("q6_k"),
        Format::Iq4Nl => Some("iq4_nl"),
        Format::Iq4Xs => Some("iq4_xs"),
        Format::Mxfp4 => Some("mxfp4"),
        Format::Tq1_0
        | Format::Tq2_0
        | Format::Iq2Xxs
        | Format::Iq2Xs
        | Format::Iq2S
        | Format::Iq3Xxs
        | Format::Iq3S
        | Format::Iq1S
        | Format::Iq1M
        | Format::Affine4G32
        | Format::Affine4G64
        | Format::Affine4G128
        | Format::Affine8G32
        | Format::Affine8G64
        | Format::F8E4M3 => None,
    }
}
