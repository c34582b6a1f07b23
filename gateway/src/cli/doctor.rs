//! `baton doctor`: checks that the store answers, that each layer is held once, that a request is answered, that every
//! stage worked for it, and that multicast passes on this machine.

use std::fmt::Write as _;

use engine::report;
use engine::store::StoreError;
use engine::view::ClusterView;
use serde::Serialize;

use super::ask::{self, Answer, AskError, StageWork};
use super::cluster;
use super::exit::{CliError, Exit};
use super::output::{self, replace_control_chars};
use super::table::Table;
use crate::settings::ClusterSettings;

/// The result of all checks.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// The failure, as an exit status. `ok` if nothing failed.
    pub result: Exit,
    /// The checks in order, up to the first that failed.
    pub checks: Vec<Check>,
    /// The work of each stage for the request that was sent.
    pub stages: Vec<StageWork>,
}

/// One check.
#[derive(Debug, Serialize)]
pub struct Check {
    /// The outcome.
    pub mark: Mark,
    /// One sentence about the outcome.
    #[serde(rename = "said")]
    pub message: String,
}

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// Passed.
    Ok,
    /// Unusual, but nothing stops because of it.
    Note,
    /// Failed.
    #[serde(rename = "wrong")]
    Failed,
}

/// Checks the cluster and prints the result.
pub(super) async fn run(settings: &ClusterSettings, json: bool) -> Result<Exit, CliError> {
    let view = match cluster::read_once(settings).await {
        Err(error @ StoreError::Unavailable { .. }) => Err(error),
        other => Ok(other?),
    };
    let mut diagnosis = diagnosis(settings, view.as_ref()).await;
    if diagnosis.result == Exit::Ok
        && let Some(check) = multicast().await
    {
        // What the cluster itself answers stays at the end.
        diagnosis.checks.insert(1, check);
    }
    let text = if json { output::json(&diagnosis)? } else { diagnosis.render() };
    output::print(&text)?;
    Ok(diagnosis.result)
}

/// Checks if this machine sends and receives multicast, by which machines find shared clusters. Nothing else needs it.
#[cfg(feature = "tls")]
async fn multicast() -> Option<Check> {
    Some(match crate::share::multicast().await {
        Ok(passed) => {
            let passed: Vec<_> = passed.iter().map(ToString::to_string).collect();
            Check { mark: Mark::Ok, message: format!("multicast passes on this machine at {}", passed.join(", ")) }
        }
        Err(error) => Check {
            mark: Mark::Note,
            message: format!(
                "multicast does not pass on this machine ({error}): shared clusters are not found by themselves, \
                 `baton join HOST:PORT TOKEN` works"
            ),
        },
    })
}

/// A build without TLS shares no cluster.
#[cfg(not(feature = "tls"))]
#[expect(clippy::unused_async, reason = "the other build waits for a packet")]
async fn multicast() -> Option<Check> {
    None
}

/// Sends a request if every layer is held, and checks what came.
pub(super) async fn diagnosis(settings: &ClusterSettings, view: Result<&ClusterView, &StoreError>) -> Diagnosis {
    let answer = match view.ok().and_then(request_target) {
        Some((url, model)) => Some(ask::ask(url, model, &settings.client).await),
        None => None,
    };
    diagnose(&settings.etcd.endpoints.join(","), view, answer.as_ref())
}

/// The gateway and the model to request, if every layer is held.
fn request_target(view: &ClusterView) -> Option<(&str, &str)> {
    view.serving().ok()?;
    let gateway = view.gateways.values().next()?;
    let model = view.model.as_ref()?;
    Some((&gateway.value.url, &model.value.name))
}

