//! The device that a stage computes on, by its name on the command line, and the loader for it.

use std::num::NonZeroUsize;

use engine::runner::Loader;
use schema::record::DeviceKind;
use serde::Deserialize;

#[cfg(feature = "accelerator")]
use crate::accelerator::HardwareError;
#[cfg(any(feature = "cuda", all(feature = "metal", target_os = "macos")))]
use crate::accelerator::{CandleLoader, Hardware};
use crate::gpu::{Adapter, GpuError, GpuLoader};
use crate::loader::{CpuLoader, chain};
use crate::model::UnsupportedModel;
use crate::reasoned::Reasoned;
use crate::weights::ModelFile;

/// The device that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// The machine's GPU where it computes the model and its kernels give the processor's results, else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// An Apple GPU.
    Metal,
    /// An NVIDIA GPU.
    Cuda,
    /// The kernels for GPUs on the processor, under the simulator that `etc/check-msl` builds.
    Sim,
}

/// Settings for a stage's computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSettings {
    /// The device.
    pub device: DeviceChoice,
    /// Number of threads that compute. On a GPU, number of threads that feed it.
    pub threads: NonZeroUsize,
    /// Maximum memory that the stage may use, in bytes. `None` for the memory that is available on the device.
    pub budget_bytes: Option<u64>,
    /// False if the file has only its header, and weights come when layers are claimed.
    pub has_weights: bool,
}

/// Errors of a device that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No such device.
    #[error("device {found:?} is not known: expected one of auto, cpu, metal, cuda, sim")]
    Unknown {
        /// The requested name.
        found: String,
    },
    /// This program was built without the device.
    #[error(transparent)]
    NotBuilt(#[from] crate::NotBuilt),
    /// The machine does not have the device.
    #[error("{0}; use the device cpu, or install what is missing")]
    Gpu(GpuError),
    /// The machine does not have the device, or this program is built without it.
    #[cfg(feature = "accelerator")]
    #[error(transparent)]
    Hardware(#[from] HardwareError),
    /// The model cannot be run.
    #[error(transparent)]
    Model(#[from] UnsupportedModel),
}

// === impl DeviceError ===

impl From<GpuError> for DeviceError {
    /// Not as the source: the text has all of it.
    fn from(error: GpuError) -> Self {
        Self::Gpu(error)
    }
}

// === impl DeviceChoice ===

impl DeviceChoice {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Metal => "metal",
            Self::Cuda => "cuda",
            Self::Sim => "sim",
        }
    }

    /// True if this program has code for it.
    pub fn is_built_in(self) -> bool {
        match self {
            Self::Auto | Self::Cpu | Self::Sim => true,
            Self::Metal => cfg!(all(feature = "metal", target_os = "macos")),
            Self::Cuda => cfg!(any(feature = "cuda", target_os = "linux")),
        }
    }
}

/// The device called `name`.
///
/// # Errors
/// [`DeviceError::Unknown`] for another name. The text lists the known names.
pub fn parse(name: &str) -> Result<DeviceChoice, DeviceError> {
    use DeviceChoice::{Auto, Cpu, Cuda, Metal, Sim};
    let known = [Auto, Cpu, Metal, Cuda, Sim].into_iter().find(|device| device.name() == name);
    known.ok_or_else(|| DeviceError::Unknown { found: name.chars().take(64).collect() })
}

/// A loader of `file` on the device of `settings`. The record that it describes says why it is that device, where it is
/// not the one that was asked for, and why candle computes there, where it does.
///
/// # Errors
/// [`DeviceError`] when the machine does not have the device, this program is built without it, or it does not support
/// the model.
pub fn loader(file: ModelFile, settings: DeviceSettings) -> Result<Box<dyn Loader>, DeviceError> {
    match settings.device {
        DeviceChoice::Auto => chosen(file, settings),
        DeviceChoice::Cpu => cpu_loader(file, settings),
        DeviceChoice::Metal => gpu_loader(DeviceKind::Metal, file, settings),
        DeviceChoice::Cuda => gpu_loader(DeviceKind::Cuda, file, settings),
        DeviceChoice::Sim => simulated(file, settings),
    }
}

fn cpu_loader(file: ModelFile, settings: DeviceSettings) -> Result<Box<dyn Loader>, DeviceError> {
    Ok(Box::new(CpuLoader::new(file, settings.threads, settings.budget_bytes)?))
}

/// A loader on the simulator. candle does not compute there.
fn simulated(file: ModelFile, settings: DeviceSettings) -> Result<Box<dyn Loader>, DeviceError> {
    let adapter = crate::gpu::SimAdapter::from_environment()?;
    Ok(Box::new(GpuLoader::new(file, adapter, settings.threads.get(), settings.budget_bytes)?))
}

/// The machine's GPU if this program could use it and it computes the model rightly, else the processor.
#[cfg(target_os = "linux")]
fn chosen(file: ModelFile, settings: DeviceSettings) -> Result<Box<dyn Loader>, DeviceError> {
    if !crate::gpu::has_cuda_driver() {
        return cpu_loader(file, settings);
    }
    adapter_or_processor(crate::gpu::CudaAdapter::new(), file, settings)
}

