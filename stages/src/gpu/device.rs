//! The boundary between the runner and a GPU. Knows no kernels' meaning.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use schema::record::DeviceKind;

use super::launch::Launch;
use crate::weights::Mapping;

/// A device of the machine, found and ready to be used by any number of runners.
pub trait Adapter: Debug + Send + Sync {
    /// The device as one runner uses it.
    type Gpu: Gpu + Send;

    /// The device for one more runner.
    ///
    /// # Errors
    /// [`GpuError`] if the device does not take one more.
    fn open(&self) -> Result<Self::Gpu, GpuError>;

    /// Its kind in a stage's record.
    fn kind(&self) -> DeviceKind;

    /// Its name, as the driver has it.
    fn chip(&self) -> String;

    /// Its memory.
    fn memory(&self) -> DeviceMemory;
}

/// A device's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Maximum for one process: what Metal recommends, or what CUDA reports for the device.
    pub total_bytes: u64,
    /// The part of it that can still be allocated.
    pub available_bytes: u64,
}

/// A device that runs kernels.
///
/// 1. The buffers of `map` hold the mapped pages. Where the device shares memory with the host, nothing is copied, and
///    the pages stay mapped as long as a buffer lives. Elsewhere they are copied once, and the mapping is not kept.
/// 2. A buffer of `allocate` holds zeros.
/// 3. Launches run in the order in which they were encoded, each after the one before has ended.
/// 4. After `finish` all encoded launches have run, and the host may read what they wrote. Until then it writes and
///    reads nothing that they use. After an error none of the launches counts as having run.
pub trait Gpu {
    /// Memory that kernels reach.
    type Buffer: DeviceBuffer;

    /// Runs `step`, a step of a runner, and frees what the device's interface keeps until a step ends.
    fn scoped<T>(step: impl FnOnce() -> T) -> T {
        step()
    }

    /// The mapped pages as buffers: one of all pages, or several that overlap, where a buffer cannot be that large.
    ///
    /// # Errors
    /// [`GpuError`] if the device refuses.
    fn map(&mut self, pages: &Arc<Mapping>) -> Result<Vec<PagesView<Self::Buffer>>, GpuError>;

    /// A buffer of `bytes` bytes, at least one.
    ///
    /// # Errors
    /// [`GpuError::Memory`] if the device has no room.
    fn allocate(&mut self, bytes: usize) -> Result<Self::Buffer, GpuError>;

    /// Adds a launch to those that `finish` waits for.
    ///
    /// # Errors
    /// [`GpuError::Kernel`] if the device has no such kernel, or it does not take these arguments.
    fn encode(&mut self, launch: &Launch<'_, Self::Buffer>) -> Result<(), GpuError>;

    /// Submits what was encoded, and waits until it has run.
    ///
    /// # Errors
    /// [`GpuError::Kernel`] names the kernel that failed.
    fn finish(&mut self) -> Result<(), GpuError>;

    /// Tells of the first write or read of a buffer that failed since the last call. Where the host shares the memory,
    /// none does.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`] with the driver's reason.
    fn check_transfers(&mut self) -> Result<(), GpuError> {
        Ok(())
    }
}

/// A buffer that holds some of the mapped pages.
#[derive(Debug, Clone)]
pub struct PagesView<B> {
    /// The bytes of the mapping that it holds.
    pub bytes: Range<usize>,
    /// The buffer.
    pub buffer: B,
    /// Place of the first of them in the buffer: a buffer may have to start with a page.
    pub offset: usize,
}

// === impl PagesView ===

impl<B> PagesView<B> {
    /// One view of all `pages`.
    pub fn whole(pages: &Mapping, buffer: B) -> Vec<Self> {
        vec![Self { bytes: 0..pages.bytes().len(), buffer, offset: 0 }]
    }
}

/// The ranges of views of `bytes` bytes, each of at most `view_bytes_max` bytes and starting at a page of `page_bytes`
/// bytes. Neighbours overlap by half, so a tensor of up to half of a view, less two pages, is whole in one of them.
pub fn view_ranges(bytes: usize, view_bytes_max: usize, page_bytes: usize) -> Vec<Range<usize>> {
    if bytes <= view_bytes_max {
        return std::iter::once(0..bytes).collect();
    }
    let step = (view_bytes_max / 2 / page_bytes * page_bytes).max(page_bytes);
    let view_bytes = (view_bytes_max / page_bytes * page_bytes).max(page_bytes);
    let mut ranges = Vec::new();
    for start in (0..).step_by(step) {
        let end = (start + view_bytes).min(bytes);
        ranges.push(start..end);
        if end == bytes {
            break;
        }
    }
    ranges
}

/// Memory that the host shares with a device, or that it copies from and to: [`Gpu::check_transfers`] tells whether a
/// copy failed.
pub trait DeviceBuffer: Clone + Send {
    /// Writes `bytes` from byte `offset` on.
    ///
    /// # Panics
    /// If they do not fit, or the buffer is mapped.
    fn write(&self, offset: usize, bytes: &[u8]);

    /// Reads bytes from byte `offset` on.
    ///
    /// # Panics
    /// If the buffer does not have them.
    fn read(&self, offset: usize, into: &mut [u8]);
}

/// Reason why a device did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// The device cannot be used.
    #[error("cannot use the device {device}: {cause}")]
    Unavailable {
        /// The device.
        device: &'static str,
        /// The driver's or the system's reason.
        cause: String,
    },
    /// No memory is left.
    #[error("cannot allocate {bytes} bytes on the device")]
    Memory {
        /// The bytes.
        bytes: usize,
    },
    /// A kernel cannot be run, or failed.
    #[error("kernel {kernel}: {fault}")]
    Kernel {
        /// Its name.
        kernel: String,
        /// The fault.
        fault: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_that_fits_one_buffer_is_one_view() {
        assert_eq!(view_ranges(1000, 1000, 16), std::slice::from_ref(&(0..1000)));
    }

    #[test]
    fn every_tensor_of_less_than_half_a_view_is_whole_in_one() {
        let (bytes, most, page) = (10_000, 1000, 16);
        let ranges = view_ranges(bytes, most, page);
        assert!(ranges.iter().all(|range| range.len() <= most && range.start % page == 0), "{ranges:?}");
        let tensor = most / 2 - 2 * page;
        for start in 0..bytes - tensor {
            let holds = |range: &&Range<usize>| range.start <= start && start + tensor <= range.end;
            assert!(ranges.iter().any(|range| holds(&range)), "{start}: no view of {ranges:?} has it");
        }
    }
}
