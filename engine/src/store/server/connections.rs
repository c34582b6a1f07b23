//! The open connections of the store's port: a bounded number, of which one without a call makes room for another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The open connections. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Connections(Arc<Mutex<Table>>);

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
pub(super) struct Call(Arc<Place>);

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
    /// Dropping it closes the connection.
    _close: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Place {
    connections: Connections,
    id: u64,
}

// === impl Connections ===

impl Connections {
    pub(super) fn new(connections_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Table { connections_max, turn: 0, open: BTreeMap::new() })))
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
        table.open.insert(id, Open { calls: 0, idle_since: id, _close: close });
        drop(table);
        Some(Connection { place: Arc::new(Place { connections: self.clone(), id }), closed })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        Call(self.0.clone())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut table = self.0.connections.table();
        table.turn += 1;
        let turn = table.turn;
        if let Some(open) = table.open.get_mut(&self.0.id) {
            (open.calls, open.idle_since) = (open.calls.saturating_sub(1), turn);
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
}
