//! Renews a lease over etcd's stream of keep-alives. A stream that breaks is opened anew with the same lease.

use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Error, LeaseKeepAliveStream, LeaseKeeper};
use tonic::Code;

use super::members::{Members, reason};
use crate::store::lease::{Renewal, Renewing};

/// Renews one lease in etcd.
pub(super) struct EtcdRenewal {
    members: Members,
    id: i64,
    ttl: Duration,
    /// Absent while a renewal is in flight: a renewal that is given up must not leave its late answer to the next.
    stream: Option<Open>,
    /// The member to which a renewal is in flight. Still set if that renewal was given up.
    asked: Option<usize>,
}

/// An open stream of keep-alives.
struct Open {
    at: usize,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl EtcdRenewal {
    pub(super) fn new(members: Members, id: i64, ttl: Duration) -> Self {
        Self { members, id, ttl, stream: None, asked: None }
    }

    /// Renews once, over the open stream or over a new one. Returns the time to live in seconds, zero for an unknown
    /// lease.
    async fn ask(&mut self) -> Result<i64, Error> {
        if let Some(at) = self.asked.take() {
            self.members.fail_over(at);
        }
        let Some(Open { at, mut keeper, mut answers }) = self.stream.take() else {
            let mut member = self.members.current();
            self.asked = Some(member.at);
            member.log_in().await?;
            // Opening renews once by itself, and does not return the time to live of that answer.
            let (keeper, answers) = member.lease.keep_alive(self.id).await?;
            self.stream = Some(Open { at: member.at, keeper, answers });
            self.asked = None;
            return Ok(self.ttl.as_secs().cast_signed());
        };
        self.asked = Some(at);
        keeper.keep_alive().await?;
        let closed = || Error::LeaseKeepAliveError("the stream was closed".to_owned());
        let answer = answers.message().await?.ok_or_else(closed)?;
        self.stream = Some(Open { at, keeper, answers });
        self.asked = None;
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
        // If the store cannot be reached now, the lease expires by itself.
        let mut member = self.members.current();
        if member.log_in().await.is_ok() {
            let _ = member.lease.revoke(self.id).await;
        }
    }
}
