//! The boundary between the runner and a GPU. Knows no kernels' meaning.

use std::sync::Arc;

use super::launch::Launch;
use crate::weights::Mapping;

/// A device that runs kernels.
///
/// 1. `map` copies nothing: the buffer is the mapped pages, which stay mapped as long as it lives.
/// 2. A buffer of `allocate` holds zeros.
/// 3. Launches run in the order in which they were encoded, each after the one before has ended.
/// 4. After `finish` all encoded launches have run, and the host may read what they wrote. Until then it writes and
///    reads nothing that they use. After an error none of the launches counts as having run.
pub trait Gpu {
    /// Memory that kernels reach.
    type Buffer: DeviceBuffer;

    /// The mapped pages as a buffer, in place.
    ///
    /// # Errors
    /// [`GpuError`] if the device refuses.
    fn map(&mut self, pages: &Arc<Mapping>) -> Result<Self::Buffer, GpuError>;

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
}

/// Memory that the host shares with a device.
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
