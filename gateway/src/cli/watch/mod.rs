//! `baton status --watch`: the dashboard in a terminal. Follows the live events of a gateway; where none answers, shows
//! the records of the store instead.

mod counters;
mod decisions;
mod fitted_table;
mod limits;
mod line;
mod link_loads;
mod links;
mod live_state;
mod page;
mod picture;
mod requests;
mod stages;
mod subscription;
mod units;

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinSet;

use self::counters::MetricTotals;
use self::limits::{COUNTERS_PERIOD, DRAW_PERIOD, PERIOD};
use self::line::{PageLine, Tone};
use self::link_loads::LinkLoads;
use self::live_state::LiveState;
use self::page::{Beside, Screen};
use self::picture::Picture;
use self::subscription::Subscription;
use super::exit::{CliError, Exit};
use super::status::{StatusDocument, render as render_records};
use super::{ask, cluster, output};
use crate::settings::{ClientSettings, ClusterSettings, TerminalSettings};

/// Puts the cursor into the corner. Each line clears what was behind it, which flickers less than clearing the screen.
const HOME: &str = "\x1b[H";
const CLEAR_REST_OF_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Shows one page after the other.
struct Watcher<'a> {
    settings: &'a ClusterSettings,
    terminal: &'a TerminalSettings,
    is_terminal: bool,
    /// The address of the gateway that was followed last, and its state.
    followed: Option<(String, LiveState)>,
    loads: LinkLoads,
}

/// The end of a gateway's events.
enum End {
    /// The pages go into a pipe that was closed.
    Unread,
    /// The gateway sends no more, or what is not understood.
    Broken { reason: String },
}

/// Shows the cluster until Ctrl-C, or until nobody reads the pages.
pub(super) async fn run(settings: &ClusterSettings, terminal: &TerminalSettings) -> Result<Exit, CliError> {
    let is_terminal = io::stdout().is_terminal();
    let mut watch = Watcher { settings, terminal, is_terminal, followed: None, loads: LinkLoads::default() };
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted.map(|()| Exit::Ok)?),
        ended = watch.run() => ended.map(|()| Exit::Ok),
    }
}

// === impl Watcher ===

