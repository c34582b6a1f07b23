//! `baton drill`: proves that an answer outlives a fault, on a running cluster or on one of its own.

mod arguments;

use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

pub use arguments::DrillArguments;

use super::exit::{CliError, Exit};
use super::output::{self, replace_control_chars};
use crate::client::Target;
use crate::drill::{
    self, DrillError, DrillProgress, DrillReport, DrillVerdict, Gateway, OwnCluster, OwnClusterSettings,
};
use crate::settings::ClientSettings;

/// Runs the drill and prints its course and its report. `variables` are those of baton that are set.
pub(super) async fn run(
    arguments: &DrillArguments,
    cache: &Path,
    client: ClientSettings,
    variables: Vec<String>,
) -> Result<Exit, CliError> {
    let mut stop = std::pin::pin!(interrupted());
    let json = arguments.json;
    let mut observe = move |progress: DrillProgress| {
        if !json {
            // A closed stdout is no reason to leave a fault where it is.
            let _ = output::print(&format!("{}\n", replace_control_chars(&progress.to_string())));
        }
    };
    let (mut own, target) = match &arguments.url {
        Some(url) => (None, Target { endpoint: url.clone(), api_key: client.api_key }),
        None => {
            let settings = OwnClusterSettings {
                stages: arguments.stages,
                model: arguments.model.clone(),
                cache: cache.to_owned(),
                variables,
            };
            let started = tokio::select! {
                () = &mut stop => return Ok(Exit::Interrupted),
                started = OwnCluster::start(&settings, arguments.plan().fault) => started?,
            };
            observe(DrillProgress::Started { url: started.endpoint().to_string(), stages: arguments.stages });
            let target = Target { endpoint: started.endpoint().clone(), api_key: None };
            (Some(started), target)
        }
    };
    let gateway = Gateway::new(target, client.trusted)?;
    let plan = arguments.plan();
    let report = tokio::select! {
        () = &mut stop => None,
        ended = drill::run(&gateway, own.as_mut(), &plan, &mut observe) => Some(ended),
    };
    let stopped = match own {
        Some(own) => own.stop().await,
        None => Ok(()),
    };
    let Some(report) = report.transpose()? else { return Ok(Exit::Interrupted) };
    print(&report, json)?;
    stopped?;
    exit(report)
}

fn print(report: &DrillReport, json: bool) -> Result<(), CliError> {
    let text = if json { output::json(report)? } else { format!("{}\n", replace_control_chars(&report.to_string())) };
    Ok(output::print(&text)?)
}

/// 0 only if the answers are equal, the fault was felt and the cluster is whole.
fn exit(report: DrillReport) -> Result<Exit, CliError> {
    match (report.verdict, report.lacks) {
        (_, Some(reason)) => Err(DrillError::NotWhole { reason }.into()),
        (DrillVerdict::Equal, None) => Ok(Exit::Ok),
        (DrillVerdict::Different | DrillVerdict::Unfelt, None) => Ok(Exit::Failed),
    }
}

/// Resolves when this process is asked to stop.
async fn interrupted() {
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    // If signals cannot be received, the drill continues to its end.
    let Ok([mut interrupt, mut terminate, mut hangup]) = all(signals) else { return std::future::pending().await };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

fn all<T>([a, b, c]: [std::io::Result<T>; 3]) -> std::io::Result<[T; 3]> {
    Ok([a?, b?, c?])
}
