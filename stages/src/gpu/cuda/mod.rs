//! NVIDIA's GPUs, through the driver and NVRTC. Both are loaded when they are asked for: a program that was built
//! without CUDA's toolkit uses them where they are installed.
//!
//! Launches go to one stream. Graphs are not used: a step's launches are encoded in less time than they take to run.

mod compiler;
mod context;
mod memory;

use std::ffi::c_void;
use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::{result, sys};
use schema::record::DeviceKind;

use super::device::{Adapter, DeviceMemory, Gpu, GpuError, PagesView};
use super::kernel::Kernel;
use super::launch::{Launch, View};
use super::limits::{CUDA_POLL_PERIOD, CUDA_SPINS_MAX, FINISH_TIMEOUT, KERNEL_BUFFERS_MAX};
use crate::format::Format;
use crate::weights::Mapping;
use compiler::Module;
pub use context::has_driver;
use context::{Context, Stream};
pub use memory::CudaBuffer;

/// The machine's first NVIDIA GPU.
#[derive(Debug)]
pub struct CudaAdapter {
    context: Arc<Context>,
}

/// It as one runner uses it.
#[derive(Debug)]
pub struct CudaGpu {
    context: Arc<Context>,
    stream: Stream,
    /// Compiled sources: of the kernels of one format, or of those without weights.
    modules: Vec<(Option<Format>, Module)>,
    functions: Vec<(Kernel, sys::CUfunction)>,
    /// True if launches were encoded since the last `finish`.
    busy: bool,
}

// === impl CudaAdapter ===

impl CudaAdapter {
    /// The machine's first GPU, after the kernels without weights were compiled for it.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`] if there is no driver, no NVRTC or no GPU, or the compiler refuses the kernels.
    pub fn new() -> Result<Self, GpuError> {
        let adapter = Self { context: Arc::new(Context::new()?) };
        adapter.open()?.function(Kernel::RmsNorm)?;
        Ok(adapter)
    }
}

impl Adapter for CudaAdapter {
    type Gpu = CudaGpu;

    fn open(&self) -> Result<CudaGpu, GpuError> {
        let context = Arc::clone(&self.context);
        let stream = Stream::new(&context)?;
        Ok(CudaGpu { context, stream, modules: Vec::new(), functions: Vec::new(), busy: false })
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Cuda
    }

    fn chip(&self) -> String {
        self.context.chip.clone()
    }

    fn memory(&self) -> DeviceMemory {
        self.context.memory()
    }
}

// === impl CudaGpu ===

impl CudaGpu {
    /// The compiled kernel.
    fn function(&mut self, kernel: Kernel) -> Result<sys::CUfunction, GpuError> {
        if let Some((_, function)) = self.functions.iter().find(|(of, _)| *of == kernel) {
            return Ok(*function);
        }
        let name = kernel.name().ok_or_else(|| failed(kernel, "the source has no such kernel"))?;
        let format = kernel.format();
        if !self.modules.iter().any(|(of, _)| *of == format) {
            let module = Module::compile(&self.context, format).map_err(|fault| failed(kernel, fault))?;
            self.modules.push((format, module));
        }
        let module = self.modules.iter().find(|(of, _)| *of == format);
        let (_, module) = module.ok_or_else(|| failed(kernel, "the source has no such kernel"))?;
        let function = module.function(&name).map_err(|fault| failed(kernel, fault))?;
        self.functions.push((kernel, function));
        Ok(function)
    }

    /// Waits until the stream has run what it was given. Bounded, unlike the driver's own wait.
    fn wait(&self) -> Result<(), GpuError> {
        self.stream.record()?;
        let started = Instant::now();
        for turn in 0_u64.. {
            if self.stream.is_done()? {
                break;
            }
            if started.elapsed() > FINISH_TIMEOUT {
                return Err(unavailable(format!("it has not finished a step within {FINISH_TIMEOUT:?}")));
            }
            if turn < CUDA_SPINS_MAX {
                std::thread::yield_now();
            } else {
                std::thread::sleep(CUDA_POLL_PERIOD);
            }
        }
        Ok(())
    }
}

impl Gpu for CudaGpu {
    type Buffer = CudaBuffer;