/// Checks a cluster by the store's answer (`view`) and the gateway's answer.
pub fn diagnose(
    endpoints: &str,
    view: Result<&ClusterView, &StoreError>,
    answer: Option<&Result<Answer, AskError>>,
) -> Diagnosis {
    let mut diagnosis = Diagnosis { result: Exit::Ok, checks: Vec::new(), stages: Vec::new() };
    let view = match view {
        Ok(view) => view,
        Err(error) => return diagnosis.fail(Exit::StoreUnreachable, error.to_string()),
    };
    diagnosis.pass(format!("the store at {endpoints} answers (revision {})", view.revision));
    for complaint in &view.complaints {
        diagnosis.checks.push(Check { mark: Mark::Note, message: format!("ignored in the store: {complaint}") });
    }
    let claims = match report::serving(view) {
        Ok(served) => served.claims,
        Err(missing) => return diagnosis.fail(Exit::LayersMissing, missing.reason),
    };
    let layers = claims.last().map_or(0, |claim| claim.value.layers.end());
    diagnosis.pass(format!("each of {layers} layers is held once, by {}", count(claims.len(), "stage")));
    let answer = match answer {
        Some(Ok(answer)) => answer,
        Some(Err(error)) => return diagnosis.fail(Exit::RequestFailed, output::chain(error)),
        None => {
            let message = "no gateway has joined the cluster: start one with `baton gateway`";
            return diagnosis.fail(Exit::RequestFailed, message.to_owned());
        }
    };
    diagnosis.stages.clone_from(&answer.stages);
    diagnosis.pass(format!(
        "a request went through in {:.2} s: {} in, {} out: {:?}",
        answer.took.as_secs_f64(),
        count(answer.prompt_tokens as usize, "token"),
        count(answer.completion_tokens as usize, "token"),
        answer.text,
    ));
    let worked = |stage: &str| answer.stages.iter().any(|work| work.stage == stage && work.rows > 0);
    let idle: Vec<_> = claims.iter().filter(|claim| !worked(claim.value.stage.as_str())).collect();
    if idle.is_empty() {
        diagnosis.pass(format!("every stage worked for it: {}", count(claims.len(), "stage")));
        return diagnosis;
    }
    let idle: Vec<_> =
        idle.iter().map(|claim| format!("{} (layers {})", claim.value.stage, claim.value.layers)).collect();
    diagnosis.fail(Exit::StageIdle, format!("the answer names no work of {}", idle.join(", ")))
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

// === impl Diagnosis ===

impl Diagnosis {
    fn pass(&mut self, message: String) {
        self.checks.push(Check { mark: Mark::Ok, message });
    }

    fn fail(mut self, result: Exit, message: String) -> Self {
        self.checks.push(Check { mark: Mark::Failed, message });
        self.result = result;
        self
    }

    /// The checks and the stages' work as text for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let mark = match check.mark {
                Mark::Ok => "ok",
                Mark::Note => "note",
                Mark::Failed => "WRONG",
            };
            let _ = writeln!(text, "{mark:5}  {}", replace_control_chars(&check.message));
        }
        if !self.stages.is_empty() {
            let mut table = Table::new(&["STAGE", "LAYERS", "ROWS", "TIME"]);
            for work in &self.stages {
                let [start, end] = work.layers;
                let time = format!("{:.1} ms", work.compute_ms);
                table.row([work.stage.clone(), format!("{start}..{end}"), work.rows.to_string(), time]);
            }
            let _ = write!(text, "\n{}", table.render());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use schema::record::ClaimState;

    use super::super::status::fixture::view;
    use super::*;

    fn work(stage: &str, layers: [u32; 2], rows: u64) -> StageWork {
        StageWork { stage: stage.to_owned(), layers, rows, compute_ms: 4.25 }
    }

    fn answer(stages: Vec<StageWork>) -> Result<Answer, AskError> {
        let took = Duration::from_millis(420);
        Ok(Answer { text: "Paris.".to_owned(), prompt_tokens: 17, completion_tokens: 1, took, stages })
    }

    fn serving() -> ClusterView {
        view(Some(ClaimState::Serving), Some("http://127.0.0.1:1"))
    }

    #[test]
    fn a_healthy_cluster_shows_each_stage_s_work() {
        let answer = answer(vec![work("left", [0, 16], 19), work("right", [16, 30], 19)]);
        let diagnosis = diagnose("http://a:1", Ok(&serving()), Some(&answer));
        assert_eq!(diagnosis.result, Exit::Ok);
        insta::assert_snapshot!(diagnosis.render(), @r#"
        ok     the store at http://a:1 answers (revision 42)
        note   ignored in the store: /baton/v1/home/nonsense: unknown key "/baton/v1/home/nonsense": expected key-mark, model, placement, stages/<stage>, evictions/<stage>, pins/<stage>, pins-status/<stage>, starts/<stage>, claims/<generation>/<slot>, gateways/<slot>, tokens/<id>, rollout or deployments/<n>/… below /baton/v1/home/
        ok     each of 30 layers is held once, by 2 stages
        ok     a request went through in 0.42 s: 17 tokens in, 1 token out: "Paris."
        ok     every stage worked for it: 2 stages

        STAGE  LAYERS  ROWS  TIME
        left   0..16   19    4.2 ms
        right  16..30  19    4.2 ms
        "#);
    }

    #[test]
    fn a_store_that_does_not_answer_ends_the_checks() {
        let error = StoreError::Unavailable { endpoints: "http://a:1".to_owned(), reason: "refused".to_owned() };
        let diagnosis = diagnose("http://a:1", Err(&error), None);
        assert_eq!((diagnosis.result, diagnosis.checks.len()), (Exit::StoreUnreachable, 1));
    }

    #[test]
    fn missing_layers_are_named() {
        let diagnosis = diagnose("http://a:1", Ok(&view(None, Some("http://127.0.0.1:1"))), None);
        assert_eq!(diagnosis.result, Exit::LayersMissing);
        assert!(
            diagnosis.render().contains("layers 16..30 are held by nobody: stage right is gone"),
            "{}",
            diagnosis.render()
        );
    }

    #[test]
    fn without_a_gateway_no_request_goes_through() {
        let view = view(Some(ClaimState::Serving), None);
        assert!(request_target(&view).is_none());
        assert_eq!(diagnose("http://a:1", Ok(&view), None).result, Exit::RequestFailed);
    }

    #[test]
    fn a_refused_request_is_reported() {
        let refused = AskError::Refused { url: "http://a:1".to_owned(), status: 500, message: "no".to_owned() };
        let diagnosis = diagnose("http://a:1", Ok(&serving()), Some(&Err(refused)));
        assert_eq!(diagnosis.result, Exit::RequestFailed);
        assert!(diagnosis.render().contains("answered 500: no"));
    }

    #[test]
    fn a_stage_without_work_is_found() {
        for stages in [vec![work("left", [0, 16], 19)], vec![work("left", [0, 16], 19), work("right", [16, 30], 0)]] {
            let diagnosis = diagnose("http://a:1", Ok(&serving()), Some(&answer(stages)));
            assert_eq!(diagnosis.result, Exit::StageIdle);
            assert!(diagnosis.render().contains("no work of right (layers 16..30)"), "{}", diagnosis.render());
        }
    }
}
