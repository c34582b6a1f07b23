//! The device that candle computes on (a GPU, or the CPU in tests): opens it, and asks it for its memory and name.

use candle_core::Device;
use schema::record::DeviceKind;

use crate::gpu::DeviceMemory;
use crate::{NotBuilt, memory};

/// A device and its kind.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Device that candle computes on.
    pub device: Device,
    /// Kind of device in a stage's record.
    pub kind: DeviceKind,
}

/// Reason why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HardwareError {
    /// This program was built without the device.
    #[error(transparent)]
    NotBuilt(#[from] NotBuilt),
    /// The machine has no such device, or its driver does not work.
    #[error("cannot use the device {device}: {cause}; use the device cpu, or repair its driver")]
    Unavailable {
        /// The device.
        device: &'static str,
        /// Error message of the driver.
        cause: String,
    },
}

// === impl Hardware ===

impl Hardware {
    /// The machine's first device of `kind`.
    ///
    /// # Errors
    /// [`HardwareError`] if this program was built without it, or there is none.
    pub fn open(kind: DeviceKind) -> Result<Self, HardwareError> {
        let device = match kind {
            DeviceKind::Cpu => Device::Cpu,
            DeviceKind::Metal if cfg!(all(feature = "metal", target_os = "macos")) => {
                attempt("metal", || Device::new_metal(0))?
            }
            DeviceKind::Cuda if cfg!(feature = "cuda") => attempt("cuda", || Device::new_cuda(0))?,
            DeviceKind::Metal | DeviceKind::Cuda | DeviceKind::Sim => return Err(NotBuilt::new(kind).into()),
        };
        Ok(Self { device, kind })
    }

    /// The device's memory. The total is what Metal recommends for one process, or what CUDA reports for the device. On
    /// the CPU device it is the machine's memory.
    pub(super) fn memory(&self) -> DeviceMemory {
        let machine = memory::machine();
        let (total_bytes, available_bytes) = (machine.memory_total_bytes, machine.memory_available_bytes);
        own_memory(&self.device).unwrap_or(DeviceMemory { total_bytes, available_bytes })
    }

    /// Name of the chip that computes: the name that CUDA reports, else the machine's processor.
    pub(super) fn chip(&self) -> String {
        own_name(&self.device).unwrap_or_else(|| memory::machine().chip)
    }
}

/// Opens a device. If a driver is missing, candle's bindings to it panic in some places. This function reports such a
/// panic as an error.
fn attempt(
    device: &'static str,
    open: impl FnOnce() -> candle_core::Result<Device> + std::panic::UnwindSafe,
) -> Result<Device, HardwareError> {
    let unavailable = |cause: String| HardwareError::Unavailable { device, cause };
    match std::panic::catch_unwind(open) {
        Ok(opened) => opened.map_err(|error| unavailable(error.to_string())),
        Err(_) => Err(unavailable("its driver is missing or found no device".to_owned())),
    }
}

/// The memory that the device itself reports. `None` for the CPU device.
#[cfg(all(feature = "metal", target_os = "macos"))]
fn own_memory(device: &Device) -> Option<DeviceMemory> {
    let metal = device.as_metal_device().ok()?.metal_device();
    let total_bytes = metal.recommended_max_working_set_size() as u64;
    let available_bytes = total_bytes.saturating_sub(metal.current_allocated_size() as u64);
    Some(DeviceMemory { total_bytes, available_bytes })
}

#[cfg(all(feature = "cuda", not(all(feature = "metal", target_os = "macos"))))]
fn own_memory(device: &Device) -> Option<DeviceMemory> {
    let stream = device.as_cuda_device().ok()?.cuda_stream();
    let (available, total) = stream.context().mem_get_info().ok()?;
    Some(DeviceMemory { total_bytes: total as u64, available_bytes: available as u64 })
}

#[cfg(not(any(feature = "cuda", all(feature = "metal", target_os = "macos"))))]
fn own_memory(_: &Device) -> Option<DeviceMemory> {
    None
}

/// The name that the device itself reports. `None` for all but CUDA devices.
#[cfg(feature = "cuda")]
fn own_name(device: &Device) -> Option<String> {
    device.as_cuda_device().ok()?.cuda_stream().context().name().ok()
}

/// A Metal device is not asked: on a Mac the processor and the GPU are one chip with one name.
#[cfg(not(feature = "cuda"))]
fn own_name(_: &Device) -> Option<String> {
    None
}

/// Runs `step` in an autorelease pool of Objective-C. Objects that Metal marks for later release are then freed when
/// the step ends, not when the thread ends.
#[cfg(all(feature = "metal", target_os = "macos"))]
pub(super) fn in_pool<T>(step: impl FnOnce() -> T) -> T {
    objc2::rc::autoreleasepool(|_| step())
}

/// Runs `step`. Only Metal needs a pool.
#[cfg(not(all(feature = "metal", target_os = "macos")))]
pub(super) fn in_pool<T>(step: impl FnOnce() -> T) -> T {
    step()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_device_that_was_not_built_in_names_the_feature() {
        let error = Hardware::open(DeviceKind::Cuda).unwrap_err().to_string();
        assert!(error.contains("`cargo build --release --features cuda`"), "{error}");
    }

    #[test]
    fn the_cpu_device_always_opens_and_has_the_machines_memory() {
        let hardware = Hardware::open(DeviceKind::Cpu).unwrap();
        assert_eq!(hardware.memory().total_bytes, memory::machine().memory_total_bytes);
    }
}
