//! The mapped part of a model: one layer range, with the embedding if it has the first layer and the output head if it
//! has the last.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use schema::LayerRange;

use super::copies::Copies;
use super::embedding::EmbeddingRows;
use super::file::ModelFile;
use super::mapping::{self, Mapping};
use super::plan;
use super::record::{self, NotALanguageModel};
use super::resident::Residency;
use super::tensor::Tensor;
use super::tensor_error::TensorError;
use super::tensor_role::{EMBEDDING, OUTPUT, TensorRole, output_head};
use crate::checkpoint::{Header, Source, TensorInfo};

/// Bytes read ahead at a time: enough for an efficient disk read, few enough to stop soon.
const READ_AHEAD_PIECE_BYTES: usize = 1 << 20;

/// The mapped weights of one layer range. Nothing of another range is mapped.
#[derive(Debug, Clone)]
pub struct MappedShard {
    file: ModelFile,
    selection: ShardSelection,
    runs: Vec<Arc<Mapping>>,
    copies: Arc<Copies>,
}

/// Errors of a range that cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The file is not a language model.
    #[error(transparent)]
    Model(#[from] NotALanguageModel),
    /// The model has no such layers.
    #[error("cannot map layers {layers}: expected an end of at most {have}, the model's layers")]
    NoSuchLayers {
        /// The requested layers.
        layers: LayerRange,
        /// Number of layers of the model.
        have: u32,
    },
    /// The system refused the mapping.
    #[error("cannot map {bytes} bytes at byte {offset} of the model file {}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// Offset in the file, in bytes.
        offset: u64,
        /// Length in bytes.
        bytes: u64,
        /// The cause.
        #[source]
        cause: io::Error,
    },
}

/// Selects the tensors of a shard by their names.
#[derive(Debug, Clone, Copy)]
struct ShardSelection {
    layers: LayerRange,
    last: bool,
    tied: bool,
}

// === impl ShardSelection ===

impl ShardSelection {
    fn new(header: &Header, layers: LayerRange) -> Result<Self, MapError> {
        let have = record::layers(header)?;
        if layers.end() > have {
            return Err(MapError::NoSuchLayers { layers, have });
        }
        let tied = output_head(header).is_some_and(|head| head.name == EMBEDDING);
        Ok(Self { layers, last: layers.end() == have, tied })
    }

    /// True if a tensor called `name` is mapped.
    fn maps(self, name: &str) -> bool {
        match TensorRole::of(name) {
            TensorRole::Layer(layer) => self.layers.contains(layer),
            TensorRole::Embedding if name == EMBEDDING => self.last && self.tied,
            TensorRole::Embedding => self.first(),
            TensorRole::OutputHead => self.last,
            TensorRole::Shared => true,
        }
    }

    fn first(self) -> bool {
        self.layers.start() == 0
    }
}

impl ModelFile {
    /// Maps the tensors that a stage with `layers` needs, and nothing else.
    ///
    /// # Errors
    /// [`MapError`] when the model has no such layers or the system refuses the mapping.
    pub fn map(&self, layers: LayerRange) -> Result<MappedShard, MapError> {
        MappedShard::map(self.clone(), layers)
    }

    /// The bytes of each file that a stage with `layers` reads: what it maps, and the embedding table if it has the
    /// first layer. Ranges in order, without a page that none of its tensors touches.
    ///
    /// # Errors
    /// [`MapError::NoSuchLayers`], or [`MapError::Model`].
    pub fn bytes_of(&self, layers: LayerRange) -> Result<Vec<Vec<Range<u64>>>, MapError> {
        let selection = ShardSelection::new(self.header(), layers)?;
        let is_read = |name: &str| selection.maps(name) || (selection.first() && name == EMBEDDING);
        Ok(self.runs(is_read))
    }

