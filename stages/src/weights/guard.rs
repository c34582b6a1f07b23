//! Turns the loss of mapped weights into one clear line and a known exit code.
//!
//! When a mapped file becomes shorter, or its disk cannot deliver a page, reading the page raises SIGBUS in the middle
//! of the computation. There is nothing to return to: the weights are gone. So the process says why and ends at once,
//! and the cluster carries on without it. A SIGBUS anywhere else goes to whoever handled it before.

use std::io;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// How the process exits when mapped weights are lost: `EX_IOERR` of sysexits.h.
pub const EXIT_CODE_WEIGHTS_LOST: i32 = 74;

/// Ends the process, with a line on stderr and [`EXIT_CODE_WEIGHTS_LOST`], when a mapped model file is cut short or its
/// disk fails. For the whole process and for good; calling it again changes nothing.
///
/// # Errors
/// The system's, when it refuses the handler.
pub fn guard_against_truncation() -> io::Result<()> {
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    // SAFETY: all zeroes is a valid sigaction (integers, an empty mask, no handler).
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = on_bus_error as *const () as libc::sighandler_t;
    // The faulting thread's stack may be the one thing in order; use the alternate one where the thread has it.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: as above.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: both point to live sigactions; asking alone changes nothing.
    if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Set before ours is installed, so that ours always finds it.
    let _ = PREVIOUS.set(previous);
    // SAFETY: `ours` is a live sigaction whose handler only does what is allowed inside a signal handler.
    if unsafe { libc::sigaction(libc::SIGBUS, &ours, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

// === The mapped ranges, readable from a signal handler ===

/// Most mapped runs the guard can tell apart. A shard has one run per layer at worst, models have up to 126 layers, and
/// an old and a new shard may overlap for a moment. Runs beyond are still safe, but their loss ends the process with
/// the system's bare "Bus error".
const RUNS_MAX: usize = 1024;

struct Slot {
    /// First address; 0 in a free slot.
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

/// A run the guard knows; forgotten when dropped.
#[derive(Debug)]
pub(super) struct Registration {
    slot: Option<usize>,
    _name: Box<[u8]>,
}

/// Makes the guard know the run at `addresses`, part of the file `name`.
pub(super) fn register(addresses: Range<usize>, name: &str) -> Registration {
    let name: Box<[u8]> = name.bytes().collect();
    let claim = |slot: &Slot| slot.start.compare_exchange(0, addresses.start, Ordering::AcqRel, Ordering::Relaxed);
    let slot = SLOTS.iter().position(|slot| claim(slot).is_ok());
    if let Some(slot) = slot.map(|index| &SLOTS[index]) {
        slot.name_bytes.store(name.len(), Ordering::Relaxed);
        slot.name.store(name.as_ptr().cast_mut(), Ordering::Relaxed);
        // Last: a slot without an end matches no address.
        slot.end.store(addresses.end, Ordering::Release);
    }
    Registration { slot, _name: name }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.map(|index| &SLOTS[index]) {
            slot.end.store(0, Ordering::Release);
            slot.start.store(0, Ordering::Release);
        }
    }
}

/// The handler. Inside a signal nothing may allocate, lock or format: only atomics, `write`, `sigaction` and `_exit`.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the system hands a handler installed with SA_SIGINFO a valid siginfo, and for SIGBUS it has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    let within =
        |slot: &&Slot| address < slot.end.load(Ordering::Acquire) && slot.start.load(Ordering::Acquire) <= address;
    if let Some(slot) = SLOTS.iter().find(within) {
        let (name, name_bytes) = (slot.name.load(Ordering::Relaxed), slot.name_bytes.load(Ordering::Relaxed));
        // SAFETY: the slot matches, so its mapping is alive (this thread is reading it), and the mapping's registration
        // keeps the name alive. `_exit` is allowed here and does not return.
        unsafe {
            say(b"baton: the model file ");
            say(std::slice::from_raw_parts(name, name_bytes));
            say(
                b" became shorter or its disk failed while its weights were in use; restore the file and start again\n",
            );
            libc::_exit(EXIT_CODE_WEIGHTS_LOST);
        }
    }
    // Not ours: back to what was installed before, which sees the signal when the access is tried again.
    if let Some(previous) = PREVIOUS.get() {
        // SAFETY: `previous` is what the system gave; sigaction is allowed in a handler.
        unsafe { libc::sigaction(signal, previous, std::ptr::null_mut()) };
    }
}

fn say(text: &[u8]) {
    // SAFETY: the pointer and the length are those of a live slice. What cannot be written is lost; the exit code stays.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}
