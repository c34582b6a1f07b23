//! A shard's weights as kernels take them: matrices in place in the mapped pages, and copies of norms and biases, which
//! are a few kilobytes a layer.

use std::ops::Range;

use super::device::{DeviceBuffer, Gpu, GpuError, PagesView};
use super::launch::View;
use crate::format::Format;
use crate::model::{Activation, AttentionSpec, ModelSpec, UnsupportedModel};
use crate::shard::{AttentionTensors, Backend, FeedForwardTensors, LayerTensors, MixerTensors, OutputHeadTensors};
use crate::shard::{DenseTensors, SetupError};
use crate::weights::{EmbeddingRows, MappedShard, Tensor, TensorError};

/// Rows of a [`Sample`].
const SAMPLE_ROWS: usize = 16;

/// A matrix in place.
#[derive(Debug, Clone)]
pub(super) struct DeviceMatrix<B> {
    buffer: B,
    offset: usize,
    pub(super) format: Format,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

/// Matrices of one format, at most three, whose products are one launch.
#[derive(Debug)]
pub(super) struct MatrixGroup<B> {
    /// Place of its first output among the outputs of all groups.
    pub(super) out_first: usize,
    pub(super) matrices: Vec<DeviceMatrix<B>>,
}

/// One layer's weights.
#[derive(Debug)]
pub(super) struct Layer<B> {
    pub(super) epsilon: f32,
    pub(super) attention: AttentionSpec,
    pub(super) mixer_norm: B,
    /// The matrices of queries, keys and values.
    pub(super) query_key_value: Vec<MatrixGroup<B>>,
    /// Biases of all three, one after the other.
    pub(super) bias: Option<B>,
    pub(super) query_norm: Option<B>,
    pub(super) key_norm: Option<B>,
    pub(super) output: MatrixGroup<B>,
    pub(super) feed_forward_norm: B,
    pub(super) gate: DeviceMatrix<B>,
    pub(super) up: DeviceMatrix<B>,
    pub(super) activation: Activation,
    pub(super) down: MatrixGroup<B>,
}

/// The output head's weights.
#[derive(Debug)]
pub(super) struct OutputHead<B> {
    pub(super) norm: B,
    pub(super) output: MatrixGroup<B>,
}

/// All weights of a shard.
#[derive(Debug)]
pub(super) struct ShardWeights<B> {
    /// Present in the first stage. Its rows are read from the file.
    pub(super) embedding: Option<EmbeddingRows>,
    pub(super) layers: Vec<Layer<B>>,
    /// Present in the last stage.
    pub(super) output_head: Option<OutputHead<B>>,
}

/// The first rows of a matrix, on the device and as the host has it.
#[derive(Debug)]
pub(super) struct Sample<B> {
    pub(super) name: String,
    pub(super) matrix: DeviceMatrix<B>,
    pub(super) tensor: Tensor,
}

/// Finds tensors in the mapped pages.
pub(super) struct MappedPages<B> {
    /// The addresses of each view's bytes.
    views: Vec<(Range<usize>, PagesView<B>)>,
}

// === impl ShardWeights ===

impl<B: DeviceBuffer> ShardWeights<B> {
    /// The weights of `shard`, whose mapped `pages` the device has.
    ///
    /// # Errors
    /// [`SetupError`] if the shard lacks a tensor, or the device refuses.
    pub(super) fn new<G: Gpu<Buffer = B>>(
        spec: &ModelSpec,
        shard: &MappedShard,
        pages: &MappedPages<B>,
        gpu: &mut G,
    ) -> Result<Self, SetupError> {
        let range = shard.layers();
        let layers = (range.start()..range.end())
            .map(|layer| Layer::new(LayerTensors::load(spec, shard, layer, pages)?, gpu))
            .collect::<Result<_, _>>()?;
        let output_head = (range.end() == spec.layer_count()).then(|| {
            let OutputHeadTensors { norm, output } = OutputHeadTensors::load(shard, pages)?;
            Ok::<_, SetupError>(OutputHead { norm: vector(&norm, gpu)?, output: MatrixGroup::of(output) })
        });
        Ok(Self { embedding: shard.embedding(), layers, output_head: output_head.transpose()? })
    }
}

// === impl Sample ===

impl<B: DeviceBuffer> Sample<B> {
    /// A sample of each pair of a format and a number of columns among the shard's matrices.
    ///
    /// # Errors
    /// [`SetupError`] if a matrix is not in the pages.
    pub(super) fn of_each_kind(shard: &MappedShard, pages: &MappedPages<B>) -> Result<Vec<Self>, SetupError> {
        let mut samples: Vec<Self> = Vec::new();
        for tensor in shard.matrices() {
            let is_same =
                |sample: &Self| (sample.matrix.format, sample.matrix.cols) == (tensor.format(), tensor.cols());
            if !samples.iter().any(is_same) {
                let matrix = pages.matrix(tensor.clone())?.first_rows(SAMPLE_ROWS);
                samples.push(Self { name: tensor.name().to_owned(), matrix, tensor });
            }
        }
        Ok(samples)
    }

