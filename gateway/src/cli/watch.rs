//! `baton status --watch`: prints the status and the metrics of the gateway once a second.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use super::ask;
use super::cluster;
use super::exit::{CliError, Exit};
use super::output;
use super::status::{StatusDocument, render};
use super::table::Table;
use crate::settings::ClusterSettings;

const PERIOD: Duration = Duration::from_secs(1);
/// Moves the cursor to the corner and clears the screen below it. This flickers less than clearing the screen first.
const HOME: &str = "\x1b[H\x1b[J";

/// The gateway's metrics by name. Values that differ only in labels are added up.
type Counted = HashMap<String, f64>;

/// Prints the cluster once a second until Ctrl-C, or until nobody reads it.
pub(super) async fn run(settings: &ClusterSettings) -> Result<Exit, CliError> {
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let is_terminal = std::io::stdout().is_terminal();
    let home = if is_terminal { HOME } else { "" };
    let mut last = Counted::new();
    loop {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted.map(|()| Exit::Ok)?),
            _ = period.tick() => {}
        }
        let view = cluster::read_once(settings).await?;
        let document = StatusDocument::new(settings.cluster.as_str(), &view);
        let page = match document.gateways.first() {
            Some(gateway) => ask::get(&gateway.url, "/metrics", &settings.client).await,
            None => Ok(String::new()),
        };
        let (counted, lately) = match page.map(|text| parse(&text)) {
            Ok(counted) if counted.is_empty() => (counted, String::new()),
            Ok(counted) => {
                let lately = format!("\n{}\n", pipeline(&counted, &last));
                (counted, lately)
            }
            Err(error) => (Counted::new(), format!("\n{}\n", output::replace_control_chars(&output::chain(&error)))),
        };
        let page = format!("{}{lately}", render(&document));
        let page = if is_terminal { cut(&page, console::Term::stdout().size().1.into()) } else { page };
        if output::print_part(&format!("{home}{page}"))?.is_break() {
            return Ok(Exit::Ok);
        }
        last = counted;
    }
}

/// The text with lines of at most `columns` characters, since a line that wraps would move those below it each second.
fn cut(text: &str, columns: usize) -> String {
    let line = |line: &str| match line.char_indices().nth(columns) {
        Some(_) => format!("{}…\n", line.chars().take(columns.saturating_sub(1)).collect::<String>()),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// The values of a page of metrics, without the buckets of histograms.
fn parse(text: &str) -> Counted {
    let mut counted = Counted::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let name = name.split('{').next().unwrap_or(name).trim();
        if let Ok(value) = value.parse::<f64>()
            && !name.ends_with("_bucket")
        {
            *counted.entry(name.to_owned()).or_default() += value;
        }
    }
    counted
}

/// The state of the pipeline as a table: gauges with their current value, times as means since the last print.
fn pipeline(now: &Counted, last: &Counted) -> String {
    let value = |name: &str| now.get(&format!("baton_{name}")).copied().unwrap_or(0.0);
    let more = |name: &str| value(name) - last.get(&format!("baton_{name}")).copied().unwrap_or(0.0);
    let share =
        |part: f64, whole: f64| if whole > 0.0 { format!("{:.0} %", 100.0 * part / whole) } else { "-".to_owned() };
    let mean_ms = |name: &str| {
        let count = more(&format!("{name}_count"));
        if count > 0.0 { format!("{:.1} ms", 1000.0 * more(&format!("{name}_sum")) / count) } else { "-".to_owned() }
    };
    let mean = |name: &str| {
        let count = more(&format!("{name}_count"));
        if count > 0.0 { format!("{:.1}", more(&format!("{name}_sum")) / count) } else { "-".to_owned() }
    };
    let mut table = Table::new(&[
        "RUNNING",
        "WAITING",
        "TOK/S",
        "KV USED",
        "FIRST TOKEN",
        "BETWEEN",
        "BATCH",
        "HOP",
        "CACHED",
        "ACCEPTED",
        "PREEMPTED",
    ]);
    table.row([
        format!("{}", value("sequences_running")),
        format!("{}", value("sequences_waiting")),
        format!("{:.1}", value("tokens_per_second")),
        share(value("kv_blocks_used"), value("kv_blocks")),
        mean_ms("first_token_seconds"),
        mean_ms("inter_token_seconds"),
        format!("{} rows", mean("batch_rows")),
        mean_ms("hop_seconds"),
        share(value("cached_tokens_total"), value("prompt_tokens_total")),
        share(value("speculated_tokens_accepted_total"), value("speculated_tokens_total")),
        format!("{}", value("preemptions_total")),
    ]);
    table.render().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP baton_kv_blocks blocks\n# TYPE baton_kv_blocks gauge\nbaton_kv_blocks 256\n\
        baton_kv_blocks_used 64\nbaton_first_token_seconds_bucket{le=\"0.1\"} 3\n\
        baton_first_token_seconds_sum 0.5\nbaton_first_token_seconds_count 5\n\
        baton_sequences_ended_total{outcome=\"stop\"} 2\nbaton_sequences_ended_total{outcome=\"length\"} 3\n\
        no number\n";

    #[test]
    fn values_of_different_labels_are_added_up_and_buckets_are_left_out() {
        let counted = parse(PAGE);
        assert_eq!(counted["baton_sequences_ended_total"], 5.0);
        assert!(!counted.contains_key("baton_first_token_seconds_bucket"));
    }

    #[test]
    fn a_narrow_terminal_gets_the_beginning_of_each_line() {
        assert_eq!(cut("STAGE  LAYERS\nmini-1 0..15\n", 12), "STAGE  LAYE…\nmini-1 0..15\n");
        assert_eq!(cut("größe\n", 5), "größe\n");
    }

    #[test]
    fn times_are_means_since_the_last_print() {
        let mut last = parse(PAGE);
        assert!(pipeline(&last, &Counted::new()).contains("100.0 ms"));
        let now = last.clone();
        let idle = pipeline(&now, &last);
        assert!(idle.contains("25 %") && !idle.contains("ms"), "{idle}");
        last.insert("baton_first_token_seconds_count".to_owned(), 4.0);
        last.insert("baton_first_token_seconds_sum".to_owned(), 0.1);
        assert!(pipeline(&now, &last).contains("400.0 ms"));
    }
}
