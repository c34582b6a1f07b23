//! `baton pull` and `baton models`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::view::ClusterView;
use schema::record::ModelRecord;
use serde::Serialize;
use stages::weights::ModelFile;

use super::arguments::ModelsArguments;
use super::described::{Described, Figures};
use super::exit::{CliError, Exit};
use super::fit::{self, Fit};
use super::output;
use super::table::Table;
use crate::models::{self, Cache, Cached, Console, DEFAULT, Entry, Origin, catalogue};
use crate::settings::{ClusterSettings, ComputeSettings, ModelSettings};

/// A model of the list.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Listed {
    /// The name of the model on the command line.
    model: String,
    /// The model's own name. `None` for a file that the catalogue does not have.
    about: Option<&'static str>,
    family: Option<&'static str>,
    parameters: Option<u64>,
    active_parameters: Option<u64>,
    format: Option<&'static str>,
    bytes: u64,
    /// True if `bytes` is about right.
    approximate: bool,
    /// True if the figures are those of a header, here or at a hub, and not the catalogue's.
    by_header: bool,
    /// Path of the file. `None` if it is not in the cache.
    path: Option<std::path::PathBuf>,
    /// SHA-256 of the file. `None` if it was not checked.
    sha256: Option<String>,
    /// True for the model that is used if none is named.
    default: bool,
    /// Its room on this machine. `None` for a file whose header cannot be read.
    machine: Option<Fit>,
    /// Its room in the cluster. `None` without one.
    cluster: Option<Fit>,
    /// The places where it can be fetched, best first.
    sources: &'static [Origin],
}

/// The form of the list, and the effort that is made for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListForm {
    json: bool,
    /// True to fetch the headers of models that are not here.
    headers: bool,
}

impl From<&ModelsArguments> for ListForm {
    fn from(arguments: &ModelsArguments) -> Self {
        Self { json: arguments.client.json, headers: arguments.headers }
    }
}

/// The stages that models may fit.
struct Rooms {
    machine: ClusterView,
    cluster: Option<ClusterView>,
    settings: ModelSettings,
}

/// Fetches a model and prints its path.
pub(super) fn pull(model: Option<&str>, cache: &Cache) -> Result<Exit, CliError> {
    let path = models::resolve(model, cache, &mut Console::new())?;
    output::print(&format!("{}\n", path.display()))?;
    Ok(Exit::Ok)
}

/// Prints the models in the catalogue and in the cache.
pub(super) async fn list(
    cache: &Cache,
    cluster: &ClusterSettings,
    compute: &ComputeSettings,
    settings: ModelSettings,
    form: ListForm,
) -> Result<Exit, CliError> {
    let machine = fit::this_machine(compute, schema::record::Speeds::new());
    let rooms = Rooms { machine, cluster: fit::reachable(cluster).await, settings };
    let cached = cache.list();
    let fetched = if form.headers { headers(&cached, cache, &rooms.settings) } else { BTreeMap::new() };
    let listed = listed(cached, fetched, &rooms);
    let text = if form.json { output::json(&listed)? } else { render(&listed, &rooms) };
    output::print(&text)?;
    Ok(Exit::Ok)
}

/// The models of the catalogue that are not here, by name, as their headers at their hubs describe them. Blocking.
fn headers(cached: &[Cached], cache: &Cache, settings: &ModelSettings) -> BTreeMap<&'static str, Described> {
    /// Models whose headers are fetched at the same time.
    const AT_ONCE: usize = 8;
    let is_here = |entry: &&Entry| cached.iter().any(|cached| entry.has_file(&cached.name));
    let absent: Vec<&'static Entry> = catalogue().iter().filter(|entry| !is_here(entry)).collect();
    let next = AtomicUsize::new(0);
    let fetch = || {
        let mut found = Vec::new();
        while let Some(entry) = absent.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.push((entry.name.as_str(), Described::of_listed(entry, cache, settings)));
        }
        found
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(fetch)).collect();
        // A thread that panicked has printed why; its models keep the catalogue's figures.
        running.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

fn listed(mut cached: Vec<Cached>, mut fetched: BTreeMap<&str, Described>, rooms: &Rooms) -> Vec<Listed> {
    let mut all = Vec::new();
    for entry in catalogue() {
        let at = cached.iter().position(|cached| entry.has_file(&cached.name));
        all.push(rooms.of_entry(entry, at.map(|at| cached.remove(at)), fetched.remove(entry.name.as_str())));
    }
    all.extend(cached.into_iter().map(|cached| rooms.of_file(cached)));
    all
}

// === impl Rooms ===

impl Rooms {
    /// The line of `entry`, which is `here`, or whose header was `fetched`, or which the catalogue describes.
    fn of_entry(&self, entry: &'static Entry, here: Option<Cached>, fetched: Option<Described>) -> Listed {
        // A file's header tells more than the catalogue.
        let own = here.as_ref().and_then(|here| self.record(here));
        let fetched = fetched.filter(|fetched| matches!(fetched.figures, Figures::RemoteHeader { .. }));
        let by_header = own.is_some() || fetched.is_some();
        let bytes = here.as_ref().map(|here| here.bytes).or(fetched.as_ref().map(|fetched| fetched.bytes));
        let (parameters, active) =
            fetched.as_ref().map_or((entry.parameters, entry.active), |fetched| (fetched.parameters, fetched.active));
        let record = own.or(fetched.map(|fetched| fetched.record));
        let record = record.unwrap_or_else(|| fit::estimate(entry, &self.settings));
        Listed {
            model: entry.name.clone(),
            about: Some(&entry.about),
            family: Some(&entry.family),
            parameters: Some(parameters),
            active_parameters: Some(active),
            format: Some(&entry.format),
            bytes: bytes.unwrap_or(entry.bytes),
            approximate: bytes.is_none() && !entry.is_exact(),
            by_header,
            sha256: here.as_ref().and_then(|here| here.sha256.clone()),
            path: here.map(|here| here.path),
            default: entry.name == DEFAULT,
            machine: Some(Fit::of(&self.machine, &record)),
            cluster: self.cluster.as_ref().map(|cluster| Fit::of(cluster, &record)),
            sources: &entry.sources,
        }
    }

