//! Our own kernels for GPUs, from one source (`kernels/`), and the runner that launches them.
//!
//! The kernels are written in what Metal's C++ and CUDA's C++ have in common; a dialect (`kernels/dialect`) names the
//! rest. So far they have run under `simulator` alone: clang compiles them for the processor, where each thread is a
//! fiber (`etc/check-msl`). `device` gives stages an adapter, or `accelerator`.
//!
//! An output is the same sum in the same order for every number of rows, so a row's bits depend on its own history
//! alone, as on the processor. Weights are read in place, from the mapped pages.

mod bounds;
mod choice_rule;
mod comparison;
#[cfg(target_os = "linux")]
mod cuda;
mod device;
mod inputs;
mod kernel;
mod kv;
mod launch;
mod layer;
pub mod limits;
mod loader;
#[cfg(all(feature = "metal", target_os = "macos"))]
mod metal;
mod read_rate;
mod recorder;
mod runner;
mod scratch;
mod sim;
mod source;
mod speed;
mod support;
mod weights;

#[cfg(target_os = "linux")]
pub use cuda::{CudaAdapter, CudaBuffer, CudaGpu, has_driver as has_cuda_driver};
pub use device::{Adapter, DeviceBuffer, DeviceMemory, Gpu, GpuError, PagesView, view_ranges};
pub use kernel::{Kernel, RowsAtOnce};
pub use launch::{Launch, View};
pub use loader::GpuLoader;
#[cfg(all(feature = "metal", target_os = "macos"))]
pub use metal::{MetalAdapter, MetalBuffer, MetalGpu};
pub use read_rate::read_rate;
pub use recorder::{Recorder, Records};
pub use runner::GpuRunner;
pub use sim::{SimAdapter, SimBuffer, SimGpu};
pub use support::check;