    /// The runs, in each file, of the tensors that `is_own` selects by their names.
    fn runs(&self, is_own: impl Fn(&str) -> bool) -> Vec<Vec<Range<u64>>> {
        let mut ranges = vec![Vec::new(); self.parts().len()];
        for tensor in self.header().tensors.iter().filter(|tensor| is_own(&tensor.name)) {
            tensor.pieces().iter().for_each(|piece| ranges[piece.part].push(piece.range()));
        }
        ranges.into_iter().map(|ranges| plan::runs(ranges, mapping::page_bytes() as u64)).collect()
    }
}

// === impl MappedShard ===

impl MappedShard {
    fn map(file: ModelFile, layers: LayerRange) -> Result<Self, MapError> {
        let selection = ShardSelection::new(file.header(), layers)?;
        let mut runs = Vec::new();
        let own = file.runs(|name| selection.maps(name));
        for (index, (part, ranges)) in file.parts().iter().zip(own).enumerate() {
            let name = part.path.to_string_lossy();
            for range in ranges {
                let (offset, bytes) = (range.start, range.end - range.start);
                let failed = |cause| MapError::Map { path: part.path.clone(), offset, bytes, cause };
                runs.push(Arc::new(Mapping::new(&part.file, index, range, &name).map_err(failed)?));
            }
        }
        Ok(Self { file, selection, runs, copies: Arc::default() })
    }

    /// The layers it holds.
    pub fn layers(&self) -> LayerRange {
        self.selection.layers
    }

    /// The file it is part of.
    pub fn file(&self) -> &ModelFile {
        &self.file
    }

    /// The mapped ranges, each of whole pages.
    pub(crate) fn runs(&self) -> &[Arc<Mapping>] {
        &self.runs
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`TensorError`] when the file has no tensor of that name, or it is not in this shard.
    pub fn tensor(&self, name: &str) -> Result<Tensor, TensorError> {
        let Some(info) = self.file.header().tensor(name) else {
            return Err(TensorError::Missing { name: name.to_owned() });
        };
        if !self.selection.maps(name) {
            return Err(self.not_mapped(name));
        }
        match &info.source {
            Source::Repacked(pieces) => Ok(Tensor::of_copy(info.clone(), self.copies.of(info, pieces, &self.file)?)),
            Source::Files(_) | Source::Computed(_) => self.mapped(info).ok_or_else(|| self.not_mapped(name)),
        }
    }

