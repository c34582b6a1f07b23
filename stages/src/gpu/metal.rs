//! Apple's GPUs, through candle's bindings to Metal. Weights are used in the mapped pages, and the kernels are compiled
//! when the first of them is needed.
//!
//! A step is one command buffer with one encoder, which runs its dispatches one after the other.

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_metal_kernels::metal::{Buffer, CommandBuffer, ComputePipeline, Device, Library};
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::{
    MTLCommandBuffer as _, MTLCommandBufferStatus, MTLCommandEncoder as _, MTLCommandQueue, MTLCompileOptions,
    MTLComputeCommandEncoder, MTLComputePipelineState as _, MTLDevice as _, MTLResourceOptions, MTLSharedEvent,
    MTLSize,
};
use schema::record::DeviceKind;

use super::device::{Adapter, DeviceBuffer, DeviceMemory, Gpu, GpuError, PagesView, view_ranges};
use super::kernel::Kernel;
use super::launch::{Launch, View};
use super::limits::{FINISH_TIMEOUT, STATUS_PERIOD};
use super::source::Dialect;
use crate::format::Format;
use crate::memory;
use crate::weights::Mapping;

/// Lanes of a simdgroup in the kernels' source.
const LANES: usize = 32;

/// The Mac's GPU.
#[derive(Debug)]
pub struct MetalAdapter {
    device: Device,
}

/// It as one runner uses it.
#[derive(Debug)]
pub struct MetalGpu {
    device: Device,
    queue: Retained<ProtocolObject<dyn MTLCommandQueue>>,
    /// Its value is the number of submissions that have run.
    done: Retained<ProtocolObject<dyn MTLSharedEvent>>,
    submissions: u64,
    /// Compiled sources: of the kernels of one format, or of those without weights.
    libraries: Vec<(Option<Format>, Library)>,
    pipelines: Vec<(Kernel, ComputePipeline)>,
    encoding: Option<Encoding>,
}

/// The launches that were encoded and not submitted.
#[derive(Debug)]
struct Encoding {
    commands: CommandBuffer,
    encoder: Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>,
}

/// Memory that the GPU shares with the host.
#[derive(Debug, Clone)]
pub struct MetalBuffer {
    buffer: Buffer,
    /// The pages that it holds. They must stay mapped as long as Metal has the buffer.
    pages: Option<Arc<Mapping>>,
}

// === impl MetalAdapter ===

impl MetalAdapter {
    /// The Mac's GPU, after the kernels without weights were compiled for it.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`] if the system has none, or its compiler refuses the kernels.
    pub fn new() -> Result<Self, GpuError> {
        let device = Device::system_default().ok_or_else(|| unavailable("the system has no such device"))?;
        let adapter = Self { device };
        adapter.open()?.pipeline(Kernel::RmsNorm)?;
        Ok(adapter)
    }
}

impl Adapter for MetalAdapter {
    type Gpu = MetalGpu;

    fn open(&self) -> Result<MetalGpu, GpuError> {
        let queue = self.device.new_command_queue().map_err(|error| unavailable(error.to_string()))?;
        let done = self.device.as_ref().newSharedEvent().ok_or_else(|| unavailable("it has no shared events"))?;
        Ok(MetalGpu {
            device: self.device.clone(),
            queue,
            done,
            submissions: 0,
            libraries: Vec::new(),
            pipelines: Vec::new(),
            encoding: None,
        })
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Metal
    }

    /// The processor's name: on a Mac, it and the GPU are one chip.
    fn chip(&self) -> String {
        memory::machine().chip
    }

    fn memory(&self) -> DeviceMemory {
        let total_bytes = self.device.recommended_max_working_set_size() as u64;
        let available_bytes = total_bytes.saturating_sub(self.device.current_allocated_size() as u64);
        DeviceMemory { total_bytes, available_bytes }
    }
}

// === impl MetalGpu ===

