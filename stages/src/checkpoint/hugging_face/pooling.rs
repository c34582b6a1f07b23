//! The pooling of a folder that the sentence-transformers library wrote: how the hidden states of a text's tokens
//! become its embedding.

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::config::{read_optional, shown};
use super::family::Family;
use crate::checkpoint::OpenError;
use crate::gguf::Metadata;
use crate::model::PoolingType;

/// The list of the steps from a text to its embedding.
pub(super) const MODULES: &str = "modules.json";
/// The configuration of the step that pools.
pub(super) const POOLING: &str = "1_Pooling/config.json";

/// Largest accepted list of steps, in bytes.
const MODULES_BYTES_MAX: u64 = 1 << 20;

/// The steps that are computed: the model, pooling, and the division by a vector's length.
const STEPS: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

/// The flags of the poolings that are computed.
const POOLINGS: [(&str, PoolingType); 3] = [
    ("pooling_mode_mean_tokens", PoolingType::Mean),
    ("pooling_mode_cls_token", PoolingType::Cls),
    ("pooling_mode_lasttoken", PoolingType::Last),
];

/// Writes the pooling of the model in `folder` to its metadata.
pub(super) fn describe(folder: &Path, family: &Family, metadata: &mut Metadata) -> Result<(), OpenError> {
    check_steps(&folder.join(MODULES))?;
    let path = folder.join(POOLING);
    let Some(config) = read_optional(&path)? else { return Ok(()) };
    let flags: Vec<&str> = config
        .iter()
        .filter(|(key, value)| key.starts_with("pooling_mode_") && **value == Json::Bool(true))
        .map(|(key, _)| key.as_str())
        .collect();
    let known = match (flags.as_slice(), config.get("pooling_mode").and_then(Json::as_str)) {
        ([one], None) => POOLINGS.iter().find(|(flag, _)| flag == one).map(|(_, pooling)| *pooling),
        ([], Some(name)) => POOLINGS.iter().map(|(_, pooling)| *pooling).find(|pooling| is_called(*pooling, name)),
        _ => None,
    };
    let Some(pooling) = known else {
        return Err(wrong(&path, "pooling_mode", "the mean, the first token (cls) or the last one", &found(&config)));
    };
    metadata.insert(&format!("{}.pooling_type", family.architecture), pooling.number().into());
    Ok(())
}

fn is_called(pooling: PoolingType, name: &str) -> bool {
    name == pooling.to_string() || (name == "lasttoken" && pooling == PoolingType::Last)
}

/// The keys that say how the folder pools.
fn found(config: &Map<String, Json>) -> String {
    let set = config.iter().filter(|(key, value)| key.starts_with("pooling_mode") && **value != Json::Bool(false));
    let set: Vec<String> = set.map(|(key, value)| format!("{key} {}", shown(value))).collect();
    if set.is_empty() { "none".to_owned() } else { set.join(", ") }
}

/// Refuses steps that are not computed.
fn check_steps(path: &Path) -> Result<(), OpenError> {
    let failed = |cause| OpenError::Read { path: path.to_owned(), cause };
    match std::fs::metadata(path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(failed(cause)),
        Ok(file) if file.len() > MODULES_BYTES_MAX => {
            let expected = format!("at most {MODULES_BYTES_MAX} bytes");
            return Err(wrong(path, "file", &expected, &file.len().to_string()));
        }
        Ok(_) => {}
    }
    let steps: Vec<Json> = serde_json::from_slice(&std::fs::read(path).map_err(failed)?)
        .map_err(|cause| wrong(path, "file", "a JSON list of steps", &cause.to_string()))?;
    for (index, step) in steps.iter().enumerate() {
        // The type is a path of Python's modules.
        let name = step["type"].as_str().unwrap_or_default().rsplit('.').next().unwrap_or_default();
        if !STEPS.contains(&name) {
            let expected = format!("one of {}, as no other is computed", STEPS.join(", "));
            return Err(wrong(path, &format!("type of step {index}"), &expected, &shown(&step["type"])));
        }
    }
    Ok(())
}

fn wrong(path: &Path, field: &str, expected: &str, found: &str) -> OpenError {
    let (field, expected, found) = (field.to_owned(), expected.to_owned(), found.to_owned());
    OpenError::Folder { path: path.to_owned(), field, expected, found }
}

#[cfg(test)]
mod tests {
    use super::super::families::ALL;
    use super::*;

    /// The number of the pooling that a folder with these two files has.
    fn pooling(modules: &str, config: &str) -> Result<Option<u32>, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        std::fs::write(folder.path().join(MODULES), modules).unwrap();
        std::fs::write(folder.path().join(POOLING), config).unwrap();
        let family = ALL.iter().find(|family| family.architecture == "bert").unwrap();
        let mut metadata = Metadata::default();
        describe(folder.path(), family, &mut metadata).map_err(|error| error.to_string())?;
        Ok(metadata.get_u32("bert.pooling_type").unwrap())
    }

    #[test]
    fn a_folders_pooling_is_that_of_its_steps() {
        let steps =
            r#"[{"type": "sentence_transformers.models.Transformer"}, {"type": "a.Pooling"}, {"type": "Normalize"}]"#;
        let flags = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false, "include_prompt": true}"#;
        assert_eq!(pooling(steps, flags), Ok(Some(2)));
        assert_eq!(pooling(steps, r#"{"pooling_mode": "mean"}"#), Ok(Some(1)));
        assert_eq!(pooling(steps, r#"{"pooling_mode_lasttoken": true}"#), Ok(Some(3)));
    }

    #[test]
    fn steps_and_poolings_that_are_not_computed_are_refused_by_name() {
        let error = pooling(r#"[{"type": "sentence_transformers.models.Dense"}]"#, "{}").unwrap_err();
        assert!(error.contains("type of step 0") && error.contains("models.Dense"), "{error}");
        let error = pooling("[]", r#"{"pooling_mode_max_tokens": true}"#).unwrap_err();
        assert!(error.contains("pooling_mode_max_tokens true"), "{error}");
        let error = pooling("[]", r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}"#).unwrap_err();
        assert!(error.contains("pooling_mode_mean_tokens true"), "{error}");
        assert!(pooling("{}", "{}").unwrap_err().contains("a JSON list of steps"));
    }
}
