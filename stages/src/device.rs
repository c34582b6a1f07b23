//! The device that a stage computes on, by its name on the command line, and the loader for it.

use std::num::NonZeroUsize;

use engine::runner::Loader;
use schema::record::DeviceKind;

#[cfg(feature = "accelerator")]
use crate::accelerator::{CandleLoader, Hardware, HardwareError};
use crate::loader::CpuLoader;
use crate::model::UnsupportedModel;
use crate::weights::ModelFile;

/// Settings for a stage's computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSettings {
    /// The device.
    pub device: DeviceKind,
    /// Number of threads that compute. On a GPU, number of threads that feed it.
    pub threads: NonZeroUsize,
    /// Maximum memory that the stage may use, in bytes. `None` for the memory that is available on the device.
    pub budget_bytes: Option<u64>,
}

/// Errors of a device that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No such device.
    #[error("device {found:?} is not known: expected one of cpu, metal, cuda")]
    Unknown {
        /// The requested name.
        found: String,
    },
    /// This program was built without the GPU runner.
    #[cfg(not(feature = "accelerator"))]
    #[error(transparent)]
    NotBuilt(#[from] crate::NotBuilt),
    /// The machine does not have the device, or this program is built without it.
    #[cfg(feature = "accelerator")]
    #[error(transparent)]
    Hardware(#[from] HardwareError),
    /// The model cannot be run.
    #[error(transparent)]
    Model(#[from] UnsupportedModel),
}

/// The device called `name`.
///
/// # Errors
/// [`DeviceError::Unknown`] for another name. The text lists the known names.
pub fn parse(name: &str) -> Result<DeviceKind, DeviceError> {
    match name {
        "cpu" => Ok(DeviceKind::Cpu),
        "metal" => Ok(DeviceKind::Metal),
        "cuda" => Ok(DeviceKind::Cuda),
        other => Err(DeviceError::Unknown { found: other.chars().take(64).collect() }),
    }
}

/// A loader of `file` on the device of `settings`.
///
/// # Errors
/// [`DeviceError`] when the machine does not have the device, this program is built without it, or it does not support
/// the model.
pub fn loader(file: ModelFile, settings: DeviceSettings) -> Result<Box<dyn Loader>, DeviceError> {
    match settings.device {
        DeviceKind::Cpu => Ok(Box::new(CpuLoader::new(file, settings.threads, settings.budget_bytes)?)),
        kind @ (DeviceKind::Metal | DeviceKind::Cuda) => gpu_loader(kind, file, settings),
    }
}

#[cfg(feature = "accelerator")]
fn gpu_loader(kind: DeviceKind, file: ModelFile, settings: DeviceSettings) -> Result<Box<dyn Loader>, DeviceError> {
    let hardware = Hardware::open(kind)?;
    Ok(Box::new(CandleLoader::new(file, hardware, settings.threads.get(), settings.budget_bytes)?))
}

#[cfg(not(feature = "accelerator"))]
fn gpu_loader(kind: DeviceKind, _: ModelFile, _: DeviceSettings) -> Result<Box<dyn Loader>, DeviceError> {
    Err(crate::NotBuilt::new(kind).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_in_lower_case_and_others_are_listed() {
        assert_eq!(parse("metal").unwrap(), DeviceKind::Metal);
        let error = parse("GPU").unwrap_err().to_string();
        assert_eq!(error, "device \"GPU\" is not known: expected one of cpu, metal, cuda");
    }
}
