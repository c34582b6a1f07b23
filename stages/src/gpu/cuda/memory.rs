//! Memory of the GPU, and the copy of weights to it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use tracing::info;

use super::context::{Context, Stream, text};
use super::unavailable;
use crate::gpu::device::{DeviceBuffer, GpuError};
use crate::gpu::limits::{PROGRESS_PERIOD, STAGING_BYTES};

/// Memory of the GPU.
#[derive(Debug, Clone)]
pub struct CudaBuffer {
    own: Arc<Own>,
}

#[derive(Debug)]
struct Own {
    context: Arc<Context>,
    address: sys::CUdeviceptr,
    bytes: usize,
}

/// Memory of the host that the GPU copies from by itself.
struct Pinned {
    context: Arc<Context>,
    start: *mut u8,
    bytes: usize,
}

/// Copies `bytes` to `to`, through pinned memory: half of it is filled while the GPU copies the other half. `wait`
/// returns when the stream has run what it was given.
///
/// # Errors
/// [`GpuError`] if the host has no memory to pin, or the driver fails.
pub(super) fn copy_staged(
    context: &Arc<Context>,
    stream: &Stream,
    bytes: &[u8],
    to: &CudaBuffer,
    wait: impl Fn() -> Result<(), GpuError>,
) -> Result<(), GpuError> {
    context.bind()?;
    let mut staging = [Pinned::new(context)?, Pinned::new(context)?];
    let (started, mut told) = (Instant::now(), Instant::now());
    for (index, part) in bytes.chunks(STAGING_BYTES).enumerate() {
        let pinned = &mut staging[index % 2];
        pinned.fill(part);
        // The copy before this one, from the other half, has ended then. This half is filled again after the next wait.
        wait()?;
        let offset = index * STAGING_BYTES;
        // SAFETY: the part is inside the buffer, and stays as it is until the stream has copied it.
        let copied = unsafe {
            result::memcpy_htod_async(to.address() + offset as u64, pinned.bytes(0..part.len()), stream.handle())
        };
        copied.map_err(|error| unavailable(text(error)))?;
        if told.elapsed() > PROGRESS_PERIOD {
            told = Instant::now();
            info!(copied_bytes = offset + part.len(), bytes = bytes.len(), "weights are copied to the device");
        }
    }
    wait()?;
    info!(bytes = bytes.len(), seconds = started.elapsed().as_secs_f32(), "weights were copied to the device");
    Ok(())
}

// === impl CudaBuffer ===

impl CudaBuffer {
    pub(super) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, GpuError> {
        context.bind()?;
        // SAFETY: the context is bound.
        let address = unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|error| match error {
            DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY) => GpuError::Memory { bytes },
            other => unavailable(text(other)),
        })?;
        Ok(Self { own: Arc::new(Own { context: Arc::clone(context), address, bytes: bytes.max(1) }) })
    }

    pub(super) fn address(&self) -> sys::CUdeviceptr {
        self.own.address
    }

    pub(super) fn bytes(&self) -> usize {
        self.own.bytes
    }

    /// Fills it with zeros.
    pub(super) fn clear(&self) -> Result<(), GpuError> {
        let Own { context, address, bytes } = &*self.own;
        context.bind()?;
        // SAFETY: the buffer has these bytes.
        unsafe { result::memset_d8_sync(*address, 0, *bytes) }.map_err(|error| unavailable(text(error)))
    }

    /// Notes a transfer that failed.
    fn note(&self, done: Result<(), GpuError>) {
        if let Err(error) = done {
            self.own.context.note_fault(error.to_string());
        }
    }
}

impl DeviceBuffer for CudaBuffer {
    fn write(&self, offset: usize, bytes: &[u8]) {
        let Own { context, address, bytes: all } = &*self.own;
        assert!(offset + bytes.len() <= *all, "{} bytes at {offset}", bytes.len());
        if bytes.is_empty() {
            return;
        }
        // SAFETY: the bytes are inside. Streams wait for the copy.
        let copy = || unsafe { result::memcpy_htod_sync(address + offset as u64, bytes) };
        self.note(context.bind().and_then(|()| copy().map_err(|error| unavailable(text(error)))));
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        let Own { context, address, bytes } = &*self.own;
        assert!(offset + into.len() <= *bytes, "{} bytes at {offset}", into.len());
        if into.is_empty() {
            return;
        }
        // SAFETY: the bytes are inside. The copy waits for streams.
        let mut copy = || unsafe { result::memcpy_dtoh_sync(into, address + offset as u64) };
        self.note(context.bind().and_then(|()| copy().map_err(|error| unavailable(text(error)))));
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: it was allocated here, and this is its only owner.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

// === impl Pinned ===

impl Pinned {
    fn new(context: &Arc<Context>) -> Result<Self, GpuError> {
        // SAFETY: the context is bound.
        let start = unsafe { result::malloc_host(STAGING_BYTES, 0) }.map_err(|error| unavailable(text(error)))?;
        Ok(Self { context: Arc::clone(context), start: start.cast(), bytes: STAGING_BYTES })
    }

    fn fill(&mut self, from: &[u8]) {
        assert!(from.len() <= self.bytes, "{} bytes", from.len());
        // SAFETY: the bytes are inside, and nothing copies from them: `copy_staged` has waited.
        unsafe { self.start.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
    }

    fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.end <= self.bytes, "{range:?}");
        // SAFETY: the bytes are inside, and were written by `fill`.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: it was allocated here, and is not used again.
            let _ = unsafe { result::free_host(self.start.cast()) };
        }
    }
}
