//! The kernels on the processor: a library that `etc/check-msl` has clang compile from the kernels' source and the
//! simulator (`simulator/`). It finds races, missing barriers and, by sanitizers, what is read or written outside.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use schema::record::DeviceKind;

use super::device::{Adapter, DeviceBuffer, DeviceMemory, Gpu, GpuError, PagesView};
use super::launch::{Launch, View};
use super::limits::{KERNEL_BUFFERS_MAX, MESSAGE_BYTES_MAX};
use crate::memory;
use crate::weights::Mapping;

/// Alignment of what the simulator allocates. Kernels read nothing that needs more.
const ALIGNMENT: usize = 16;

/// Environment variable with the path of the library.
const LIBRARY: &str = "BATON_SIM_KERNELS";

/// The simulator, for any number of runners.
#[derive(Debug)]
pub struct SimAdapter {
    library: Library,
}

/// The device that the simulator is.
#[derive(Debug)]
pub struct SimGpu {
    library: Library,
    /// Gives the order in which lanes, threads and groups take their turns.
    seed: u64,
}

/// The simulator's memory, or mapped pages.
#[derive(Debug, Clone)]
pub enum SimBuffer {
    /// Pages of a file.
    Mapped(Arc<Mapping>),
    /// Memory of its own.
    Own(Arc<Allocation>),
}

/// Zeroed memory of exactly the bytes asked for, so that a sanitizer finds a read or write past them.
#[derive(Debug)]
pub struct Allocation {
    start: NonNull<u8>,
    layout: Layout,
}

/// The loaded library. It is never unloaded: its fibers belong to threads.
#[derive(Debug, Clone, Copy)]
struct Library {
    simulate: Simulate,
}

/// `baton_simulate` in `simulator/simulator.cpp`.
type Simulate = unsafe extern "C" fn(
    name: *const c_char,
    groups: *const u32,
    threads: u32,
    buffers: *const *mut c_void,
    buffer_count: u32,
    sizes: *const c_void,
    sizes_bytes: u32,
    seed: u64,
    message: *mut c_char,
    message_bytes: usize,
) -> c_int;

// === impl SimAdapter ===

impl SimAdapter {
    /// The simulator in the library that the environment names.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`] if it names none, or there is no such library.
    pub fn from_environment() -> Result<Self, GpuError> {
        #[expect(clippy::disallowed_methods, reason = "a switch of baton's own checks, no setting")]
        let path = std::env::var_os(LIBRARY);
        let missing = || unavailable(format!("expected {LIBRARY} with the library that etc/check-msl builds"));
        Ok(Self { library: Library::open(Path::new(&path.ok_or_else(missing)?))? })
    }
}

impl Adapter for SimAdapter {
    type Gpu = SimGpu;

    fn open(&self) -> Result<SimGpu, GpuError> {
        Ok(SimGpu { library: self.library, seed: 1 })
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Sim
    }

    fn chip(&self) -> String {
        "simulated GPU".to_owned()
    }

    fn memory(&self) -> DeviceMemory {
        let machine = memory::machine();
        DeviceMemory { total_bytes: machine.memory_total_bytes, available_bytes: machine.memory_available_bytes }
    }
}

// === impl SimGpu ===

impl SimGpu {
    /// The simulator in the library at `path`. `seed` gives the order of threads.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`] if there is no such library.
    pub fn open(path: &Path, seed: u64) -> Result<Self, GpuError> {
        Ok(Self { library: Library::open(path)?, seed })
    }
}

impl Gpu for SimGpu {
    type Buffer = SimBuffer;

    fn map(&mut self, pages: &Arc<Mapping>) -> Result<Vec<PagesView<SimBuffer>>, GpuError> {
        Ok(PagesView::whole(pages, SimBuffer::Mapped(Arc::clone(pages))))
    }

    fn allocate(&mut self, bytes: usize) -> Result<SimBuffer, GpuError> {
        Allocation::new(bytes).map(|own| SimBuffer::Own(Arc::new(own))).ok_or(GpuError::Memory { bytes })
    }

    /// Runs the launch at once.
    fn encode(&mut self, launch: &Launch<'_, SimBuffer>) -> Result<(), GpuError> {
        self.seed = self.seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        self.library.run(launch, self.seed)
    }

    fn finish(&mut self) -> Result<(), GpuError> {
        Ok(())
    }
}

// === impl Library ===

