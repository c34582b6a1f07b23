//! The open connections of a port of the store: a bounded number, of which one without a call makes room for another.
//! Calls have a bounded number of permits. While calls wait for one, connections whose calls keep theirs for long, for
//! example because their clients read no replies, are closed.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout};
use tracing::debug;

/// Most calls at once, from their first byte to the last of their reply. It bounds the memory that they hold.
const CALLS_MAX: usize = 64;

/// Most of them on one connection: the others wait. A process makes a handful, and whoever holds permits on each of a
/// port's connections is waited for eight times as long as on one.
const CALLS_PER_CONNECTION_MAX: usize = 4;

/// Longest time that a call keeps its permit while others wait for one: hundreds of times what a call takes, with a
/// write to a disk and a reply over a slow link.
const PERMIT_KEPT_MAX: Duration = Duration::from_millis(500);

/// Interval at which a call that waits looks for those that keep their permits for longer.
const WAIT_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The open connections. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Connections(Arc<Port>);

/// One connection. Dropping it, and all of its calls, gives its place back.
#[derive(Debug)]
pub(super) struct Connection {
    place: Arc<Place>,
    closed: oneshot::Receiver<()>,
}

/// The right of a connection to make calls.
#[derive(Debug, Clone)]
pub(super) struct Calls(Arc<Place>);

/// A call or a stream, until its last byte is sent.
#[derive(Debug)]
pub(super) struct Call {
    place: Arc<Place>,
    held: Option<Held>,
}