    fn of_file(&self, here: Cached) -> Listed {
        let record = self.record(&here);
        let fit = |view: &ClusterView| record.as_ref().map(|record| Fit::of(view, record));
        Listed {
            machine: fit(&self.machine),
            cluster: self.cluster.as_ref().and_then(fit),
            model: here.name,
            about: None,
            family: None,
            parameters: None,
            active_parameters: None,
            format: None,
            bytes: here.bytes,
            approximate: false,
            by_header: record.is_some(),
            path: Some(here.path),
            sha256: here.sha256,
            default: false,
            sources: &[],
        }
    }

    fn record(&self, here: &Cached) -> Option<ModelRecord> {
        let file = ModelFile::open(&here.path).ok()?;
        fit::record(&file, &self.settings).ok()
    }
}

fn render(listed: &[Listed], rooms: &Rooms) -> String {
    let mut table = Table::new(&["MODEL", "SIZE", "FAMILY", "PARAMETERS", "HERE", "CLUSTER", "FILE"]);
    let mut files = Table::new(&["FILE", "SIZE", "HERE", "CLUSTER", "STATE", "PATH"]);
    let fit = |fit: &Option<Fit>| fit.as_ref().map_or("-".to_owned(), Fit::cell);
    for line in listed {
        let state = match (&line.path, &line.sha256) {
            (None, _) => "not here",
            (Some(_), None) => "unchecked",
            (Some(_), Some(_)) => "checked",
        };
        let about = if line.approximate { "~" } else { "" };
        let size = format!("{about}{}", output::bytes(line.bytes));
        let (machine, cluster) = (fit(&line.machine), fit(&line.cluster));
        let path = line.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let (Some(family), Some(parameters)) = (line.family, line.parameters) else {
            files.row([line.model.clone(), size, machine, cluster, state.to_owned(), path]);
            continue;
        };
        let name = if line.default { format!("{} (default)", line.model) } else { line.model.clone() };
        let active = line.active_parameters.filter(|active| *active < parameters);
        let parameters =
            active.map_or_else(|| short(parameters), |active| format!("{}, {}", short(parameters), short(active)));
        table.row([name, size, family.to_owned(), parameters, machine, cluster, state.to_owned()]);
    }
    let own =
        if listed.iter().any(|line| line.family.is_none()) { format!("\n{}", files.render()) } else { String::new() };
    let cluster = if rooms.cluster.is_some() { "" } else { " No cluster answers." };
    format!(
        "{}{own}\nHERE and CLUSTER: if the memory suffices, for a conversation, too, or what is missing.\n\
         PARAMETERS: all, and those of one token. A size with ~ is about right.{cluster}\n",
        table.render()
    )
}

/// A number of parameters, such as 14.8B.
pub(super) fn short(parameters: u64) -> String {
    match parameters {
        0..1_000_000_000 => format!("{:.0}M", parameters as f64 / 1e6),
        _ => format!("{:.1}B", parameters as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(gigabytes: u64, cluster: Option<u64>) -> Rooms {
        let machine = fit::tests::machine(gigabytes);
        Rooms { machine, cluster: cluster.map(fit::tests::machine), settings: fit::tests::settings() }
    }

    /// The cells of the row that begins with `name`.
    fn cells<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
        let row = text.lines().find(|line| line.starts_with(name)).unwrap();
        row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
    }

    #[test]
    fn the_table_is_narrow_and_says_what_fits() {
        let rooms = rooms(8, Some(32));
        let text = render(&listed(Vec::new(), BTreeMap::new(), &rooms), &rooms);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert_eq!(
            cells(&text, "smollm2 "),
            ["smollm2 (default)", "93.8 MiB", "llama", "135M", "fits", "fits", "not here"]
        );
        assert_eq!(
            cells(&text, "qwen3-14b"),
            ["qwen3-14b", "8.4 GiB", "qwen3", "14.8B", "-1.8 GiB", "fits", "not here"]
        );
        assert_eq!(
            cells(&text, "llama-3.3-70b"),
            ["llama-3.3-70b", "~39.6 GiB", "llama", "70.6B", "-34.2 GiB", "-10.2 GiB", "not here"]
        );
        assert_eq!(cells(&text, "qwen3-30b-a3b")[3], "30.5B, 3.3B");
    }

    #[test]
    fn catalogue_models_come_first_and_files_of_ones_own_have_a_path() {
        let rooms = rooms(8, None);
        let own = Cached { name: "own".to_owned(), path: "/c/own.gguf".into(), bytes: 2048, sha256: None };
        let text = render(&listed(vec![own.clone()], BTreeMap::new(), &rooms), &rooms);
        assert_eq!(cells(&text, "own"), ["own", "2.0 KiB", "-", "-", "unchecked", "/c/own.gguf"]);
        assert!(text.find("own  ") > text.find("qwen3-14b") && text.contains("No cluster answers."));
        let stem = catalogue()[0].sources[0].stem();
        let known = Cached { name: stem.to_owned(), sha256: Some("ab".to_owned()), ..own };
        let listed = listed(vec![known], BTreeMap::new(), &rooms);
        assert_eq!(
            (listed.len(), listed[0].bytes, &listed[0].sha256),
            (catalogue().len(), 2048, &Some("ab".to_owned()))
        );
    }
}