#[cfg(all(feature = "metal", target_os = "macos"))]
fn chosen(file: ModelFile, settings: DeviceSettings) -> Result<Box<dyn Loader>, DeviceError> {
    adapter_or_processor(crate::gpu::MetalAdapter::new(), file, settings)
}

#[cfg(not(any(target_os = "linux", all(feature = "metal", target_os = "macos"))))]
fn chosen(file: ModelFile, settings: DeviceSettings) -> Result<Box<dyn Loader>, DeviceError> {
    cpu_loader(file, settings)
}

/// A loader on the device of `adapter` if its kernels compute the model, and give the processor's results on its first
/// and last layers. Else one on the processor, whose record has the reason.
///
/// # Errors
/// [`DeviceError::Model`] if the processor does not compute it either.
pub fn adapter_or_processor<A: Adapter + 'static>(
    adapter: Result<A, GpuError>,
    file: ModelFile,
    settings: DeviceSettings,
) -> Result<Box<dyn Loader>, DeviceError> {
    match compared(adapter, &file, settings) {
        Ok(loader) => Ok(Box::new(loader)),
        Err(reason) => {
            let reason = format!("the GPU is left: {reason}");
            tracing::warn!("the processor computes: {reason}");
            Ok(Box::new(Reasoned::new(cpu_loader(file, settings)?, reason)))
        }
    }
}

fn compared<A: Adapter + 'static>(
    adapter: Result<A, GpuError>,
    file: &ModelFile,
    settings: DeviceSettings,
) -> Result<GpuLoader<A>, String> {
    if !settings.has_weights {
        return Err("its kernels cannot be compared before layers are fetched; --device names it".to_owned());
    }
    let adapter = adapter.map_err(|error| chain(&error))?;
    let loader = GpuLoader::new(file.clone(), adapter, settings.threads.get(), settings.budget_bytes);
    let loader = loader.map_err(|error| chain(&error))?;
    loader.compare().map_err(|error| chain(&error))?;
    Ok(loader)
}

fn gpu_loader(kind: DeviceKind, file: ModelFile, settings: DeviceSettings) -> Result<Box<dyn Loader>, DeviceError> {
    match kind {
        #[cfg(target_os = "linux")]
        DeviceKind::Cuda => supported(kind, crate::gpu::CudaAdapter::new()?, file, settings),
        #[cfg(all(feature = "metal", target_os = "macos"))]
        DeviceKind::Metal => supported(kind, crate::gpu::MetalAdapter::new()?, file, settings),
        _ => Err(crate::NotBuilt::new(kind).into()),
    }
}

/// A loader with our own kernels where they compute the model, else with candle where it is built in.
#[cfg_attr(
    not(any(target_os = "linux", all(feature = "metal", target_os = "macos"))),
    expect(dead_code, reason = "this system has no GPU that this program could use")
)]
fn supported<A: Adapter + 'static>(
    kind: DeviceKind,
    adapter: A,
    file: ModelFile,
    settings: DeviceSettings,
) -> Result<Box<dyn Loader>, DeviceError> {
    match GpuLoader::new(file.clone(), adapter, settings.threads.get(), settings.budget_bytes) {
        Ok(loader) => Ok(Box::new(loader)),
        Err(refused) => candle_loader(kind, file, settings, refused),
    }
}

/// A loader with candle, for a model that our own kernels refused.
#[cfg(any(feature = "cuda", all(feature = "metal", target_os = "macos")))]
fn candle_loader(
    kind: DeviceKind,
    file: ModelFile,
    settings: DeviceSettings,
    refused: UnsupportedModel,
) -> Result<Box<dyn Loader>, DeviceError> {
    let hardware = Hardware::open(kind)?;
    let loader = CandleLoader::new(file, hardware, settings.threads.get(), settings.budget_bytes)?;
    let reason = format!("candle computes, as our own kernels do not: {}", chain(&refused));
    tracing::warn!(reason, "candle computes");
    Ok(Box::new(Reasoned::new(Box::new(loader), reason)))
}

/// Refuses it: candle is not built in.
#[cfg(not(any(feature = "cuda", all(feature = "metal", target_os = "macos"))))]
fn candle_loader(
    _: DeviceKind,
    _: ModelFile,
    _: DeviceSettings,
    refused: UnsupportedModel,
) -> Result<Box<dyn Loader>, DeviceError> {
    Err(refused.into())
}

/// Bytes per second that the machine's GPU of `kind` reads. `None` if there is none, or that cannot be measured.
pub(crate) fn read_rate(kind: DeviceKind) -> Option<u64> {
    match kind {
        #[cfg(target_os = "linux")]
        DeviceKind::Cuda => crate::gpu::read_rate(&crate::gpu::CudaAdapter::new().ok()?).ok(),
        #[cfg(all(feature = "metal", target_os = "macos"))]
        DeviceKind::Metal => crate::gpu::read_rate(&crate::gpu::MetalAdapter::new().ok()?).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_in_lower_case_and_others_are_listed() {
        assert_eq!(parse("metal").unwrap(), DeviceChoice::Metal);
        let error = parse("GPU").unwrap_err().to_string();
        assert_eq!(error, "device \"GPU\" is not known: expected one of auto, cpu, metal, cuda, sim");
    }
}
