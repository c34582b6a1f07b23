//! The rate at which a device reads memory: the floor of the time for one token.

use std::time::{Duration, Instant};

use super::device::{Adapter, Gpu, GpuError};
use super::kernel::Kernel;
use super::launch::Launch;

/// Values of a row, and rows: 256 MiB together, several times the caches of most devices.
const WIDTH: usize = 4096;
const ROWS: usize = 16_384;
/// Time of the measurement. The best pass counts.
const READ_TIME: Duration = Duration::from_millis(200);

/// Bytes per second that the device reads with the kernel that does nothing else: it looks for values that are not
/// finite.
///
/// # Errors
/// [`GpuError`] if the device fails, or has no room for 256 MiB.
pub fn read_rate<A: Adapter>(adapter: &A) -> Result<u64, GpuError> {
    let mut gpu = adapter.open()?;
    let (values, found) = (gpu.allocate(4 * WIDTH * ROWS)?, gpu.allocate(4 * ROWS)?);
    let started = Instant::now();
    let mut best = Duration::MAX;
    while started.elapsed() < READ_TIME {
        let begun = Instant::now();
        A::Gpu::scoped(|| {
            gpu.encode(&Launch {
                kernel: Kernel::FindUnusable,
                groups: [ROWS as u32, 1, 1],
                inputs: &[(&values).into()],
                outputs: &[(&found).into()],
                sizes: &[WIDTH as u32],
            })?;
            gpu.finish()
        })?;
        best = best.min(begun.elapsed());
    }
    Ok(((4 * WIDTH * ROWS) as f64 / best.as_secs_f64()) as u64)
}
