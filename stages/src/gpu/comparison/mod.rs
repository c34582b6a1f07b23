//! The comparison of a device's kernels with double precision, before it computes for anybody: on rows of the shard's
//! own weights, with its own norms and rotary embedding. A device that computes wrongly is refused, by the kernel.

mod attention;
mod choice;
mod norm;
mod products;

use super::device::{DeviceBuffer, Gpu, GpuError};
use super::kernel::Kernel;
use super::runner::GpuRunner;
use super::weights::Sample;

// === impl GpuRunner ===

impl<G: Gpu> GpuRunner<G> {
    /// Compares every kernel that this shard needs. Takes the room of keys and values for it, before sequences do.
    ///
    /// # Errors
    /// [`GpuError::Kernel`] names the first kernel that gives another result.
    pub(super) fn compare(&mut self, samples: &[Sample<G::Buffer>]) -> Result<(), GpuError> {
        let mut random = Random::default();
        self.compare_norm(&mut random)?;
        samples.iter().try_for_each(|sample| self.compare_products(sample, &mut random))?;
        self.compare_attention(&mut random)?;
        self.compare_finiteness(&mut random)?;
        self.compare_choice(&mut random)
    }
}

/// A generator of inputs (xorshift).
struct Random(u64);

// === impl Random ===

impl Default for Random {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    /// Numbers between -1 and 1.
    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.value()).collect()
    }

    fn value(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// An output that the processor has otherwise.
fn differs(kernel: Kernel, place: &str, found: f32, expected: f64) -> GpuError {
    let kernel = kernel.name().unwrap_or_else(|| format!("{kernel:?}"));
    GpuError::Kernel { kernel, fault: format!("gives {found} for {place}: expected {expected}, as on the processor") }
}

/// True if a result is within `bound` of the processor's. A result that is not a number never is.
fn is_close(found: f32, expected: f64, bound: f64) -> bool {
    (f64::from(found) - expected).abs() <= bound
}

/// Writes numbers to the start of a buffer.
fn write_floats<B: DeviceBuffer>(buffer: &B, values: &[f32]) {
    super::inputs::write(buffer, &mut Vec::new(), values.iter().map(|value| value.to_bits()));
}