    /// The tensor `blk.<layer>.<suffix>`, such as `layer_tensor(3, "attn_q.weight")`.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn layer_tensor(&self, layer: u32, suffix: &str) -> Result<Tensor, TensorError> {
        self.tensor(&format!("blk.{layer}.{suffix}"))
    }

    /// The tensor called `name`, or `None` if the file has none: for tensors that not every model has. A tensor that is
    /// in the file but not in this shard is still an error, so that a wrong layer number is not mistaken for a model
    /// without the tensor.
    ///
    /// # Errors
    /// As [`Self::tensor`], except for a missing tensor.
    pub fn find(&self, name: &str) -> Result<Option<Tensor>, TensorError> {
        match self.tensor(name) {
            Err(TensorError::Missing { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    /// The tensor called `name`. `None` if the file has none or it is not in this shard.
    pub fn optional(&self, name: &str) -> Option<Tensor> {
        self.tensor(name).ok()
    }

    /// The tensor `blk.<layer>.<suffix>`. `None` if the file has none or it is not in this shard.
    pub fn optional_layer_tensor(&self, layer: u32, suffix: &str) -> Option<Tensor> {
        self.layer_tensor(layer, suffix).ok()
    }

    /// All matrices of the shard in the file's order, including tensors of more than two dimensions. A tensor in
    /// several pieces is a matrix for each of them.
    pub fn matrices(&self) -> Vec<Tensor> {
        let infos = self.file.header().tensors.iter();
        let own = infos.filter(|info| info.dims.len() > 1 && self.selection.maps(&info.name));
        own.filter_map(|info| self.tensor(&info.name).ok()).flat_map(|tensor| tensor.pieces()).collect()
    }

    /// The output head's matrix: `output.weight`, or the embedding table in a model that ties the two.
    ///
    /// # Errors
    /// As [`Self::tensor`]: only the shard with the last layer has it.
    pub fn output(&self) -> Result<Tensor, TensorError> {
        self.tensor(if self.selection.tied { EMBEDDING } else { OUTPUT })
    }

    /// The embedding table, in the shard with the first layer.
    pub fn embedding(&self) -> Option<EmbeddingRows> {
        let table = self.file.header().tensor(EMBEDDING).filter(|_| self.selection.first())?;
        EmbeddingRows::new(self.file.clone(), table.clone())
    }

    /// Number of bytes of the file that are mapped: the shard's tensors and the padding between them.
    pub fn mapped_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.file_range()).map(|range| range.end - range.start).sum()
    }

    /// Bytes of the copies of the shard's tensors that lie in files in another order.
    pub fn copied_bytes(&self) -> u64 {
        let infos = self.file.header().tensors.iter();
        infos.filter(|info| info.is_repacked() && self.selection.maps(&info.name)).map(|info| info.bytes).sum()
    }

    /// Bytes of its weights: those of the file that are mapped, and those of copies.
    pub fn bytes(&self) -> u64 {
        self.mapped_bytes().saturating_add(self.copied_bytes())
    }

    /// Counter of the shard's bytes in memory.
    pub fn residency(&self) -> Residency {
        Residency::of(&self.runs, &self.copies)
    }

    /// Brings the mapped pages into memory, so that the first token does not wait for the disk: all but those of
    /// tensors of experts, which have three dimensions. Of these only what is computed with takes memory. Copies are
    /// made when their tensors are asked for.
    pub fn prefetch(&self) {
        let infos = self.file.header().tensors.iter().filter(|info| self.selection.maps(&info.name));
        let (experts, others): (Vec<_>, Vec<_>) = infos.partition(|info| info.dims.len() > 2);
        if experts.is_empty() {
            return self.runs.iter().for_each(|run| run.prefetch());
        }
        for tensor in others.into_iter().filter_map(|info| self.mapped(info)) {
            tensor.all_bytes().for_each(mapping::touch);
        }
    }

    /// Reads the bytes that are not in memory yet into the system's page cache, without adding them to this process's
    /// resident set. Stops at `bytes_max` bytes, or as soon as `wanted` returns false. Returns the number of bytes
    /// read. What is to be copied is not read ahead. If the system reports all pages as in memory, nothing is read
    /// (Linux does so for a process that may not write the file).
    pub fn read_ahead(&self, bytes_max: u64, wanted: &dyn Fn() -> bool) -> u64 {
        let mut read = 0;
        let mut buffer = vec![0; READ_AHEAD_PIECE_BYTES];
        let pieces = |run: &'_ Arc<Mapping>| {
            let part = run.part();
            run.pieces(READ_AHEAD_PIECE_BYTES).map(move |(piece, absent_bytes)| (part, piece, absent_bytes)).collect()
        };
        for (part, piece, absent_bytes) in self.runs.iter().flat_map::<Vec<_>, _>(pieces) {
            if absent_bytes == 0 {
                continue;
            }
            let fits = read + absent_bytes <= bytes_max;
            let length = (piece.end - piece.start) as usize;
            // Bytes that cannot be read here cannot be loaded either, and loading reports the cause.
            let file = &self.file.parts()[part].file;
            if !fits || !wanted() || file.read_exact_at(&mut buffer[..length], piece.start).is_err() {
                break;
            }
            read += absent_bytes;
        }
        read
    }

    fn mapped(&self, info: &TensorInfo) -> Option<Tensor> {
        let mapping_of = |part: usize, range: Range<u64>| {
            let before = |run: &Arc<Mapping>| (run.part(), run.file_range().end) <= (part, range.start);
            self.runs.get(self.runs.partition_point(before)).cloned()
        };
        Tensor::new(info.clone(), mapping_of)
    }

    fn not_mapped(&self, name: &str) -> TensorError {
        if name == EMBEDDING && self.selection.first() {
            return TensorError::ByRows { name: name.to_owned() };
        }
        TensorError::Outside { name: name.to_owned(), role: TensorRole::of(name), layers: self.selection.layers }
    }
}
