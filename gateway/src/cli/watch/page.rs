//! The page that `baton status --watch` shows: the dashboard's figures as text. Pure.

use super::limits::PIPE_LINES_MAX;
use super::line::{PageLine, Tone, wrap};
use super::link_loads::LinkLoads;
use super::picture::{Cluster, Picture};
use super::units::{duration, layers, number, percent, sparkline, whole};
use super::{decisions, links, requests, stages};

/// Stages that are named of those that move.
const MOVING_MAX: usize = 4;
/// Lines of a sentence about what moves, or why nothing is served.
const SENTENCE_LINES_MAX: usize = 3;
/// Samples of the line of tokens a second.
const SPARKS_MAX: usize = 60;

/// The place that the page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Screen {
    /// Its columns. As many as there are for a pipe.
    pub(super) columns: usize,
    /// Its lines. `None` for a pipe.
    pub(super) rows: Option<usize>,
    /// True if it may have colours.
    pub(super) colours: bool,
}

/// The figures beside the picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside<'a> {
    /// The cluster's name.
    pub(super) cluster: &'a str,
    /// The state of the connection: the address, or why there is none now.
    pub(super) connection: Result<&'a str, &'a str>,
    /// The loads of the links.
    pub(super) loads: &'a LinkLoads,
    /// The counters that the events do not have.
    pub(super) counted: &'a str,
}

/// The page as text, a newline after each line.
pub(super) fn render(picture: &Picture, beside: Beside<'_>, screen: Screen) -> String {
    let Screen { columns, rows, colours } = screen;
    let mut lines = head(picture, beside, columns);
    // Four blank lines, four headings; of what is left, stages take half, requests a quarter, links an eighth.
    let tables = if picture.cluster.links.is_empty() { 3 } else { 4 };
    let left = rows.map(|rows| rows.saturating_sub(1 + lines.len() + 2 * tables));
    let stages_max = left.map_or(usize::MAX, |left| (left / 2).max(3));
    let table = stages::render(&picture.cluster, beside.loads, stages_max, columns);
    let requests_max = left.map_or(PIPE_LINES_MAX, |left| (left / 4).max(2));
    let running = requests::render(&picture.requests, requests_max, columns);
    append_table(&mut lines, &table, picture.cluster.stages.len(), "stages");
    let reasons = stages::reasons(&picture.cluster).take(stages_max.min(PIPE_LINES_MAX));
    lines.extend(reasons.map(|reason| PageLine::new(Tone::Bad, &reason)));
    let links_max = left.map_or(PIPE_LINES_MAX, |left| (left / 8).max(2));
    let links = links::render(&picture.cluster.links, links_max, columns);
    append_table(&mut lines, &links, picture.cluster.links.len(), "links");
    append_table(&mut lines, &running, picture.requests.len(), "requests");
    if picture.requests.is_empty() {
        lines.extend([PageLine::default(), PageLine::new(Tone::Dim, "no request runs or waits")]);
    }
    let left = rows.map_or(PIPE_LINES_MAX, |rows| rows.saturating_sub(1 + lines.len() + 2));
    let decided = decisions::render(&picture.log, left, columns);
    if !decided.is_empty() {
        lines.extend([PageLine::default(), PageLine::new(Tone::Bold, "DECISIONS (UTC), the newest first")]);
        lines.extend(decided);
    }
    lines.truncate(rows.map_or(usize::MAX, |rows| rows.saturating_sub(1)));
    lines.iter().map(|line| line.render(columns, colours) + "\n").collect()
}

/// Appends a table behind a blank line, and how many rows of all are not in it.
fn append_table(lines: &mut Vec<PageLine>, table: &[String], all: usize, noun: &str) {
    let Some((heading, rows)) = table.split_first() else { return };
    lines.extend([PageLine::default(), PageLine::new(Tone::Bold, heading)]);
    lines.extend(rows.iter().map(|row| PageLine::new(Tone::Plain, row)));
    if rows.len() < all {
        lines.push(PageLine::new(Tone::Dim, &format!("and {} more {noun}", whole((all - rows.len()) as u64))));
    }
}

