//! The kernels on Metal, through candle's bindings. Compiled on the Mac when the device is opened, without fast math.
//! Weights are the mapped pages themselves. Type-checked by `etc/check-metal`; it has never run.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use candle_metal_kernels::metal::{
    Buffer, CommandBuffer, CommandQueue, ComputeCommandEncoder, ComputePipeline, Device, Library,
};
use objc2::available;
use objc2::rc::autoreleasepool;
use objc2_metal::{
    MTLCommandBufferStatus, MTLCommandQueue, MTLCompileOptions, MTLDevice, MTLMathFloatingPointFunctions, MTLMathMode,
    MTLResourceOptions, MTLSize,
};

use super::device::{DeviceBuffer, Gpu, GpuError};
use super::launch::Launch;
use super::source;
use crate::weights::Mapping;

/// Pages of Apple's processors. A buffer over mapped memory has whole ones.
const PAGE_BYTES: usize = 16 * 1024;

/// A Metal device with the compiled kernels.
pub struct MetalGpu {
    device: Device,
    queue: CommandQueue,
    library: Library,
    /// Kernels that were launched before, by name.
    pipelines: HashMap<String, ComputePipeline>,
    /// The command buffer that launches are encoded to, until it is submitted.
    commands: Option<(CommandBuffer, ComputeCommandEncoder)>,
}

/// Memory that the processor and the GPU share.
#[derive(Clone)]
pub struct MetalBuffer {
    buffer: Buffer,
    /// The pages under it, if it is mapped.
    pages: Option<Arc<Mapping>>,
}

// === impl MetalGpu ===

impl MetalGpu {
    /// The machine's GPU.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`] if there is none, or it does not compile the kernels.
    pub fn open() -> Result<Self, GpuError> {
        autoreleasepool(|_| {
            let device = Device::system_default().ok_or_else(|| unavailable("this machine has no such device"))?;
            let options = compile_options();
            let library = device.new_library_with_source(&source::metal(), Some(&options)).map_err(unavailable)?;
            let queue = device.new_command_queue().map_err(unavailable)?;
            Ok(Self { device, queue, library, pipelines: HashMap::new(), commands: None })
        })
    }

    fn pipeline(&mut self, name: String) -> Result<ComputePipeline, GpuError> {
        if let Some(pipeline) = self.pipelines.get(&name) {
            return Ok(pipeline.clone());
        }
        let failed = |error: candle_metal_kernels::MetalKernelError| kernel_error(&name, error);
        let function = self.library.get_function(&name, None).map_err(failed)?;
        let pipeline = self.device.new_compute_pipeline_state_with_function(&function).map_err(failed)?;
        self.pipelines.insert(name, pipeline.clone());
        Ok(pipeline)
    }

    /// The encoder of the launches that are not submitted yet.
    fn encoder(&mut self) -> Result<&ComputeCommandEncoder, GpuError> {
        if self.commands.is_none() {
            let buffer = self.queue.commandBuffer().map(CommandBuffer::new);
            let buffer = buffer.ok_or_else(|| unavailable("it has no room for a command buffer"))?;
            let encoder = buffer.compute_command_encoder_no_fence();
            self.commands = Some((buffer, encoder));
        }
        self.commands.as_ref().map(|(_, encoder)| encoder).ok_or_else(|| unavailable("it has no encoder"))
    }
}

impl Gpu for MetalGpu {
    type Buffer = MetalBuffer;

    fn map(&mut self, pages: &Arc<Mapping>) -> Result<MetalBuffer, GpuError> {
        let bytes = pages.bytes();
        let length = bytes.len().next_multiple_of(PAGE_BYTES);
        let start = bytes.as_ptr() as usize;
        let device: &objc2::runtime::ProtocolObject<dyn MTLDevice> = self.device.as_ref();
        if start % PAGE_BYTES != 0 || length > device.maxBufferLength() {
            let cause = format!(
                "mapped weights of {length} bytes at {start:#x}: expected whole pages, at most {} bytes",
                device.maxBufferLength()
            );
            return Err(unavailable(cause));
        }
        let pointer = NonNull::from(bytes).cast::<c_void>();
        // SAFETY: the pages are mapped as long as the buffer lives, because it holds the mapping, and kernels only read
        // them. The system maps whole pages, so the last one is there in full.
        let buffer = autoreleasepool(|_| unsafe {
            let options = MTLResourceOptions::StorageModeShared;
            device.newBufferWithBytesNoCopy_length_options_deallocator(pointer, length, options, None)
        });
        let buffer = buffer.ok_or(GpuError::Memory { bytes: length })?;
        Ok(MetalBuffer { buffer: Buffer::new(buffer), pages: Some(Arc::clone(pages)) })
    }

