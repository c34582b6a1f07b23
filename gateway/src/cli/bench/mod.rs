//! `baton bench`: presses endpoints and shows what clients would have seen.

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

/// Runs the load, prints what was found, and draws it.
pub(super) async fn run(said: BenchArguments) -> Result<Exit, CliError> {
    let plan = plan(&said);
    let interrupted = async {
        // Where signals cannot be heard, the run goes to its end.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let report = bench::run(&plan, &mut Bar::default(), interrupted).await?;
    let text = if said.json {
        format!("{}\n", serde_json::to_string_pretty(&report).map_err(std::io::Error::other)?)
    } else {
        render(&report)
    };
    output::print(&text)?;
    if let Some(path) = said.plot {
        std::fs::write(&path, bench::plot(&report)).map_err(|cause| BenchError::Plot { path, cause })?;
    }
    Ok(exit(&report))
}

fn plan(said: &BenchArguments) -> Plan {
    Plan {
        endpoints: [&said.url].into_iter().chain(&said.compare).cloned().collect(),
        model: said.model.clone(),
        api: said.api,
        workload: Workload {
            // Another one each time, or else an endpoint would know the prompts of the last run.
            seed: said.seed.unwrap_or_else(|| rand::random::<u32>().into()),
            prompt_tokens: said.prompt_tokens,
            output_tokens: said.output_tokens,
            shared_prefix_tokens: said.shared_prefix_tokens,
        },
        loads: said.loads(),
        requests: said.requests,
        warmup: said.warmup,
        timeout: Duration::from_secs(said.timeout_s),
    }
}

fn exit(report: &Report) -> Exit {
    match (report.partial, report.completed()) {
        (true, _) => Exit::Interrupted,
        (false, 0) => Exit::RequestFailed,
        (false, _) => Exit::Ok,
    }
}
