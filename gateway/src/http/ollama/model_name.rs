//! The model's name as clients of Ollama write it: with a tag, which is `latest` if it is left out.

use crate::http::app_state::AppState;
use crate::http::error::ApiError;
use crate::http::params::{Params, missing};

const LATEST: &str = ":latest";

/// The name by which a request calls the model, from `model` or, as older clients write it, `name`.
///
/// # Errors
/// A 400 if there is none, a 404 if it is not a name of the served model.
pub(super) fn read<'a>(params: &Params<'a>, state: &AppState) -> Result<&'a str, ApiError> {
    let filled = |key| Ok::<_, ApiError>(params.text(key)?.filter(|name| !name.is_empty()));
    let name = match filled("model")? {
        Some(name) => name,
        None => filled("name")?.ok_or_else(|| missing("model", "the model's name"))?,
    };
    let check = |name: &str| state.model.check_name(name, &state.settings.model_aliases);
    // An alias may have a tag, and so may the model's file.
    check(name).or_else(|refusal| check(bare(name)).or_else(|_| check(&tagged(name))).map_err(|_| refusal))?;
    Ok(name)
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