    fn allocate(&mut self, bytes: usize) -> Result<MetalBuffer, GpuError> {
        let options = MTLResourceOptions::StorageModeShared;
        let buffer = autoreleasepool(|_| self.device.new_buffer(bytes.max(1), options));
        let buffer = MetalBuffer { buffer: buffer.map_err(|_| GpuError::Memory { bytes })?, pages: None };
        buffer.write(0, &vec![0; bytes]);
        Ok(buffer)
    }

    fn encode(&mut self, launch: &Launch<'_, MetalBuffer>) -> Result<(), GpuError> {
        autoreleasepool(|_| {
            let name = launch.kernel.name().unwrap_or_else(|| format!("{:?}", launch.kernel));
            let pipeline = self.pipeline(name)?;
            let encoder = self.encoder()?;
            encoder.set_compute_pipeline_state(&pipeline);
            for (index, view) in launch.inputs.iter().enumerate() {
                encoder.set_input_buffer(index, Some(&view.buffer.buffer), view.offset);
            }
            for (index, view) in (launch.inputs.len()..).zip(launch.outputs) {
                encoder.set_output_buffer(index, Some(&view.buffer.buffer), view.offset);
            }
            let buffers = launch.inputs.len() + launch.outputs.len();
            encoder.set_bytes_directly(buffers, size_of_val(launch.sizes), launch.sizes.as_ptr().cast());
            let [width, height, depth] = launch.groups.map(|count| count as usize);
            let threads = MTLSize { width: launch.kernel.threads() as usize, height: 1, depth: 1 };
            encoder.dispatch_thread_groups(MTLSize { width, height, depth }, threads);
            Ok(())
        })
    }

    fn finish(&mut self) -> Result<(), GpuError> {
        let Some((buffer, encoder)) = self.commands.take() else { return Ok(()) };
        autoreleasepool(|_| {
            encoder.end_encoding();
            buffer.commit();
            buffer.wait_until_completed();
            if buffer.status() == MTLCommandBufferStatus::Error {
                let cause = buffer.error().map_or_else(|| "no reason".to_owned(), |error| error.into_owned());
                return Err(kernel_error("of a submission", cause));
            }
            Ok(())
        })
    }
}

// === impl MetalBuffer ===

impl DeviceBuffer for MetalBuffer {
    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(self.pages.is_none(), "mapped pages are not written");
        assert!(offset + bytes.len() <= self.buffer.length(), "{} bytes at {offset}", bytes.len());
        // SAFETY: the bytes are inside the buffer, which the processor shares, and no launch runs that uses them: the
        // runner writes between `finish` and `encode`.
        unsafe { self.buffer.contents().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= self.buffer.length(), "{} bytes at {offset}", into.len());
        // SAFETY: as in `write`.
        unsafe { self.buffer.contents().add(offset).copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
    }
}

/// Without fast math, which would let the compiler reorder sums.
fn compile_options() -> objc2::rc::Retained<MTLCompileOptions> {
    let options = MTLCompileOptions::new();
    if available!(macos = 15) {
        options.setMathMode(MTLMathMode::Safe);
        options.setMathFloatingPointFunctions(MTLMathFloatingPointFunctions::Precise);
    } else {
        #[expect(deprecated, reason = "systems before macOS 15 have no other way")]
        options.setFastMathEnabled(false);
    }
    options
}

fn unavailable(cause: impl ToString) -> GpuError {
    GpuError::Unavailable { device: "metal", cause: cause.to_string() }
}

fn kernel_error(kernel: &str, fault: impl ToString) -> GpuError {
    GpuError::Kernel { kernel: kernel.to_owned(), fault: fault.to_string() }
}