    /// The matrix as a group of its own.
    pub(super) fn group(&self) -> MatrixGroup<B> {
        MatrixGroup::of(self.matrix.clone())
    }
}

// === impl Layer ===

impl<B: DeviceBuffer> Layer<B> {
    fn new<G: Gpu<Buffer = B>>(
        tensors: LayerTensors<DeviceMatrix<B>, Vec<f32>>,
        gpu: &mut G,
    ) -> Result<Self, SetupError> {
        let (MixerTensors::Attention(attention), FeedForwardTensors::Dense(dense)) =
            (tensors.mixer, tensors.feed_forward)
        else {
            return Err(refused());
        };
        let (Some(mixer_norm), Some(feed_forward_norm)) = (tensors.mixer_norm, tensors.feed_forward_norm) else {
            return Err(refused());
        };
        let AttentionTensors { spec, query, key, value, biases, query_key_norms, output, .. } = attention;
        let widths = [spec.query_width(), spec.key_width(), spec.value_width()];
        let has_bias = biases.iter().any(Option::is_some);
        let bias = biases.into_iter().zip(widths).flat_map(|(bias, width)| bias.unwrap_or_else(|| vec![0.0; width]));
        let bias: Vec<f32> = bias.collect();
        let [query_norm, key_norm] = query_key_norms;
        let DenseTensors { spec: dense_spec, gate, up, down } = dense;
        if gate.format != up.format {
            let expected = format!("the format of the gate, {}", gate.format.name());
            let (name, found) = ("ffn_up.weight".to_owned(), up.format.name().to_owned());
            return Err(UnsupportedModel::Tensor { name, expected, found }.into());
        }
        Ok(Self {
            epsilon: tensors.norms.epsilon,
            attention: spec,
            mixer_norm: vector(&mixer_norm, gpu)?,
            query_key_value: MatrixGroup::group([query, key, value]),
            bias: has_bias.then(|| vector(&bias, gpu)).transpose()?,
            query_norm: query_norm.map(|norm| vector(&norm, gpu)).transpose()?,
            key_norm: key_norm.map(|norm| vector(&norm, gpu)).transpose()?,
            output: MatrixGroup::of(output),
            feed_forward_norm: vector(&feed_forward_norm, gpu)?,
            gate,
            up,
            activation: dense_spec.activation,
            down: MatrixGroup::of(down),
        })
    }
}

/// The error for a layer that `support` refuses.
fn refused() -> SetupError {
    UnsupportedModel::Accelerator { family: "such", feature: "layers that `support` refuses" }.into()
}

/// A copy of a norm or a bias.
fn vector<G: Gpu>(values: &[f32], gpu: &mut G) -> Result<G::Buffer, SetupError> {
    let buffer = gpu.allocate(size_of_val(values))?;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    buffer.write(0, &bytes);
    Ok(buffer)
}

// === impl DeviceMatrix ===

impl<B> DeviceMatrix<B> {
    /// Its bytes.
    pub(super) fn view(&self) -> View<'_, B> {
        View { buffer: &self.buffer, offset: self.offset }
    }

    /// At most its first `most` rows.
    pub(super) fn first_rows(&self, most: usize) -> Self
    where
        B: Clone,
    {
        Self { rows: self.rows.min(most), ..self.clone() }
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.cols / self.format.block_values() * self.format.block_bytes()
    }
}

// === impl MatrixGroup ===

impl<B> MatrixGroup<B> {
    /// One matrix.
    pub(super) fn of(matrix: DeviceMatrix<B>) -> Self {
        Self { out_first: 0, matrices: vec![matrix] }
    }

    /// Groups neighbours of one format.
    fn group(matrices: [DeviceMatrix<B>; 3]) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        let mut outputs = 0;
        for matrix in matrices {
            let rows = matrix.rows;
            match groups.last_mut() {
                Some(group) if group.matrices[0].format == matrix.format => group.matrices.push(matrix),
                _ => groups.push(Self { out_first: outputs, matrices: vec![matrix] }),
            }
            outputs += rows;
        }
        groups
    }
}

// === impl MappedPages ===

impl<B: DeviceBuffer> MappedPages<B> {
    /// The pages of `shard` on `gpu`.
    pub(super) fn new<G: Gpu<Buffer = B>>(shard: &MappedShard, gpu: &mut G) -> Result<Self, GpuError> {
        let mut views = Vec::new();
        for run in shard.runs() {
            let start = run.bytes().as_ptr() as usize;
            let mapped = gpu.map(run)?.into_iter();
            views.extend(mapped.map(|view| (start + view.bytes.start..start + view.bytes.end, view)));
        }
        Ok(Self { views })
    }
}

impl<B: Clone> Backend for MappedPages<B> {
    type Matrix = DeviceMatrix<B>;
    type Vector = Vec<f32>;
    type Error = SetupError;

    fn matrix(&self, tensor: Tensor) -> Result<DeviceMatrix<B>, SetupError> {
        let wanted = addresses(tensor.bytes());
        let holds = |(have, _): &&(Range<usize>, _)| have.start <= wanted.start && wanted.end <= have.end;
        let Some((have, view)) = self.views.iter().find(holds) else {
            let expected = "a tensor in a mapped file, whole in one of the device's buffers".to_owned();
            let found = format!("one that is computed, or of {} bytes", wanted.len());
            return Err(UnsupportedModel::Tensor { name: tensor.name().to_owned(), expected, found }.into());
        };
        Ok(DeviceMatrix {
            buffer: view.buffer.clone(),
            offset: view.offset + (wanted.start - have.start),
            format: tensor.format(),
            rows: tensor.rows(),
            cols: tensor.cols(),
        })
    }

    fn vector(&self, tensor: Tensor) -> Result<Vec<f32>, SetupError> {
        Ok(tensor.f32s().map_err(|error: TensorError| error)?)
    }
}

fn addresses(bytes: &[u8]) -> Range<usize> {
    let start = bytes.as_ptr() as usize;
    start..start + bytes.len()
}

impl From<GpuError> for SetupError {
    fn from(error: GpuError) -> Self {
        Self::Device(Box::new(error))
    }
}