impl Library {
    fn open(path: &Path) -> Result<Self, GpuError> {
        let name = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| unavailable(format!("{} has a zero in its name", path.display())))?;
        // SAFETY: `name` ends with a zero. The library's initialisers are those of the C++ runtime.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(unavailable(loader_message()));
        }
        // SAFETY: the handle is a loaded library's, and the name ends with a zero.
        let symbol = unsafe { libc::dlsym(handle, c"baton_simulate".as_ptr()) };
        if symbol.is_null() {
            return Err(unavailable(loader_message()));
        }
        // SAFETY: the function of that name has this type: `simulator/simulator.cpp` defines it, and a library that is
        // not built of it is not given to `open`.
        Ok(Self { simulate: unsafe { std::mem::transmute::<*mut c_void, Simulate>(symbol) } })
    }

    fn run(self, launch: &Launch<'_, SimBuffer>, seed: u64) -> Result<(), GpuError> {
        let kernel = launch.kernel.name().unwrap_or_else(|| format!("{:?}", launch.kernel));
        let failed = |fault: String| GpuError::Kernel { kernel: kernel.clone(), fault };
        let count = launch.inputs.len() + launch.outputs.len();
        if count > KERNEL_BUFFERS_MAX {
            return Err(failed(format!("{count} buffers: expected at most {KERNEL_BUFFERS_MAX}")));
        }
        let name = CString::new(kernel.as_str()).map_err(|_| failed("a zero in its name".to_owned()))?;
        let mut buffers = [std::ptr::null_mut(); KERNEL_BUFFERS_MAX];
        for (place, view) in buffers.iter_mut().zip(launch.inputs.iter().chain(launch.outputs)) {
            *place = start_of(*view).ok_or_else(|| failed(format!("a buffer from byte {} on", view.offset)))?;
        }
        let mut message: [c_char; MESSAGE_BYTES_MAX] = [0; MESSAGE_BYTES_MAX];
        // SAFETY: all pointers are to memory that lives until the call returns, with the lengths that are passed. The
        // library checks the number of buffers and the bytes of sizes. What a kernel does with a buffer that is too
        // small is the sanitizers' to find: buffers are made by this crate, from the sizes that it passes.
        let code = unsafe {
            (self.simulate)(
                name.as_ptr(),
                launch.groups.as_ptr(),
                launch.kernel.threads(),
                buffers.as_ptr(),
                count as u32,
                launch.sizes.as_ptr().cast(),
                size_of_val(launch.sizes) as u32,
                seed,
                message.as_mut_ptr(),
                MESSAGE_BYTES_MAX,
            )
        };
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the library ends its message with a zero, within the bytes that it has for it.
        let message = unsafe { CStr::from_ptr(message.as_ptr()) };
        Err(failed(message.to_string_lossy().into_owned()))
    }
}

/// The address of a view. `None` if it begins past the buffer's end.
fn start_of(view: View<'_, SimBuffer>) -> Option<*mut c_void> {
    let (start, bytes) = match view.buffer {
        // Kernels only read weights: their type in the source is `const`.
        SimBuffer::Mapped(pages) => (pages.bytes().as_ptr().cast_mut(), pages.bytes().len()),
        SimBuffer::Own(own) => (own.start.as_ptr(), own.layout.size()),
    };
    (view.offset < bytes).then(|| start.wrapping_add(view.offset).cast())
}

fn unavailable(cause: String) -> GpuError {
    GpuError::Unavailable { device: "sim", cause }
}

fn loader_message() -> String {
    // SAFETY: the system's text ends with a zero and stays until this thread's next call of the loader.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the loader gives no reason".to_owned();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

// === impl SimBuffer ===

impl DeviceBuffer for SimBuffer {
    fn write(&self, offset: usize, bytes: &[u8]) {
        let Self::Own(own) = self else { panic!("mapped pages are not written") };
        assert!(offset + bytes.len() <= own.layout.size(), "{} bytes at {offset}", bytes.len());
        // SAFETY: the bytes are inside, and no launch runs: each has ended when `encode` returns.
        unsafe { own.start.as_ptr().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        match self {
            Self::Mapped(pages) => into.copy_from_slice(&pages.bytes()[offset..offset + into.len()]),
            Self::Own(own) => {
                assert!(offset + into.len() <= own.layout.size(), "{} bytes at {offset}", into.len());
                // SAFETY: as in `write`.
                unsafe { own.start.as_ptr().add(offset).copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
            }
        }
    }
}

// === impl Allocation ===

impl Allocation {
    fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).ok()?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { start, layout })
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and this is its only owner.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

// SAFETY: the memory belongs to this value, and any thread may free it.
unsafe impl Send for Allocation {}
// SAFETY: a device and its buffers belong to one runner, which one thread uses at a time.
unsafe impl Sync for Allocation {}