impl Watcher<'_> {
    async fn run(&mut self) -> Result<(), CliError> {
        loop {
            let document = match cluster::read_once(self.settings).await {
                Ok(view) => Some(StatusDocument::new(self.settings.cluster.as_str(), &view)),
                // A gateway goes on serving without the store.
                Err(_) if self.followed.is_some() => None,
                Err(error) => return Err(error.into()),
            };
            let mut broken = String::new();
            for url in self.gateways(document.as_ref()) {
                match self.follow(&url).await? {
                    End::Unread => return Ok(()),
                    End::Broken { reason } => broken = format!("{url}: {reason}"),
                }
            }
            let drawn = match document {
                Some(document) => self.draw_records(&document, &broken)?,
                // It is followed: so there is a picture.
                None => self.draw_last(&broken)?,
            };
            if drawn.is_break() {
                return Ok(());
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// The addresses to try: the last one first, because its events may go on where they were.
    fn gateways(&self, document: Option<&StatusDocument>) -> Vec<String> {
        let last = self.followed.as_ref().map(|(url, _)| url);
        let Some(document) = document else { return last.cloned().into_iter().collect() };
        let mut urls: Vec<_> = document.gateways.iter().map(|gateway| gateway.url.clone()).collect();
        urls.sort_by_key(|url| Some(url) != last);
        urls
    }

    /// Shows what the gateway at `url` sends until that ends.
    async fn follow(&mut self, url: &str) -> Result<End, CliError> {
        let mut live = match &self.followed {
            Some((followed, live)) if followed == url => live.clone(),
            _ => LiveState::default(),
        };
        let end = match Subscription::open(url, &self.settings.cluster, &self.settings.client, live.last_id()).await {
            Ok(events) => self.show_events(events, url, &mut live).await?,
            Err(failure) => End::Broken { reason: failure.to_string() },
        };
        // A gateway that has sent nothing does not take the place of one that has.
        if live.has_state() {
            self.followed = Some((url.to_owned(), live));
        }
        Ok(end)
    }

    /// Draws the state after the events, not oftener than people see.
    async fn show_events(
        &mut self,
        mut events: Subscription,
        url: &str,
        live: &mut LiveState,
    ) -> Result<End, CliError> {
        let mut counting = JoinSet::new();
        let (counted, counters) = watch::channel(String::new());
        let page = format!("/metrics?cluster={}", self.settings.cluster);
        counting.spawn(count(url.to_owned(), page, self.settings.client.clone(), counted));
        let mut ticks = tokio::time::interval(if self.is_terminal { DRAW_PERIOD } else { PERIOD });
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_stale = false;
        loop {
            tokio::select! {
                event = events.next() => {
                    let event = match event {
                        Ok(event) => event,
                        Err(failure) => return Ok(End::Broken { reason: failure.to_string() }),
                    };
                    if let Err(error) = live.apply(event) {
                        live.begin_anew();
                        return Ok(End::Broken { reason: error.to_string() });
                    }
                    is_stale = true;
                }
                _ = ticks.tick(), if is_stale || !self.is_terminal => {
                    is_stale = false;
                    let counted = counters.borrow().clone();
                    match live.picture() {
                        Ok(Some(picture)) if self.draw(&picture, Ok(url), &counted)?.is_break() => {
                            return Ok(End::Unread);
                        }
                        Ok(_) => {}
                        Err(error) => {
                            live.begin_anew();
                            return Ok(End::Broken { reason: error.to_string() });
                        }
                    }
                }
            }
        }
    }

    fn draw(
        &mut self,
        picture: &Picture,
        connection: Result<&str, &str>,
        counted: &str,
    ) -> io::Result<ControlFlow<()>> {
        self.loads.update(&picture.cluster, Instant::now());
        let cluster = self.settings.cluster.as_str();
        let beside = Beside { cluster, connection, loads: &self.loads, counted };
        self.show(&page::render(picture, beside, self.screen()))
    }

    /// Draws the last state again, if there is one, with the reason that it is old.
    fn draw_last(&mut self, reason: &str) -> io::Result<ControlFlow<()>> {
        let picture = self.followed.as_ref().and_then(|(_, live)| live.picture().ok().flatten());
        picture.map_or(Ok(ControlFlow::Continue(())), |picture| self.draw(&picture, Err(reason), ""))
    }

    /// Draws the records of the store, and why no gateway's events are shown.
    fn draw_records(&self, document: &StatusDocument, reason: &str) -> io::Result<ControlFlow<()>> {
        let Screen { columns, rows, colours } = self.screen();
        let mut text = render_records(document);
        if !reason.is_empty() {
            text.push_str(&format!("\nno live figures: {reason}\n"));
        }
        let lines = text.lines().map(|line| PageLine::new(Tone::Plain, line).render(columns, colours) + "\n");
        let page: String = lines.take(rows.map_or(usize::MAX, |rows| rows.saturating_sub(1))).collect();
        self.show(&page)
    }

    /// The terminal as it is now: it may change its size.
    fn screen(&self) -> Screen {
        if !self.is_terminal {
            return Screen { columns: usize::MAX, rows: None, colours: false };
        }
        let (rows, columns) = console::Term::stdout().size();
        Screen { columns: columns.into(), rows: Some(rows.into()), colours: self.terminal.colours }
    }

    /// Writes a page over the last one, or behind it where the cursor cannot move.
    fn show(&self, page: &str) -> io::Result<ControlFlow<()>> {
        output::print_part(&if self.is_terminal && self.terminal.moves_cursor {
            format!("{HOME}{}{CLEAR_BELOW}", page.replace('\n', &format!("{CLEAR_REST_OF_LINE}\n")))
        } else {
            format!("{page}\n")
        })
    }
}

/// Reads the counters in `page` of the gateway at `url` again and again, and sends what was counted meanwhile.
async fn count(url: String, page: String, client: ClientSettings, counted: watch::Sender<String>) {
    let mut last: Option<MetricTotals> = None;
    loop {
        let now = ask::get(&url, &page, &client).await.map(|page| MetricTotals::parse(&page));
        // The events say whether the gateway answers.
        if let Ok(now) = now {
            let text = last.as_ref().map(|last| now.since(last)).unwrap_or_default();
            last = Some(now);
            if counted.send(text).is_err() {
                return;
            }
        }
        tokio::time::sleep(COUNTERS_PERIOD).await;
    }
}