impl MetalGpu {
    /// The compiled kernel.
    fn pipeline(&mut self, kernel: Kernel) -> Result<ComputePipeline, GpuError> {
        if let Some((_, pipeline)) = self.pipelines.iter().find(|(of, _)| *of == kernel) {
            return Ok(pipeline.clone());
        }
        let name = kernel.name().ok_or_else(|| failed(kernel, "the source has no such kernel"))?;
        let library = self.library(kernel)?;
        let function = library.get_function(&name, None).map_err(|error| failed(kernel, error))?;
        let pipeline = self.device.new_compute_pipeline_state_with_function(&function);
        let pipeline = pipeline.map_err(|error| failed(kernel, error))?;
        let (lanes, threads) = (pipeline.as_ref().threadExecutionWidth(), pipeline.max_total_threads_per_threadgroup());
        if lanes != LANES || threads < kernel.threads() as usize {
            let fault = format!(
                "runs with groups of up to {threads} threads, {lanes} in a simdgroup: expected {} and {LANES}",
                kernel.threads()
            );
            return Err(failed(kernel, fault));
        }
        self.pipelines.push((kernel, pipeline.clone()));
        Ok(pipeline)
    }

    /// The compiled source that has the kernel.
    fn library(&mut self, kernel: Kernel) -> Result<Library, GpuError> {
        let format = kernel.format();
        if let Some((_, library)) = self.libraries.iter().find(|(of, _)| *of == format) {
            return Ok(library.clone());
        }
        let options = MTLCompileOptions::new();
        // `setMathMode` says the same to newer systems alone.
        #[allow(deprecated, reason = "older systems know no other way")]
        options.setFastMathEnabled(false);
        let library = self.device.new_library_with_source(&Dialect::Metal.source(format), Some(&options));
        let library = library.map_err(|error| failed(kernel, error))?;
        self.libraries.push((format, library.clone()));
        Ok(library)
    }

    /// The encoder of the launches of this submission.
    fn encoder(&mut self) -> Result<&ProtocolObject<dyn MTLComputeCommandEncoder>, GpuError> {
        if self.encoding.is_none() {
            let commands = self.queue.commandBuffer().ok_or_else(|| unavailable("it gives no command buffer"))?;
            let encoder = commands.computeCommandEncoder().ok_or_else(|| unavailable("it gives no encoder"))?;
            self.encoding = Some(Encoding { commands: CommandBuffer::new(commands), encoder });
        }
        match &self.encoding {
            Some(encoding) => Ok(&encoding.encoder),
            None => Err(unavailable("it gives no encoder")),
        }
    }

    /// A buffer of the pages at `range`, counted from the start of the first of them.
    fn view(&self, pages: &Arc<Mapping>, range: &Range<usize>) -> Result<PagesView<MetalBuffer>, GpuError> {
        let start = pages.addresses().start;
        let before = pages.bytes().as_ptr() as usize - start;
        let pointer = NonNull::new((start + range.start) as *mut c_void);
        let refused = || unavailable(format!("it takes no buffer over {} mapped bytes", range.len()));
        // SAFETY: whole pages that are mapped; the buffer keeps them mapped, and kernels only read them. Without a
        // deallocator, Metal leaves them alone.
        let buffer = pointer.and_then(|pointer| unsafe {
            self.device.as_ref().newBufferWithBytesNoCopy_length_options_deallocator(
                pointer,
                range.len(),
                MTLResourceOptions::StorageModeShared,
                None,
            )
        });
        let buffer = buffer.map(Buffer::new).ok_or_else(refused)?;
        let last = before + pages.bytes().len();
        Ok(PagesView {
            bytes: range.start.max(before) - before..range.end.min(last) - before,
            buffer: MetalBuffer { buffer, pages: Some(Arc::clone(pages)) },
            offset: range.start.max(before) - range.start,
        })
    }
}

impl Gpu for MetalGpu {
    type Buffer = MetalBuffer;

    fn scoped<T>(step: impl FnOnce() -> T) -> T {
        objc2::rc::autoreleasepool(|_| step())
    }

    fn map(&mut self, pages: &Arc<Mapping>) -> Result<Vec<PagesView<MetalBuffer>>, GpuError> {
        let bytes_max = self.device.as_ref().maxBufferLength();
        let ranges = view_ranges(pages.addresses().len(), bytes_max, crate::weights::page_bytes());
        ranges.iter().map(|range| self.view(pages, range)).collect()
    }

    fn allocate(&mut self, bytes: usize) -> Result<MetalBuffer, GpuError> {
        let buffer = self.device.new_buffer(bytes.max(1), MTLResourceOptions::StorageModeShared);
        let buffer = buffer.map_err(|_| GpuError::Memory { bytes })?;
        // SAFETY: the buffer has these bytes, and nobody else has it yet.
        unsafe { buffer.contents().write_bytes(0, buffer.length()) };
        Ok(MetalBuffer { buffer, pages: None })
    }

