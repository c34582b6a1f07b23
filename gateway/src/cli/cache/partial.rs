//! Models of which only some layers are here.

pub(super) use crate::layers::PartialEntry;
use crate::layers::check_whole;
use crate::models::Cache;
use stages::weights::ModelFile;

use super::verify::Outcome;

/// All of them.
pub(super) fn list(cache: &Cache) -> Vec<PartialEntry> {
    PartialEntry::list(cache)
}

/// Compares one with its manifest.
pub(super) fn check(entry: &PartialEntry, progress: &mut dyn FnMut(u64)) -> Result<Outcome, String> {
    let checked = entry.check(progress)?;
    let parts = checked.bytes_of_parts;
    Ok(Outcome { by: "the manifest", bytes: checked.bytes, bytes_not_checked: parts, wrong: checked.wrong })
}

/// Compares a whole model with the manifest that was kept of it. `None` without one.
pub(super) fn check_by_manifest(
    cache: &Cache,
    file: &ModelFile,
    progress: &mut dyn FnMut(u64),
) -> Option<Result<Outcome, String>> {
    let checked = check_whole(cache, file, progress)?;
    Some(checked.map(|checked| Outcome {
        by: "the manifest",
        bytes: checked.bytes,
        bytes_not_checked: checked.bytes_of_parts,
        wrong: checked.wrong,
    }))
}
