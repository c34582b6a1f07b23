//! The course of a drill.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use schema::StageName;

use super::cluster_status::ClusterStatus;
use super::error::DrillError;
use super::etcd::OwnEtcd;
use super::fault::Fault;
use super::gateway::Gateway;
use super::limits::{
    PAUSE_FACTOR, PAUSE_MIN, SILENCE_MAX, STALL_MAX, UNDISTURBED_TRIES, WHOLE_POLL_INTERVAL, WHOLE_TIMEOUT,
};
use super::link_cut;
use super::own_cluster::OwnCluster;
use super::plan::DrillPlan;
use super::process::{send_signal, thaw_later};
use super::progress::DrillProgress;
use super::recording::Recording;
use super::report::{Disturbed, DrillReport};
use super::token_stream::{AnswerStream, Piece};
use super::undo::Undo;
use super::victim::Victim;
use crate::client::Failure;

/// Runs the drill against the cluster of `gateway`, which `own` is if the drill has started it. Dropping the future
/// undoes the fault.
///
/// # Errors
/// [`DrillError`] if the drill is refused or an answer ends early. Then nothing is disturbed any more.
pub async fn run(
    gateway: &Gateway,
    own: Option<&mut OwnCluster>,
    plan: &DrillPlan,
    observe: &mut (dyn FnMut(DrillProgress) + Send),
) -> Result<DrillReport, DrillError> {
    let before = gateway.status().await?;
    let Some(model) = before.model.as_ref().filter(|_| before.serving).map(|model| model.name.clone()) else {
        let reason = before.reason.unwrap_or_else(|| "it has no model".to_owned());
        return Err(DrillError::NotServing { reason });
    };
    let mut drill = Drill::prepare(gateway, own, plan, &before).await?;
    observe(DrillProgress::Planned {
        fault: plan.fault,
        victim: drill.describe_victim(),
        after: plan.fault_after(),
        tokens: plan.tokens,
    });
    let mut undisturbed = drill.record(&model).await?;
    for _ in 1..UNDISTURBED_TRIES {
        if undisturbed.attempts <= 1 {
            break;
        }
        // Something else disturbed it, such as a stage that has just come back.
        undisturbed = drill.record(&model).await?;
    }
    observe(DrillProgress::Undisturbed {
        tokens: undisturbed.token_ids.len(),
        took: undisturbed.took,
        longest_gap: undisturbed.longest_gap,
    });
    let disturbed = drill.disturb(&model, undisturbed.longest_gap, observe).await?;
    let ended = Instant::now();
    let Disturbed { recording, .. } = &disturbed;
    observe(DrillProgress::Disturbed {
        tokens: recording.token_ids.len(),
        took: recording.took,
        longest_gap: recording.longest_gap,
        attempts: recording.attempts,
    });
    let mut report = DrillReport::new(plan, &model, drill.victim.as_ref(), &undisturbed, &disturbed);
    match wait_until_whole(gateway, &before.at_rest()).await {
        Ok(()) => {
            observe(DrillProgress::Whole { after: ended.elapsed() });
            report.whole_again_ms = Some(ended.elapsed().as_millis() as u64);
        }
        Err(lacks) => report.lacks = Some(lacks),
    }
    Ok(report)
}

/// A drill whose fault can be brought about.
struct Drill<'a> {
    gateway: &'a Gateway,
    plan: &'a DrillPlan,
    /// The stage, unless the store is to be killed.
    victim: Option<Victim>,
    etcd: Option<&'a mut OwnEtcd>,
}

/// A fault that has come and lasts.
enum Active {
    /// It ends when this is used or dropped.
    Undoable(Undo),
    /// The store is gone until it is started again.
    WithoutStore,
}

// === impl Drill ===

impl<'a> Drill<'a> {
    /// Chooses the victim. Refuses what cannot be done here, and what others would suffer from.
    async fn prepare(
        gateway: &'a Gateway,
        own: Option<&'a mut OwnCluster>,
        plan: &'a DrillPlan,
        status: &ClusterStatus,
    ) -> Result<Self, DrillError> {
        if !plan.yes {
            gateway.check_idle(status, 0).await?;
        }
        let etcd = own.and_then(|own| own.etcd.as_mut());
        if plan.fault == Fault::Store {
            if etcd.is_none() {
                let reason = "the drill kills only an etcd that it has started itself: leave out --url".to_owned();
                return Err(DrillError::Impossible { what: "kill the store".to_owned(), reason });
            }
            return Ok(Self { gateway, plan, victim: None, etcd });
        }
        let here = stages::memory::machine().host;
        let victim = Victim::choose(status, plan.stage.as_ref(), &here)?;
        victim.check(plan.fault).await?;
        Ok(Self { gateway, plan, victim: Some(victim), etcd })
    }

    fn describe_victim(&self) -> String {
        match &self.victim {
            Some(Victim { stage, layers, pid, .. }) => format!("stage {stage} (layers {layers}, process {pid})"),
            None => "the store (etcd)".to_owned(),
        }
    }

    fn name_victim(&self) -> String {
        self.victim.as_ref().map_or_else(|| "the store".to_owned(), |victim| format!("stage {}", victim.stage))
    }