fn head(picture: &Picture, beside: Beside<'_>, columns: usize) -> Vec<PageLine> {
    let Picture { cluster, .. } = picture;
    let model = cluster.model.as_ref();
    let name = model.map_or("no model yet", |model| &model.name);
    let (tone, state) = if cluster.serving { (Tone::Good, "● serving") } else { (Tone::Bad, "○ not serving") };
    let title = PageLine::new(tone, state).with(Tone::Bold, &format!("  {name}"));
    let title = title.with(Tone::Dim, &format!("  cluster {}", beside.cluster));
    let connection = match beside.connection {
        Ok(url) => PageLine::new(Tone::Dim, &format!("live from {url}")),
        Err(reason) => PageLine::new(Tone::Bad, &format!("reconnecting: {reason}")),
    };
    let mut lines = vec![title, connection];
    lines.extend(sentence(Tone::Dim, &facts(picture), columns));
    let troubles = cluster.reason.iter().filter(|_| !cluster.serving);
    let alarms = cluster.store.alarms.iter().map(|alarm| format!("the store raises an alarm: {alarm}"));
    let silent = "the store does not answer: serving goes on with the last known placement".to_owned();
    let silent = (!cluster.store.reachable).then_some(silent);
    let pins = cluster.pins.iter().filter(|(_, pin)| pin.honoured == Some(false)).map(|(stage, pin)| {
        format!("the pin of stage {stage} is refused: {}", pin.reason.as_deref().unwrap_or("no reason is given"))
    });
    for trouble in troubles.cloned().chain(silent).chain(alarms).chain(pins) {
        lines.extend(sentence(Tone::Bad, &trouble, columns));
    }
    lines.push(PageLine::default());
    lines.extend(figures(picture, columns));
    if !beside.counted.is_empty() {
        lines.push(PageLine::new(Tone::Dim, beside.counted));
    }
    lines.extend(sparks(picture, columns));
    lines.extend(moving(picture).iter().flat_map(|text| sentence(Tone::Bold, text, columns)));
    lines
}