    fn map(&mut self, pages: &Arc<Mapping>) -> Result<Vec<PagesView<CudaBuffer>>, GpuError> {
        let bytes = pages.bytes();
        let buffer = CudaBuffer::new(&self.context, bytes.len())?;
        memory::copy_staged(&self.context, &self.stream, bytes, &buffer, || self.wait())?;
        Ok(PagesView::whole(pages, buffer))
    }

    fn allocate(&mut self, bytes: usize) -> Result<CudaBuffer, GpuError> {
        let buffer = CudaBuffer::new(&self.context, bytes)?;
        buffer.clear()?;
        Ok(buffer)
    }

    fn encode(&mut self, launch: &Launch<'_, CudaBuffer>) -> Result<(), GpuError> {
        let kernel = launch.kernel;
        self.context.bind()?;
        let function = self.function(kernel)?;
        let count = launch.inputs.len() + launch.outputs.len();
        if count > KERNEL_BUFFERS_MAX {
            return Err(failed(kernel, format!("{count} buffers: expected at most {KERNEL_BUFFERS_MAX}")));
        }
        let mut addresses = [0; KERNEL_BUFFERS_MAX];
        for (place, view) in addresses.iter_mut().zip(launch.inputs.iter().chain(launch.outputs)) {
            *place = address(*view).ok_or_else(|| failed(kernel, format!("a buffer from byte {} on", view.offset)))?;
        }
        let mut arguments = [std::ptr::null_mut::<c_void>(); KERNEL_BUFFERS_MAX + 1];
        for (argument, place) in arguments.iter_mut().zip(&mut addresses[..count]) {
            *argument = std::ptr::from_mut(place).cast();
        }
        arguments[count] = launch.sizes.as_ptr().cast_mut().cast();
        let [x, y, z] = launch.groups;
        // SAFETY: the function is of a module that is loaded as long as `self`. It takes so many addresses, each in a
        // buffer that lives until `finish`, and a structure of these sizes; the driver copies all before it returns.
        let launched = unsafe {
            let (threads, stream) = ((kernel.threads(), 1, 1), self.stream.handle());
            result::launch_kernel(function, (x, y, z), threads, 0, stream, &mut arguments[..=count])
        };
        self.busy = true;
        launched.map_err(|error| failed(kernel, context::text(error)))
    }

    fn finish(&mut self) -> Result<(), GpuError> {
        if !std::mem::take(&mut self.busy) {
            return Ok(());
        }
        self.context.bind()?;
        self.wait()
    }

    fn check_transfers(&mut self) -> Result<(), GpuError> {
        self.context.take_fault().map_or(Ok(()), |cause| Err(unavailable(cause)))
    }
}

impl Drop for CudaGpu {
    fn drop(&mut self) {
        // Modules and buffers are freed with it: nothing may still run.
        let _ = self.finish();
    }
}

// SAFETY: the driver's handles may be used from any thread that has bound the context, which every method does.
unsafe impl Send for CudaGpu {}

/// The address of a view. `None` if it begins past the buffer's end.
fn address(view: View<'_, CudaBuffer>) -> Option<sys::CUdeviceptr> {
    (view.offset < view.buffer.bytes()).then(|| view.buffer.address() + view.offset as u64)
}

fn unavailable(cause: impl Into<String>) -> GpuError {
    GpuError::Unavailable { device: "cuda", cause: cause.into() }
}

#[expect(clippy::needless_pass_by_value, reason = "texts and errors are given alike")]
fn failed(kernel: Kernel, fault: impl ToString) -> GpuError {
    GpuError::Kernel { kernel: kernel.name().unwrap_or_else(|| format!("{kernel:?}")), fault: fault.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_driver_or_compiler_is_refused_by_what_it_lacks() {
        // On a machine that has both, the kernels without weights compile.
        if let Err(error) = CudaAdapter::new() {
            let error = error.to_string();
            assert!(error.starts_with("cannot use the device cuda: "), "{error}");
            assert!(["libcuda", "libnvrtc", "CUDA_ERROR"].iter().any(|named| error.contains(named)), "{error}");
        }
    }
}
