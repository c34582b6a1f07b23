//! Computes hidden states and tokens from the last layer's rows: norm, logits and sampling, only for rows that need
//! them.

use engine::runner::RunnerError;
use schema::frame::{Chosen, HiddenState};

use super::arena::{Arena, HEAD_ROWS_MAX};
use super::layer::Step;
use super::math::{add, bend_all};
use super::norm::{rms_norm, rms_norm_in_place};
use super::parallel;
use super::weights::OutputHead;
use crate::kernels::{MatmulJob, Split, matmul};
use crate::model::HeadSpec;
use crate::shard::{Outcome, chosen, hidden_state, readout};

impl Step<'_> {
    /// Appends the hidden states, tokens or logits that the tile's rows need to `into`. Without a head, there are
    /// hidden states alone.
    ///
    /// # Errors
    /// [`RunnerError::Device`] if a hidden state, or the logits of a token that is needed, are not usable numbers.
    pub(super) fn finish(&mut self, head: Option<&OutputHead>, into: &mut Outcome) -> Result<(), RunnerError> {
        if let Outcome::Results(results) = into {
            self.hidden_states(head, &mut results.hidden_states)?;
        }
        let Some((head, spec)) = head.zip(self.spec.head) else { return Ok(()) };
        let Arena { tile, logit_rows, .. } = &mut *self.arena;
        logit_rows.clear();
        let rows = tile.rows.iter().enumerate();
        logit_rows.extend(rows.filter(|(_, row)| row.needs_logits(self.slices)).map(|(index, _)| index));
        for from in (0..self.arena.logit_rows.len()).step_by(HEAD_ROWS_MAX) {
            let to = (from + HEAD_ROWS_MAX).min(self.arena.logit_rows.len());
            self.logits(head, spec, from..to);
            match into {
                Outcome::Logits(all) => all.extend(&self.arena.logits[..(to - from) * self.spec.vocabulary]),
                Outcome::Results(results) => {
                    self.sample(from..to);
                    self.collect(from..to, &mut results.chosen)?;
                }
                Outcome::Activations(_) => {}
            }
        }
        Ok(())
    }

    /// Appends the hidden states that the tile's rows need: those of rows that need no logits.
    fn hidden_states(&mut self, head: Option<&OutputHead>, into: &mut Vec<HiddenState>) -> Result<(), RunnerError> {
        let hidden = self.spec.hidden;
        let Arena { x, out, tile, .. } = &mut *self.arena;
        for (index, row) in tile.rows.iter().enumerate().filter(|(_, row)| row.needs_hidden_state(self.slices)) {
            let values = index * hidden..(index + 1) * hidden;
            let x = &mut x[values.clone()];
            add(self.isa, x, &out[values]);
            let mut normed = x.to_vec();
            if let Some((head, spec)) = head.zip(self.spec.head) {
                rms_norm_in_place(self.isa, &mut normed, &head.norm, spec.norm_epsilon);
            }
            into.push(hidden_state(&self.slices[row.slice], row, normed)?);
        }
        Ok(())
    }

    /// Computes the logits of some of the rows in `logit_rows`.
    fn logits(&mut self, head: &OutputHead, spec: HeadSpec, range: std::ops::Range<usize>) {
        let (hidden, vocabulary) = (self.spec.hidden, self.spec.vocabulary);
        let Arena { x, input, out, logit_rows, logits, .. } = &mut *self.arena;
        let rows = &logit_rows[range];
        for (row, input) in rows.iter().zip(input.prepare(rows.len(), hidden).chunks_exact_mut(hidden)) {
            let values = row * hidden..(row + 1) * hidden;
            let x = &mut x[values.clone()];
            add(self.isa, x, &out[values]);
            rms_norm(self.isa, x, &head.norm, spec.norm_epsilon, input);
        }
        let out = &mut logits[..rows.len() * vocabulary];
        matmul(self.pool, &mut [MatmulJob { weights: head.output.matrix(), out: &mut *out }], input);
        let HeadSpec { scale, softcap, .. } = spec;
        if scale != 1.0 {
            out.iter_mut().for_each(|logit| *logit *= scale);
        }
        if let Some(bound) = softcap {
            bend_all(self.isa, out, bound);
        }
    }

    /// Chooses or scores a token for each of the rows that have logits.
    fn sample(&mut self, range: std::ops::Range<usize>) {
        let (slices, vocabulary) = (self.slices, self.spec.vocabulary);
        let Arena { tile, logit_rows, logits, samplers, sampled, .. } = &mut *self.arena;
        let rows = &logit_rows[range];
        let (samplers, sampled, logits) = (Split::new(samplers), Split::new(sampled), &*logits);
        parallel::parts(self.pool, rows.len(), &|slot, index| {
            let row = &tile.rows[rows[index]];
            // SAFETY: one call at a time has this slot, and each index is passed once.
            let (sampler, token) =
                unsafe { (&mut samplers.part(slot..slot + 1)[0], &mut sampled.part(index..index + 1)[0]) };
            let logits = &logits[index * vocabulary..][..vocabulary];
            let slice = &slices[row.slice];
            *token = Some(sampler.read(logits, slice.rule.alternatives, readout(slice, row)));
        });
    }

    fn collect(&mut self, range: std::ops::Range<usize>, into: &mut Vec<Chosen>) -> Result<(), RunnerError> {
        let Arena { tile, logit_rows, sampled, .. } = &mut *self.arena;
        for (row, token) in logit_rows[range].iter().zip(sampled) {
            let row = &tile.rows[*row];
            let Some(token) = token.take() else { continue };
            into.push(chosen(&self.slices[row.slice], row, token)?);
        }
        Ok(())
    }
}
