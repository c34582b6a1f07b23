//! Reports the loss of mapped weights by one line on stderr and a fixed exit code.
//!
//! If a mapped file becomes shorter, or its disk cannot deliver a page, reading the page raises SIGBUS in the middle of
//! the computation. The computation cannot continue, because the weights are gone. So the process prints the reason and
//! exits at once, and the cluster continues without it. A SIGBUS at any other address goes to the handler that was
//! installed before.

use std::io;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Exit code of the process when mapped weights are lost: `EX_IOERR` of sysexits.h.
pub const EXIT_CODE_WEIGHTS_LOST: i32 = 74;

/// Installs a SIGBUS handler that ends the process, with a line on stderr and [`EXIT_CODE_WEIGHTS_LOST`], when a mapped
/// model file is cut short or its disk fails. The handler applies to the whole process, and no function removes it.
/// Calling this function again changes nothing.
///
/// # Errors
/// The system's error when it refuses the handler.
pub fn guard_against_truncation() -> io::Result<()> {
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    // SAFETY: all zeroes is a valid sigaction (integers, an empty mask, no handler).
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = on_bus_error as *const () as libc::sighandler_t;
    // The stack of the faulting thread may be unusable, so the handler runs on the thread's alternate stack if it has
    // one.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: as above.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `previous` is a live sigaction. With a null new action the call changes nothing.
    if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Set before our handler is installed, so that the handler always finds it.
    let _ = PREVIOUS.set(previous);
    // SAFETY: `ours` is a live sigaction whose handler only does what is allowed inside a signal handler.
    if unsafe { libc::sigaction(libc::SIGBUS, &ours, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

// === The mapped ranges, readable from a signal handler ===

/// Maximum number of mapped runs that the guard tracks. A shard has one run per layer at worst, models have up to 126
/// layers, and an old and a new shard may both be mapped for a moment. Further runs are still safe, but their loss ends
/// the process with the system's plain "Bus error".
const RUNS_MAX: usize = 1024;

struct Slot {
    /// First address. 0 in a free slot.
    start: AtomicUsize,
    /// One past the last address.
    end: AtomicUsize,
    name: AtomicPtr<u8>,
    name_bytes: AtomicUsize,
}

static SLOTS: [Slot; RUNS_MAX] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        name: AtomicPtr::new(std::ptr::null_mut()),
        name_bytes: AtomicUsize::new(0),
    }
}; RUNS_MAX];

/// Registration of a run with the guard. Dropping it frees the slot.
#[derive(Debug)]
pub(super) struct RunRegistration {
    slot: Option<usize>,
    _name: Box<[u8]>,
}

/// Registers the run at `addresses`, which is part of the file `name`.
pub(super) fn register(addresses: Range<usize>, name: &str) -> RunRegistration {
    let name: Box<[u8]> = name.bytes().collect();
    let claim = |slot: &Slot| slot.start.compare_exchange(0, addresses.start, Ordering::AcqRel, Ordering::Relaxed);
    let slot = SLOTS.iter().position(|slot| claim(slot).is_ok());
    if let Some(slot) = slot.map(|index| &SLOTS[index]) {
        slot.name_bytes.store(name.len(), Ordering::Relaxed);
        slot.name.store(name.as_ptr().cast_mut(), Ordering::Relaxed);
        // Stored last, because a slot without an end matches no address.
        slot.end.store(addresses.end, Ordering::Release);
    }
    RunRegistration { slot, _name: name }
}

impl Drop for RunRegistration {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.map(|index| &SLOTS[index]) {
            slot.end.store(0, Ordering::Release);
            slot.start.store(0, Ordering::Release);
        }
    }
}

/// The SIGBUS handler. A signal handler must not allocate, lock or format, so it uses only atomics, `write`,
/// `sigaction` and `_exit`.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the system passes a valid siginfo to a handler installed with SA_SIGINFO, and for SIGBUS it has an
    // address.
    let address = unsafe { (*info).si_addr() } as usize;
    let within =
        |slot: &&Slot| address < slot.end.load(Ordering::Acquire) && slot.start.load(Ordering::Acquire) <= address;
    if let Some(slot) = SLOTS.iter().find(within) {
        let (name, name_bytes) = (slot.name.load(Ordering::Relaxed), slot.name_bytes.load(Ordering::Relaxed));
        // SAFETY: the slot matches, so its mapping still exists (this thread is reading it), and the mapping's
        // registration owns the name. `_exit` is allowed in a handler and does not return.
        unsafe {
            write_stderr(b"baton: the model file ");
            write_stderr(std::slice::from_raw_parts(name, name_bytes));
            write_stderr(
                b" became shorter or its disk failed while its weights were in use; restore the file and start again\n",
            );
            libc::_exit(EXIT_CODE_WEIGHTS_LOST);
        }
    }
    // The address is in no registered run. The previous handler is restored and receives the signal when the access is
    // retried.
    if let Some(previous) = PREVIOUS.get() {
        // SAFETY: the system returned `previous`, and `sigaction` is allowed in a handler.
        unsafe { libc::sigaction(signal, previous, std::ptr::null_mut()) };
    }
}

fn write_stderr(text: &[u8]) {
    // SAFETY: the pointer and the length are those of a live slice. If the write fails, the text is lost and the exit
    // code stays the same.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}
