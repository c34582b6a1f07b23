//! `baton store`: writes a cluster's keys into a file, and brings them into another store.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use engine::store::EtcdStore;
use schema::Keyspace;

use super::arguments::ClientArguments;
use super::exit::{CliError, Exit};
use super::output;
use crate::new_file;
use crate::settings::{ClusterOptions, ClusterSettings};
use crate::transfer::limits::DOCUMENT_BYTES_MAX;
use crate::transfer::{ClusterDocument, export, import};

/// The name for standard input and standard output.
const STANDARD: &str = "-";

/// The arguments of `baton store`.
#[derive(Debug, Args)]
pub struct StoreArguments {
    #[command(subcommand)]
    pub(super) deed: StoreDeed,
}

/// The deed.
#[derive(Debug, Subcommand)]
pub enum StoreDeed {
    /// Write the keys of the cluster, as they are at one moment, as JSON; it may go on serving
    Export {
        /// The file to make, or - for standard output
        #[arg(value_name = "FILE", default_value = STANDARD)]
        file: PathBuf,
        #[command(flatten)]
        cluster: ClusterOptions,
    },
    /// Bring an exported cluster into a store that does not have it: model, placement, pins, tokens, mark of the key
    Import {
        /// The file, or - for standard input
        #[arg(value_name = "FILE", default_value = STANDARD)]
        file: PathBuf,
        /// Take the place of a cluster of the same name that has no living member there
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        client: ClientArguments,
    },
}

// === impl StoreDeed ===

impl StoreDeed {
    /// The flags for the cluster and its store.
    pub(super) fn cluster(&self) -> &ClusterOptions {
        match self {
            Self::Export { cluster, .. } => cluster,
            Self::Import { client, .. } => &client.cluster,
        }
    }
}

/// Does what is asked.
pub(super) async fn run(arguments: StoreArguments, settings: &ClusterSettings) -> Result<Exit, CliError> {
    let keyspace = Keyspace::new(&settings.cluster);
    match arguments.deed {
        StoreDeed::Export { file, .. } => {
            let store = EtcdStore::open(&settings.etcd).await?;
            let document = export(&store, &keyspace).await?;
            let text = document.text()?;
            if file == Path::new(STANDARD) {
                output::print(&text)?;
            } else {
                write_new(&file, &text).map_err(|cause| CliError::Write { path: file.clone(), cause })?;
                output::print(&exported(&document, &file))?;
            }
        }
        StoreDeed::Import { file, replace, client } => {
            let bytes = read(&file).map_err(|cause| CliError::Read { path: file, cause })?;
            let document = ClusterDocument::read(&bytes, &keyspace)?;
            let store = EtcdStore::open(&settings.etcd).await?;
            let imported = import(&store, &keyspace, &document, replace).await?;
            let (written, deleted, revision) = (imported.written, imported.deleted, imported.revision);
            let (cluster, endpoints) = (&document.cluster, settings.etcd.endpoints.join(","));
            output::print(&if client.json {
                output::json(&serde_json::json!({
                    "cluster": cluster, "written": written, "deleted": deleted, "revision": revision,
                }))?
            } else {
                format!(
                    "cluster {cluster} is in the store at {endpoints}: {written} keys written, {deleted} deleted, \
                     revision {revision}; members go there with --etcd {endpoints}\n"
                )
            })?;
        }
    }
    Ok(Exit::Ok)
}

fn exported(document: &ClusterDocument, file: &Path) -> String {
    let ClusterDocument { cluster, revision, permanent, members, left_out, .. } = document;
    let mut text = format!(
        "cluster {cluster} at revision {revision} is in {}: {} keys to import, {} of members, which write them \
         themselves\n",
        file.display(),
        permanent.len(),
        members.len()
    );
    for left in left_out {
        let line = format!("left out: {}: {}", left.key, left.reason);
        text += &(output::replace_control_chars(&line) + "\n");
    }
    text
}

/// Writes a file that only its user can read, whole or not at all. One that is there stays.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    new_file::written(folder, text.as_bytes())?.persist_noclobber(path).map(drop).map_err(|error| {
        match error.error.kind() {
            ErrorKind::AlreadyExists => io::Error::new(
                ErrorKind::AlreadyExists,
                "it is there already: expected a new file, or - for the output",
            ),
            _ => error.error,
        }
    })
}

/// The bytes of a file or of standard input, of which no more are read than a document may have.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = DOCUMENT_BYTES_MAX + 1;
    if path == Path::new(STANDARD) {
        io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
