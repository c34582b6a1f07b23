//! What all simulated processes share: the time, what is to come, the dice, the store, the network, and who lives.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::depot::{Answer, Ask, Depot};
use super::dice::Dice;
use super::faults::Fault;
use super::network::{Network, Parcel, Way};
use super::tally::Tally;
use super::trace::Trace;
use crate::link::Message;
use crate::membership::Recall;
use crate::stage::compute::Done;
use crate::stage::member::Purpose;
use crate::store::{Committed, LeaseId};
use crate::view::ClusterView;

/// Virtual time since the start, in microseconds.
pub(super) type Moment = u64;

/// A process by its number: gateways come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Party(pub(super) usize);

/// The most gateways of a seed; the stages' numbers follow.
pub(super) const GATEWAYS: usize = 3;

impl Party {
    pub(super) fn is_gateway(self) -> bool {
        self.0 < GATEWAYS
    }
}

pub(super) const MS: Moment = 1000;
pub(super) const SECOND: Moment = 1_000_000;

/// Everything that can come to pass.
pub(super) enum Event {
    /// Something happens to a process, if it is still the same one.
    Happens(Party, u32, Happening),
    /// A frame comes to its end of a link.
    Arrives(Parcel),
    /// Nothing was heard over a link for too long, if it still is so.
    Missed(u64),
    /// A request comes to the store.
    Asked(Party, u32, Errand, Ask),
    /// The store's answer comes back.
    Answered(Party, u32, Errand, Answer),
    /// A change that the store told of comes to a process.
    Told(Party, u32, Arc<ClusterView>, u64),
    /// A process notices that the store is away, or reads it again.
    Looks(Party, u32, Look),
    Fault(Fault),
    /// The store ends leases.
    Expires,
    /// A client sends its request, or sends it again.
    Submits(usize),
    /// A client goes.
    Leaves(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Away,
    Again,
}

/// What a request to the store was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// Joining, for the `.0`th time.
    Join(u64),
    Register(u64),
    Renewal {
        lease: LeaseId,
    },
    /// The `number`th write of a stage.
    Write {
        number: u64,
        purpose: Purpose,
    },
    /// A stage that is gone is struck off by the head.
    Eviction,
    /// A gateway's record is written.
    Record,
    /// What the store has lost is written again.
    Heal,
    Farewell,
}

/// What happens to a process.
pub(super) enum Happening {
    /// It begins to join, for the first time or again.
    Joins,
    /// It tries again to register, in joining for the `.0`th time.
    Registers(u64),
    Answered {
        errand: Errand,
        answer: Answer,
    },
    /// It is time to renew the lease.
    Renews,
    Ticks,
    /// The view at hand is another one.
    Sees,
    Receives(Message),
    /// Its link has ended.
    LinkEnded {
        way: Way,
        link: u64,
    },
    /// The compute thread has done what it was at.
    ComputeDone,
    Computed(Done),
    /// A dial is answered, or waited for long enough.
    Dialled {
        way: Way,
        number: u64,
    },
    /// The moment that the conductor waits for.
    Wakes,
    Submits(usize),
}

/// What is outside of a process's own power.
pub(super) struct Life {
    /// Counts how often it was started.
    pub(super) incarnation: u32,
    pub(super) is_alive: bool,
    pub(super) is_frozen: bool,
    /// What happened while it was frozen.
    pub(super) backlog: VecDeque<Happening>,
    /// The view as it has it, and its number.
    pub(super) view: Arc<ClusterView>,
    pub(super) serial: u64,
    /// Its memory of what the store showed, and the newest view.
    pub(super) recall: Recall,
    pub(super) shown: Arc<ClusterView>,
}

pub(super) struct Surroundings {
    pub(super) now: Moment,
    origin: Instant,
    queue: BTreeMap<(Moment, u64), Event>,
    scheduled: u64,
    pub(super) dice: Dice,
    pub(super) depot: Depot,
    pub(super) network: Network,
    pub(super) lives: Vec<Life>,
    pub(super) trace: Trace,
    pub(super) tally: Tally,
    /// The first law that was broken.
    pub(super) broken: Option<String>,
}

/// A length of time as a moment counted from zero.
pub(super) const fn micros(time: Duration) -> Moment {
    time.as_micros() as Moment
}

pub(super) const fn duration(moment: Moment) -> Duration {
    Duration::from_micros(moment)
}

// === impl Surroundings ===

impl Surroundings {
    pub(super) fn new(dice: Dice, depot: Depot, network: Network, parties: usize, trace: Trace) -> Self {
        let life = || Life {
            incarnation: 0,
            is_alive: false,
            is_frozen: false,
            backlog: VecDeque::new(),
            view: Arc::new(ClusterView::default()),
            serial: 0,
            recall: Recall::default(),
            shown: Arc::new(ClusterView::default()),
        };
        Self {
            now: 0,
            origin: Instant::now(),
            queue: BTreeMap::new(),
            scheduled: 0,
            dice,
            depot,
            network,
            lives: (0..parties).map(|_| life()).collect(),
            trace,
            tally: Tally::default(),
            broken: None,
        }
    }

