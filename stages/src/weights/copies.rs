//! Copies of tensors that lie in files in an order that no kernel reads. A shard makes those of its own layers, each
//! when it is first asked for, and they live as long as somebody uses them.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::file::ModelFile;
use super::mapping::Mapping;
use super::tensor_error::TensorError;
use crate::checkpoint::{Piece, Repacked, TensorInfo};
use crate::repack::RepackError;

/// The copies that are in use, by the tensors' names.
#[derive(Debug, Default)]
pub(super) struct Copies(Mutex<HashMap<String, Weak<[u8]>>>);

/// Threads that write one tensor's copy: more would only wait for the disk.
const THREADS_MAX: usize = 16;
/// Bytes of a copy for which a thread is worth starting.
const THREAD_BYTES_MIN: usize = 4 << 20;

// === impl Copies ===

impl Copies {
    /// The copy of `info`, which is made if nobody uses one.
    ///
    /// # Errors
    /// [`TensorError`] when its files cannot be mapped, or have numbers that no weight can have.
    pub(super) fn of(
        &self,
        info: &TensorInfo,
        pieces: &[Repacked],
        file: &ModelFile,
    ) -> Result<Arc<[u8]>, TensorError> {
        let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = copies.get(&info.name).and_then(Weak::upgrade) {
            return Ok(copy);
        }
        // Made while others wait, as they most likely wait for this one.
        let copy = make(info, pieces, file)?;
        copies.insert(info.name.clone(), Arc::downgrade(&copy));
        Ok(copy)
    }

    /// Bytes of the copies that are in use.
    pub(super) fn bytes(&self) -> u64 {
        let copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        copies.values().filter_map(Weak::upgrade).map(|copy| copy.len() as u64).sum()
    }
}

fn make(info: &TensorInfo, pieces: &[Repacked], file: &ModelFile) -> Result<Arc<[u8]>, TensorError> {
    // Made in its place, as a vector would be copied once more.
    let mut copy: Arc<[u8]> = std::iter::repeat_n(0, info.bytes as usize).collect();
    let all = Arc::get_mut(&mut copy).expect("nobody else has it yet");
    let each = all.len() / pieces.len().max(1);
    for (piece, out) in pieces.iter().zip(all.chunks_exact_mut(each.max(1))) {
        let mapped = piece.pieces.iter().map(|piece| map(info, piece, file)).collect::<Result<Vec<_>, _>>()?;
        let tensors: Vec<&[u8]> = mapped.iter().map(Mapping::bytes).collect();
        write(piece, &tensors, out).map_err(|cause| TensorError::Repack { name: info.name.clone(), cause })?;
    }
    Ok(copy)
}

/// Maps a piece for as long as it is copied.
fn map(info: &TensorInfo, piece: &Piece, file: &ModelFile) -> Result<Mapping, TensorError> {
    let part = &file.parts()[piece.part];
    let name = part.path.to_string_lossy();
    let mapping = Mapping::new(&part.file, piece.part, piece.range(), &name);
    mapping.map_err(|cause| TensorError::Unreadable { name: info.name.clone(), path: part.path.clone(), cause })
}

/// Writes the rows of `piece` to `out`, a share of them on each of several threads.
fn write(piece: &Repacked, tensors: &[&[u8]], out: &mut [u8]) -> Result<(), RepackError> {
    let repacking = &piece.repacking;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_MAX);
    let threads = (out.len() / THREAD_BYTES_MIN).clamp(1, cores) as u64;
    let share = repacking.rows.div_ceil(threads).max(1);
    let share_bytes = out.len() / repacking.rows.max(1) as usize * share as usize;
    let work = |out: &mut [u8], start: u64| {
        let rows = start..(start + share).min(repacking.rows);
        repacking.write(tensors, rows, out)
    };
    std::thread::scope(|scope| {
        let work = &work;
        let shares = out.chunks_mut(share_bytes.max(1)).zip((0..).map(|index| index * share));
        let started: Vec<_> = shares.map(|(out, start)| scope.spawn(move || work(out, start))).collect();
        let done = started.into_iter().map(|thread| thread.join().expect("writing rows does not panic"));
        done.fold(Ok(()), Result::and)
    })
}
