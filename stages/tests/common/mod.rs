//! The path of the default model.

use std::path::PathBuf;

/// The default model's file: `TEST_MODEL`, or the file that `baton pull` stores.
///
/// # Panics
/// If the file does not exist. The message names the commands that fetch it.
#[expect(clippy::disallowed_methods, reason = "TEST_MODEL may name another copy")]
pub(crate) fn default_model() -> PathBuf {
    let folder = |variable| std::env::var_os(variable).map(PathBuf::from);
    let caches = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(caches)));
    let cache = folder("BATON_CACHE").or_else(|| Some(cache?.join("baton")));
    let pulled = cache.map(|cache| cache.join("models/SmolLM2-135M-Instruct.Q4_1.gguf"));
    let path = folder("TEST_MODEL").or(pulled).expect("HOME is set");
    assert!(path.is_file(), "{} is not there: fetch it with `baton pull`, or run etc/test", path.display());
    path
}
