//! The report as text for people.

use std::fmt::Write as _;

use crate::bench::{CountedBy, Errors, Percentiles, PointReport, Ratio, Report, ResultReport};
use crate::cli::output::replace_control_chars;
use crate::cli::table::Table;

/// The whole report as text.
pub(super) fn render(report: &Report) -> String {
    let mut text = heading(report);
    let mut table = Table::new(&[
        "LOAD",
        "ENDPOINT",
        "DONE",
        "FAILED",
        "TOK/S",
        "REQ/S",
        "FIRST TOKEN p50/p95/p99",
        "BETWEEN p50/p95/p99",
        "WHOLE p50/p95/p99",
    ]);
    for point in &report.points {
        add(&mut table, point);
    }
    if !report.points.is_empty() {
        let _ = write!(text, "\n{}\nTimes are in milliseconds.", table.render());
        if report.endpoints.len() > 1 {
            text += " A / B is the first endpoint's figure divided by the second's.";
        }
        text.push('\n');
    }
    text + &remarks(report)
}

/// The endpoints and the parameters of the requests.
fn heading(report: &Report) -> String {
    let mut text = String::new();
    for (endpoint, name) in report.endpoints.iter().zip(names(report)) {
        let name = if name.is_empty() { String::new() } else { format!("{name}: ") };
        let _ = writeln!(
            text,
            "{name}{}, model {}",
            replace_control_chars(&endpoint.url),
            replace_control_chars(&endpoint.model)
        );
        for note in &endpoint.notes {
            let _ = writeln!(text, "   {note}");
        }
    }
    let shared = match report.shared_prefix_tokens {
        0 => String::new(),
        tokens => format!(", after {tokens} tokens that all share"),
    };
    let Report { requests, prompt_tokens, output_tokens, seed, .. } = report;
    let _ = writeln!(
        text,
        "{requests} requests at each load point; prompts of {prompt_tokens} tokens{shared}, answers of \
         {output_tokens}; seed {seed}"
    );
    text
}

fn names(report: &Report) -> &'static [&'static str] {
    if report.endpoints.len() > 1 { &["A", "B"] } else { &[""] }
}

fn add(table: &mut Table, point: &PointReport) {
    let load = point.load.to_string();
    let compared = point.results.len() > 1;
    for (result, name) in point.results.iter().zip(["A", "B"]) {
        table.row([
            load.clone(),
            if compared { name } else { "-" }.to_owned(),
            result.completed.to_string(),
            result.failed().to_string(),
            format!("{:.1}", result.output_tokens_per_second),
            format!("{:.2}", result.requests_per_second),
            times(result.time_to_first_token_ms),
            times(result.inter_token_ms),
            times(result.end_to_end_ms),
        ]);
    }
    if let Some(ratio) = point.ratio {
        add_ratio(table, load, ratio);
    }
}

fn add_ratio(table: &mut Table, load: String, ratio: Ratio) {
    let one = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    let three = |values: [Option<f64>; 3]| values.map(one).join(" / ");
    table.row([
        load,
        "A / B".to_owned(),
        String::new(),
        String::new(),
        one(ratio.output_tokens_per_second),
        one(ratio.requests_per_second),
        three([ratio.time_to_first_token_p50, ratio.time_to_first_token_p95, ratio.time_to_first_token_p99]),
        three([ratio.inter_token_p50, ratio.inter_token_p95, ratio.inter_token_p99]),
        three([ratio.end_to_end_p50, ratio.end_to_end_p95, ratio.end_to_end_p99]),
    ]);
}

/// Three times, with a decimal only below 100 ms.
fn times(times: Option<Percentiles>) -> String {
    let Some(Percentiles { p50, p95, p99, .. }) = times else { return "-".to_owned() };
    [p50, p95, p99].map(|ms| if ms < 100.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }).join(" / ")
}

/// Facts that the table does not show: failures, tokens counted by pieces, cached tokens, and an interruption.
fn remarks(report: &Report) -> String {
    let mut text = String::new();
    for (point, result, name) in report.points.iter().flat_map(named) {
        for (kind, Errors { count, example }) in &result.errors {
            let _ = writeln!(
                text,
                "{}{name}: {count} failed ({kind}), the first: {}",
                point.load,
                replace_control_chars(example)
            );
        }
    }
    let results = || report.points.iter().flat_map(|point| &point.results);
    if results().any(|result| result.completed > 0 && result.counted_by == CountedBy::Pieces) {
        text += "Some answers came without a count of tokens; their pieces of text are counted instead.\n";
    }
    for (index, name) in (0..report.endpoints.len()).zip('A'..) {
        let results = || report.points.iter().filter_map(|point| point.results.get(index));
        let sum = |figure: fn(&ResultReport) -> u64| results().map(figure).sum::<u64>();
        let (prompt, cached) = (sum(|result| result.prompt_tokens), sum(|result| result.cached_tokens));
        let place = if report.endpoints.len() > 1 { format!(" at {name}") } else { String::new() };
        if cached > 0 {
            let share = 100.0 * cached as f64 / prompt.max(1) as f64;
            let _ = writeln!(
                text,
                "Of the prompts' {prompt} tokens, {cached} came from the prefix cache{place} ({share:.0} %)."
            );
        }
    }
    if report.partial {
        text += "Interrupted: this is what was measured until then.\n";
    }
    text
}

