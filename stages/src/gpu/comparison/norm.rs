//! Norms, and the search for values that are not finite.

use super::{Random, differs, is_close, write_floats};
use crate::gpu::device::{Gpu, GpuError};
use crate::gpu::kernel::Kernel;
use crate::gpu::layer::{read_floats, read_numbers};
use crate::gpu::runner::GpuRunner;

const ROWS: usize = 4;
/// Largest difference, as a part of one and the result.
const TOLERANCE: f64 = 1e-5;

impl<G: Gpu> GpuRunner<G> {
    /// Compares the norm before the first layer's attention.
    pub(super) fn compare_norm(&mut self, random: &mut Random) -> Result<(), GpuError> {
        let hidden = self.hidden();
        let rows = random.values(ROWS * hidden);
        let (mut step, weights, _) = self.step();
        let Some(layer) = weights.layers.first() else { return Ok(()) };
        write_floats(&step.scratch.stream, &rows);
        step.norm(&step.inputs.all_rows, ROWS, &layer.mixer_norm, layer.epsilon)?;
        step.gpu.finish()?;
        let factors = read_floats(&layer.mixer_norm, hidden);
        let found = read_floats(&step.scratch.normed, ROWS * hidden);
        for (row, (found, values)) in found.chunks_exact(hidden).zip(rows.chunks_exact(hidden)).enumerate() {
            let mean = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / hidden as f64;
            let divisor = (mean + f64::from(layer.epsilon)).sqrt();
            for (at, ((found, value), factor)) in found.iter().zip(values).zip(&factors).enumerate() {
                let expected = f64::from(*value) / divisor * f64::from(*factor);
                if !is_close(*found, expected, TOLERANCE * (1.0 + expected.abs())) {
                    return Err(differs(Kernel::RmsNorm, &format!("value {at} of row {row}"), *found, expected));
                }
            }
        }
        Ok(())
    }

    /// Compares the rows that are found unusable.
    pub(super) fn compare_finiteness(&mut self, random: &mut Random) -> Result<(), GpuError> {
        let hidden = self.hidden();
        let mut rows = random.values(ROWS * hidden);
        rows[2 * hidden - 1] = f32::NAN;
        rows[3 * hidden] = f32::NEG_INFINITY;
        let (mut step, _, _) = self.step();
        write_floats(&step.scratch.stream, &rows);
        step.find_unusable(&step.scratch.stream, ROWS, hidden)?;
        step.gpu.finish()?;
        let found = read_numbers(&step.scratch.unusable, ROWS);
        match found.iter().zip([0, 1, 0, 1]).position(|(found, expected)| *found != expected) {
            None => Ok(()),
            Some(row) => {
                let place = format!("row {row}, of which every second has a value that is not finite");
                Err(differs(Kernel::FindUnusable, &place, found[row] as f32, (row % 2) as f64))
            }
        }
    }
}
