//! `baton bench`, the real program, against the HTTP server.

use std::process::{Output, Stdio};
use std::time::Duration;

use engine::generate::Rejection;
use gateway::http::Settings;
use serde_json::Value;
use tokio::process::Command;

use crate::double::{MODEL, RunningServer, start_default_server, start_server};

/// Short prompts, because the double has a token for each byte and room for 512.
const SMALL: [&str; 4] = ["--prompt-tokens", "uniform:140..200", "--output-tokens", "uniform:3..9"];

fn bench(server: &RunningServer, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.arg("bench").arg(format!("http://{}", server.address)).args(SMALL).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn report(command: &mut Command) -> (Option<i32>, Value) {
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    let found = serde_json::from_slice(&stdout);
    let found = found.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)));
    (status.code(), found)
}

#[tokio::test]
async fn the_report_agrees_with_the_requests_the_server_received() {
    let server = start_default_server().await;
    let (code, report) =
        report(&mut bench(&server, &["--concurrency", "1,3", "--requests", "6", "--warmup", "2", "--json"])).await;
    assert_eq!((code, &report["partial"], &report["endpoints"][0]["model"]), (Some(0), &false.into(), &MODEL.into()));
    // Two requests to calibrate the token count, two to warm up, six for each load point.
    let asked = server.pipeline.requests.lock().unwrap().clone();
    assert_eq!(asked.len(), 2 + 2 + 2 * 6);
    for (point, asked) in [&asked[4..10], &asked[10..]].into_iter().enumerate() {
        let result = &report["points"][point]["results"][0];
        assert_eq!((&result["completed"], &result["requests"]), (&6.into(), &6.into()), "{result}");
        let output: u64 = asked.iter().map(|request| u64::from(request.tokens_max)).sum();
        let prompt: u64 = asked.iter().map(|request| request.prompt.len() as u64).sum();
        assert_eq!((&result["output_tokens"], &result["prompt_tokens"]), (&output.into(), &prompt.into()));
        assert_eq!(result["counted_by"], "usage");
        assert_eq!(result["time_to_first_token_ms"]["count"], 6);
        // Each token is a piece of text of its own, except the double's end token, which has no text.
        assert!(result["inter_token_ms"]["count"].as_u64().unwrap() <= output - 6, "{result}");
        for request in asked {
            assert!((3..=9).contains(&request.tokens_max) && request.stop_tokens.is_empty(), "{request:?}");
            // Prompts of words of 3 to 8 letters have this length only if the tokens were counted correctly.
            assert!((90..=260).contains(&request.prompt.len()), "{}", request.prompt.len());
        }
    }
}

#[tokio::test]
async fn two_endpoints_take_turns_and_are_compared() {
    let (one, other) = (start_default_server().await, start_default_server().await);
    let url = format!("http://{}", other.address);
    let dir = tempfile::tempdir().unwrap();
    let plot = dir.path().join("load.svg");
    let arguments = ["--compare", &url, "--rate", "200", "--requests", "6", "--api", "completions", "--json", "--plot"];
    let (code, report) = report(bench(&one, &arguments).arg(&plot)).await;
    assert_eq!(code, Some(0));
    let point = &report["points"][0];
    assert_eq!(point["load"]["rate"], 200.0);
    assert_eq!((&point["results"][0]["completed"], &point["results"][1]["completed"]), (&6.into(), &6.into()));
    // Both endpoints get requests of the same lengths, with different words.
    assert_eq!(point["results"][0]["output_tokens"], point["results"][1]["output_tokens"]);
    let prompts = |server: &RunningServer| server.pipeline.requests.lock().unwrap().last().unwrap().prompt.clone();
    assert_ne!(prompts(&one), prompts(&other));
    assert!(point["ratio"]["output_tokens_per_second"].as_f64().unwrap() > 0.0, "{point}");
    assert!(std::fs::read_to_string(plot).unwrap().contains("requests offered a second"));
}

#[tokio::test]
async fn ctrl_c_prints_the_results_so_far() {
    // The permits suffice for calibration, warm-up and a few requests. Then the double stalls.
    let server = start_server(Settings::default(), 100).await;
    let running = bench(&server, &["--concurrency", "2", "--requests", "1000", "--json"]).spawn().unwrap();
    server.until(|counts| counts.finished >= 6 && counts.started > counts.finished).await;
    let stalled = async {
        while server.pipeline.permits.available_permits() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), stalled).await.unwrap();
    let pid = running.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let output = running.wait_with_output().await.unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["partial"]), (Some(130), &true.into()));
    assert!(report["points"][0]["results"][0]["completed"].as_u64().unwrap() >= 1, "{report}");
}

#[tokio::test]
async fn refusals_are_counted_by_kind_and_a_run_without_an_answer_fails() {
    // The permits suffice for calibration only. The warm-up request waits for permits until the server refuses all
    // later requests.
    let server = start_server(Settings::default(), 2).await;
    let mut running = bench(&server, &["--concurrency", "1,4", "--requests", "5", "--json"]);
    let report = tokio::spawn(async move { report(&mut running).await });
    server.until(|counts| counts.started == 3).await;
    *server.pipeline.rejection.lock().unwrap() = Some(Rejection::Busy { waiting: 9 });
    server.pipeline.permits.add_permits(100);
    let (code, report) = report.await.unwrap();
    assert_eq!(code, Some(4));
    for point in report["points"].as_array().unwrap() {
        let result = &point["results"][0];
        assert_eq!(
            (&result["completed"], &result["errors"]["status 429"]["count"]),
            (&0.into(), &5.into()),
            "{result}"
        );
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_serve_is_an_error_that_names_the_request() {
    let server = start_default_server().await;
    *server.pipeline.rejection.lock().unwrap() = Some(Rejection::NotServing { reason: "layers 9..21".to_owned() });
    let Output { status, stdout, stderr } = bench(&server, &[]).output().await.unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), stdout.as_slice()), (Some(4), &b""[..]));
    let expected =
        format!("error: cannot measure http://{}: POST /v1/chat/completions: answered 503: ", server.address);
    assert!(stderr.starts_with(&expected) && stderr.contains("layers 9..21"), "{stderr}");
}
