//! etcd's Watch service over the state machine: many watches on one stream.
//!
//! Nothing is queued for a slow client: each watch keeps the revision that it has reached and reads on from the
//! history.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchService};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::wire::{self, header};
use crate::store::host::Host;
use crate::store::state::{Event, HistoryGone, KeyRange};

/// Most watches on one stream: etcd-client opens one stream per watch, etcdctl one watch.
const WATCHES_PER_STREAM_MAX: usize = 64;

/// Replies that may wait for a slow client, each of about a megabyte at most.
const REPLIES_MAX: usize = 2;

/// The watch id of replies that concern no single watch.
const NO_WATCH: i64 = -1;

pub(super) struct WatchService {
    host: Arc<Host>,
}

/// One watch of a stream.
struct Running {
    range: KeyRange,
    /// The first revision not yet reported.
    next: i64,
    puts: bool,
    deletes: bool,
    prev: bool,
}

/// The watches of one stream, and the channel of replies to their client.
struct WatchStream {
    host: Arc<Host>,
    watches: BTreeMap<i64, Running>,
    replies: mpsc::Sender<Result<PbWatchResponse, Status>>,
}

/// The client is gone.
struct ClientGone;

impl WatchService {
    pub(super) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }
}

#[async_trait]
impl PbWatchService for WatchService {
    type WatchStream = ReceiverStream<Result<PbWatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<PbWatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (replies, sent) = mpsc::channel(REPLIES_MAX);
        let stream = WatchStream { host: self.host.clone(), watches: BTreeMap::new(), replies };
        // The task ends with the stream in either direction.
        tokio::spawn(stream.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(sent)))
    }
}

// === impl WatchStream ===

impl WatchStream {
    async fn run(mut self, mut requests: Streaming<PbWatchRequest>) {
        let host = self.host.clone();
        let mut changed = host.subscribe();
        loop {
            let served = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.handle(request).await,
                    Ok(None) => return,
                    Err(status) => {
                        // A client that sent an invalid request gets this status. If the client is gone, the status is
                        // lost.
                        let _ = self.replies.send(Err(status)).await;
                        return;
                    }
                },
                () = host.wait(&mut changed) => self.report().await,
            };
            if served.is_err() {
                return;
            }
        }
    }

    async fn handle(&mut self, request: PbWatchRequest) -> Result<(), ClientGone> {
        match request.request_union {
            Some(PbWatchRequestUnion::CreateRequest(request)) => {
                let key = if request.key.is_empty() { vec![0] } else { request.key };
                let Ok(range) = KeyRange::new(key, request.range_end) else { return Ok(()) };
                let running = Running {
                    range,
                    next: request.start_revision,
                    puts: !request.filters.contains(&0),
                    deletes: !request.filters.contains(&1),
                    prev: request.prev_kv,
                };
                self.create(request.watch_id, running).await
            }
            Some(PbWatchRequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(PbWatchRequestUnion::ProgressRequest(_)) => {
                self.report().await?;
                let revision = self.host.read(|state, _| state.revision());
                self.send(PbWatchResponse { watch_id: NO_WATCH, ..reply(revision) }).await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, wanted: i64, mut watch: Running) -> Result<(), ClientGone> {
        let revision = self.host.read(|state, _| state.revision());
        if watch.next <= 0 {
            watch.next = revision + 1;
        }
        let refused = |reason: &str| PbWatchResponse {
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..reply(revision)
        };
        if self.watches.len() >= WATCHES_PER_STREAM_MAX {
            return self.send(refused("too many watches on one stream")).await;
        }
        if wanted != 0 && self.watches.contains_key(&wanted) {
            return self.send(refused("mvcc: duplicate watch ID provided on the WatchStream")).await;
        }
        let id = match wanted {
            // The map is bounded, so a free number is near.
            0 => (0..).find(|id| !self.watches.contains_key(id)).unwrap_or_default(),
            wanted => wanted,
        };
        self.watches.insert(id, watch);
        self.send(PbWatchResponse { watch_id: id, created: true, ..reply(revision) }).await?;
        self.catch_up(id).await
    }

    async fn cancel(&mut self, id: i64) -> Result<(), ClientGone> {
        if self.watches.remove(&id).is_none() {
            return Ok(());
        }
        let revision = self.host.read(|state, _| state.revision());
        self.send(PbWatchResponse { watch_id: id, canceled: true, ..reply(revision) }).await
    }

    /// Sends every watch its new events.
    async fn report(&mut self) -> Result<(), ClientGone> {
        let ids: Vec<_> = self.watches.keys().copied().collect();
        for id in ids {
            self.catch_up(id).await?;
        }
        Ok(())
    }

    /// Sends one watch its new events, in portions that end between commits.
    async fn catch_up(&mut self, id: i64) -> Result<(), ClientGone> {
        while let Some(watch) = self.watches.get_mut(&id) {
            let from = watch.next;
            let found = self.host.view(|state, _| (state.changes(&watch.range, from), state.revision())).await;
            let (changes, revision) = found;
            let (events, next) = match changes {
                Ok(found) => found,
                Err(HistoryGone { oldest }) => {
                    self.watches.remove(&id);
                    let gone = PbWatchResponse {
                        watch_id: id,
                        canceled: true,
                        compact_revision: oldest,
                        cancel_reason: "mvcc: required revision has been compacted".to_owned(),
                        ..reply(revision)
                    };
                    return self.send(gone).await;
                }
            };
            watch.next = next;
            let wanted = |event: &&Event| if event.deleted { watch.deletes } else { watch.puts };
            let events: Vec<_> = events.iter().filter(wanted).map(|event| wire::event(event, watch.prev)).collect();
            let done = next > revision;
            if !events.is_empty() {
                self.send(PbWatchResponse { watch_id: id, events, ..reply(next - 1) }).await?;
            }
            if done {
                break;
            }
        }
        Ok(())
    }

    async fn send(&self, reply: PbWatchResponse) -> Result<(), ClientGone> {
        self.replies.send(Ok(reply)).await.map_err(|_| ClientGone)
    }
}

fn reply(revision: i64) -> PbWatchResponse {
    PbWatchResponse { header: header(revision), ..PbWatchResponse::default() }
}