fn facts(picture: &Picture) -> String {
    let Cluster { model, stages, gateways, generation, .. } = &picture.cluster;
    let hosts: std::collections::BTreeSet<_> = stages.values().filter_map(|stage| stage.host.as_deref()).collect();
    let count = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let facts = [
        model.as_ref().map(|model| format!("{} layers", model.layers)),
        generation.map(|generation| format!("generation {generation}")),
        Some(format!("{} on {}", count(stages.len(), "stage"), count(hosts.len(), "machine"))),
        model.as_ref().map(|model| format!("room for {} tokens as {}", whole(model.kv_tokens), model.kv_type)),
        Some(count(gateways.len(), "gateway")),
        Some(format!("baton {}", picture.controls.version)),
    ];
    facts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

/// The figures of now, in as many lines as they need.
fn figures(picture: &Picture, columns: usize) -> Vec<PageLine> {
    let Picture { cluster, series, .. } = picture;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows = or_dash(series.last("batch_rows").map(number));
    let used = (cluster.kv.blocks > 0).then(|| percent(cluster.kv.used as f64 / cluster.kv.blocks as f64));
    let share = |column| or_dash(series.last(column).map(percent));
    let figures = [
        ("tokens/s", number(cluster.tokens_per_second)),
        ("first token", or_dash(series.last("first_token_ms").map(duration))),
        ("running", cluster.running.to_string()),
        ("waiting", cluster.waiting.to_string()),
        ("batch", format!("{rows} rows")),
        ("KV used", or_dash(used)),
        ("stages busy", share("busy")),
        ("without input", share("idle_input")),
        ("link full", share("idle_output")),
    ];
    let mut lines: Vec<PageLine> = Vec::new();
    for (name, value) in figures {
        let figure =
            |gap: &str, line: PageLine| line.with(Tone::Dim, &format!("{gap}{name} ")).with(Tone::Bold, &value);
        match lines.pop() {
            None => lines.push(figure("", PageLine::default())),
            Some(line) => {
                let longer = figure("   ", line.clone());
                let fits = longer.width() <= columns;
                lines.extend(if fits { vec![longer] } else { vec![line, figure("", PageLine::default())] });
            }
        }
    }
    lines
}

/// The tokens a second of the last minutes.
fn sparks(picture: &Picture, columns: usize) -> Option<PageLine> {
    const TITLE: &str = "tokens/s of the last ";
    let series = &picture.series;
    let room = SPARKS_MAX.min(columns.saturating_sub(TITLE.len() + 24));
    let mut values: Vec<_> = series.column("tokens_per_second").rev().map_while(|value| value).take(room).collect();
    values.reverse();
    let most = values.iter().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let span = duration(((values.len() as u64).saturating_mul(series.interval_ms.max(1))) as f64);
    let line = PageLine::new(Tone::Dim, &format!("{TITLE}{span} ")).with(Tone::Good, &sparkline(&values));
    Some(line.with(Tone::Dim, &format!(" at most {}", number(most))))
}

/// The layers that move now, and why.
fn moving(picture: &Picture) -> Option<String> {
    let moves = |state: &str| matches!(state, "loading" | "ready" | "unclaimed");
    let stages = picture.cluster.ordered();
    let moving: Vec<_> = stages.iter().filter(|stage| stage.layers.is_some() && moves(&stage.state)).collect();
    if moving.is_empty() {
        return None;
    }
    let named = moving.iter().take(MOVING_MAX);
    let named: Vec<_> = named.map(|stage| format!("{} {} {}", stage.name, stage.state, layers(stage.layers))).collect();
    let more = moving.len().saturating_sub(MOVING_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let why = picture.log.iter().rev().find(|decision| decision.subject == "placement");
    let why = why.map(|decision| format!(" {}", decision.text)).unwrap_or_default();
    Some(format!("Moving now: {}{more}.{why}", named.join(", ")))
}

/// A sentence in a few lines.
fn sentence(tone: Tone, text: &str, columns: usize) -> Vec<PageLine> {
    let lines = wrap(text, columns);
    lines.iter().take(SENTENCE_LINES_MAX).map(|line| PageLine::new(tone, line)).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    fn stage(name: &str, host: &str, layers: [u32; 2], state: &str) -> serde_json::Value {
        json!({"name": name, "host": host, "device": "cpu", "endpoint": "tcp://10.0.0.2:7000", "layers": layers,
            "state": state, "busy": 0.254, "idle_input": 0.7, "idle_output": 0.046, "tokens_per_second": 24.04,
            "link_us": 80, "sent_bytes_total": 5000,
            "memory": {"budget_bytes": 256 << 20, "bound_bytes": 120 << 20, "weights_bytes": 48 << 20,
                "kv_bytes": 40 << 20, "used": {"rss_bytes": 90 << 20, "pss_bytes": 80 << 20,
                    "pss_file_bytes": 0, "pss_anonymous_bytes": 0, "weights_resident_bytes": 0}}})
    }

    fn picture() -> Picture {
        let state = json!({
            "cluster": {
                "serving": true, "generation": 3, "running": 2, "waiting": 1, "tokens_per_second": 24.06,
                "model": {"name": "small", "layers": 30, "kv_tokens": 8192, "kv_type": "f16"},
                "stages": {"right": stage("right", "mini-2", [16, 30], "loading"),
                    "left": stage("left", "mini-1", [0, 16], "serving"),
                    "spare": {"name": "spare", "host": "mini-3", "state": "standby", "standby": [[16, 30]]}},
                "gateways": {"0": {"slot": 0, "url": "http://10.0.0.1:8100"}},
                "pins": {"spare": {"stage": "spare", "honoured": false, "reason": "too small"}},
                "store": {"reachable": true, "revision": 7, "alarms": []},
                "kv": {"blocks": 256, "used": 64},
            },
            "requests": {
                "10": {"phase": "decode", "prompt_tokens": 17, "generated_tokens": 30, "tokens_left": 70,
                    "sent_tokens": 46, "attempts": 2, "age_ms": 3210, "in_flight": 1, "in_flight_ms": 12,
                    "stages": [{"stage": "left", "compute_ms": 30}, {"stage": "right", "compute_ms": 10}]},
                "9": {"phase": "prefill", "prompt_tokens": 4096, "sent_tokens": 1024, "attempts": 1, "age_ms": 900},
                "11": {"phase": "waiting", "before": 0, "prompt_tokens": 17, "attempts": 0, "age_ms": 5},
            },
            "controls": {"version": "0.1.0"},
            "series": {"columns": ["t", "tokens_per_second", "first_token_ms", "batch_rows", "busy", "idle_input",
                "idle_output"], "interval_ms": 2000,
                "rows": [[1, 0, null, null, 0, 1, 0], [2, 12.5, 182, 1.5, 0.25, 0.7, 0.05],
                    [3, 24, null, 2, 0.25, 0.7, 0.05]]},
            "log": [
                {"t": 3_723_000, "subject": "member", "text": "Stage right joined: a chip on mini-2."},
                {"t": 3_724_000, "subject": "placement", "text": "Generation 3 follows 2 because stage right joined: \
                    layers 16..30 go from left to right, and the rest stays where it is."},
            ],
        });
        Picture::deserialize(state).unwrap()
    }

    fn page(columns: usize, rows: Option<usize>, colours: bool) -> String {
        let beside = Beside {
            cluster: "home",
            connection: Ok("http://10.0.0.1:8100"),
            loads: &LinkLoads::default(),
            counted: "between tokens 41.0 ms",
        };
        render(&picture(), beside, Screen { columns, rows, colours })
    }

    /// Compares with a page in `golden/`, which is read when the test runs.
    fn check_golden(page: &str, name: &str) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway/src/cli/watch/golden");
        let golden = std::fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
        assert_eq!(page, golden, "the page is\n{page}");
    }

    #[test]
    fn a_narrow_terminal_gets_what_fits_80_columns() {
        check_golden(&page(80, Some(40), false), "80.txt");
    }

    #[test]
    fn a_wide_terminal_gets_memory_to_scale_and_links() {
        check_golden(&page(120, Some(40), false), "120.txt");
    }

    #[test]
    fn no_line_is_wider_and_no_page_higher_than_the_terminal() {
        for (columns, rows) in [(20, 10), (40, 12), (80, 24), (200, 60)] {
            let page = page(columns, Some(rows), false);
            assert!(page.lines().count() < rows, "{page}");
            assert!(page.lines().all(|line| console::measure_text_width(line) <= columns), "{columns}:\n{page}");
        }
        let pipe = page(usize::MAX, None, false);
        assert!(!pipe.contains('\x1b') && pipe.contains("LINK FULL") && !pipe.contains('…'), "{pipe}");
    }

    #[test]
    fn links_show_the_used_address_first_and_count_those_without_room() {
        let mut picture = picture();
        let link = |address: &str, state: &str, rtt_us: u32| {
            json!({"from": "left", "to": "right", "interface": "en0", "kind": "ethernet", "address": address,
                "rtt_us": rtt_us, "measured_megabits_per_second": 940, "mtu": 1500, "state": state})
        };
        let links = json!({"a": link("tcp://10.0.0.2:7000", "spare", 2910),
            "b": link("tcp://10.0.1.2:7000", "used", 94),
            "c": {"from": "left", "to": "right", "address": "tcp://10.0.2.2:7000", "state": "dead"}});
        picture.cluster.links = serde_json::from_value(links).unwrap();
        let beside = Beside { cluster: "home", connection: Ok("here"), loads: &LinkLoads::default(), counted: "" };
        let at = |columns, rows| render(&picture, beside, Screen { columns, rows, colours: false });
        let wide = at(120, None);
        let table: Vec<_> = wide.lines().skip_while(|line| !line.starts_with("LINK FROM")).take(4).collect();
        let expected = [
            "LINK FROM  TO     INTERFACE       ADDRESS        RTT     GBIT/S  MTU   USE",
            "left       right  en0 (ethernet)  10.0.1.2:7000  94 µs   0.94    1500  used",
            "left       right  en0 (ethernet)  10.0.0.2:7000  2.9 ms  0.94    1500  spare",
            "left       right  -               10.0.2.2:7000  -       -       -     dead",
        ];
        assert_eq!(table, expected, "{wide}");
        let narrow = at(60, Some(30));
        assert!(narrow.contains("and 1 more links") && narrow.contains("USE") && !narrow.contains("MTU"), "{narrow}");
        assert!(narrow.lines().count() < 30 && narrow.lines().all(|line| console::measure_text_width(line) <= 60));
    }

    #[test]
    fn colours_change_no_letter() {
        assert!(page(80, Some(40), true).contains("\x1b[32m● serving\x1b[0m"));
        assert_eq!(console::strip_ansi_codes(&page(100, Some(40), true)), page(100, Some(40), false));
    }

    #[test]
    fn a_thousand_stages_are_counted_where_they_do_not_fit() {
        let mut picture = picture();
        let stage = picture.cluster.stages["left"].clone();
        for at in 0..1000 {
            picture.cluster.stages.insert(format!("more-{at}"), stage.clone());
        }
        picture.cluster.serving = false;
        picture.cluster.reason = Some("layers 16..30 are held by nobody".to_owned());
        let beside = Beside { cluster: "home", connection: Err("gone"), loads: &LinkLoads::default(), counted: "" };
        let page = render(&picture, beside, Screen { columns: 80, rows: Some(30), colours: false });
        assert!(page.contains("more stages\n") && page.contains("\nreconnecting: gone\n"), "{page}");
        assert!(
            page.starts_with("○ not serving  small") && page.contains("layers 16..30 are held by nobody"),
            "{page}"
        );
        let empty = render(&Picture::default(), beside, Screen { columns: 80, rows: Some(30), colours: false });
        assert!(empty.contains("no model yet") && empty.contains("no request runs or waits"), "{empty}");
    }
}
