//! The model's name as clients of Ollama write it: with a tag, which is `latest` if it is left out.

use std::sync::Arc;

use crate::http::error::ApiError;
use crate::http::models::Models;
use crate::http::params::{Params, missing};
use crate::http::served_model::ServedModel;

const LATEST: &str = ":latest";

/// The name by which a request calls the model, from `model` or, as older clients write it, `name`.
///
/// # Errors
/// A 400 if there is none.
pub(super) fn read<'a>(params: &Params<'a>) -> Result<&'a str, ApiError> {
    let filled = |key| Ok::<_, ApiError>(params.text(key)?.filter(|name| !name.is_empty()));
    match filled("model")? {
        Some(name) => Ok(name),
        None => filled("name")?.ok_or_else(|| missing("model", "the model's name")),
    }
}

/// The model that a request calls by that name.
///
/// # Errors
/// A 400 if there is no name, a 404 if it is no served model's.
pub(super) fn find(models: &Models, params: &Params<'_>) -> Result<Arc<ServedModel>, ApiError> {
    let name = read(params)?;
    let find = |name: &str| models.named(Some(name));
    // An alias may have a tag, and so may the model's file.
    find(name).or_else(|refusal| find(bare(name)).or_else(|_| find(&tagged(name))).map_err(|_| refusal))
}

/// `name` with its tag.
pub(super) fn tagged(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') { name.to_owned() } else { format!("{name}{LATEST}") }
}

fn bare(name: &str) -> &str {
    name.strip_suffix(LATEST).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_has_the_tag_latest() {
        assert_eq!(tagged("tiny"), "tiny:latest");
        assert_eq!(tagged("host:80/org/tiny"), "host:80/org/tiny:latest");
        assert_eq!(tagged("tiny:7b"), "tiny:7b");
        assert_eq!((bare("tiny:latest"), bare("tiny:7b")), ("tiny", "tiny:7b"));
    }
}
