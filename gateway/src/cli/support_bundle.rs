//! `baton support-bundle`: writes an archive for whoever helps.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use engine::store::{EtcdStore, Store, StoreError};
use engine::view::ClusterView;
use schema::Keyspace;
use serde_json::{Map, Value, json};

use super::ask;
use super::cluster;
use super::doctor::diagnosis;
use super::exit::{CliError, Exit};
use super::output::{self, chain};
use super::status::StatusDocument;
use crate::logs::LogFolder;
use crate::settings::{ClusterOptions, ClusterSettings, Environment, FileOptions, SettingsError, secrets};
use crate::support::{Bundle, LOG_BYTES_MAX, Redactor};

/// The arguments of `baton support-bundle`.
#[derive(Debug, Args)]
pub struct SupportBundleArguments {
    /// The archive to write, which must not be there yet [default: baton-support-<process>.zip]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterOptions,
}

// === impl SupportBundleArguments ===

impl SupportBundleArguments {
    /// The settings of the cluster to read.
    pub(super) fn cluster(
        &self,
        file: &FileOptions,
        environment: &Environment,
    ) -> Result<ClusterSettings, SettingsError> {
        ClusterSettings::for_client(&self.cluster.clone().or(file.cluster.clone()), &file.member, environment)
    }
}

/// The text of the archive's README.
const README: &str = "\
A support bundle of baton, written by `baton support-bundle`.

Left out: the cluster key, API keys, tokens of hubs, proofs of keys, passwords in addresses, and every run of 64 hex
digits or more (but fingerprints of models). Prompts and answers are in none of baton's logs. What is still in it: names
of machines, users' folders, addresses in the private network. Read it before you pass it on.
";

/// Writes the archive and lists what it has.
pub(super) async fn run(
    arguments: &SupportBundleArguments,
    settings: &ClusterSettings,
    options: &FileOptions,
    config: Option<&Path>,
    environment: &Environment,
) -> Result<Exit, CliError> {
    let default = || PathBuf::from(format!("baton-support-{}.zip", std::process::id()));
    let path = arguments.file.clone().unwrap_or_else(default);
    let config = config.or_else(|| environment.config_paths.iter().map(PathBuf::as_path).find(|path| path.exists()));
    let failed = |cause| CliError::Write { path: path.clone(), cause };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    let mut bundle = Bundle::new(file, Redactor::new(secrets(options, environment)));
    let written = fill(&mut bundle, settings, config, environment).await;
    let members = written.and_then(|()| bundle.finish()).map_err(|error| failed(error.into()))?;
    output::print(&format!("{}:\n  {}\n", path.display(), members.join("\n  ")))?;
    Ok(Exit::Ok)
}

async fn fill(
    bundle: &mut Bundle<File>,
    settings: &ClusterSettings,
    config: Option<&Path>,
    environment: &Environment,
) -> zip::result::ZipResult<()> {
    bundle.add_text("README.txt", README)?;
    bundle.add_json("versions.json", &versions())?;
    bundle.add_json("settings.json", &own_settings(settings, config, environment))?;
    let read = read(settings).await;
    let view = read.as_ref().map(|(view, _)| view);
    bundle.add_json("doctor.json", &diagnosis(settings, view).await)?;
    match &read {
        Ok((view, entries)) => {
            bundle.add_json("status.json", &StatusDocument::new(settings.cluster.as_str(), view))?;
            bundle.add_json("store.json", entries)?;
            for (slot, gateway) in &view.gateways {
                let page = ask::get(&gateway.value.url, "/metrics", &settings.client).await;
                let page = page.unwrap_or_else(|error| format!("# {}\n", chain(&error)));
                bundle.add_text(&format!("metrics-{slot}.txt"), &page)?;
            }
        }
        Err(error) => bundle.add_text("store.txt", &format!("{}\n", chain(error)))?,
    }
    let Some(state) = &environment.state else { return Ok(()) };
    for log in LogFolder::new(state, &settings.cluster).members()? {
        let text = end_of(&log.path)?;
        bundle.add_text(&format!("logs/{}.{}.log", log.member, log.pid), &text)?;
    }
    Ok(())
}

/// The cluster, and its records as they are in the store.
async fn read(settings: &ClusterSettings) -> Result<(ClusterView, Map<String, Value>), StoreError> {
    let store = EtcdStore::open(&settings.etcd).await?;
    let keyspace = Keyspace::new(&settings.cluster);
    let serving = cluster::serving(&store, &settings.cluster).await?;
    let view = cluster::read(&store, &serving, settings.client_key.as_ref()).await?;
    let entries = store.read(keyspace.prefix()).await?.entries.into_iter().map(|entry| {
        let text = String::from_utf8_lossy(&entry.value).into_owned();
        (entry.key, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    });
    Ok((view, entries.collect()))
}

fn versions() -> Value {
    let system = rustix::system::uname();
    let machine = stages::memory::machine();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let features = [
        ("hub", cfg!(feature = "hub")),
        ("tls", cfg!(feature = "tls")),
        ("metal", cfg!(feature = "metal")),
        ("cuda", cfg!(feature = "cuda")),
        ("otlp", cfg!(feature = "otlp")),
    ];
    let features: Vec<_> = features.into_iter().filter(|(_, built)| *built).map(|(name, _)| name).collect();
    json!({
        "baton": env!("CARGO_PKG_VERSION"),
        "features": features,
        "system": text(system.sysname()),
        "kernel": text(system.release()),
        "machine": text(system.machine()),
        "processors": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory_total_bytes": machine.memory_total_bytes,
        "memory_available_bytes": machine.memory_available_bytes,
    })
}

/// The settings file, the names of the variables that are set, and the cluster that they lead to.
fn own_settings(settings: &ClusterSettings, config: Option<&Path>, environment: &Environment) -> Value {
    let text = config.map(|path| fs::read_to_string(path).unwrap_or_else(|error| format!("# {error}")));
    let table = text.as_deref().map(|text| match text.parse::<toml::Table>() {
        Ok(table) => serde_json::to_value(table).unwrap_or_default(),
        Err(error) => Value::String(error.message().to_owned()),
    });
    json!({
        "file": config.map(|path| path.display().to_string()),
        "contents": table,
        "variables": environment.names,
        "cluster": settings.cluster.as_str(),
        "etcd": settings.etcd.endpoints,
        "has_cluster_key": settings.client_key.is_some(),
        "has_api_key": settings.client.api_key.is_some(),
    })
}

/// The last lines of a log file.
fn end_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let begin = file.metadata()?.len().saturating_sub(LOG_BYTES_MAX as u64);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(begin))?;
    file.take(LOG_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
