//! Renewing a lease over etcd's stream of keep-alives, opened anew with the same lease whenever it breaks.

use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Error, LeaseClient, LeaseKeepAliveStream, LeaseKeeper};
use tonic::Code;

use super::reason;
use crate::store::lease::{Renewal, Renewing};

/// A lease's way to etcd.
pub(super) struct EtcdRenewal {
    client: LeaseClient,
    id: i64,
    /// Absent while a renewal is on its way: one that is given up must not leave its late answer to the next.
    stream: Option<(LeaseKeeper, LeaseKeepAliveStream)>,
    ttl: Duration,
}

impl EtcdRenewal {
    pub(super) fn new(client: LeaseClient, id: i64, ttl: Duration) -> Self {
        Self { client, id, stream: None, ttl }
    }

    /// One renewal over the open stream, or over a new one. The answer is the time to live; zero for an unknown lease.
    async fn ask(&mut self) -> Result<i64, Error> {
        let Some((mut keeper, mut stream)) = self.stream.take() else {
            // Opening asks once by itself, and keeps the answered time to itself.
            self.stream = Some(self.client.keep_alive(self.id).await?);
            return Ok(self.ttl.as_secs().cast_signed());
        };
        keeper.keep_alive().await?;
        let closed = || Error::LeaseKeepAliveError("the stream was closed".to_owned());
        let answer = stream.message().await?.ok_or_else(closed)?;
        self.stream = Some((keeper, stream));
        Ok(answer.ttl())
    }
}

#[async_trait]
impl Renewing for EtcdRenewal {
    async fn renew(&mut self) -> Renewal {
        match self.ask().await {
            Ok(seconds) if seconds > 0 => Renewal::Renewed { ttl: Duration::from_secs(seconds.unsigned_abs()) },
            Ok(_) => Renewal::Gone,
            Err(Error::LeaseKeepAliveError(reason)) if reason == "lease not found" => Renewal::Gone,
            Err(Error::GRpcStatus(status)) if status.code() == Code::NotFound => Renewal::Gone,
            Err(error) => Renewal::Unanswered { reason: reason(&error) },
        }
    }

    async fn revoke(&mut self) {
        // What cannot be reached now will expire by itself.
        let _ = self.client.revoke(self.id).await;
    }
}