/// The results of a load point, each with a suffix that names its endpoint if there are two.
fn named(point: &PointReport) -> impl Iterator<Item = (&PointReport, &ResultReport, &'static str)> {
    let names = if point.results.len() > 1 { [", A", ", B"] } else { [""; 2] };
    point.results.iter().zip(names).map(move |(result, name)| (point, result, name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bench::{Api, EndpointReport, Load};

    fn result(factor: f64) -> ResultReport {
        let times = |ms: f64| Some(Percentiles { count: 3, p50: ms * factor, p95: 2.0 * ms * factor, p99: 3.0 * ms });
        ResultReport {
            requests: 4,
            completed: 3,
            errors: BTreeMap::from([(
                "status 429".to_owned(),
                Errors { count: 1, example: "answered 429: too many".to_owned() },
            )]),
            seconds: 2.0,
            counted_by: CountedBy::Pieces,
            prompt_tokens: 300,
            cached_tokens: 30,
            output_tokens: 60,
            output_tokens_per_second: 30.0 / factor,
            requests_per_second: 1.5 / factor,
            time_to_first_token_ms: times(120.0),
            inter_token_ms: times(12.5),
            end_to_end_ms: None,
        }
    }

    fn report(results: Vec<ResultReport>, ratio: Option<Ratio>) -> Report {
        let endpoint = |url: &str| EndpointReport {
            url: url.to_owned(),
            model: "small".to_owned(),
            ignore_eos: true,
            notes: Vec::new(),
        };
        Report {
            partial: true,
            seed: 7,
            api: Api::Chat,
            prompt_tokens: "120".to_owned(),
            output_tokens: "uniform:8..32".to_owned(),
            shared_prefix_tokens: 0,
            requests: 4,
            endpoints: results.iter().zip(["http://a:1", "http://b:2"]).map(|(_, url)| endpoint(url)).collect(),
            points: vec![PointReport { load: Load::Concurrency(2), results, ratio }],
        }
    }

    #[test]
    fn one_endpoint_has_a_line_for_each_load_point() {
        let text = render(&report(vec![result(1.0)], None));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "http://a:1, model small");
        let cells: Vec<_> = lines[4].split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let expected = ["2 clients", "-", "3", "1", "30.0", "1.50", "120 / 240 / 360", "12.5 / 25.0 / 37.5", "-"];
        assert_eq!(cells, expected, "{text}");
        for expected in [
            "2 clients: 1 failed (status 429), the first: answered 429: too many",
            "pieces of text are counted instead",
            "Of the prompts' 300 tokens, 30 came from the prefix cache (10 %).",
            "Interrupted",
        ] {
            assert!(text.contains(expected), "{expected} is missing in {text}");
        }
    }

    #[test]
    fn two_endpoints_have_a_line_each_and_one_for_their_ratio() {
        let ratio = Ratio {
            output_tokens_per_second: Some(2.0),
            requests_per_second: Some(2.0),
            time_to_first_token_p50: Some(0.5),
            time_to_first_token_p95: Some(0.5),
            time_to_first_token_p99: None,
            inter_token_p50: None,
            inter_token_p95: None,
            inter_token_p99: None,
            end_to_end_p50: None,
            end_to_end_p95: None,
            end_to_end_p99: None,
        };
        let text = render(&report(vec![result(1.0), result(2.0)], Some(ratio)));
        assert!(text.starts_with("A: http://a:1, model small\nB: http://b:2, model small\n"), "{text}");
        let ratio = text.lines().find(|line| line.contains("A / B ") && line.starts_with("2 clients")).unwrap();
        assert!(ratio.contains("2.00") && ratio.contains("0.50 / 0.50 / -"), "{ratio}");
        assert!(text.contains("2 clients, B: 1 failed"), "{text}");
        let cached = |place| format!("Of the prompts' 300 tokens, 30 came from the prefix cache at {place} (10 %).\n");
        assert!(text.contains(&(cached("A") + &cached("B"))), "{text}");
    }
}
