//! Computes tokens from the last layer's rows: norm, logits and choice, only for rows that need them.

use engine::runner::RunnerError;
use schema::frame::Chosen;

use super::arena::{Arena, HEAD_ROWS_MAX};
use super::layer::Step;
use super::math::add;
use super::norm::rms_norm;
use super::share;
use super::weights::Head;
use crate::kernels::{MatmulJob, Split, matmul};
use crate::shard::{Outcome, chosen};

impl Step<'_> {
    /// Appends the tokens or logits that the tile's rows need to `into`.
    ///
    /// # Errors
    /// [`RunnerError::Device`] if a token is needed and its logits are not usable numbers.
    pub(super) fn finish(&mut self, head: &Head, into: &mut Outcome) -> Result<(), RunnerError> {
        let Arena { tile, wanted, .. } = &mut *self.arena;
        wanted.clear();
        let rows = tile.rows.iter().enumerate();
        wanted.extend(rows.filter(|(_, row)| row.wants_logits(self.slices)).map(|(index, _)| index));
        for from in (0..self.arena.wanted.len()).step_by(HEAD_ROWS_MAX) {
            let to = (from + HEAD_ROWS_MAX).min(self.arena.wanted.len());
            self.logits(head, from..to);
            match into {
                Outcome::Logits(all) => all.extend(&self.arena.logits[..(to - from) * self.config.vocabulary]),
                Outcome::Tokens(all) => {
                    self.sample(from..to);
                    self.collect(from..to, all)?;
                }
                Outcome::Activations(_) => {}
            }
        }
        Ok(())
    }

    /// Computes the logits of some of the wanted rows.
    fn logits(&mut self, head: &Head, which: std::ops::Range<usize>) {
        let (hidden, vocabulary) = (self.config.hidden, self.config.vocabulary);
        let Arena { x, input, out, wanted, logits, .. } = &mut *self.arena;
        let rows = &wanted[which];
        for (row, input) in rows.iter().zip(input.prepare(rows.len(), hidden).chunks_exact_mut(hidden)) {
            let values = row * hidden..(row + 1) * hidden;
            let x = &mut x[values.clone()];
            add(self.isa, x, &out[values]);
            rms_norm(self.isa, x, &head.norm, self.config.norm_epsilon, input);
        }
        let out = &mut logits[..rows.len() * vocabulary];
        matmul(self.pool, &mut [MatmulJob { weights: head.output.matrix(), out }], input);
    }

    /// Chooses a token for each of the rows that have logits.
    fn sample(&mut self, which: std::ops::Range<usize>) {
        let (slices, vocabulary) = (self.slices, self.config.vocabulary);
        let Arena { tile, wanted, logits, samplers, choices, .. } = &mut *self.arena;
        let rows = &wanted[which];
        let (samplers, choices, logits) = (Split::new(samplers), Split::new(choices), &*logits);
        share::parts(self.pool, rows.len(), &|slot, index| {
            let row = &tile.rows[rows[index]];
            // SAFETY: one call at a time has this slot, and each index is passed once.
            let (sampler, choice) =
                unsafe { (&mut samplers.part(slot..slot + 1)[0], &mut choices.part(index..index + 1)[0]) };
            let logits = &logits[index * vocabulary..][..vocabulary];
            *choice = Some(sampler.choose(logits, &slices[row.slice].sampling, row.position + 1));
        });
    }

    fn collect(&mut self, which: std::ops::Range<usize>, into: &mut Vec<Chosen>) -> Result<(), RunnerError> {
        let Arena { tile, wanted, choices, .. } = &mut *self.arena;
        for (row, choice) in wanted[which].iter().zip(choices) {
            let row = &tile.rows[*row];
            let Some(choice) = choice.take() else { continue };
            into.push(chosen(&self.slices[row.slice], row, choice)?);
        }
        Ok(())
    }
}
