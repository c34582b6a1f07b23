//! The driver, loaded at run time: its first GPU's context, and streams of it.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::result::{DriverError, ctx, device, event, primary_ctx, stream};
use cudarc::driver::{result, sys};

use super::unavailable;
use crate::gpu::device::{DeviceMemory, GpuError};

/// The GPU's context, which every use of the driver needs bound to its thread.
#[derive(Debug)]
pub(super) struct Context {
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// The GPU's name.
    pub(super) chip: String,
    /// Its architecture in the compiler's options, such as `sm_90`.
    pub(super) architecture: String,
    /// The reason why a transfer failed.
    fault: Mutex<Option<String>>,
}

/// A stream of launches and copies, which run one after the other.
#[derive(Debug)]
pub(super) struct Stream {
    context: Arc<Context>,
    stream: sys::CUstream,
    done: sys::CUevent,
}

// === impl Context ===

impl Context {
    /// The context of the machine's first GPU.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`] if there is no driver, no NVRTC or no GPU.
    pub(super) fn new() -> Result<Self, GpuError> {
        check_libraries()?;
        let fault = |error| unavailable(text(error));
        result::init().map_err(fault)?;
        let device = device::get(0).map_err(fault)?;
        let chip = device::get_name(device).map_err(fault)?;
        let [major, minor] = [
            sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        ]
        // SAFETY: the driver gave the device.
        .map(|attribute| unsafe { device::get_attribute(device, attribute) });
        let architecture = format!("sm_{}{}", major.map_err(fault)?, minor.map_err(fault)?);
        // SAFETY: as above.
        let context = unsafe { primary_ctx::retain(device) }.map_err(fault)?;
        let context = Self { device, context, chip, architecture, fault: Mutex::default() };
        context.bind()?;
        Ok(context)
    }

    /// Binds it to this thread.
    pub(super) fn bind(&self) -> Result<(), GpuError> {
        // SAFETY: the context is retained as long as `self`.
        unsafe { ctx::set_current(self.context) }.map_err(|error| unavailable(text(error)))
    }

    /// Its memory. Nothing, if the driver does not answer.
    pub(super) fn memory(&self) -> DeviceMemory {
        let (available, total) = self.bind().ok().and_then(|()| result::mem_get_info().ok()).unwrap_or_default();
        DeviceMemory { total_bytes: total as u64, available_bytes: available as u64 }
    }

    /// Notes the reason why a transfer failed, of which [`Self::take_fault`] tells.
    pub(super) fn note_fault(&self, cause: String) {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
    }

    pub(super) fn take_fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once. What is left of it ends with the process.
        let _ = unsafe { primary_ctx::release(self.device) };
    }
}

// SAFETY: the driver's contexts may be bound to any thread, to several at once.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// True if the machine has NVIDIA's driver.
pub fn has_driver() -> bool {
    #[cfg(not(feature = "cuda"))]
    // SAFETY: the library's initialisers are the driver's own.
    let found = unsafe { sys::is_culib_present() };
    #[cfg(feature = "cuda")]
    let found = true;
    found
}

/// Refuses a machine without the libraries: their bindings panic where a library is missing.
#[cfg(not(feature = "cuda"))]
fn check_libraries() -> Result<(), GpuError> {
    if !has_driver() {
        return Err(unavailable("NVIDIA's driver (libcuda) is not installed"));
    }
    // SAFETY: the library's initialisers are the compiler's own.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return Err(unavailable("NVIDIA's run-time compiler (libnvrtc) is not installed"));
    }
    Ok(())
}

/// A program that is linked with the libraries does not start without them.
#[cfg(feature = "cuda")]
fn check_libraries() -> Result<(), GpuError> {
    Ok(())
}

// === impl Stream ===

impl Stream {
    /// A stream that runs in order with the driver's own copies, too.
    pub(super) fn new(context: &Arc<Context>) -> Result<Self, GpuError> {
        context.bind()?;
        let fault = |error| unavailable(text(error));
        let done = event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(fault)?;
        let stream = stream::create(stream::StreamKind::Default).map_err(fault)?;
        Ok(Self { context: Arc::clone(context), stream, done })
    }

    pub(super) fn handle(&self) -> sys::CUstream {
        self.stream
    }

    /// Marks the end of what the stream was given, for [`Self::is_done`].
    pub(super) fn record(&self) -> Result<(), GpuError> {
        // SAFETY: both live as long as `self`.
        unsafe { event::record(self.done, self.stream) }.map_err(|error| unavailable(text(error)))
    }

    /// True if what came before the mark has run.
    pub(super) fn is_done(&self) -> Result<bool, GpuError> {
        // SAFETY: as above.
        match unsafe { event::query(self.done) } {
            Ok(()) => Ok(true),
            Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            Err(error) => Err(unavailable(format!("a step failed: {}", text(error)))),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: both were created here, and are not used again.
            let _ = unsafe { (event::destroy(self.done), stream::destroy(self.stream)) };
        }
    }
}

/// The driver's name and text of an error.
pub(super) fn text(error: DriverError) -> String {
    match error.error_string() {
        Ok(text) => format!("{} ({:?})", text.to_string_lossy(), error.0),
        Err(_) => format!("{:?}", error.0),
    }
}
