//! The places of connections that have not shown a member's certificate yet.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::limits::STRANGERS_MAX;

/// The connections of strangers, at most [`STRANGERS_MAX`]. One more closes the oldest: whoever has a certificate or a
/// token needs a round trip or two, and whoever has none must not keep the others out.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// One for each place. Dropping it takes the place back.
    oldest_first: VecDeque<oneshot::Sender<()>>,
}

/// The place of one connection. Dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Place(oneshot::Receiver<()>);

// === impl Strangers ===

impl Strangers {
    /// A place for a new connection.
    pub(super) fn enter(&mut self) -> Place {
        self.oldest_first.retain(|place| !place.is_closed());
        if self.oldest_first.len() >= STRANGERS_MAX {
            self.oldest_first.pop_front();
        }
        let (held, lost) = oneshot::channel();
        self.oldest_first.push_back(held);
        Place(lost)
    }
}

// === impl Place ===

impl Place {
    /// Waits until the place is taken back.
    pub(super) async fn lost(&mut self) {
        // Nothing is ever sent: the sender is only dropped.
        let _ = (&mut self.0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// True if the place is taken back already.
    fn is_lost(place: &mut Place) -> bool {
        place.0.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn one_more_takes_the_oldest_place_that_is_still_held() {
        let mut strangers = Strangers::default();
        let mut places: Vec<_> = (0..STRANGERS_MAX).map(|_| strangers.enter()).collect();
        drop(places.remove(3));
        let mut next = strangers.enter();
        assert!(!places.iter_mut().any(is_lost), "a place had come free");
        let _more = strangers.enter();
        assert!(is_lost(&mut places[0]) && !is_lost(&mut places[1]) && !is_lost(&mut next));
    }
}