/// The permit of a call.
#[derive(Debug)]
struct Held {
    turn: u64,
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

#[derive(Debug)]
struct Port {
    table: Mutex<Table>,
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct Table {
    connections_max: usize,
    /// Grows with each connection and with each end of a call, and so tells which was earlier.
    turn: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    calls: usize,
    /// The turn since which it has no call.
    idle_since: u64,
    /// The calls with a permit, by turn, and since when each has it.
    held: BTreeMap<u64, Instant>,
    /// Dropping it closes the connection.
    _close: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Place {
    connections: Connections,
    id: u64,
    permits: Arc<Semaphore>,
}

// === impl Connections ===

impl Connections {
    pub(super) fn new(connections_max: usize) -> Self {
        let table = Table { connections_max, turn: 0, open: BTreeMap::new() };
        Self(Arc::new(Port { table: Mutex::new(table), permits: Arc::new(Semaphore::new(CALLS_MAX)) }))
    }

    /// Admits a connection. If there are as many as may be, closes the one that has been without a call for longest.
    /// `None` if each of them has one.
    pub(super) fn admit(&self) -> Option<Connection> {
        let mut table = self.table();
        if table.open.len() >= table.connections_max {
            let idle = table.open.iter().filter(|(_, open)| open.calls == 0);
            let (&longest, _) = idle.min_by_key(|(_, open)| open.idle_since)?;
            table.open.remove(&longest);
        }
        table.turn += 1;
        let (id, (close, closed)) = (table.turn, oneshot::channel());
        table.open.insert(id, Open { calls: 0, idle_since: id, held: BTreeMap::new(), _close: close });
        drop(table);
        let permits = Arc::new(Semaphore::new(CALLS_PER_CONNECTION_MAX));
        Some(Connection { place: Arc::new(Place { connections: self.clone(), id, permits }), closed })
    }

    /// Closes the connections with a call that has kept its permit for too long.
    fn close_stalled(&self, now: Instant) {
        let is_stalled = |open: &Open| open.held.values().any(|since| now.duration_since(*since) > PERMIT_KEPT_MAX);
        let mut table = self.table();
        let before = table.open.len();
        table.open.retain(|_, open| !is_stalled(open));
        let closed = before - table.open.len();
        drop(table);
        if closed > 0 {
            debug!(closed, "connections closed: their calls held permits for which others wait");
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Connection ===

impl Connection {
    /// Waits until it is closed for another one.
    pub(super) async fn closed(&mut self) {
        // Nothing is ever sent: the sender is only dropped.
        let _ = (&mut self.closed).await;
    }

    pub(super) fn calls(&self) -> Calls {
        Calls(self.place.clone())
    }
}

// === impl Calls ===

impl Calls {
    /// Notes that a call begins.
    pub(super) fn begin(&self) -> Call {
        let mut table = self.0.connections.table();
        if let Some(open) = table.open.get_mut(&self.0.id) {
            open.calls += 1;
        }
        Call { place: self.0.clone(), held: None }
    }
}

// === impl Call ===

impl Call {
    /// Waits for a permit, which the call keeps until it is dropped.
    pub(super) async fn permitted(&mut self) {
        let connections = &self.place.connections;
        // Neither can fail: the semaphores are never closed.
        let own = self.place.permits.clone().acquire_owned().await.ok();
        let mut permit = pin!(connections.0.permits.clone().acquire_owned());
        let permit = loop {
            match timeout(WAIT_CHECK_INTERVAL, &mut permit).await {
                Ok(permit) => break permit.ok(),
                Err(_) => connections.close_stalled(Instant::now()),
            }
        };
        let mut table = connections.table();
        table.turn += 1;
        let turn = table.turn;
        if let Some(open) = table.open.get_mut(&self.place.id) {
            open.held.insert(turn, Instant::now());
        }
        drop(table);
        self.held = Some(Held { turn, _permits: [own, permit] });
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut table = self.place.connections.table();
        table.turn += 1;
        let turn = table.turn;
        if let Some(open) = table.open.get_mut(&self.place.id) {
            (open.calls, open.idle_since) = (open.calls.saturating_sub(1), turn);
            self.held.iter().for_each(|held| _ = open.held.remove(&held.turn));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.table().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// True if the connection was closed for another one.
    fn is_closed(connection: &mut Connection) -> bool {
        connection.closed.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn the_one_that_has_made_no_call_for_longest_makes_room_and_one_with_a_call_never_does() {
        let connections = Connections::new(3);
        let mut open: Vec<_> = (0..3).map(|_| connections.admit().unwrap()).collect();
        let watch = open[0].calls().begin();
        drop(open[1].calls().begin());
        let mut more = connections.admit().unwrap();
        assert_eq!([0, 1, 2].map(|at| is_closed(&mut open[at])), [false, false, true]);
        let held = (more.calls().begin(), open[1].calls().begin());
        assert!(connections.admit().is_none(), "each has a call");
        drop(watch);
        let _last = connections.admit().unwrap();
        assert!(is_closed(&mut open[0]) && !is_closed(&mut more));
        drop(open);
        assert_eq!(connections.table().open.len(), 3, "a call keeps the place of its connection");
        drop(held);
        assert_eq!(connections.table().open.len(), 2);
    }

    /// A call that ends once its connection is closed, as it does when its reply cannot be sent on.
    async fn stall(mut connection: Connection) {
        let mut call = connection.calls().begin();
        call.permitted().await;
        connection.closed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_keep_their_permits_for_long_end_only_while_others_wait() {
        let connections = Connections::new(2 * CALLS_MAX);
        let mut stalled = tokio::task::JoinSet::new();
        for _ in 0..CALLS_MAX {
            stalled.spawn(stall(connections.admit().unwrap()));
        }
        tokio::time::sleep(10 * PERMIT_KEPT_MAX).await;
        assert!(stalled.try_join_next().is_none(), "nobody waited for them");
        let other = connections.admit().unwrap();
        let mut call = other.calls().begin();
        timeout(2 * WAIT_CHECK_INTERVAL, call.permitted()).await.expect("their connections were closed");
        while stalled.join_next().await.is_some() {}
        assert_eq!(connections.0.permits.available_permits(), CALLS_MAX - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_holds_a_few_permits_only() {
        let connections = Connections::new(2);
        let (one, other) = (connections.admit().unwrap(), connections.admit().unwrap());
        let mut many: Vec<_> = (0..CALLS_MAX).map(|_| one.calls().begin()).collect();
        let waiting = futures::future::join_all(many.iter_mut().map(Call::permitted));
        assert!(timeout(PERMIT_KEPT_MAX / 2, waiting).await.is_err(), "they wait for one another");
        assert_eq!(connections.0.permits.available_permits(), CALLS_MAX - CALLS_PER_CONNECTION_MAX);
        timeout(WAIT_CHECK_INTERVAL, other.calls().begin().permitted()).await.expect("a permit is free");
    }
}
