//! What a stage computes on, as a person names it, and the loader for it.

use std::num::NonZeroUsize;

use engine::runner::Loader;
use schema::record::DeviceKind;

use crate::accelerator::{CandleLoader, Hardware, HardwareError};
use crate::loader::CpuLoader;
use crate::model::ModelError;
use crate::weights::ModelFile;

/// How a stage is to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSettings {
    /// On what.
    pub device: DeviceKind,
    /// Threads that compute; on a GPU, those that feed it.
    pub threads: NonZeroUsize,
    /// The most the stage may use, in bytes; `None` for what the machine has left.
    pub budget_bytes: Option<u64>,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No such device.
    #[error("device {found:?} is not known: expected one of cpu, metal, cuda")]
    Unknown {
        /// What was asked for.
        found: String,
    },
    /// The machine or this program lacks it.
    #[error(transparent)]
    Hardware(#[from] HardwareError),
    /// The model cannot be run.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// The device called `name`.
///
/// # Errors
/// [`DeviceError::Unknown`] lists the names.
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
/// [`DeviceError`] when the device is not there or not part of this build, or the model is not supported on it.
pub fn loader(file: ModelFile, settings: DeviceSettings) -> Result<Box<dyn Loader>, DeviceError> {
    match settings.device {
        DeviceKind::Cpu => Ok(Box::new(CpuLoader::new(file, settings.threads, settings.budget_bytes)?)),
        kind @ (DeviceKind::Metal | DeviceKind::Cuda) => {
            let hardware = Hardware::open(kind)?;
            Ok(Box::new(CandleLoader::new(file, hardware, settings.threads.get(), settings.budget_bytes)?))
        }
    }
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
