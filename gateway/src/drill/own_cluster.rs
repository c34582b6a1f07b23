//! A cluster of the drill's own: a `baton up` on free ports of this machine, with nothing of the user's settings but
//! the cache of models. It is stopped at the end of the drill, and if this process is killed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

use engine::link::ClusterKey;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::error::DrillError;
use super::etcd::OwnEtcd;
use super::fault::Fault;
use super::limits::{READY_TIMEOUT, STOP_TIMEOUT};
use super::process::{end_later, end_of};
use super::undo::Undo;
use crate::client::Endpoint;

/// The settings of a cluster of the drill's own.
#[derive(Debug, Clone)]
pub struct OwnClusterSettings {
    /// Number of stages.
    pub stages: u32,
    /// The model. `None` for the default model.
    pub model: Option<String>,
    /// The folder of the cache of models.
    pub cache: PathBuf,
    /// The variables of baton that are set. They are for the user's own cluster.
    pub variables: Vec<String>,
}

/// A running `baton up`.
#[derive(Debug)]
pub struct OwnCluster {
    process: Child,
    /// Ends the process if it is dropped.
    end: Undo,
    /// Reads on, so that the process can go on writing.
    _lines: tokio::task::JoinHandle<()>,
    /// Its etcd, if the store is to be killed. Declared behind the process, so that it ends after it.
    pub(super) etcd: Option<OwnEtcd>,
    endpoint: Endpoint,
    _folder: tempfile::TempDir,
}

// === impl OwnCluster ===

impl OwnCluster {
    /// Starts a cluster in which `fault` can be brought about, and waits until it serves.
    ///
    /// # Errors
    /// [`DrillError::Start`] with what it printed if it does not get ready.
    pub async fn start(settings: &OwnClusterSettings, fault: Fault) -> Result<Self, DrillError> {
        let io = |doing| move |cause| DrillError::Io { doing, cause };
        let folder = tempfile::Builder::new().prefix("baton-drill-").tempdir();
        let folder = folder.map_err(io("make a folder for the drill"))?;
        let etcd = match fault {
            Fault::Store => Some(OwnEtcd::start(folder.path()).await?),
            Fault::Kill | Fault::Freeze | Fault::Cut => None,
        };
        let errors = folder.path().join("stderr");
        let stderr = std::fs::File::create(&errors).map_err(io("make a file for the drill"))?;
        let mut command = Command::new(std::env::current_exe().map_err(io("find this program"))?);
        for name in &settings.variables {
            command.env_remove(name);
        }
        command.args(arguments(settings, etcd.as_ref().map(OwnEtcd::url)));
        if fault == Fault::Cut {
            // Over TCP, because a packet filter does not see local sockets, and so with a key.
            let key = ClusterKey::generate().map_err(io("make a key"))?;
            command.args(["--advertise", "127.0.0.1"]).env("BATON_CLUSTER_KEY", key.to_hex());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).process_group(0).kill_on_drop(false);
        let mut process = command.spawn().map_err(io("start `baton up`"))?;
        let end = end_later(process.id().unwrap_or_default())?;
        let stdout = process.stdout.take().map(BufReader::new);
        let ready = tokio::time::timeout(READY_TIMEOUT, ready(stdout)).await;
        let Ok(Some((endpoint, lines))) = ready else {
            end.undo().await?;
            let printed = std::fs::read(&errors).unwrap_or_default();
            let reason = match (ready, end_of(&printed)) {
                (Err(_), _) => format!("it does not serve within {} s", READY_TIMEOUT.as_secs()),
                (Ok(_), printed) => printed,
            };
            return Err(DrillError::Start { what: "`baton up`", reason });
        };
        Ok(Self { process, end, _lines: lines, etcd, endpoint, _folder: folder })
    }

    /// The gateway's address.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Stops it and waits for its end.
    ///
    /// # Errors
    /// [`DrillError`] if it had to be killed.
    pub async fn stop(mut self) -> Result<(), DrillError> {
        self.end.undo().await?;
        if tokio::time::timeout(STOP_TIMEOUT, self.process.wait()).await.is_ok() {
            return Ok(());
        }
        let killed = self.process.kill().await;
        killed.map_err(|cause| DrillError::Io { doing: "stop the cluster of the drill", cause })
    }
}

fn arguments(settings: &OwnClusterSettings, etcd: Option<&str>) -> Vec<OsString> {
    let stages = settings.stages.to_string();
    // An empty settings file in the place of the user's.
    let fixed = ["up", "--config", "/dev/null", "--cluster", "drill", "--listen", "127.0.0.1:0", "--stages", &stages];
    let mut arguments: Vec<OsString> = fixed.map(OsString::from).to_vec();
    arguments.extend(["--cache".into(), settings.cache.clone().into()]);
    match etcd {
        Some(url) => arguments.extend(["--etcd".into(), url.into()]),
        None => arguments.extend(["--store-listen".into(), "127.0.0.1:0".into()]),
    }
    arguments.extend(settings.model.clone().map(OsString::from));
    arguments
}

/// The gateway's address in the line that says that the cluster is ready, and the task that reads on. `None` if the
/// output ends before.
async fn ready(stdout: Option<BufReader<ChildStdout>>) -> Option<(Endpoint, tokio::task::JoinHandle<()>)> {
    let mut lines = stdout?.lines();
    while let Some(line) = lines.next_line().await.ok()? {
        if let Some(endpoint) = announced(&line) {
            let reading = async move { while lines.next_line().await.is_ok_and(|line| line.is_some()) {} };
            return Some((endpoint, tokio::spawn(reading)));
        }
    }
    None
}

fn announced(line: &str) -> Option<Endpoint> {
    let url = line.strip_prefix("ready after ")?.split_once(" on ")?.1;
    url.split_once(',')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_in_the_line_that_says_that_it_is_ready() {
        let line = "ready after 0.52 s: SmolLM2 on http://127.0.0.1:41000, Ctrl-C stops";
        assert_eq!(announced(line).unwrap().to_string(), "http://127.0.0.1:41000");
        for other in ["stage a is process 7", "ready after 0.52 s", "serving again"] {
            assert_eq!(announced(other), None);
        }
    }
}
