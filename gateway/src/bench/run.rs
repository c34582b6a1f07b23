//! The run: load point after load point, endpoints taking turns, until all is asked or somebody stops it.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::StreamExt;

use super::failure::BenchError;
use super::load::Load;
use super::plan::Plan;
use super::prepare::{Ready, prepare};
use super::report::{EndpointReport, PointReport, Report, Tally};

/// What is told while a run goes on.
pub trait Watcher {
    /// A load point begins, of so many requests to all endpoints together.
    fn begin(&mut self, load: Load, requests: u64);
    /// A request of it ended.
    fn ended(&mut self);
    /// The load point is over, or given up.
    fn end(&mut self);
}

/// One endpoint's turn at a load point.
#[derive(Debug, Clone, Copy)]
struct Turn {
    load: Load,
    /// Which load point it is; distinguishes prompts.
    point: u64,
    endpoint: usize,
    /// The first request of it.
    first: u32,
    /// One past the last.
    end: u32,
}

/// Somebody wants the run to end.
struct Stopped;

type Stop<'a> = Pin<&'a mut (dyn Future<Output = ()> + 'a)>;

/// Does what `plan` says until `stop` resolves; then the report has what was measured until then.
///
/// # Errors
/// [`BenchError`] when an endpoint does not serve at all.
pub async fn run(
    plan: &Plan,
    watcher: &mut impl Watcher,
    stop: impl Future<Output = ()>,
) -> Result<Report, BenchError> {
    let mut stop = std::pin::pin!(stop);
    let mut stop: Stop<'_> = stop.as_mut();
    let mut report = empty(plan);
    let ready = tokio::select! {
        () = &mut stop => return Ok(report),
        ready = prepare_all(plan) => ready?,
    };
    report.endpoints = ready.iter().map(Ready::describe).collect();
    if warm_up(plan, &ready, &mut stop).await.is_err() {
        return Ok(report);
    }
    for (point, load) in plan.loads.iter().enumerate() {
        let mut tallies = vec![Tally::default(); ready.len()];
        watcher.begin(*load, u64::from(plan.requests) * ready.len() as u64);
        let ended = press(plan, &ready, (point as u64, *load), &mut tallies, watcher, &mut stop).await;
        watcher.end();
        report.points.push(PointReport::new(*load, &tallies));
        if ended.is_err() {
            return Ok(report);
        }
    }
    report.partial = false;
    Ok(report)
}

fn empty(plan: &Plan) -> Report {
    Report {
        partial: true,
        seed: plan.workload.seed,
        api: plan.api,
        prompt_tokens: plan.workload.prompt_tokens.to_string(),
        output_tokens: plan.workload.output_tokens.to_string(),
        shared_prefix_tokens: plan.workload.shared_prefix_tokens,
        requests: plan.requests,
        endpoints: Vec::new(),
        points: Vec::new(),
    }
}

async fn prepare_all(plan: &Plan) -> Result<Vec<Ready>, BenchError> {
    let mut ready = Vec::new();
    for (index, endpoint) in plan.endpoints.iter().enumerate() {
        ready.push(prepare(plan, index, endpoint).await?);
    }
    Ok(ready)
}

/// Requests that do not count, as many at once as at the first load point.
async fn warm_up(plan: &Plan, ready: &[Ready], stop: &mut Stop<'_>) -> Result<(), Stopped> {
    let load = match plan.loads.first() {
        Some(load @ Load::Concurrency(_)) => *load,
        _ => Load::Concurrency(1),
    };
    for endpoint in 0..ready.len() {
        // Its number is no load point's, so its prompts are none of theirs.
        let turn = Turn { load, point: plan.loads.len() as u64, endpoint, first: 0, end: plan.warmup };
        take_turn(plan, ready, turn, &mut Tally::default(), &mut || {}, stop).await?;
    }
    Ok(())
}

/// One load point: rounds in which each endpoint has its turn.
async fn press(
    plan: &Plan,
    ready: &[Ready],
    (point, load): (u64, Load),
    tallies: &mut [Tally],
    watcher: &mut impl Watcher,
    stop: &mut Stop<'_>,
) -> Result<(), Stopped> {
    let rounds = if ready.len() > 1 { load.rounds(plan.requests) } else { 1 };
    // u32::MAX requests in 4 rounds need more bits.
    let at = |round: u32| (u64::from(plan.requests) * u64::from(round) / u64::from(rounds)) as u32;
    for round in 0..rounds {
        for (endpoint, tally) in tallies.iter_mut().enumerate() {
            let turn = Turn { load, point, endpoint, first: at(round), end: at(round + 1) };
            take_turn(plan, ready, turn, tally, &mut || watcher.ended(), stop).await?;
        }
    }
    Ok(())
}

/// Sends the requests of `turn`; what comes of them goes into `tally`.
async fn take_turn(
    plan: &Plan,
    ready: &[Ready],
    turn: Turn,
    tally: &mut Tally,
    ended: &mut impl FnMut(),
    stop: &mut Stop<'_>,
) -> Result<(), Stopped> {
    let Ready { client, scale, .. } = &ready[turn.endpoint];
    let arrivals = plan.workload.arrivals(turn.load, turn.point, turn.end);
    // A later round begins at once with its first arrival.
    let offset = arrivals.get(turn.first as usize).copied().flatten().unwrap_or_default();
    let began = Instant::now();
    let ask = |index: u32| {
        let due = arrivals[index as usize].map(|at: Duration| began + at.saturating_sub(offset));
        let request = plan.workload.request(turn.endpoint, turn.point, index.into(), *scale);
        async move {
            if let Some(due) = due {
                tokio::time::sleep_until(due.into()).await;
            }
            client.ask(&request, due.unwrap_or_else(Instant::now)).await
        }
    };
    // In order of arrival; so a place that is taken by one that is not due yet is wanted by nobody else.
    let requests = futures::stream::iter(turn.first..turn.end).map(ask);
    let mut requests = std::pin::pin!(requests.buffer_unordered(turn.load.at_once() as usize));
    let stopped = loop {
        tokio::select! {
            biased;
            () = &mut *stop => break Err(Stopped),
            answered = requests.next() => match answered {
                Some(answered) => tally.add(answered),
                None => break Ok(()),
            },
        }
        ended();
    };
    tally.pressed += began.elapsed();
    stopped
}

// === impl Ready ===

impl Ready {
    fn describe(&self) -> EndpointReport {
        EndpointReport {
            url: self.client.endpoint.to_string(),
            model: self.client.model.clone(),
            ignore_eos: self.client.dialect.ignore_eos,
            notes: self.notes.clone(),
        }
    }
}
