//! `baton pull` and `baton models`.

use super::exit::{CliError, Exit};
use super::output;
use super::table::Table;
use crate::models::{self, CATALOGUE, Cache, Cached, Console, DEFAULT, Entry};

/// A row of the list.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
struct Listed {
    /// The name of the model on the command line.
    model: String,
    bytes: u64,
    /// Path of the file. `None` if it is not in the cache.
    path: Option<std::path::PathBuf>,
    /// SHA-256 of the file. `None` if it was not checked.
    sha256: Option<String>,
    /// True for the model that is used if none is named.
    default: bool,
}

/// Fetches a model and prints its path.
pub(super) fn pull(model: Option<&str>, cache: &Cache) -> Result<Exit, CliError> {
    let path = models::resolve(model, cache, &mut Console::new())?;
    output::print(&format!("{}\n", path.display()))?;
    Ok(Exit::Ok)
}

/// Prints the models in the cache and in the catalogue.
pub(super) fn list(cache: &Cache, json: bool) -> Result<Exit, CliError> {
    let listed = listed(cache.list(), CATALOGUE);
    let text = if json {
        format!("{}\n", serde_json::to_string_pretty(&listed).map_err(std::io::Error::other)?)
    } else {
        render(&listed)
    };
    output::print(&text)?;
    Ok(Exit::Ok)
}

fn listed(cached: Vec<Cached>, catalogue: &[Entry]) -> Vec<Listed> {
    let mut cached = cached;
    let mut all = Vec::new();
    for entry in catalogue {
        let at = cached.iter().position(|cached| cached.name == entry.stem());
        let here = at.map(|at| cached.remove(at));
        all.push(Listed {
            model: entry.name.to_owned(),
            bytes: here.as_ref().map_or(entry.bytes, |here| here.bytes),
            sha256: here.as_ref().and_then(|here| here.sha256.clone()),
            path: here.map(|here| here.path),
            default: entry.name == DEFAULT,
        });
    }
    all.extend(cached.into_iter().map(|cached| Listed {
        model: cached.name,
        bytes: cached.bytes,
        sha256: cached.sha256,
        path: Some(cached.path),
        default: false,
    }));
    all
}

fn render(listed: &[Listed]) -> String {
    let mut table = Table::new(&["MODEL", "SIZE", "STATE", "PATH"]);
    for line in listed {
        let state = match (&line.path, &line.sha256) {
            (None, _) => "not here",
            (Some(_), None) => "unchecked",
            (Some(_), Some(_)) => "checked",
        };
        let name = if line.default { format!("{} (default)", line.model) } else { line.model.clone() };
        let path = line.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        table.row([name, output::bytes(line.bytes), state.to_owned(), path]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogue_models_come_first_and_cached_ones_have_a_path() {
        let own = Cached { name: "own".to_owned(), path: "/c/own.gguf".into(), bytes: 2048, sha256: None };
        insta::assert_snapshot!(render(&listed(vec![own.clone()], CATALOGUE)), @r"
        MODEL              SIZE      STATE      PATH
        smollm2 (default)  93.8 MiB  not here
        own                2.0 KiB   unchecked  /c/own.gguf
        ");
        let known = Cached { name: CATALOGUE[0].stem().to_owned(), sha256: Some("ab".to_owned()), ..own };
        insta::assert_snapshot!(render(&listed(vec![known], CATALOGUE)), @r"
        MODEL              SIZE     STATE    PATH
        smollm2 (default)  2.0 KiB  checked  /c/own.gguf
        ");
    }
}
