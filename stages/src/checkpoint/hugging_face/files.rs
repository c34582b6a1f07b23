//! The files of a folder that hold its weights.

use std::collections::HashMap;
use std::path::Path;

use super::config;
use crate::checkpoint::{OpenError, Part};
use crate::safetensors::{SafetensorsError, SafetensorsHeader, SafetensorsIndex};
use crate::weights::Mapping;

/// Name of the weights in one file.
const SINGLE: &str = "model.safetensors";

/// An open file of weights, with its header.
pub(super) struct WeightFile {
    pub(super) part: Part,
    pub(super) header: SafetensorsHeader,
}

/// Opens the files of weights in `folder`, in the order of their names.
pub(super) fn open(folder: &Path) -> Result<Vec<WeightFile>, OpenError> {
    if folder.join(SafetensorsIndex::NAME).is_file() {
        return open_listed(folder);
    }
    if folder.join(SINGLE).is_file() {
        return Ok(vec![open_file(&folder.join(SINGLE))?]);
    }
    Err(wrong(folder, "folder", format!("{SINGLE} or {} beside config.json", SafetensorsIndex::NAME), "neither"))
}

fn open_file(path: &Path) -> Result<WeightFile, OpenError> {
    let part = Part::open(path)?;
    let mapping = Mapping::of_whole(&part).map_err(|cause| OpenError::Read { path: path.to_owned(), cause })?;
    let header = SafetensorsHeader::parse(mapping.bytes())
        .map_err(|cause| OpenError::Safetensors { path: path.to_owned(), cause })?;
    Ok(WeightFile { part, header })
}

/// Opens the files that the list names. Each tensor that the list names must be in its file, and in no other.
fn open_listed(folder: &Path) -> Result<Vec<WeightFile>, OpenError> {
    let path = folder.join(SafetensorsIndex::NAME);
    let bytes = config::read_bounded(&path, SafetensorsIndex::BYTES_MAX)?.unwrap_or_default();
    let index = SafetensorsIndex::parse(&bytes)
        .map_err(|SafetensorsError { field, expected, found }| wrong(&path, &field, expected, found))?;
    let names = index.files();
    let mut files = Vec::with_capacity(names.len());
    let mut found: HashMap<String, &str> = HashMap::new();
    for name in names {
        let own = folder.join(name);
        if !own.exists() {
            let expected = format!("it beside {}, which lists it", SafetensorsIndex::NAME);
            return Err(wrong(&own, "file", expected, "no such file"));
        }
        let file = open_file(&own)?;
        for tensor in &file.header.tensors {
            if let Some(other) = found.insert(tensor.name.clone(), name) {
                let field = format!("tensor {:?}", tensor.name);
                return Err(wrong(&own, &field, format!("none, as {other} has it"), "a second one"));
            }
        }
        files.push(file);
    }
    for (tensor, file) in &index.places {
        if found.get(tensor).copied() != Some(file.as_str()) {
            let field = format!("tensor {tensor:?}");
            let elsewhere = found.get(tensor).map_or("none".to_owned(), |other| format!("it in {other}"));
            let expected = format!("it in {file:?}, where weight_map says it is");
            return Err(wrong(&path, &field, expected, elsewhere));
        }
    }
    Ok(files)
}

#[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike are given at the call")]
fn wrong(path: &Path, field: &str, expected: String, found: impl ToString) -> OpenError {
    OpenError::Folder { path: path.to_owned(), field: field.to_owned(), expected, found: found.to_string() }
}
