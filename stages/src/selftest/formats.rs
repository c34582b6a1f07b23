//! Random models, one in each format of weights.

use std::num::NonZeroUsize;
use std::path::Path;

use super::pipeline::{Pipeline, same};
use super::random_model::{Shape, write_random};
use super::{Finding, Outcome, SelfTest, SelfTestError, products};
use crate::device::{DeviceChoice, DeviceError};
use crate::format::Format;
use schema::record::DeviceKind;

/// The tokens of a sequence.
const IDS: [u32; 11] = [17, 301, 5, 90, 210, 64, 33, 150, 2, 77, 250];
/// Largest difference of the logarithm of a probability from the processor's, which rounds activations to 8 bits.
const TOLERANCE: f32 = 0.05;

pub(super) const SHAPE: Shape = Shape {
    architecture: "qwen3",
    layers: 2,
    hidden: 256,
    feed_forward: 512,
    heads: 4,
    kv_heads: 2,
    head: 64,
    vocabulary: 320,
    context: 64,
    window: None,
    format: Format::Q4K,
};

/// The formats that GGUF files have.
pub(super) fn of_files() -> impl Iterator<Item = Format> {
    Format::ALL.into_iter().filter(|format| format.ggml().is_some())
}

/// Compares the device with the processor, or the processor with double precision, in each format.
pub(super) fn check(test: &SelfTest, each: &mut dyn FnMut(Finding)) -> Result<(), SelfTestError> {
    let path = test.folder.join("random.gguf");
    for format in of_files() {
        write_random(&path, Shape { format, ..SHAPE })?;
        each(Finding::of(&format!("weights in {}", format.name()), || match compare(test, &path, format) {
            Ok(outcome) => outcome,
            Err(SelfTestError::Device(DeviceError::Model(refused))) => Outcome::LeftOut(crate::loader::chain(&refused)),
            Err(error) => Outcome::Failed(crate::loader::chain(&error)),
        }));
    }
    Ok(())
}

fn compare(test: &SelfTest, path: &Path, format: Format) -> Result<Outcome, SelfTestError> {
    let loader = test.loader(path)?;
    let record = loader.describe();
    if record.device != test.record.device {
        let reason = record.device_reason.unwrap_or_else(|| "another device computes it".to_owned());
        return Ok(Outcome::LeftOut(reason));
    }
    // On a GPU, its kernels are compared with double precision here.
    let mut model = Pipeline::load(&*loader, SHAPE.layers, &[])?;
    let run = |model: &mut Pipeline, chunk| model.chunked(0, &IDS, chunk);
    let compared = run(&mut model, IDS.len()).and_then(|alone| {
        same(&run(&mut model, 3)?, &alone)?;
        if record.device == DeviceKind::Cpu {
            return products::check(test.threads, format);
        }
        let processor = super::loader(DeviceChoice::Cpu, NonZeroUsize::MIN, path).map_err(|error| error.to_string())?;
        let mut reference = Pipeline::load(&*processor, SHAPE.layers, &[]).map_err(|error| error.to_string())?;
        let expected = run(&mut reference, IDS.len())?;
        // The likeliest token may be another one where two are about as likely; its probability is the same then.
        let differs = alone.iter().zip(&expected).find(|(found, expected)| {
            let difference = (found.logprob - expected.logprob).abs();
            difference > TOLERANCE || difference.is_nan()
        });
        differs.map_or(Ok(()), |(found, expected)| {
            let (position, found, expected) = (found.position, found.logprob, expected.logprob);
            Err(format!("the logarithm at position {position} is {found}: expected {expected}, as on the processor"))
        })
    });
    Ok(compared.into())
}
