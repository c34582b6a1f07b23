//! Which instructions this processor has, found out once, and the one place that goes from there into code compiled
//! for them.

use super::Lanes;
use super::portable::Portable;

/// An algorithm over lanes. `run` must be `#[inline(always)]`, or it is not compiled for the instructions it is run with.
pub(crate) trait Kernel {
    /// What it gives back.
    type Output;
    /// Runs it on one kind of lanes.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// Proof that this processor has some instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level(Instructions);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Only tests ask for it where there is something better.
    Portable,
}

// === impl Level ===

impl Level {
    /// The best this processor has.
    pub(crate) fn detect() -> Self {
        Self::all().next().unwrap_or(Self(Instructions::Portable))
    }

    /// All this processor has, the best first.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let avx2 =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        let avx512 = avx2 && is_x86_feature_detected!("avx512f");
        let found = [(avx512, Instructions::Avx512), (avx2, Instructions::Avx2), (true, Instructions::Portable)];
        found.into_iter().filter(|(exists, _)| *exists).map(|(_, instructions)| Self(instructions))
    }

    /// All this processor has, the best first.
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Self(Instructions::Neon), Self(Instructions::Portable)].into_iter()
    }

    /// All this processor has, the best first.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self(Instructions::Portable))
    }

    /// Runs `kernel` with these instructions.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: a `Level` of these instructions is made by `all` only, after asking the processor for each of
            // the features that the function enables.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => unsafe { with_avx512(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { with_avx2(kernel) },
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => kernel.run::<super::neon::Neon>(),
            Instructions::Portable => kernel.run::<Portable>(),
        }
    }
}

/// # Safety
/// The processor has the enabled features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
unsafe fn with_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<super::x86::Avx512>()
}

/// # Safety
/// The processor has the enabled features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn with_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<super::x86::Avx2>()
}
