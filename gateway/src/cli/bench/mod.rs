//! `baton bench`: sends load to endpoints and reports the latency and throughput that clients see.

mod arguments;
mod bar;
mod table;

use std::time::Duration;

pub use arguments::BenchArguments;

use self::bar::Bar;
use self::table::render;
use super::exit::{CliError, Exit};
use super::output;
use crate::bench::{self, BenchError, Plan, Report, Workload};
use crate::client::Target;
use crate::settings::ClientSettings;

/// Runs the load, prints the report, and writes the plot.
pub(super) async fn run(arguments: BenchArguments, client: ClientSettings) -> Result<Exit, CliError> {
    let plan = plan(&arguments, client);
    let interrupted = async {
        // If signals cannot be received, the run continues to its end.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let report = bench::run(&plan, &mut Bar::default(), interrupted).await?;
    let text = if arguments.json { output::json(&report)? } else { render(&report) };
    output::print(&text)?;
    if let Some(path) = arguments.plot {
        std::fs::write(&path, bench::plot(&report)).map_err(|cause| BenchError::Plot { path, cause })?;
    }
    Ok(exit(&report))
}

fn plan(arguments: &BenchArguments, client: ClientSettings) -> Plan {
    let first = Target { endpoint: arguments.url.clone(), api_key: arguments.api_key.clone().or(client.api_key) };
    // The second endpoint may be somebody else's, so it gets the first one's key only if it is named for it.
    let second = arguments.compare.clone();
    let second = second.map(|endpoint| Target { endpoint, api_key: arguments.compare_api_key.clone() });
    Plan {
        targets: std::iter::once(first).chain(second).collect(),
        trusted: client.trusted,
        model: arguments.model.clone(),
        api: arguments.api,
        workload: Workload {
            // A random seed by default, because otherwise an endpoint could have the prompts of the last run in its
            // prefix cache.
            seed: arguments.seed.unwrap_or_else(|| rand::random::<u32>().into()),
            prompt_tokens: arguments.prompt_tokens,
            output_tokens: arguments.output_tokens,
            shared_prefix_tokens: arguments.shared_prefix_tokens,
        },
        loads: arguments.loads(),
        requests: arguments.requests,
        warmup: arguments.warmup,
        timeout: Duration::from_secs(arguments.timeout_s),
    }
}

fn exit(report: &Report) -> Exit {
    match (report.partial, report.completed()) {
        (true, _) => Exit::Interrupted,
        (false, 0) => Exit::RequestFailed,
        (false, _) => Exit::Ok,
    }
}
