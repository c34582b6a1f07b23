//! Algorithms over lanes, and the one place that selects code compiled for an instruction set.

use super::Lanes;
use super::portable::Portable;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::sixteen::Sixteen;
#[cfg(target_arch = "aarch64")]
use crate::kernels::Neon;
#[cfg(target_arch = "x86_64")]
use crate::kernels::{Avx2, Avx512};
use crate::kernels::{InstructionSet, Isa};

/// An algorithm over lanes. `run` must be `#[inline(always)]`. Otherwise it is not compiled for the instructions that
/// it runs with.
pub(crate) trait Kernel {
    /// The result of a run.
    type Output;
    /// Runs the algorithm on one kind of lanes.
    fn run<L: Lanes>(self) -> Self::Output;
}

// === impl Isa ===

impl Isa {
    /// Runs `kernel` with this instruction set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.instruction_set() {
            // SAFETY: an `Isa` of these is proof of AVX-512 F, and of all instructions that `Avx2` is proof of.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx | InstructionSet::Avx512 | InstructionSet::Avx512F => unsafe { with_avx512(kernel) },
            // SAFETY: as above, for AVX2, FMA and F16C.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => unsafe { with_avx2(kernel) },
            #[cfg(target_arch = "aarch64")]
            InstructionSet::NeonI8mm | InstructionSet::NeonDot | InstructionSet::Neon => {
                kernel.run::<Sixteen<Neon<0>, 2>>()
            }
            InstructionSet::Scalar => kernel.run::<Portable>(),
        }
    }
}

/// # Safety
/// The processor has the enabled features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
unsafe fn with_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Sixteen<Avx512, 1>>()
}

/// # Safety
/// The processor has the enabled features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn with_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Sixteen<Avx2, 2>>()
}
