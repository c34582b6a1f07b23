//! Runs whole texts through a shard whose tokens attend to those after them: layer by layer, and within a layer tile by
//! tile. The keys and values of all tiles are written before the first query reads them.

use engine::runner::{RunnerError, Work};

use super::arena::ROWS_MAX;
use super::layer::Step;
use super::math::add;
use super::runner::CpuRunner;
use crate::shard::{MixerTensors, Outcome};

// === impl CpuRunner ===

impl CpuRunner {
    /// Runs `rows` rows of whole texts and appends the result to `into`. Each row gets the bits that it would have if
    /// all rows were one tile.
    pub(super) fn run_texts(
        &mut self,
        work: &Work<'_>,
        rows: usize,
        into: &mut Outcome,
        pages_left: bool,
    ) -> Result<(), RunnerError> {
        for from in (0..rows).step_by(ROWS_MAX) {
            self.begin_tile(work, from);
            self.load_input(work, from)?;
            self.store_rows(from);
        }
        for index in 0..self.weights.layers.len() {
            for from in (0..rows).step_by(ROWS_MAX) {
                self.load_rows(work, from);
                self.write_keys_and_values(work, index, pages_left);
            }
            for from in (0..rows).step_by(ROWS_MAX) {
                self.load_rows(work, from);
                self.attend_and_go_on(work, index, pages_left);
                self.add_term();
                self.store_rows(from);
            }
        }
        if let Outcome::Activations(values) = into {
            values.extend_from_slice(&self.arena.text_rows[..rows * self.spec.hidden]);
            return Ok(());
        }
        for from in (0..rows).step_by(ROWS_MAX) {
            self.load_rows(work, from);
            self.arena.out.fill(0.0);
            self.finish(work, into, pages_left)?;
        }
        Ok(())
    }

    /// Copies the rows of the tile that begins at `from` to the residual stream.
    fn load_rows(&mut self, work: &Work<'_>, from: usize) {
        self.begin_tile(work, from);
        let hidden = self.spec.hidden;
        let values = self.arena.tile.rows.len() * hidden;
        self.arena.x[..values].copy_from_slice(&self.arena.text_rows[from * hidden..][..values]);
    }

    /// Copies the residual stream to the rows of the tile that begins at `from`.
    fn store_rows(&mut self, from: usize) {
        let hidden = self.spec.hidden;
        let values = self.arena.tile.rows.len() * hidden;
        self.arena.text_rows[from * hidden..][..values].copy_from_slice(&self.arena.x[..values]);
    }

    fn write_keys_and_values(&mut self, work: &Work<'_>, index: usize, pages_left: bool) {
        let Self { spec, pool, isa, weights, kv, arena, touched, .. } = self;
        let mut step = Step { spec, pool, isa: *isa, slices: work.slices, arena, touched, pages_left };
        let layer = &weights.layers[index].tensors;
        step.normalise(layer.mixer_norm.as_deref(), layer.norms.epsilon, false);
        if let MixerTensors::Attention(attention) = &layer.mixer {
            step.keys_and_values(attention, layer.norms.epsilon, kv, index);
        }
    }

    fn attend_and_go_on(&mut self, work: &Work<'_>, index: usize, pages_left: bool) {
        let Self { spec, pool, isa, weights, kv, arena, touched, .. } = self;
        let mut step = Step { spec, pool, isa: *isa, slices: work.slices, arena, touched, pages_left };
        let layer = &weights.layers[index].tensors;
        step.normalise(layer.mixer_norm.as_deref(), layer.norms.epsilon, false);
        if let MixerTensors::Attention(attention) = &layer.mixer {
            step.queries(attention, layer.norms.epsilon, kv, index);
        }
        step.after_mixer(layer, index);
    }

    /// Adds the term that a layer left to the residual stream.
    fn add_term(&mut self) {
        let values = self.arena.tile.rows.len() * self.spec.hidden;
        add(self.isa, &mut self.arena.x[..values], &self.arena.out[..values]);
    }
}
