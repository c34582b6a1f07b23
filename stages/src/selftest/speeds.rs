//! The speeds of the device: what a stage on it measures, beside the rate at which the device reads memory.

use std::path::Path;

use engine::runner::Runner;
use schema::record::{DeviceKind, FormatSpeed, Speeds};

use super::pipeline::Pipeline;
use super::random_model::{Shape, write_random};
use super::{SelfTest, SelfTestError, read_rate};
use crate::device::{self, DeviceError};
use crate::format::Format;

/// The formats that people use most. To write a model in every one would take longer than all checks.
const FORMATS: [Format; 6] = [Format::F16, Format::Q8_0, Format::Q4_0, Format::Q4K, Format::Q6K, Format::Mxfp4];
/// A layer of a model with 4 billion weights, twice: more than caches hold.
const SHAPE: Shape = Shape {
    architecture: "qwen3",
    layers: 2,
    hidden: 2560,
    feed_forward: 9728,
    heads: 32,
    kv_heads: 8,
    head: 128,
    vocabulary: 512,
    context: 64,
    window: None,
    format: Format::F16,
};

/// The speeds of a device.
#[derive(Debug, Clone)]
pub struct MeasuredSpeeds {
    /// Bytes per second that it reads when it does nothing else. `None` if that was not measured.
    pub read_bytes_per_second: Option<u64>,
    /// By format.
    pub rows: Vec<SpeedRow>,
}

/// The speed of one format.
#[derive(Debug, Clone)]
pub struct SpeedRow {
    /// The format's name.
    pub format: &'static str,
    /// The speed.
    pub speed: FormatSpeed,
}

/// Measures the device of `test`.
pub(super) fn measure(test: &SelfTest) -> Result<MeasuredSpeeds, SelfTestError> {
    let read_bytes_per_second = match test.record.device {
        DeviceKind::Cpu => Some(read_rate::of_processor(test.threads)),
        kind => device::read_rate(kind),
    };
    let path = test.folder.join("fast.gguf");
    let mut rows = Vec::new();
    for format in FORMATS {
        write_random(&path, Shape { format, ..SHAPE })?;
        let speeds = of_model(test, &path)?;
        if let Some(speed) = speeds.get(format.name()) {
            rows.push(SpeedRow { format: format.name(), speed: *speed });
        }
    }
    Ok(MeasuredSpeeds { read_bytes_per_second, rows })
}

/// The speeds that a stage with the whole model measures. Nothing if the device does not compute it.
fn of_model(test: &SelfTest, path: &Path) -> Result<Speeds, SelfTestError> {
    let loader = match test.loader(path) {
        Ok(loader) => loader,
        Err(SelfTestError::Device(DeviceError::Model(_))) => return Ok(Speeds::new()),
        Err(error) => return Err(error),
    };
    if loader.describe().device != test.record.device {
        return Ok(Speeds::new());
    }
    let mut runners = Pipeline::load(&*loader, SHAPE.layers, &[])?.into_runners();
    // A call measures for a moment, and returns `None` until all is measured.
    let measured = |runner: &mut Box<dyn Runner>| std::iter::repeat_with(|| runner.probe()).find_map(|speeds| speeds);
    Ok(runners.first_mut().and_then(measured).unwrap_or_default())
}