    fn encode(&mut self, launch: &Launch<'_, MetalBuffer>) -> Result<(), GpuError> {
        let kernel = launch.kernel;
        let pipeline = self.pipeline(kernel)?;
        let views = || launch.inputs.iter().chain(launch.outputs);
        if let Some(View { offset, .. }) = views().find(|view| view.offset >= view.buffer.buffer.length()) {
            return Err(failed(kernel, format!("a buffer from byte {offset} on, which is past its end")));
        }
        let encoder = self.encoder()?;
        encoder.setComputePipelineState(pipeline.as_ref());
        for (index, view) in views().enumerate() {
            // SAFETY: the offset is inside the buffer, and the source has a buffer of this index.
            unsafe { encoder.setBuffer_offset_atIndex(Some(view.buffer.buffer.as_ref()), view.offset, index) };
        }
        let sizes = NonNull::from(launch.sizes).cast();
        // SAFETY: Metal copies the bytes, which live until the call returns.
        unsafe { encoder.setBytes_length_atIndex(sizes, size_of_val(launch.sizes), views().count()) };
        let [width, height, depth] = launch.groups.map(|groups| groups as usize);
        encoder.dispatchThreadgroups_threadsPerThreadgroup(
            MTLSize { width, height, depth },
            MTLSize { width: kernel.threads() as usize, height: 1, depth: 1 },
        );
        Ok(())
    }

    fn finish(&mut self) -> Result<(), GpuError> {
        let Some(Encoding { commands, encoder }) = self.encoding.take() else { return Ok(()) };
        self.submissions += 1;
        encoder.endEncoding();
        commands.as_ref().encodeSignalEvent_value(ProtocolObject::from_ref(&*self.done), self.submissions);
        commands.commit();
        let started = Instant::now();
        // The event's wait is bounded, and a failed submission may not signal it: so its status is asked, too.
        while !self.done.waitUntilSignaledValue_timeoutMS(self.submissions, STATUS_PERIOD.as_millis() as u64) {
            check_status(&commands)?;
            if started.elapsed() > FINISH_TIMEOUT {
                let waited = Duration::from_secs(started.elapsed().as_secs());
                return Err(unavailable(format!("it has not finished a step within {waited:?}")));
            }
        }
        check_status(&commands)
    }
}

impl Drop for MetalGpu {
    fn drop(&mut self) {
        // Metal aborts the process if an encoder is dropped before it has ended.
        if let Some(Encoding { encoder, .. }) = self.encoding.take() {
            encoder.endEncoding();
        }
    }
}

// SAFETY: Metal's devices, queues, libraries and pipelines may be used from any thread; the encoder and its command
// buffer from one at a time, which `&mut self` ensures.
unsafe impl Send for MetalGpu {}

/// The reason of a submission that failed: the device was lost, memory is short, or a kernel faulted.
fn check_status(commands: &CommandBuffer) -> Result<(), GpuError> {
    if commands.status() != MTLCommandBufferStatus::Error {
        return Ok(());
    }
    let cause = commands.error().map_or_else(|| "no reason given".to_owned(), |error| error.into_owned());
    Err(unavailable(format!("a step failed: {cause}")))
}

fn unavailable(cause: impl Into<String>) -> GpuError {
    GpuError::Unavailable { device: "metal", cause: cause.into() }
}

fn failed(kernel: Kernel, fault: impl ToString) -> GpuError {
    GpuError::Kernel { kernel: kernel.name().unwrap_or_else(|| format!("{kernel:?}")), fault: fault.to_string() }
}

// === impl MetalBuffer ===

impl DeviceBuffer for MetalBuffer {
    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(self.pages.is_none(), "mapped pages are not written");
        assert!(offset + bytes.len() <= self.buffer.length(), "{} bytes at {offset}", bytes.len());
        // SAFETY: the bytes are inside, and no launch that uses them runs: `Gpu`'s fourth clause.
        unsafe { self.buffer.contents().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= self.buffer.length(), "{} bytes at {offset}", into.len());
        // SAFETY: as in `write`.
        unsafe { self.buffer.contents().add(offset).copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
    }
}
