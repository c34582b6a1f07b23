//! A device that counts what is asked of another one.

use std::sync::Arc;

use super::device::{Gpu, GpuError, PagesView};
use super::kernel::Kernel;
use super::launch::Launch;
use crate::weights::Mapping;

/// Passes everything to a device, and records it.
#[derive(Debug)]
pub struct Recorder<G> {
    device: G,
    /// The records so far.
    pub records: Records,
}

/// The requests that a device got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// Kernels, in the order of their launches.
    pub launches: Vec<Kernel>,
    /// Times that launches were submitted.
    pub submissions: usize,
    /// Bytes of pages that are used in place.
    pub mapped_bytes: usize,
    /// Bytes that were allocated.
    pub allocated_bytes: usize,
    /// Times that bytes were allocated.
    pub allocations: usize,
}

// === impl Recorder ===

impl<G> Recorder<G> {
    /// Records what is asked of `device`.
    pub fn new(device: G) -> Self {
        Self { device, records: Records::default() }
    }
}

impl<G: Gpu> Gpu for Recorder<G> {
    type Buffer = G::Buffer;

    fn scoped<T>(step: impl FnOnce() -> T) -> T {
        G::scoped(step)
    }

    fn map(&mut self, pages: &Arc<Mapping>) -> Result<Vec<PagesView<G::Buffer>>, GpuError> {
        self.records.mapped_bytes += pages.bytes().len();
        self.device.map(pages)
    }

    fn allocate(&mut self, bytes: usize) -> Result<G::Buffer, GpuError> {
        self.records.allocated_bytes += bytes;
        self.records.allocations += 1;
        self.device.allocate(bytes)
    }

    fn encode(&mut self, launch: &Launch<'_, G::Buffer>) -> Result<(), GpuError> {
        self.records.launches.push(launch.kernel);
        self.device.encode(launch)
    }

    fn finish(&mut self) -> Result<(), GpuError> {
        self.records.submissions += 1;
        self.device.finish()
    }

    fn check_transfers(&mut self) -> Result<(), GpuError> {
        self.device.check_transfers()
    }
}