    /// The time as the code under test counts it.
    pub(super) fn instant(&self) -> Instant {
        self.origin + duration(self.now)
    }

    /// The next event, at its time.
    pub(super) fn next(&mut self) -> Option<Event> {
        let ((moment, _), event) = self.queue.pop_first()?;
        self.now = moment;
        self.tally.tick(moment);
        Some(event)
    }

    pub(super) fn at(&mut self, moment: Moment, event: Event) {
        self.scheduled += 1;
        self.queue.insert((moment.max(self.now), self.scheduled), event);
    }

    pub(super) fn after(&mut self, delay: Moment, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(super) fn life(&mut self, party: Party) -> &mut Life {
        &mut self.lives[party.0]
    }

    /// Something happens to a process as it is now, after `delay`.
    pub(super) fn happens(&mut self, delay: Moment, party: Party, happening: Happening) {
        let incarnation = self.life(party).incarnation;
        self.after(delay, Event::Happens(party, incarnation, happening));
    }

    /// A process asks something of the store.
    pub(super) fn ask(&mut self, party: Party, errand: Errand, ask: Ask) {
        let incarnation = self.life(party).incarnation;
        let delay = self.dice.within(100..3 * MS);
        self.after(delay, Event::Asked(party, incarnation, errand, ask));
    }

    /// A request comes to the store, or not.
    pub(super) fn asked(&mut self, party: Party, incarnation: u32, errand: Errand, ask: Ask) {
        let (answer, delay) = if self.depot.is_away_for(party) {
            let unanswered = match ask {
                Ask::Grant => Answer::Granted(None),
                Ask::Commit(_) => Answer::Committed(Ok(Committed::Refused)).lost(),
                Ask::Renew(_) => Answer::Renewed(None),
                Ask::Revoke(_) => Answer::Nothing,
            };
            (unanswered, self.dice.within(MS..SECOND))
        } else {
            let answer = self.depot.answer(ask, self.now);
            self.spread_news();
            (answer, self.dice.within(100..3 * MS))
        };
        self.after(delay, Event::Answered(party, incarnation, errand, answer));
    }

    /// What the store answered comes back, or not.
    pub(super) fn answered(&mut self, party: Party, incarnation: u32, errand: Errand, answer: Answer) {
        let answer = if self.depot.is_away_for(party) { answer.lost() } else { answer };
        self.after(0, Event::Happens(party, incarnation, Happening::Answered { errand, answer }));
    }

    /// Tells every process of what has changed in the store.
    pub(super) fn spread_news(&mut self) {
        if let Some(view) = self.depot.news() {
            self.spread(&view);
        }
    }

    /// Tells every process of a view.
    pub(super) fn spread(&mut self, view: &Arc<ClusterView>) {
        let serial = self.depot.serial;
        for party in (0..self.lives.len()).map(Party) {
            let slow = self.dice.permille(20);
            let delay = self.dice.within(if slow { 20 * MS..400 * MS } else { 200..8 * MS });
            let incarnation = self.life(party).incarnation;
            self.after(delay, Event::Told(party, incarnation, view.clone(), serial));
        }
    }

    /// A process hears that the store is away.
    pub(super) fn show_away(&mut self, party: Party) {
        let life = self.life(party);
        if life.view.reachable {
            life.view = Arc::new(ClusterView { reachable: false, ..(*life.view).clone() });
            self.happens(0, party, Happening::Sees);
        }
    }

    /// Gives up what a process remembers of an emptied store, once that has lasted.
    pub(super) fn forget(&mut self, party: Party) {
        let now = self.instant();
        let life = self.life(party);
        if life.view.reachable && life.recall.ends().is_some_and(|ends| ends <= now) {
            let shown = (*life.shown).clone();
            life.view = Arc::new(life.recall.complete(shown, now));
            self.happens(0, party, Happening::Sees);
        }
    }

    /// A process gets another view, unless it has a newer one.
    pub(super) fn show(&mut self, party: Party, shown: Arc<ClusterView>, serial: u64) {
        let now = self.instant();
        let life = self.life(party);
        if serial < life.serial || serial == life.serial && life.view.reachable {
            return;
        }
        life.view = Arc::new(life.recall.complete((*shown).clone(), now));
        (life.shown, life.serial) = (shown, serial);
        self.happens(0, party, Happening::Sees);
    }

    /// A law of the system must hold here.
    pub(super) fn law(&mut self, holds: bool, broken: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(broken());
        }
    }

    pub(super) fn note(&mut self, words: impl FnOnce() -> String) {
        self.trace.note(self.now, words);
    }
}
