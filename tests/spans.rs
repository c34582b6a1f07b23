//! Spans as a collector of OpenTelemetry gets them. The tests decode them from the bytes by the published field numbers
//! (opentelemetry-proto, `trace/v1/trace.proto`). Without the feature `otlp`, they check that a request for spans is
//! refused.

mod common;

#[cfg(feature = "otlp")]
mod collector;

#[cfg(not(feature = "otlp"))]
#[test]
fn a_build_without_spans_refuses_to_send_them() {
    let run = |flag: &[&str], variable: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_baton"));
        let command = command.arg("gateway").args(flag).env("OTEL_EXPORTER_OTLP_ENDPOINT", variable);
        let output = command.output().expect("baton runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (code, stderr) in [run(&["--otlp-endpoint", "http://127.0.0.1:4318"], ""), run(&[], "http://127.0.0.1:4318")] {
        assert_eq!(code, Some(64), "{stderr}");
        assert!(stderr.contains("http://127.0.0.1:4318") && stderr.contains("--features otlp"), "{stderr}");
    }
}

#[cfg(feature = "otlp")]
mod with_a_collector {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::collector::{Collector, Span};
    use super::common::cluster::Cluster;

    /// Longer than a span waits until it is sent in a batch with others.
    const WAIT_MAX: Duration = Duration::from_secs(10);

    fn chat(cluster: &Cluster, tokens: u32) {
        let messages = [json!({"role": "user", "content": "What is the capital of France?"})];
        let body = json!({"messages": messages, "max_tokens": tokens, "temperature": 0, "ignore_eos": true});
        let answer = cluster.post("/v1/chat/completions", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// The spans with this name that are children of `parent`.
    fn below<'a>(spans: &'a [Span], parent: &Span, name: &str) -> Vec<&'a Span> {
        let is_below = |span: &&Span| span.parent_span_id == parent.span_id && span.name == name;
        spans.iter().filter(is_below).collect()
    }

    #[test]
    fn a_chat_arrives_as_request_sequence_and_micro_batches() {
        const TOKENS: u32 = 6;
        let collector = Collector::start();
        let cluster = Cluster::start(2, &["--speculation", "off", "--otlp-endpoint", &collector.url()], &[]);
        chat(&cluster, TOKENS);
        let is_chat = |span: &Span| span.name == "POST /v1/chat/completions";
        let spans = collector.wait(WAIT_MAX, |spans| spans.iter().any(is_chat));
        let request = spans.iter().find(|span| is_chat(span)).expect("the request was waited for");
        assert!(request.parent_span_id.is_empty(), "nothing stands above a request");
        let known = [("http.request.method", "POST"), ("http.route", "/v1/chat/completions")];
        known.iter().for_each(|(name, value)| assert_eq!(request.text(name), *value));
        assert_eq!(request.number("http.response.status_code"), 200);
        // By OpenTelemetry's conventions for generative AI.
        let model = cluster.get("/v1/models").json()["data"][0]["id"].as_str().unwrap().to_owned();
        let [inference] = below(&spans, request, &format!("chat {model}"))[..] else {
            panic!("not one inference: {spans:?}")
        };
        let known = [
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "baton"),
            ("gen_ai.request.model", model.as_str()),
            ("gen_ai.response.finish_reasons", "length"),
        ];
        known.iter().for_each(|(name, value)| assert_eq!(inference.text(name), *value, "{name}"));
        assert_eq!(inference.number("gen_ai.request.max_tokens"), i64::from(TOKENS));
        assert_eq!(inference.number("gen_ai.usage.output_tokens"), i64::from(TOKENS));
        let [sequence] = below(&spans, inference, "sequence")[..] else { panic!("not one sequence: {spans:?}") };
        assert_eq!(sequence.number("prompt_tokens"), inference.number("gen_ai.usage.input_tokens"));
        assert_eq!(sequence.number("tokens_max"), i64::from(TOKENS));
        let batches = below(&spans, sequence, "micro-batch");
        // One for the short prompt, which yields the first token, and one for each token after it.
        assert_eq!(batches.len(), TOKENS as usize, "{batches:?}");
        let rows: i64 = batches.iter().map(|batch| batch.number("rows")).sum();
        assert_eq!(rows, sequence.number("prompt_tokens") + i64::from(TOKENS) - 1);
        for span in batches.iter().copied().chain([sequence]) {
            assert_eq!(span.trace_id, request.trace_id, "one request, one trace");
            assert!(span.start_ns >= request.start_ns && span.end_ns > span.start_ns, "{span:?}");
            assert!(span.end_ns <= request.end_ns, "a request lasts until its sequence has ended: {span:?}");
        }
        assert_eq!(collector.services(), ["baton"]);
    }

    #[test]
    fn pending_spans_are_sent_at_the_end() {
        let collector = Collector::start();
        let mut cluster = Cluster::start(1, &[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())]);
        chat(&cluster, 2);
        let took = cluster.interrupt();
        assert!(took < Duration::from_secs(2), "{took:?}");
        let spans = collector.wait(Duration::ZERO, |_| true);
        assert!(spans.iter().any(|span| span.name == "sequence"), "{spans:?}");
    }

    #[test]
    fn a_silent_collector_delays_no_request_and_no_shutdown() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let mut cluster = Cluster::start(1, &["--otlp-endpoint", &url], &[]);
        // The exporter still waits for the answer to the first spans while the later requests run.
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(3) {
            let asked = Instant::now();
            chat(&cluster, 1);
            assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        }
        let took = cluster.interrupt();
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}
