//! The supported instruction sets, and the one place that decides which of them this machine has.

use std::fmt;
use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use super::neon::{DOT, MATRIX, Neon};
#[cfg(target_arch = "x86_64")]
use super::x86::{avx2::Avx2, avx512::Avx512};

/// Proof that this machine has an instruction set. All instruction sets give the same bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Isa(InstructionSet);

/// Names of the instruction sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InstructionSet {
    /// As `Avx512`, plus AMX for many rows at once.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// As `Avx2`, plus AVX-512 F for floats.
    #[cfg(target_arch = "x86_64")]
    Avx512F,
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// aarch64 with NEON, its dot product extension and its extension for matrices of bytes (i8mm).
    #[cfg(target_arch = "aarch64")]
    NeonI8mm,
    /// aarch64 with NEON and its dot product extension.
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    /// aarch64 with NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// No vector instructions: the reference.
    Scalar,
}

// === impl Isa ===

impl Isa {
    /// No vector instructions: the reference, which runs on any machine.
    pub const SCALAR: Self = Self(InstructionSet::Scalar);

    /// The best instruction set of this machine.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::all().next().unwrap_or(Self::SCALAR))
    }

    /// All instruction sets of this machine, the best first and the reference last.
    pub fn all() -> impl Iterator<Item = Self> {
        let detected = InstructionSet::ALL.iter().filter(|set| set.is_detected());
        detected.map(|set| Self(*set))
    }

    /// Name of the instruction set, to select code by.
    pub(crate) fn instruction_set(self) -> InstructionSet {
        self.0
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl InstructionSet ===

impl InstructionSet {
    /// All instruction sets of this architecture, the best first.
    const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Amx,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512F,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "aarch64")]
        Self::NeonI8mm,
        #[cfg(target_arch = "aarch64")]
        Self::NeonDot,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
        Self::Scalar,
    ];

    /// True if this machine has the instruction set. An x86-64 instruction set also requires those after it in `ALL`,
    /// because the code for floats uses instructions of all of them.
    fn is_detected(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512.is_detected() && Avx512::detect_with_matrices().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Self::Avx512F.is_detected() && Avx512::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512F => Self::Avx2.is_detected() && is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => Neon::<MATRIX>::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => Neon::<DOT>::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Neon::<0>::detect().is_some(),
            Self::Scalar => true,
        }
    }
}
