//! The memory that a shard's runner takes on a device besides its weights: what it would allocate, on a device that
//! only counts. So the bound and the allocations are the same code.

use std::sync::Arc;

use schema::LayerRange;
use schema::record::KvRoom;

use super::device::{DeviceBuffer, Gpu, GpuError, PagesView};
use super::inputs::TileInputs;
use super::kv::LayerKv;
use super::launch::Launch;
use super::scratch::Scratch;
use crate::model::{Mixer, ModelSpec};
use crate::sampling::Sampler;
use crate::weights::Mapping;

/// A device that counts what is allocated.
#[derive(Debug, Default)]
struct Meter {
    bytes: u64,
}

/// A buffer of it, which has no bytes.
#[derive(Debug, Clone, Copy)]
struct Metered;

/// Bytes of keys and values, inputs, intermediate results, and copies of norms and biases, of the shard `layers`.
pub(super) fn own_bytes(spec: &ModelSpec, layers: LayerRange, room: KvRoom) -> u64 {
    let last = layers.end() == spec.layer_count();
    let (pool, tokens_max) = (spec.kv_kinds().pool(room.tokens), spec.sequence_tokens_max(room.tokens));
    let mut meter = Meter::default();
    let mut vectors = 2 * spec.hidden;
    for layer in spec.layers.get(layers.indices()).unwrap_or_default() {
        if let Mixer::Attention(attention) = &layer.mixer {
            let _ = LayerKv::new(attention, room.kv_type, pool, &mut meter);
            vectors += 2 * spec.hidden + 2 * attention.key;
            vectors += attention.query_width() + attention.key_width() + attention.value_width();
        }
    }
    let ropes = spec.ropes.iter().map(crate::model::RopeSpec::pairs);
    let _ = TileInputs::with_pairs(ropes, tokens_max, &mut meter);
    let _ = Scratch::new(spec, last, tokens_max, &mut meter);
    let sampler = if last { Sampler::bytes(spec.vocabulary) } else { 0 };
    meter.bytes.saturating_add(sampler).saturating_add((size_of::<f32>() * vectors) as u64)
}

// === impl Meter ===

impl Gpu for Meter {
    type Buffer = Metered;

    fn map(&mut self, pages: &Arc<Mapping>) -> Result<Vec<PagesView<Metered>>, GpuError> {
        Ok(PagesView::whole(pages, Metered))
    }

    fn allocate(&mut self, bytes: usize) -> Result<Metered, GpuError> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        Ok(Metered)
    }

    fn encode(&mut self, _: &Launch<'_, Metered>) -> Result<(), GpuError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), GpuError> {
        Ok(())
    }
}

impl DeviceBuffer for Metered {
    fn write(&self, _: usize, _: &[u8]) {}

    fn read(&self, _: usize, into: &mut [u8]) {
        into.fill(0);
    }
}
