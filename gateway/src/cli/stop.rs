//! `baton stop`: ends the cluster that `baton up` runs on this machine.

use std::time::{Duration, Instant};

use clap::Args;
use engine::store::{EtcdAccess, EtcdStore};
use rustix::process::Signal;
use schema::{ClusterName, StageName};
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::cluster;
use super::exit::{CliError, Exit};
use super::output::{self, replace_control_chars};
use crate::running::{POLL_INTERVAL, RunningFolder, RunningUp, STOP_WAIT_MAX};
use crate::settings::{ClusterOptions, ClusterSettings, Environment};
use crate::signal;

/// Longest wait for the list of members, which is only for the message.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(2);

/// The arguments of `baton stop`.
#[derive(Debug, Args)]
pub struct StopArguments {
    /// Name of the cluster [default: home]
    #[arg(value_name = "CLUSTER", env = "BATON_CLUSTER")]
    cluster: Option<ClusterName>,
    /// Stop the clusters that this one serves, too: their store and HTTP server end with it
    #[arg(long, short)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The result.
#[derive(Debug, Serialize)]
struct StopDocument {
    cluster: ClusterName,
    processes: Vec<EndedProcess>,
    /// Stages on other machines, which have lost their store. `None` if the store did not say.
    elsewhere: Option<Vec<RemoteStage>>,
}

/// A process that has ended.
#[derive(Debug, Serialize)]
struct EndedProcess {
    cluster: ClusterName,
    pid: u32,
    ended_ms: u64,
}

/// A stage on another machine.
#[derive(Debug, Serialize)]
struct RemoteStage {
    stage: StageName,
    host: String,
}

/// Tells the processes to stop, as Ctrl-C does, and waits until they have ended.
pub(super) async fn run(
    arguments: StopArguments,
    file: ClusterOptions,
    environment: &Environment,
) -> Result<Exit, CliError> {
    let state = environment.state.as_deref().ok_or(CliError::NoStateFolder)?;
    let cluster = arguments.cluster.or(file.cluster);
    let cluster = ClusterSettings::name(&ClusterOptions { cluster, ..ClusterOptions::default() });
    let host = stages::memory::machine().host;
    let running = RunningFolder::new(state).running(&host).map_err(|source| CliError::Running { source })?;
    let (wanted, others): (Vec<_>, Vec<_>) = running.into_iter().partition(|up| up.record.cluster == cluster);
    if wanted.is_empty() {
        let mut found: Vec<_> = others.into_iter().map(|up| up.record.cluster).collect();
        found.dedup();
        return Err(CliError::NotRunning { cluster, found });
    }
    let depends = |up: &RunningUp| wanted.iter().any(|wanted| up.record.neighbour == Some(wanted.record.pid));
    let dependents: Vec<_> = others.into_iter().filter(depends).collect();
    if !dependents.is_empty() && !arguments.yes {
        let dependents = dependents.into_iter().map(|up| (up.record.cluster, up.record.pid)).collect();
        return Err(CliError::Dependents { cluster, dependents });
    }
    let elsewhere = elsewhere(&cluster, &wanted, &host).await;
    let mut processes = Vec::new();
    // Those that depend on the others first, while their store answers.
    for up in dependents.iter().chain(&wanted) {
        processes.push(stop(up).await?);
    }
    let document = StopDocument { cluster, processes, elsewhere };
    output::print(&if arguments.json { output::json(&document)? } else { document.render() })?;
    Ok(Exit::Ok)
}

/// The stages on other machines of a cluster whose store ends with one of the processes.
async fn elsewhere(cluster: &ClusterName, stopped: &[RunningUp], host: &str) -> Option<Vec<RemoteStage>> {
    let Some(up) = stopped.iter().find(|up| !up.record.embedded_store.is_empty()) else { return Some(Vec::new()) };
    let read = async {
        let store = EtcdStore::open(&EtcdAccess::plain(&up.record.embedded_store)).await?;
        cluster::read(&store, &cluster::serving(&store, cluster).await?, None).await
    };
    let view = timeout(MEMBERS_TIMEOUT, read).await.ok()?.ok()?;
    let stages = view.stages.into_iter().filter(|(_, record)| record.value.host != host);
    Some(stages.map(|(stage, record)| RemoteStage { stage, host: record.value.host }).collect())
}

/// Stops one process.
async fn stop(up: &RunningUp) -> Result<EndedProcess, CliError> {
    let (pid, asked) = (up.record.pid, Instant::now());
    let has_ended = || up.has_ended().map_err(|source| CliError::Running { source });
    // It may have ended by itself since it was found; its number is nobody else's as long as the lock is held.
    if !has_ended()?
        && let Err(error) = signal::send(pid, Signal::TERM)
        && !has_ended()?
    {
        return Err(CliError::NotStopped { pid, reason: error.to_string() });
    }
    while !has_ended()? {
        if asked.elapsed() > STOP_WAIT_MAX {
            let reason =
                format!("it has not ended after {} s; stopping it again ends it at once", STOP_WAIT_MAX.as_secs());
            return Err(CliError::NotStopped { pid, reason });
        }
        sleep(POLL_INTERVAL).await;
    }
    let cluster = up.record.cluster.clone();
    Ok(EndedProcess { cluster, pid, ended_ms: u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX) })
}

// === impl StopDocument ===

impl StopDocument {
    fn render(&self) -> String {
        let mut text = String::new();
        for EndedProcess { cluster, pid, ended_ms } in &self.processes {
            let seconds = *ended_ms as f64 / 1e3;
            text += &format!("cluster {cluster}: process {pid} has ended after {seconds:.1} s\n");
        }
        match &self.elsewhere {
            None => text += "its store did not say which other machines have stages: those wait for a store now\n",
            Some(stages) => {
                for RemoteStage { stage, host } in stages {
                    let host = replace_control_chars(host);
                    text += &format!(
                        "stage {stage} on {host} waits for a store now: Ctrl-C ends it there, `baton up --share` \
                         here lets it serve again\n"
                    );
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_on_other_machines_are_named() {
        let stages = vec![RemoteStage { stage: "mini-2".parse().unwrap(), host: "mini-2\u{1b}".to_owned() }];
        let cluster: ClusterName = "home".parse().unwrap();
        let processes = vec![EndedProcess { cluster: cluster.clone(), pid: 7, ended_ms: 640 }];
        let document = StopDocument { cluster, processes, elsewhere: Some(stages) };
        insta::assert_snapshot!(document.render(), @r"
        cluster home: process 7 has ended after 0.6 s
        stage mini-2 on mini-2� waits for a store now: Ctrl-C ends it there, `baton up --share` here lets it serve again
        ");
        let silent = StopDocument { elsewhere: None, ..document };
        assert!(silent.render().contains("did not say which other machines have stages"));
    }
}
