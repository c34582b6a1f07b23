//! The costs of a model's layers, for the cluster's record: what one token reads, multiplies and stores. Pure.

use schema::record::{KvType, ModelRecord};

use crate::checkpoint::Header;
use crate::format::Format;
use crate::model::{FeedForward, LayerRole, LayerSpec, Mixer, ModelSpec};

/// The figures of each layer.
#[derive(Debug, Default)]
pub(crate) struct LayerFigures {
    read_bytes: Vec<u64>,
    multiplications: Vec<u64>,
    kv_bytes: Vec<u64>,
    windows: Vec<u32>,
    bidirectional: bool,
    /// Bytes of weights that a runner copies, and of those that the first layer's stage maps besides its own.
    copied_bytes: Vec<u64>,
    formats: Vec<Format>,
}

/// Tensors that hold all experts of a layer.
const OF_EXPERTS: [LayerRole; 7] = [
    LayerRole::ExpertGatesUps,
    LayerRole::ExpertGates,
    LayerRole::ExpertUps,
    LayerRole::ExpertDowns,
    LayerRole::ExpertGateBiases,
    LayerRole::ExpertUpBiases,
    LayerRole::ExpertDownBiases,
];

// === impl LayerFigures ===

impl LayerFigures {
    /// The figures of a model whose tensors were checked.
    pub(crate) fn of(spec: &ModelSpec, header: &Header, kv_type: KvType) -> Self {
        let bidirectional = spec.is_bidirectional();
        let mut figures = Self { bidirectional, copied_bytes: vec![0; spec.layers.len()], ..Self::default() };
        for (index, layer) in spec.layers.iter().enumerate() {
            figures.add(spec, header, (index, layer), kv_type);
        }
        // The stage with the first layer maps them.
        if let (Some(added), Some(first)) = (spec.embedding.added, figures.copied_bytes.first_mut()) {
            let tables = added.tensors(0).filter_map(|(name, _)| header.tensor(name));
            *first += tables.map(|tensor| tensor.bytes).sum::<u64>();
        }
        figures
    }

    fn add(&mut self, spec: &ModelSpec, header: &Header, (index, layer): (usize, &LayerSpec), kv_type: KvType) {
        let prefix = format!("blk.{index}.");
        let (count, chosen) = match &layer.feed_forward {
            FeedForward::Dense(_) | FeedForward::Plain(_) => (1, 1),
            FeedForward::Experts(experts) => (experts.count as u64, experts.chosen as u64),
        };
        let of_experts = OF_EXPERTS.map(|role| spec.family.suffix(role));
        let (mut read_bytes, mut multiplications, mut by_format) = (0_u64, 0_u64, [0_u64; Format::ALL.len()]);
        let own = header.tensors.iter().filter_map(|tensor| Some((tensor.name.strip_prefix(&prefix)?, tensor)));
        for (suffix, tensor) in own {
            let values = tensor.dims.iter().fold(1, |product: u64, dim| product.saturating_mul(*dim));
            let read = |all: u64| if of_experts.contains(&suffix) { all / count * chosen } else { all };
            read_bytes = read_bytes.saturating_add(read(tensor.bytes));
            multiplications = multiplications.saturating_add(read(values));
            for (bytes, format) in by_format.iter_mut().zip(Format::ALL) {
                *bytes += if tensor.format == format { tensor.bytes } else { 0 };
            }
        }
        if let Mixer::Latent(latent) = &layer.mixer
            && let Some((_, copied)) = latent.key_copy()
        {
            self.copied_bytes[index] = copied;
        }
        self.read_bytes.push(read_bytes);
        self.multiplications.push(multiplications);
        self.kv_bytes.push(layer.mixer.kv_bytes(kv_type));
        self.windows.push(layer.mixer.window_tokens());
        let most = Format::ALL.into_iter().zip(by_format).max_by_key(|(_, bytes)| *bytes);
        self.formats.extend(most.map(|(format, _)| format));
    }

    /// `record` with these figures. Figures that are the same in every layer, or that follow from others, are left to
    /// the fields that older members read.
    pub(crate) fn describe(self, record: ModelRecord) -> ModelRecord {
        let Self { read_bytes, multiplications, kv_bytes, windows, bidirectional, copied_bytes, formats } = self;
        let with_copies = |bytes: Vec<u64>| -> Vec<u64> {
            bytes.into_iter().zip(&copied_bytes).map(|(bytes, copied)| bytes.saturating_add(*copied)).collect()
        };
        let (read_bytes, layer_bytes) = (with_copies(read_bytes), with_copies(record.layer_bytes));
        let kv_bytes_per_token_layer = kv_bytes.iter().copied().max().unwrap_or(0);
        let layer_formats: Vec<String> = formats.iter().map(|format| format.name().to_owned()).collect();
        let of_most = |name: &String| Some(name) == record.layer_format.as_ref();
        ModelRecord {
            layer_read_bytes: if read_bytes == layer_bytes { Vec::new() } else { read_bytes },
            layer_bytes,
            layer_multiplications: multiplications,
            layer_formats: if layer_formats.iter().all(of_most) { Vec::new() } else { layer_formats },
            layer_kv_bytes: if kv_bytes.iter().all(|bytes| *bytes == kv_bytes_per_token_layer) {
                Vec::new()
            } else {
                kv_bytes
            },
            bidirectional,
            layer_windows: if windows.iter().all(|window| *window == 0) { Vec::new() } else { windows },
            kv_bytes_per_token_layer,
            ..record
        }
    }
}