    /// Streams the answer without a fault.
    async fn record(&self, model: &str) -> Result<Recording, DrillError> {
        let sent = Instant::now();
        let mut stream = self.gateway.stream(model, self.plan).await?;
        let mut recording = Recording::default();
        while let Some(piece) = self.next(&mut stream).await? {
            self.push(&mut recording, piece, sent.elapsed())?;
        }
        match recording.token_ids.len() {
            found if found > self.plan.fault_after() => Ok(recording),
            found => Err(DrillError::Short { found, expected: self.plan.tokens }),
        }
    }

    /// Streams it again, with the fault in its middle. `usual_gap` is the longest gap without a fault.
    async fn disturb(
        &mut self,
        model: &str,
        usual_gap: Duration,
        observe: &mut (dyn FnMut(DrillProgress) + Send),
    ) -> Result<Disturbed, DrillError> {
        let sent = Instant::now();
        let mut stream = self.gateway.stream(model, self.plan).await?;
        let pause_min = (usual_gap * PAUSE_FACTOR).max(PAUSE_MIN);
        let mut disturbed = Disturbed::default();
        let mut active = None;
        loop {
            if active.is_some() && !stream.is_ready_within(STALL_MAX).await {
                disturbed.relieved = true;
                observe(DrillProgress::Relieved { after: STALL_MAX });
                self.undo(active.take()).await?;
            }
            let Some(piece) = self.next(&mut stream).await? else { break };
            let gap = self.push(&mut disturbed.recording, piece, sent.elapsed())?;
            let tokens = disturbed.recording.token_ids.len();
            if disturbed.fault_after > 0 {
                if let Some(pause) = gap.filter(|gap| *gap >= pause_min) {
                    observe(DrillProgress::Resumed { token: tokens, pause });
                }
            } else if tokens >= self.plan.fault_after() {
                disturbed.fault_after = tokens;
                active = self.inject().await?;
                observe(DrillProgress::Happened { token: tokens, fault: self.plan.fault, victim: self.name_victim() });
            }
        }
        self.undo(active).await?;
        Ok(disturbed)
    }

    /// Brings the fault about. Returns it if it lasts.
    async fn inject(&mut self) -> Result<Option<Active>, DrillError> {
        if !self.plan.yes {
            // Somebody may have come since the drill began.
            self.gateway.check_idle(&self.gateway.status().await?, 1).await?;
        }
        match (self.plan.fault, &self.victim) {
            (Fault::Kill, Some(victim)) => {
                send_signal(victim.pid, Signal::KILL)?;
                // Whoever has started it may start it again.
                Ok(None)
            }
            (Fault::Freeze, Some(victim)) => {
                // First what undoes it, so that nothing can come between.
                let undo = thaw_later(victim.pid)?;
                send_signal(victim.pid, Signal::STOP)?;
                Ok(Some(Active::Undoable(undo)))
            }
            (Fault::Cut, Some(victim)) => Ok(Some(Active::Undoable(link_cut::cut(victim.port()?).await?))),
            (Fault::Store, _) | (_, None) => {
                if let Some(etcd) = &mut self.etcd {
                    etcd.kill().await?;
                }
                Ok(Some(Active::WithoutStore))
            }
        }
    }

    async fn undo(&mut self, fault: Option<Active>) -> Result<(), DrillError> {
        match (fault, &mut self.etcd) {
            (Some(Active::Undoable(undo)), _) => undo.undo().await,
            (Some(Active::WithoutStore), Some(etcd)) => etcd.restart().await,
            (Some(Active::WithoutStore) | None, _) => Ok(()),
        }
    }

    async fn next(&self, stream: &mut AnswerStream) -> Result<Option<Piece>, DrillError> {
        let late = Failure::Timeout { seconds: SILENCE_MAX.as_secs() };
        let next = tokio::time::timeout(SILENCE_MAX, stream.next()).await.unwrap_or(Err(late));
        next.map_err(|cause| self.gateway.failed(cause))
    }

    /// Takes a piece, unless the answer is longer than it was asked to be.
    fn push(&self, recording: &mut Recording, piece: Piece, at: Duration) -> Result<Option<Duration>, DrillError> {
        let gap = recording.push(piece, at);
        if recording.token_ids.len() > self.plan.tokens as usize {
            let reason = format!("more than the {} tokens that were asked for", self.plan.tokens);
            return Err(self.gateway.failed(Failure::InvalidResponse { reason }));
        }
        Ok(gap)
    }
}

/// Waits until all of `stages` serve or stand by. The error says what is missing after [`WHOLE_TIMEOUT`].
async fn wait_until_whole(gateway: &Gateway, stages: &[StageName]) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let lacks = match gateway.status().await {
            Ok(status) => status.lacks(stages),
            Err(error) => Some(error.to_string()),
        };
        match lacks {
            None => return Ok(()),
            Some(lacks) if started.elapsed() > WHOLE_TIMEOUT => return Err(lacks),
            Some(_) => tokio::time::sleep(WHOLE_POLL_INTERVAL).await,
        }
    }
}
