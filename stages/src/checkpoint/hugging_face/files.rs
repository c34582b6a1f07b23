//! The files of a folder that hold its weights.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde_json::Value as Json;

use super::config;
use crate::checkpoint::{OpenError, Part};
use crate::safetensors;
use crate::weights::Mapping;

/// Name of the weights in one file.
const SINGLE: &str = "model.safetensors";
/// Name of the list of files, if there are several.
const INDEX: &str = "model.safetensors.index.json";
/// Maximum number of files: six times that of the largest known model.
const FILES_MAX: usize = 1024;

/// An open file of weights, with its header.
pub(super) struct WeightFile {
    pub(super) part: Part,
    pub(super) header: safetensors::SafetensorsHeader,
}

/// Opens the files of weights in `folder`, in the order of their names.
pub(super) fn open(folder: &Path) -> Result<Vec<WeightFile>, OpenError> {
    if folder.join(INDEX).is_file() {
        return open_listed(folder);
    }
    if folder.join(SINGLE).is_file() {
        return Ok(vec![open_file(&folder.join(SINGLE))?]);
    }
    Err(wrong(folder, "folder", format!("{SINGLE} or {INDEX} beside config.json"), "neither"))
}

fn open_file(path: &Path) -> Result<WeightFile, OpenError> {
    let part = Part::open(path)?;
    let mapping = Mapping::of_whole(&part).map_err(|cause| OpenError::Read { path: path.to_owned(), cause })?;
    let header = safetensors::SafetensorsHeader::parse(mapping.bytes())
        .map_err(|cause| OpenError::Safetensors { path: path.to_owned(), cause })?;
    Ok(WeightFile { part, header })
}

/// Opens the files that the list names. Each tensor that the list names must be in its file, and in no other.
fn open_listed(folder: &Path) -> Result<Vec<WeightFile>, OpenError> {
    let path = folder.join(INDEX);
    let index = config::read_optional(&path)?.unwrap_or_default();
    let Some(Json::Object(places)) = index.get("weight_map") else {
        return Err(wrong(&path, "weight_map", "an object of tensors and their files".to_owned(), "none"));
    };
    let mut names = BTreeSet::new();
    for (tensor, file) in places {
        let plain = |name: &&str| !name.is_empty() && !name.contains(['/', '\\', '\0']) && !name.starts_with('.');
        let Some(name) = file.as_str().filter(plain) else {
            let expected = "the name of a file in the same folder".to_owned();
            return Err(wrong(&path, &format!("weight_map of {tensor:?}"), expected, config::shown(file)));
        };
        names.insert(name);
    }
    if names.is_empty() || names.len() > FILES_MAX {
        return Err(wrong(&path, "weight_map", format!("1 to {FILES_MAX} files"), names.len()));
    }
    let mut files = Vec::with_capacity(names.len());
    let mut found: HashMap<String, &str> = HashMap::new();
    for name in names {
        let own = folder.join(name);
        if !own.exists() {
            let expected = format!("it beside {INDEX}, which lists it");
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
    for (tensor, file) in places {
        if found.get(tensor.as_str()).copied() != file.as_str() {
            let field = format!("tensor {tensor:?}");
            let elsewhere = found.get(tensor.as_str()).map_or("none".to_owned(), |other| format!("it in {other}"));
            let expected = format!("it in {}, where weight_map says it is", config::shown(file));
            return Err(wrong(&path, &field, expected, elsewhere));
        }
    }
    Ok(files)
}

#[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike are given at the call")]
fn wrong(path: &Path, field: &str, expected: String, found: impl ToString) -> OpenError {
    OpenError::Folder { path: path.to_owned(), field: field.to_owned(), expected, found: found.to_string() }
}
