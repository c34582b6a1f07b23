//! The run: one load point after the other, with endpoints taking turns, until all requests are sent or `stop`
//! resolves.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::StreamExt;

use super::error::BenchError;
use super::load::Load;
use super::plan::Plan;
use super::prepare::{ProbedEndpoint, prepare};
use super::report::{EndpointReport, PointReport, Report, Tally};

/// Receives the progress of a run.
pub trait ProgressObserver {
    /// A load point begins. `requests` is the number of its requests to all endpoints together.
    fn begin_point(&mut self, load: Load, requests: u64);
    /// A request of the load point ended.
    fn request_ended(&mut self);
    /// The load point ended, or was interrupted.
    fn end_point(&mut self);
}

/// One endpoint's turn at a load point.
#[derive(Debug, Clone, Copy)]
struct Turn {
    load: Load,
    /// Index of the load point. It makes the prompts of load points differ.
    point: u64,
    endpoint: usize,
    /// Index of the first request of the turn.
    first: u32,
    /// Index one past the last request.
    end: u32,
}

/// The run was asked to stop.
struct Stopped;

type Stop<'a> = Pin<&'a mut (dyn Future<Output = ()> + 'a)>;

/// Runs `plan` until it is done or `stop` resolves. In the second case the report has the results until then.
///
/// # Errors
/// [`BenchError`] if an endpoint does not serve at all.
pub async fn run(
    plan: &Plan,
    observer: &mut impl ProgressObserver,
    stop: impl Future<Output = ()>,
) -> Result<Report, BenchError> {
    let mut stop = std::pin::pin!(stop);
    let mut stop: Stop<'_> = stop.as_mut();
    let mut report = empty(plan);
    let probed = tokio::select! {
        () = &mut stop => return Ok(report),
        probed = prepare_all(plan) => probed?,
    };
    report.endpoints = probed.iter().map(ProbedEndpoint::describe).collect();
    if warm_up(plan, &probed, &mut stop).await.is_err() {
        return Ok(report);
    }
    for (point, load) in plan.loads.iter().enumerate() {
        let mut tallies = vec![Tally::default(); probed.len()];
        observer.begin_point(*load, u64::from(plan.requests) * probed.len() as u64);
        let ended = run_point(plan, &probed, point as u64, *load, &mut tallies, observer, &mut stop).await;
        observer.end_point();
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

async fn prepare_all(plan: &Plan) -> Result<Vec<ProbedEndpoint>, BenchError> {
    let mut probed = Vec::new();
    for (index, target) in plan.targets.iter().enumerate() {
        probed.push(prepare(plan, index, target).await?);
    }
    Ok(probed)
}

/// Sends the warm-up requests, which are not counted. They have the concurrency of the first load point, or 1 if that
/// point has a rate.
async fn warm_up(plan: &Plan, probed: &[ProbedEndpoint], stop: &mut Stop<'_>) -> Result<(), Stopped> {
    let load = match plan.loads.first() {
        Some(load @ Load::Concurrency(_)) => *load,
        _ => Load::Concurrency(1),
    };
    for endpoint in 0..probed.len() {
        // This index belongs to no load point, so the warm-up prompts differ from all measured prompts.
        let turn = Turn { load, point: plan.loads.len() as u64, endpoint, first: 0, end: plan.warmup };
        take_turn(plan, probed, turn, &mut Tally::default(), &mut || {}, stop).await?;
    }
    Ok(())
}

/// Runs one load point: rounds in which each endpoint has its turn.
async fn run_point(
    plan: &Plan,
    probed: &[ProbedEndpoint],
    point: u64,
    load: Load,
    tallies: &mut [Tally],
    observer: &mut impl ProgressObserver,
    stop: &mut Stop<'_>,
) -> Result<(), Stopped> {
    let rounds = if probed.len() > 1 { load.rounds(plan.requests) } else { 1 };
    // 64 bits, because `u32::MAX` requests times 4 rounds do not fit 32.
    let at = |round: u32| (u64::from(plan.requests) * u64::from(round) / u64::from(rounds)) as u32;
    for round in 0..rounds {
        for (endpoint, tally) in tallies.iter_mut().enumerate() {
            let turn = Turn { load, point, endpoint, first: at(round), end: at(round + 1) };
            take_turn(plan, probed, turn, tally, &mut || observer.request_ended(), stop).await?;
        }
    }
    Ok(())
}

/// Sends the requests of `turn` and adds their outcomes to `tally`.
async fn take_turn(
    plan: &Plan,
    probed: &[ProbedEndpoint],
    turn: Turn,
    tally: &mut Tally,
    on_request_ended: &mut impl FnMut(),
    stop: &mut Stop<'_>,
) -> Result<(), Stopped> {
    let ProbedEndpoint { client, scale, .. } = &probed[turn.endpoint];
    let arrivals = plan.workload.arrivals(turn.load, turn.point, turn.end);
    // The first arrival of a later round is due at once.
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
    // Requests are in order of arrival. If a request that is not due yet takes a slot, all later ones are due even
    // later, so none of them waits for that slot.
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
        on_request_ended();
    };
    tally.elapsed += began.elapsed();
    stopped
}

// === impl ProbedEndpoint ===

impl ProbedEndpoint {
    fn describe(&self) -> EndpointReport {
        EndpointReport {
            url: self.client.target.endpoint.to_string(),
            model: self.client.model.clone(),
            ignore_eos: self.client.capabilities.ignore_eos,
            notes: self.notes.clone(),
        }
    }
}
