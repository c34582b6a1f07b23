//! Compiles the kernels by NVRTC for the GPU's own architecture, and loads them.

use std::ffi::{CString, c_char};
use std::sync::Arc;

use cudarc::driver::{result, sys as driver};
use cudarc::nvrtc::{result as nvrtc, sys};

use super::context::{Context, text};
use crate::format::Format;
use crate::gpu::source::Dialect;

/// Compiled kernels.
#[derive(Debug)]
pub(super) struct Module {
    context: Arc<Context>,
    module: driver::CUmodule,
}

/// A source while it is compiled.
struct Program {
    program: sys::nvrtcProgram,
    /// The compiler keeps its address.
    _source: CString,
}

// === impl Module ===

impl Module {
    /// Compiles the kernels of a format, or those without weights.
    ///
    /// # Errors
    /// The compiler's or the driver's words.
    pub(super) fn compile(context: &Arc<Context>, format: Option<Format>) -> Result<Self, String> {
        let image = Program::new(&Dialect::Cuda.source(format))?.compile(&context.architecture)?;
        context.bind().map_err(|error| error.to_string())?;
        // SAFETY: NVRTC made the image, whose header tells the driver its length.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(text)?;
        Ok(Self { context: Arc::clone(context), module })
    }

    /// The kernel called `name`. It can be used as long as the module.
    pub(super) fn function(&self, name: &str) -> Result<driver::CUfunction, String> {
        let name = CString::new(name).map_err(|error| error.to_string())?;
        // SAFETY: the module is loaded as long as `self`.
        unsafe { result::module::get_function(self.module, name) }.map_err(text)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: it was loaded here, and its functions are not used again.
            let _ = unsafe { result::module::unload(self.module) };
        }
    }
}

// === impl Program ===

impl Program {
    fn new(source: &str) -> Result<Self, String> {
        let source = CString::new(source).map_err(|error| error.to_string())?;
        let program = nvrtc::create_program(&source, Some(c"kernels.cu")).map_err(|error| error.to_string())?;
        Ok(Self { program, _source: source })
    }

    /// The kernels for an architecture, in the form that the driver loads. Without fused products that the source does
    /// not ask for: sums would differ from those of other devices.
    fn compile(self, architecture: &str) -> Result<Vec<c_char>, String> {
        let architecture = format!("--gpu-architecture={architecture}");
        let options = [&architecture, "--fmad=false", "--device-as-default-execution-space", "--std=c++14"];
        // SAFETY: the program was created here.
        if let Err(error) = unsafe { nvrtc::compile_program(self.program, &options) } {
            return Err(format!("NVRTC does not compile it: {error}: {}", self.first_error()));
        }
        let mut bytes = 0;
        // SAFETY: the program is compiled, and for a real architecture: it has an image.
        unsafe { sys::nvrtcGetCUBINSize(self.program, &raw mut bytes) }.result().map_err(|error| error.to_string())?;
        let mut image = vec![0; bytes];
        // SAFETY: the image has the bytes that NVRTC asked for.
        unsafe { sys::nvrtcGetCUBIN(self.program, image.as_mut_ptr()) }.result().map_err(|error| error.to_string())?;
        Ok(image)
    }

    /// The first line of the compiler's log that has an error.
    fn first_error(&self) -> String {
        // SAFETY: the program was created here.
        let log = unsafe { nvrtc::get_program_log(self.program) }.unwrap_or_default();
        let log: Vec<u8> = log.into_iter().map(|byte| byte as u8).collect();
        let log = String::from_utf8_lossy(&log);
        log.lines().find(|line| line.contains("error")).unwrap_or("no reason given").to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: it was created here, and is not used again.
        let _ = unsafe { nvrtc::destroy_program(self.program) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::kernel::format_name;

    #[test]
    #[ignore = "needs NVRTC (libnvrtc), but neither driver nor GPU"]
    fn nvrtc_compiles_the_kernels_of_every_format() {
        for format in Format::ALL.map(Some).into_iter().chain([None]) {
            if format.is_none_or(|format| format_name(format).is_some()) {
                let program = Program::new(&Dialect::Cuda.source(format)).expect("a program");
                let image = program.compile("sm_90").unwrap_or_else(|error| panic!("{format:?}: {error}"));
                assert!(image.len() > 1000, "{format:?}: {} bytes", image.len());
            }
        }
    }
}
