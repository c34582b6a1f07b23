//! A plot (SVG) of latency and throughput over load.

use std::fmt::Write as _;

use super::load::Load;
use super::report::{Report, ResultReport};

const PANEL_WIDTH: f64 = 360.0;
const PANEL_HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 44.0;
/// Height of one line of the legend below the panels.
const LEGEND_LINE: f64 = 18.0;
/// A colour for each endpoint. People with colour blindness can tell the two apart.
const COLOURS: [&str; 2] = ["#0072b2", "#d55e00"];
const DASHED: &str = " stroke-dasharray=\"6 4\"";

/// Reads one figure of a result.
type Figure = fn(&ResultReport) -> Option<f64>;

/// One diagram.
struct Panel {
    title: &'static str,
    /// Name, figure, and `true` for a dashed line.
    lines: &'static [(&'static str, Figure, bool)],
}

const PANELS: [Panel; 3] = [
    Panel {
        title: "time to first token, ms",
        lines: &[
            ("p50", |result| result.time_to_first_token_ms.map(|times| times.p50), false),
            ("p95", |result| result.time_to_first_token_ms.map(|times| times.p95), true),
        ],
    },
    Panel {
        title: "between tokens, ms",
        lines: &[
            ("p50", |result| result.inter_token_ms.map(|times| times.p50), false),
            ("p95", |result| result.inter_token_ms.map(|times| times.p95), true),
        ],
    },
    Panel {
        title: "throughput, output tokens/s",
        lines: &[("", |result| (result.completed > 0).then_some(result.output_tokens_per_second), false)],
    },
];

/// Plots `report` as SVG.
pub fn plot(report: &Report) -> String {
    let legend = report.endpoints.len() as f64 * LEGEND_LINE + 10.0;
    let (width, height) = (PANEL_WIDTH * PANELS.len() as f64, PANEL_HEIGHT + legend);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, panel) in PANELS.iter().enumerate() {
        draw_panel(&mut svg, report, panel, PANEL_WIDTH * index as f64);
    }
    for (index, endpoint) in report.endpoints.iter().enumerate() {
        let y = PANEL_HEIGHT + LEGEND_LINE * index as f64 + 8.0;
        let colour = COLOURS[index % COLOURS.len()];
        let text = escape(&format!("{} ({})", endpoint.url, endpoint.model));
        let _ = writeln!(svg, "<circle cx=\"{LEFT}\" cy=\"{y}\" r=\"5\" fill=\"{colour}\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\">{text}</text>", LEFT + 12.0, y + 4.0);
    }
    svg + "</svg>\n"
}

fn draw_panel(svg: &mut String, report: &Report, panel: &Panel, x0: f64) {
    let most = |figures: &mut dyn Iterator<Item = f64>| figures.fold(0.0, f64::max);
    let results = || report.points.iter().flat_map(|point| &point.results);
    let figures = panel.lines.iter().flat_map(|(_, figure, _)| results().filter_map(figure));
    let (y_step, y_max) = scale(most(&mut { figures }));
    let (x_step, x_max) = scale(most(&mut report.points.iter().map(|point| point.load.offered())));
    let x = |load: f64| x0 + LEFT + (PANEL_WIDTH - LEFT - RIGHT) * load / x_max;
    let y = |figure: f64| PANEL_HEIGHT - BOTTOM - (PANEL_HEIGHT - TOP - BOTTOM) * figure / y_max;

    let _ = writeln!(svg, "<text x=\"{}\" y=\"22\" font-weight=\"bold\">{}</text>", x0 + LEFT, legend(panel));
    for step in 0..=(y_max / y_step).round() as u32 {
        let (figure, end) = (f64::from(step) * y_step, x(x_max));
        let (from, at) = (x(0.0), y(figure));
        let _ = writeln!(svg, "<path d=\"M{from:.1} {at:.1}H{end:.1}\" stroke=\"#ddd\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            from - 6.0,
            at + 4.0,
            number(figure)
        );
    }
    for step in 0..=(x_max / x_step).round() as u32 {
        let (load, below) = (f64::from(step) * x_step, PANEL_HEIGHT - BOTTOM + 16.0);
        let _ =
            writeln!(svg, "<text x=\"{:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>", x(load), number(load));
    }
    let unit = match report.points.first().map(|point| point.load) {
        Some(Load::Rate(_)) => "requests offered a second",
        _ => "clients at once",
    };
    let middle = x(x_max / 2.0);
    let _ = writeln!(svg, "<text x=\"{middle:.1}\" y=\"{}\" text-anchor=\"middle\">{unit}</text>", PANEL_HEIGHT - 10.0);
    for endpoint in 0..report.endpoints.len() {
        for (_, figure, dashed) in panel.lines {
            let at = |point: &super::report::PointReport| {
                let figure = figure(point.results.get(endpoint)?)?;
                Some((x(point.load.offered()), y(figure)))
            };
            let mut points: Vec<_> = report.points.iter().filter_map(at).collect();
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            draw_line(svg, &points, COLOURS[endpoint % COLOURS.len()], if *dashed { DASHED } else { "" });
        }
    }
}

