//! The pipeline's status for users, and the reason for which nothing comes through it.

use schema::record::KvBlocks;

use super::Conductor;
use crate::core::fault::PipelineFault;
use crate::generate::PipelineStatus;
use crate::report;

impl Conductor {
    /// The pipeline's status, without the rate of tokens, which needs a clock.
    pub(crate) fn status(&self) -> PipelineStatus {
        let (reason, missing_layers) = match report::serving(&self.view) {
            Ok(_) if self.scheduler.is_proven() => (String::new(), Vec::new()),
            Ok(_) if self.identity.is_some() => (self.why_unproven(), Vec::new()),
            Ok(_) if self.own_record().is_some() => {
                ("other gateways have all room for keys and values, and give none up yet".to_owned(), Vec::new())
            }
            Ok(_) => ("this gateway is not registered".to_owned(), Vec::new()),
            Err(not) => (not.reason, not.missing.into_iter().map(Into::into).collect()),
        };
        let (running, waiting) = self.scheduler.load();
        let (kv_blocks, free) = (self.scheduler.total_blocks(), self.scheduler.free_blocks());
        PipelineStatus {
            serving: self.scheduler.is_proven(),
            reason,
            missing_layers,
            store_reachable: self.view.reachable,
            store_alarms: self.view.store_alarms.clone(),
            store_problem: report::store_problem(&self.view),
            context_tokens: self.context_tokens(),
            running,
            waiting,
            kv_blocks,
            kv_blocks_used: KvBlocks { full: kv_blocks.full - free.full, window: kv_blocks.window - free.window },
            tokens_per_second: 0.0,
        }
    }

    /// The reason for which nothing comes through a pipeline that the store shows as complete.
    pub(super) fn why_unproven(&self) -> String {
        let claims = self.view.serving().map(|served| served.claims).unwrap_or_default();
        let reported = claims.iter().find_map(|claim| {
            let stage = &claim.value.stage;
            let trouble = self.view.stages.get(stage)?.value.trouble.as_ref()?;
            Some(format!("stage {stage} reports that {trouble}"))
        });
        let on_its_way = || {
            let names: Vec<_> = claims.iter().map(|claim| claim.value.stage.as_str()).collect();
            format!("the first micro-batch is still on its way through stages {} and back", names.join(", "))
        };
        let why = reported.or_else(|| self.trouble.clone()).unwrap_or_else(on_its_way);
        format!("every layer is held, and no micro-batch comes through: {why}")
    }

    /// A fault as a clause for users: the processes between which it happened, if known, and the reason.
    pub(super) fn fault_text(&self, fault: &PipelineFault) -> String {
        let stages: Vec<_> = self.view.serving().map(|served| served.claims).unwrap_or_default();
        let names: Vec<_> = stages.iter().map(|claim| claim.value.stage.as_str()).collect();
        let gateway = self.registered.map_or(0, |own| own.slot);
        match fault {
            PipelineFault::Refused { stage, reason, .. } => format!("stage {stage} reports that {reason}"),
            PipelineFault::Broken(_) => {
                format!(
                    "the link from gateway {gateway} to {} broke",
                    names.first().copied().unwrap_or("the first stage")
                )
            }
            other => format!("{other}, on the way from gateway {gateway} through stages {} and back", names.join(", ")),
        }
    }

    /// Notes that frames cannot reach the first stage.
    pub(super) fn cannot_reach_first(&mut self, endpoint: &str, cause: &str) {
        let stage = self.view.claims.values().rev().find(|claim| claim.value.endpoint == endpoint);
        let stage = stage.map_or("the first stage".to_owned(), |claim| format!("stage {}", claim.value.stage));
        let gateway = self.registered.map_or(0, |own| own.slot);
        self.trouble = Some(format!("gateway {gateway} cannot reach {stage} at {endpoint}: {cause}"));
    }
}
