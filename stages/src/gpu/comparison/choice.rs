//! The choice of tokens.

use schema::frame::Sampling;

use super::{Random, differs, is_close, write_floats};
use crate::gpu::device::{Gpu, GpuError};
use crate::gpu::inputs::write;
use crate::gpu::kernel::Kernel;
use crate::gpu::layer::read_numbers;
use crate::gpu::runner::GpuRunner;
use crate::sampling::Readout;

/// Largest difference of a logarithm of a probability.
const TOLERANCE: f64 = 1e-3;
/// Spread of the logits: some tokens are likely, as in a model's.
const SPREAD: f32 = 8.0;

impl<G: Gpu> GpuRunner<G> {
    /// Compares the likeliest token, and one that is drawn, with the sampler's. Only the last stage chooses.
    pub(super) fn compare_choice(&mut self, random: &mut Random) -> Result<(), GpuError> {
        let vocabulary = self.vocabulary();
        let drawn =
            Sampling { temperature: 0.8, top_k: 0, top_p: 1.0, seed: 0x0123_4567_89ab_cdef, ..Sampling::GREEDY };
        let samplings = [Sampling::GREEDY, drawn];
        let logits: Vec<f32> = random.values(2 * vocabulary).iter().map(|value| SPREAD * value).collect();
        let mut expected = Vec::new();
        for (logits, sampling) in logits.chunks_exact(vocabulary).zip(&samplings) {
            let Some(sampler) = &mut self.sampler else { return Ok(()) };
            let Ok(token) = sampler.read(logits, 0, Readout::Choose { position: 7, sampling, rule: None }) else {
                return Ok(());
            };
            expected.push(token);
        }
        let (mut step, _, _) = self.step();
        write_floats(&step.scratch.logits, &logits);
        let seed = [drawn.seed as u32, (drawn.seed >> 32) as u32];
        let sharpness = (1.0 / drawn.temperature).to_bits();
        let rules = [[0; 6], [sharpness, 0.0_f32.to_bits(), 7, drawn.choice, seed[0], seed[1]]];
        write(&step.scratch.rules, &mut Vec::new(), rules.into_iter().flatten());
        step.choose_tokens(2, vocabulary)?;
        step.gpu.finish()?;
        let found = read_numbers(&step.scratch.chosen, 4);
        for (row, (found, expected)) in found.as_chunks::<2>().0.iter().zip(&expected).enumerate() {
            let kind = if row == 0 { "the likeliest token" } else { "a token that is drawn" };
            let logprob = f32::from_bits(found[1]);
            if found[0] != expected.token {
                return Err(differs(Kernel::ChooseToken, kind, found[0] as f32, expected.token.into()));
            }
            if !is_close(logprob, expected.logprob.into(), TOLERANCE) {
                let place = format!("the logarithm of the probability of {kind}");
                return Err(differs(Kernel::ChooseToken, &place, logprob, expected.logprob.into()));
            }
        }
        Ok(())
    }
}
