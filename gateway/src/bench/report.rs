//! The results of a run: the document that `--json` prints, and the source of the table and the plot.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::answer::Answer;
use super::load::Load;
use super::plan::Api;
use super::statistics::Percentiles;
use crate::client::Failure;

/// All results of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// True if the run was interrupted.
    pub partial: bool,
    /// The seed of prompts, lengths and arrivals.
    pub seed: u64,
    /// The HTTP API that requests used.
    pub api: Api,
    /// Distribution of the prompts' lengths in tokens, without the shared prefix.
    pub prompt_tokens: String,
    /// Distribution of the answers' lengths in tokens.
    pub output_tokens: String,
    /// Tokens of the prefix that all prompts share.
    pub shared_prefix_tokens: u32,
    /// Requests to each endpoint at each load point.
    pub requests: u32,
    /// The measured endpoints.
    pub endpoints: Vec<EndpointReport>,
    /// The results, one entry for each load point.
    pub points: Vec<PointReport>,
}

/// A measured endpoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndpointReport {
    /// Its address.
    pub url: String,
    /// The model that was requested.
    pub model: String,
    /// True if answers continue after the model's end-of-sequence token.
    pub ignore_eos: bool,
    /// Remarks for readers of the figures.
    pub notes: Vec<String>,
}

/// One load point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PointReport {
    /// The load.
    pub load: Load,
    /// One result for each endpoint, in the order of the endpoints.
    pub results: Vec<ResultReport>,
    /// The first endpoint's figures divided by the second's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Ratio>,
}

/// The result of one endpoint at one load point. Times are in milliseconds and cover only requests that were answered
/// in full.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResultReport {
    /// Requests that ended.
    pub requests: u64,
    /// Requests that were answered in full.
    pub completed: u64,
    /// Failures by kind.
    pub errors: BTreeMap<String, Errors>,
    /// Time for which the load was applied, in seconds.
    pub seconds: f64,
    /// The method by which tokens were counted.
    pub counted_by: CountedBy,
    /// Tokens of the prompts, if the endpoint counts them.
    pub prompt_tokens: u64,
    /// Tokens of the prompts that the endpoint found in its prefix cache.
    pub cached_tokens: u64,
    /// Tokens of the answers.
    pub output_tokens: u64,
    /// Tokens of the answers per second.
    pub output_tokens_per_second: f64,
    /// Answers per second.
    pub requests_per_second: f64,
    /// Time from the moment a request was due until its first text.
    pub time_to_first_token_ms: Option<Percentiles>,
    /// Time between pieces of text.
    pub inter_token_ms: Option<Percentiles>,
    /// Time from the moment a request was due until the end of its answer.
    pub end_to_end_ms: Option<Percentiles>,
}

/// The method by which tokens of answers were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CountedBy {
    /// The endpoint counted them.
    Usage,
    /// Pieces of text were counted for at least one answer, because the endpoint reported no count.
    Pieces,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Errors {
    /// Number of failures.
    pub count: u64,
    /// Message of the first failure.
    pub example: String,
}

/// The figures of one endpoint divided by those of another. A ratio is `None` if one of the two figures is missing or
/// zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Ratio of output tokens per second. Higher is better.
    pub output_tokens_per_second: Option<f64>,
    /// Ratio of requests per second. Higher is better.
    pub requests_per_second: Option<f64>,
    /// Ratio of the medians. Lower is better, as for all ratios below.
    pub time_to_first_token_p50: Option<f64>,
    /// Ratio of the 95th percentiles.
    pub time_to_first_token_p95: Option<f64>,
    /// Ratio of the 99th percentiles.
    pub time_to_first_token_p99: Option<f64>,
    /// Ratio of the medians.
    pub inter_token_p50: Option<f64>,
    /// Ratio of the 95th percentiles.
    pub inter_token_p95: Option<f64>,
    /// Ratio of the 99th percentiles.
    pub inter_token_p99: Option<f64>,
    /// Ratio of the medians.
    pub end_to_end_p50: Option<f64>,
    /// Ratio of the 95th percentiles.
    pub end_to_end_p95: Option<f64>,
    /// Ratio of the 99th percentiles.
    pub end_to_end_p99: Option<f64>,
}

/// The outcomes of one endpoint's requests at one load point, while they are collected.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Answers that arrived in full.
    pub(super) answers: Vec<Answer>,
    /// Failures by kind.
    pub(super) errors: BTreeMap<String, Errors>,
    /// Time for which the load was applied.
    pub(super) elapsed: Duration,
}

// === impl Report ===

impl Report {
    /// Requests that were answered in full.
    pub fn completed(&self) -> u64 {
        self.results().map(|result| result.completed).sum()
    }

    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.results().map(ResultReport::failed).sum()
    }

    fn results(&self) -> impl Iterator<Item = &ResultReport> {
        self.points.iter().flat_map(|point| &point.results)
    }
}

// === impl PointReport ===

impl PointReport {
    /// Summarizes the results of the endpoints at `load`.
    pub(super) fn new(load: Load, tallies: &[Tally]) -> Self {
        let results: Vec<_> = tallies.iter().map(Tally::summary).collect();
        let ratio = match results.as_slice() {
            [one, other] => Some(Ratio::new(one, other)),
            _ => None,
        };
        Self { load, results, ratio }
    }
}

// === impl ResultReport ===

impl ResultReport {
    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.errors.values().map(|errors| errors.count).sum()
    }
}

// === impl Tally ===

