//! AMX: matrix registers, and an instruction that multiplies two of them.
//!
//! The second factor is a block of weights in its unpacked form (16 outputs side by side, four columns a word). The
//! first factor is 16 rows of activations in their memory layout. The integer sums have the layout of the other
//! kernels: 16 outputs of one row in a vector. The compiler supports neither the registers nor the instructions, so
//! this is assembly.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, __m512i, _mm512_set1_epi8, _mm512_sub_epi8, _xgetbv};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::Avx512;
use crate::kernels::rows::{MATRIX_ROWS, Quantised};
use crate::kernels::simd::{Matrices, MatrixScratch};

/// Proof that the machine has AMX for bytes, and that the operating system lets this process use it.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Amx(());

/// Guard of the registers' shapes, which are set on this thread while it lives.
pub(super) struct TileConfigGuard(PhantomData<*const ()>);

/// Operand of `ldtilecfg`: palette 1, then the bytes in a row and the rows of each register.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Registers 0 to 2 hold sums, activations and weights.
static TILE_CONFIG: TileConfig = TileConfig {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 32, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
};

// === impl Amx ===

impl Amx {
    /// The proof, if the machine and the system allow it.
    pub(super) fn detect() -> Option<Self> {
        static FOUND: OnceLock<bool> = OnceLock::new();
        FOUND
            .get_or_init(|| is_x86_feature_detected!("avx512vnni") && has_instructions() && system_saves_registers())
            .then_some(Self(()))
    }

    /// Sets the registers' shapes on this thread.
    #[inline(always)]
    pub(super) fn configure_tiles(self) -> TileConfigGuard {
        // SAFETY: `self` proves the instruction, and the configuration is one the manual allows.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const TILE_CONFIG, options(nostack, readonly)) };
        TileConfigGuard(PhantomData)
    }
}

/// True if the processor has tiles and their product of bytes.
fn has_instructions() -> bool {
    const TILES_AND_BYTES: u32 = 0b11 << 24;
    // Every processor with AVX-512 has leaf 7.
    __cpuid_count(7, 0).edx & TILES_AND_BYTES == TILES_AND_BYTES
}

/// Asks the system for the registers. It saves them only for processes that ask, because they take eight kilobytes.
#[cfg(target_os = "linux")]
fn system_saves_registers() -> bool {
    /// `ARCH_REQ_XCOMP_PERM` of `asm/prctl.h`, and the state that it requests.
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    const TILE_STATE: u64 = 0b11 << 17;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let granted = unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) } == 0;
    // SAFETY: a processor with AVX-512 in use has XGETBV.
    granted && unsafe { enabled_state() } & TILE_STATE == TILE_STATE
}

/// No way to ask is known for other systems.
#[cfg(not(target_os = "linux"))]
fn system_saves_registers() -> bool {
    false
}

/// # Safety
/// The system must have switched XSAVE on.
#[target_feature(enable = "xsave")]
unsafe fn enabled_state() -> u64 {
    // SAFETY: the caller promises that XSAVE is on.
    unsafe { _xgetbv(0) }
}

thread_local! {
    /// Work buffers of the kernels on this thread. Clearing new ones would take as long as a small product.
    static SCRATCH: Cell<Option<Box<MatrixScratch<Avx512>>>> = const { Cell::new(None) };
}

impl Matrices<Avx512> for Amx {
    fn take_scratch(self) -> Box<MatrixScratch<Avx512>> {
        SCRATCH.take().unwrap_or_else(|| Box::new(MatrixScratch::new(Avx512::with(self))))
    }

    fn return_scratch(self, scratch: Box<MatrixScratch<Avx512>>) {
        SCRATCH.set(Some(scratch));
    }

    #[inline(always)]
    fn sign(self, weights: &mut [__m512i; 8], above: u8) {
        for weights in weights {
            // SAFETY: a machine with AMX has AVX-512 (`detect` checks this). No memory is touched.
            *weights = unsafe { _mm512_sub_epi8(*weights, _mm512_set1_epi8(above.cast_signed())) };
        }
    }

    #[inline(always)]
    fn dot_block(self, weights: &[__m512i; 8], x: &[Quantised; MATRIX_ROWS], sums: &mut [__m512i; MATRIX_ROWS]) {
        // SAFETY: `self` proves the instructions, and the tile configuration is loaded while a kernel that has a `self`
        // runs. The registers read 16 rows of 32 bytes and 8 of 64, and write 16 of 64.
        unsafe {
            asm!(
                "tileloadd tmm2, [{weights} + {line}*1]",
                "tileloadd tmm1, [{x} + {line}*1]",
                "tilezero tmm0",
                "tdpbssd tmm0, tmm1, tmm2",
                "tilestored [{sums} + {line}*1], tmm0",
                weights = in(reg) weights.as_ptr(), x = in(reg) x.as_ptr(), sums = in(reg) sums.as_mut_ptr(),
                line = in(reg) LINE,
                out("tmm0") _, out("tmm1") _, out("tmm2") _,
                options(nostack, preserves_flags),
            );
        }
    }
}

/// Distance in bytes from one row to the next, the same for activations, weights and sums.
const LINE: usize = 64;
const _: () = assert!(size_of::<Quantised>() == LINE && size_of::<__m512i>() == LINE);

// === impl TileConfigGuard ===

impl Drop for TileConfigGuard {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the shapes were set, so the instruction exists. Nothing uses the registers any more.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