fn draw_line(svg: &mut String, points: &[(f64, f64)], colour: &str, dash: &str) {
    let path: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let path = path.join(" ");
    let _ = writeln!(svg, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>");
    for (x, y) in points {
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }
}

fn legend(panel: &Panel) -> String {
    let lines = panel.lines.iter().filter(|(name, ..)| !name.is_empty());
    let names: Vec<_> =
        lines.map(|(name, _, dashed)| format!("{name}{}", if *dashed { " dashed" } else { "" })).collect();
    if names.is_empty() { panel.title.to_owned() } else { format!("{} ({})", panel.title, names.join(", ")) }
}

/// A round step (1, 2 or 5 times a power of ten) and the first multiple of it that is not below `most`.
fn scale(most: f64) -> (f64, f64) {
    let most = if most > 0.0 { most } else { 1.0 };
    let power = 10_f64.powf((most / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| step * 5.0 >= most);
    let step = step.unwrap_or(10.0 * power);
    (step, (most / step).ceil() * step)
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.chars().filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::answer::Answer;
    use crate::bench::plan::Api;
    use crate::bench::report::{EndpointReport, PointReport, Tally};

    fn report() -> Report {
        let tally = |ms: u64| {
            let mut tally = Tally { elapsed: Duration::from_secs(1), ..Tally::default() };
            let time_to_first_token = Some(Duration::from_millis(ms));
            let gaps = vec![Duration::from_millis(ms / 10)];
            tally.add(Ok(Answer {
                time_to_first_token,
                gaps,
                end_to_end: Duration::from_millis(2 * ms),
                pieces: 2,
                usage: None,
            }));
            tally
        };
        let points =
            [1, 2, 8].map(|n| PointReport::new(Load::Concurrency(n), &[tally(100 * u64::from(n)), tally(250)]));
        let endpoint = |url: &str| EndpointReport {
            url: url.to_owned(),
            model: "a<b>&c".to_owned(),
            ignore_eos: true,
            notes: Vec::new(),
        };
        Report {
            partial: false,
            seed: 1,
            api: Api::Chat,
            prompt_tokens: "120".to_owned(),
            output_tokens: "64".to_owned(),
            shared_prefix_tokens: 0,
            requests: 1,
            endpoints: vec![endpoint("http://a:1"), endpoint("http://b:2")],
            points: points.into(),
        }
    }

    #[test]
    fn each_endpoint_has_its_lines_and_each_point_a_dot_inside_the_drawing() {
        let svg = plot(&report());
        assert_eq!(svg.matches("<polyline").count(), 2 * (2 + 2 + 1));
        // The legend has one dot for each endpoint.
        assert_eq!(svg.matches("<circle").count(), 3 * 2 * (2 + 2 + 1) + 2);
        assert!(svg.contains("a&lt;b&gt;&amp;c") && svg.contains("clients at once"), "{svg}");
        for (name, most) in [("cx=\"", 3.0 * PANEL_WIDTH), ("cy=\"", PANEL_HEIGHT + 2.0 * LEGEND_LINE + 10.0)] {
            for rest in svg.split(name).skip(1) {
                let value: f64 = rest.split('"').next().unwrap().parse().unwrap();
                assert!((0.0..=most).contains(&value), "{name}{value}");
            }
        }
    }

    #[test]
    fn an_empty_report_is_drawn() {
        let svg = plot(&Report { points: Vec::new(), endpoints: Vec::new(), ..report() });
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn scales_are_round_and_hold_everything() {
        for (most, step, end) in [(7.3, 2.0, 8.0), (100.0, 20.0, 100.0), (0.04, 0.01, 0.04), (0.0, 0.2, 1.0)] {
            let found = scale(most);
            assert!((found.0 - step).abs() < 1e-9 && (found.1 - end).abs() < 1e-9, "{most} gave {found:?}");
        }
    }
}
