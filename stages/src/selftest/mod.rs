//! Tests the device of this machine as stages use it: a golden model, the same bits however tokens are divided, every
//! format of weights, and speeds beside the rate at which the device reads memory.

mod error;
mod finding;
mod formats;
mod golden;
mod pipeline;
mod products;
mod random_model;
mod read_rate;
mod speeds;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use engine::runner::Loader;
use schema::record::{DeviceKind, StageRecord};

pub use error::SelfTestError;
pub use finding::{Finding, Outcome};
pub use random_model::{Random, Shape, bytes_of, random_blocks, write_random};
pub use speeds::{MeasuredSpeeds, SpeedRow};

use crate::device::{self, DeviceChoice, DeviceSettings};
use crate::weights::ModelFile;

/// A device under test.
#[derive(Debug)]
pub struct SelfTest {
    device: DeviceChoice,
    threads: NonZeroUsize,
    /// The folder of the models.
    folder: PathBuf,
    /// The device's description, as a stage's record has it.
    pub record: StageRecord,
}

// === impl SelfTest ===

impl SelfTest {
    /// A test of `device`, which writes models of up to 200 MB to `folder`.
    ///
    /// # Errors
    /// [`SelfTestError`] if the device cannot be used, or the folder cannot be written.
    pub fn new(device: DeviceChoice, threads: NonZeroUsize, folder: &Path) -> Result<Self, SelfTestError> {
        let path = golden::write(folder)?;
        let record = loader(device, threads, &path)?.describe();
        Ok(Self { device, threads, folder: folder.to_owned(), record })
    }

    /// Runs all checks. `each` is given the outcome of each as soon as it is known.
    ///
    /// # Errors
    /// [`SelfTestError::Write`] if a model cannot be written. What the device does wrong is a finding.
    pub fn check(&self, each: &mut dyn FnMut(Finding)) -> Result<(), SelfTestError> {
        golden::check(self, each)?;
        formats::check(self, each)
    }

    /// Measures the speeds. `None` for the simulator, whose speed says nothing.
    ///
    /// # Errors
    /// [`SelfTestError`] if a model cannot be written or loaded.
    pub fn measure(&self) -> Result<Option<MeasuredSpeeds>, SelfTestError> {
        if self.record.device == DeviceKind::Sim {
            return Ok(None);
        }
        speeds::measure(self).map(Some)
    }

    fn loader(&self, path: &Path) -> Result<Box<dyn Loader>, SelfTestError> {
        loader(self.device, self.threads, path)
    }
}

fn loader(device: DeviceChoice, threads: NonZeroUsize, path: &Path) -> Result<Box<dyn Loader>, SelfTestError> {
    let file = ModelFile::open(path).map_err(|error| SelfTestError::Model(crate::loader::chain(&error)))?;
    let settings = DeviceSettings { device, threads, budget_bytes: None, has_weights: true };
    Ok(device::loader(file, settings)?)
}
