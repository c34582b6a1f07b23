//! Makes a sample of the series out of the pipeline's counters: what was counted since the sample before. Pure but for
//! reading the counters.

use std::time::Duration;

use engine::generate::PipelineStatus;
use engine::view::ClusterView;
use prometheus::proto::{Metric, MetricFamily};
use schema::record::StageLoad;

use super::log::{Sentence, Subject};
use super::series::Sample;

/// The counters as they were at the last sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counters {
    generated_tokens: f64,
    first_token: Sum,
    batch_rows: Sum,
    batch_sequences: Sum,
    /// Requests refused, by reason.
    rejected: Vec<(String, f64)>,
}

/// The sum and the number of a histogram's observations.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sum {
    sum: f64,
    count: u64,
}

// === impl Counters ===

impl Counters {
    /// Reads the counters out of a registry's families.
    pub(super) fn read(families: &[MetricFamily]) -> Self {
        let metrics = |name: &str| {
            let family = families.iter().find(|family| family.name() == name);
            family.map(MetricFamily::get_metric).unwrap_or_default()
        };
        let counted = |name| metrics(name).iter().map(|metric| metric.get_counter().get_value()).sum();
        let summed = |name| {
            let histograms = metrics(name).iter().map(Metric::get_histogram);
            histograms.fold(Sum::default(), |all, one| Sum {
                sum: all.sum + one.get_sample_sum(),
                count: all.count + one.get_sample_count(),
            })
        };
        let rejected = metrics("baton_sequences_rejected_total").iter().map(|metric| {
            let reason = metric.get_label().iter().find(|label| label.name() == "reason");
            (reason.map(|reason| reason.value().to_owned()).unwrap_or_default(), metric.get_counter().get_value())
        });
        Self {
            generated_tokens: counted("baton_generated_tokens_total"),
            first_token: summed("baton_first_token_seconds"),
            batch_rows: summed("baton_batch_rows"),
            batch_sequences: summed("baton_batch_sequences"),
            rejected: rejected.collect(),
        }
    }

    /// The sample of the time `elapsed` since `before`, which ends at `now_ms`.
    pub(super) fn sample(
        &self,
        before: &Self,
        elapsed: Duration,
        status: &PipelineStatus,
        view: &ClusterView,
        now_ms: u64,
    ) -> Sample {
        let tokens = (self.generated_tokens - before.generated_tokens).max(0.0);
        let share = |figure: fn(&StageLoad) -> f64| mean_load(view, figure);
        Sample {
            t: now_ms,
            tokens_per_second: tokens / elapsed.as_secs_f64().max(0.001),
            first_token_ms: self.first_token.mean_since(before.first_token).map(|seconds| seconds * 1e3),
            waiting: status.waiting,
            running: status.running,
            batch_rows: self.batch_rows.mean_since(before.batch_rows),
            batch_sequences: self.batch_sequences.mean_since(before.batch_sequences),
            busy: share(|load| load.busy),
            idle_input: share(|load| load.idle_input),
            idle_output: share(|load| load.idle_output),
        }
    }

    /// Sentences about the requests that were refused since `before`.
    pub(super) fn refusals(&self, before: &Self) -> Vec<Sentence> {
        let since = |reason: &str| before.rejected.iter().find(|(known, _)| known == reason).map_or(0.0, |(_, n)| *n);
        let news = self.rejected.iter().map(|(reason, count)| (reason, count - since(reason)));
        let sentence = |(reason, count): (&String, f64)| {
            let why = match reason.as_str() {
                "busy" => "the queue is full",
                "not_serving" => "the model could not be served",
                "too_long" => "the prompt is longer than the context",
                other => other,
            };
            let requests = if count == 1.0 { "1 request was".to_owned() } else { format!("{count} requests were") };
            Sentence::new(Subject::Refusal, format!("{requests} refused: {why}."))
        };
        news.filter(|(_, count)| *count >= 1.0).map(sentence).collect()
    }
}

/// The mean of a figure over the stages that the placement gives layers.
fn mean_load(view: &ClusterView, figure: fn(&StageLoad) -> f64) -> Option<f64> {
    let shards = view.placement.as_ref()?.value.shards().iter();
    let loads: Vec<_> = shards.filter_map(|shard| Some(figure(&view.stages.get(&shard.stage)?.value.load))).collect();
    (!loads.is_empty()).then(|| loads.iter().sum::<f64>() / loads.len() as f64)
}

// === impl Sum ===

impl Sum {
    /// The mean of the observations since `before`. `None` if there were none.
    fn mean_since(self, before: Self) -> Option<f64> {
        let count = self.count.checked_sub(before.count).filter(|count| *count > 0)?;
        Some((self.sum - before.sum) / count as f64)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

    use super::*;

    #[test]
    fn a_sample_counts_only_what_came_since_the_one_before() {
        let registry = Registry::new();
        let tokens = IntCounter::new("baton_generated_tokens_total", "-").unwrap();
        let first = Histogram::with_opts(HistogramOpts::new("baton_first_token_seconds", "-")).unwrap();
        let rejected = IntCounterVec::new(Opts::new("baton_sequences_rejected_total", "-"), &["reason"]).unwrap();
        registry.register(Box::new(tokens.clone())).unwrap();
        registry.register(Box::new(first.clone())).unwrap();
        registry.register(Box::new(rejected.clone())).unwrap();
        tokens.inc_by(100);
        first.observe(9.0);
        let before = Counters::read(&registry.gather());
        tokens.inc_by(50);
        first.observe(0.1);
        first.observe(0.3);
        rejected.with_label_values(&["busy"]).inc_by(3);
        let after = Counters::read(&registry.gather());
        let (status, view) = (PipelineStatus { waiting: 4, ..PipelineStatus::default() }, ClusterView::default());
        let sample = after.sample(&before, Duration::from_secs(2), &status, &view, 7);
        assert_eq!((sample.t, sample.tokens_per_second, sample.waiting), (7, 25.0, 4));
        assert!((sample.first_token_ms.unwrap() - 200.0).abs() < 1e-6);
        assert_eq!((sample.batch_rows, sample.busy), (None, None));
        let refused: Vec<_> = after.refusals(&before).into_iter().map(|sentence| sentence.text).collect();
        assert_eq!(refused, ["3 requests were refused: the queue is full."]);
        assert!(after.refusals(&after).is_empty());
    }
}