impl Tally {
    /// Adds the outcome of one request.
    pub(super) fn add(&mut self, outcome: Result<Answer, Failure>) {
        match outcome {
            Ok(answer) => self.answers.push(answer),
            Err(failure) => {
                let none = || Errors { count: 0, example: failure.to_string() };
                self.errors.entry(failure.kind()).or_insert_with(none).count += 1;
            }
        }
    }

    fn summary(&self) -> ResultReport {
        let completed = self.answers.len() as u64;
        let output_tokens = self.answers.iter().map(Answer::tokens).sum();
        let usages = || self.answers.iter().filter_map(|answer| answer.usage);
        let seconds = self.elapsed.as_secs_f64();
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let by_usage = self.answers.iter().all(|answer| answer.usage.is_some());
        ResultReport {
            requests: completed + self.errors.values().map(|errors| errors.count).sum::<u64>(),
            completed,
            errors: self.errors.clone(),
            seconds,
            counted_by: if by_usage { CountedBy::Usage } else { CountedBy::Pieces },
            prompt_tokens: usages().map(|usage| usage.prompt_tokens).sum(),
            cached_tokens: usages().map(|usage| usage.cached_tokens()).sum(),
            output_tokens,
            output_tokens_per_second: rate(output_tokens),
            requests_per_second: rate(completed),
            time_to_first_token_ms: Percentiles::of(
                self.answers.iter().filter_map(|answer| answer.time_to_first_token),
            ),
            inter_token_ms: Percentiles::of(self.answers.iter().flat_map(|answer| answer.gaps.iter().copied())),
            end_to_end_ms: Percentiles::of(self.answers.iter().map(|answer| answer.end_to_end)),
        }
    }
}

// === impl Ratio ===

impl Ratio {
    fn new(one: &ResultReport, other: &ResultReport) -> Self {
        let of = |one: f64, other: f64| (one > 0.0 && other > 0.0).then(|| one / other);
        type Times = fn(&ResultReport) -> Option<Percentiles>;
        type At = fn(Percentiles) -> f64;
        let times = |times: Times, at: At| times(one).zip(times(other)).and_then(|(one, other)| of(at(one), at(other)));
        let (p50, p95, p99): (At, At, At) = (|times| times.p50, |times| times.p95, |times| times.p99);
        let first: Times = |result| result.time_to_first_token_ms;
        let between: Times = |result| result.inter_token_ms;
        let end_to_end: Times = |result| result.end_to_end_ms;
        Self {
            output_tokens_per_second: of(one.output_tokens_per_second, other.output_tokens_per_second),
            requests_per_second: of(one.requests_per_second, other.requests_per_second),
            time_to_first_token_p50: times(first, p50),
            time_to_first_token_p95: times(first, p95),
            time_to_first_token_p99: times(first, p99),
            inter_token_p50: times(between, p50),
            inter_token_p95: times(between, p95),
            inter_token_p99: times(between, p99),
            end_to_end_p50: times(end_to_end, p50),
            end_to_end_p95: times(end_to_end, p95),
            end_to_end_p99: times(end_to_end, p99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Two answers, whose gaps and times are multiplied by `factor`, and two failures of one kind.
    fn tally(factor: u64) -> Tally {
        let mut tally = Tally { elapsed: MS(2000 * factor), ..Tally::default() };
        for ms in [100, 200] {
            let gaps = vec![MS(10 * factor), MS(30 * factor)];
            tally.add(Ok(Answer {
                time_to_first_token: Some(MS(ms * factor)),
                gaps,
                end_to_end: MS(2 * ms * factor),
                pieces: 3,
                usage: None,
            }));
        }
        tally.add(Err(Failure::Refused { status: 429, message: "too many".to_owned() }));
        tally.add(Err(Failure::Refused { status: 429, message: "still too many".to_owned() }));
        tally
    }

    #[test]
    fn a_load_point_has_this_shape() {
        let point = PointReport::new(Load::Concurrency(4), &[tally(1)]);
        insta::assert_json_snapshot!(point, @r#"
        {
          "load": {
            "concurrency": 4
          },
          "results": [
            {
              "requests": 4,
              "completed": 2,
              "errors": {
                "status 429": {
                  "count": 2,
                  "example": "answered 429: too many"
                }
              },
              "seconds": 2.0,
              "counted_by": "pieces",
              "prompt_tokens": 0,
              "cached_tokens": 0,
              "output_tokens": 6,
              "output_tokens_per_second": 3.0,
              "requests_per_second": 1.0,
              "time_to_first_token_ms": {
                "count": 2,
                "p50": 100.0,
                "p95": 200.0,
                "p99": 200.0
              },
              "inter_token_ms": {
                "count": 4,
                "p50": 10.0,
                "p95": 30.0,
                "p99": 30.0
              },
              "end_to_end_ms": {
                "count": 2,
                "p50": 200.0,
                "p95": 400.0,
                "p99": 400.0
              }
            }
          ]
        }
        "#);
    }

    #[test]
    fn a_ratio_is_the_first_endpoint_s_figure_divided_by_the_second_s() {
        let ratio = PointReport::new(Load::Concurrency(4), &[tally(1), tally(2)]).ratio.unwrap();
        assert_eq!((ratio.output_tokens_per_second, ratio.inter_token_p95), (Some(2.0), Some(0.5)));
        let none = PointReport::new(Load::Concurrency(4), &[tally(1), Tally::default()]).ratio.unwrap();
        assert_eq!((none.requests_per_second, none.end_to_end_p50), (None, None));
    }
}
