//! The cluster as the store shows it: every record is parsed, every unusable value is named. Pure.

use std::collections::BTreeMap;
use std::fmt;

use schema::record::{
    ClaimRecord, ClaimState, EvictionRecord, GatewayRecord, KV_BLOCK_TOKENS, KeyMark, LinkReport, ModelRecord, Pin,
    PinStatus, Placement, Rollout, Shard, Share, StageRecord, StartsRecord, TokenRecord,
};
use schema::{ClaimId, Generation, Key, Keyspace, LayerRange, StageName};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::link::ClusterKey;
use crate::membership::{Identity, Loads};
use crate::store::Entry;

/// Longest part of a bad value or key that is shown to the operator, in bytes.
const COMPLAINT_BYTES_MAX: usize = 300;
/// Most complaints kept. The rest are dropped.
const COMPLAINTS_MAX: usize = 100;

/// A record and the revision at which it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The record.
    pub value: T,
    /// The store's revision of its last change.
    pub mod_revision: u64,
}

/// A value in the store that baton cannot use and ignores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The key.
    pub key: String,
    /// The fault in it.
    pub reason: String,
}

/// One consistent view of a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterView {
    /// The store's revision at which it was made.
    pub revision: u64,
    /// True if the store answered last time.
    pub reachable: bool,
    /// Alarms that the store raises.
    pub store_alarms: Vec<String>,
    /// The public mark of the cluster key.
    pub key_mark: Option<Versioned<KeyMark>>,
    /// The model that the cluster serves.
    pub model: Option<Versioned<ModelRecord>>,
    /// The newest placement.
    pub placement: Option<Versioned<Placement>>,
    /// Live stages. If there is a cluster key, those that proved that they have it.
    pub stages: BTreeMap<StageName, Versioned<StageRecord>>,
    /// Stages that are no members, with the reasons.
    pub unproven_stages: BTreeMap<StageName, Versioned<String>>,
    /// The reasons for which stages were evicted.
    pub evictions: BTreeMap<StageName, Versioned<EvictionRecord>>,
    /// Operators' pins.
    pub pins: BTreeMap<StageName, Versioned<Pin>>,
    /// The pins that cannot be read, with the reasons.
    pub unreadable_pins: BTreeMap<StageName, Versioned<String>>,
    /// The stored statuses of pins.
    pub pin_statuses: BTreeMap<StageName, Versioned<PinStatus>>,
    /// The recent starts of stages.
    pub starts: BTreeMap<StageName, Versioned<StartsRecord>>,
    /// Claims of every generation.
    pub claims: BTreeMap<ClaimId, Versioned<ClaimRecord>>,
    /// Live gateways by slot.
    pub gateways: BTreeMap<u32, Versioned<GatewayRecord>>,
    /// The links of gateways, by slot. Only in views with loads.
    pub gateway_links: BTreeMap<u32, Vec<LinkReport>>,
    /// Values that cannot be used, with the reasons: unreadable ones, and members' records without a proof. Their
    /// owners replace them.
    pub unusable: BTreeMap<Key, Versioned<String>>,
    /// Keys that the store has lost and the view still shows, with the revision of the value in their place. Members
    /// write them again.
    pub recalled: BTreeMap<Key, Option<u64>>,
    /// Messages about the values that could not be used.
    pub complaints: Vec<Complaint>,
}

/// A pin and its status, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PinReport {
    /// The pinned stage.
    pub stage: StageName,
    /// The pin, if it can be read.
    pub pin: Option<Pin>,
    /// True if the plan is made by it. `None` until a stage has judged it.
    pub honoured: Option<bool>,
    /// If it is not honoured, the reason.
    pub reason: Option<String>,
}

/// The claims that serve.
#[derive(Debug, Clone, PartialEq)]
pub struct Served<'a> {
    /// Their generation.
    pub generation: Generation,
    /// In layer order. Together they hold every layer exactly once.
    pub claims: Vec<&'a Versioned<ClaimRecord>>,
}

/// The reason for which the cluster cannot serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotServing {
    /// Layers that no serving claim of the newest generation holds.
    pub missing: Vec<LayerRange>,
    /// The reason, as a plain sentence.
    pub reason: String,
}

// === impl Served ===

impl Served<'_> {
    /// Number of blocks for whose keys and values every stage has room. Stages of one generation have as many, unless
    /// one of them had no memory for the room of the placement.
    pub fn kv_blocks(&self) -> u32 {
        self.claims.iter().map(|claim| claim.value.kv_blocks).min().unwrap_or(0)
    }
}

// === impl ClusterView ===

impl ClusterView {
    /// The view of all `entries` below a cluster's prefix. With `secret`, the cluster key, stages and gateways whose
    /// records do not prove that they have it are no members. Without `secret`, membership is not checked.
    pub fn new<'a>(
        keyspace: &Keyspace,
        secret: Option<&ClusterKey>,
        revision: u64,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Self {
        let mut view = Self { revision, reachable: true, ..Self::default() };
        for entry in entries {
            view.add(keyspace, secret, entry);
        }
        let Self { claims, unproven_stages, .. } = &mut view;
        claims.retain(|_, claim| !unproven_stages.contains_key(&claim.value.stage));
        view
    }

    fn add(&mut self, keyspace: &Keyspace, secret: Option<&ClusterKey>, entry: &Entry) {
        let (key, value, mod_revision) = (entry.key.as_str(), entry.value.as_slice(), entry.mod_revision.0);
        if keyspace.further(key).is_some() {
            return;
        }
        let parsed = match keyspace.parse(key) {
            Ok(parsed) => parsed,
            Err(unknown) => return self.push_complaint(key, &unknown.to_string()),
        };
        let proven = |identity: Identity<'_>| match secret {
            Some(secret) => identity.check(secret, key, entry.lease).map_err(|error| error.to_string()),
            None => Ok(()),
        };
        let taken = match parsed.clone() {
            Key::KeyMark => read(value, mod_revision).map(|mark| self.key_mark = Some(mark)),
            Key::Model => read(value, mod_revision).map(|model| self.model = Some(model)),
            Key::Placement => read(value, mod_revision).map(|placement| self.placement = Some(placement)),
            Key::Stage(stage) => read::<StageRecord>(value, mod_revision).and_then(|record| {
                match proven(Identity::of_stage(&record.value)) {
                    Ok(()) => keep(&mut self.stages, stage, record),
                    Err(reason) => {
                        keep(&mut self.unproven_stages, stage, Versioned { value: reason.clone(), mod_revision });
                        return Err(reason);
                    }
                }
                Ok(())
            }),
            Key::Eviction(stage) => read(value, mod_revision).map(|record| keep(&mut self.evictions, stage, record)),
            Key::Pin(stage) => {
                read(value, mod_revision).map(|pin| keep(&mut self.pins, stage.clone(), pin)).inspect_err(|reason| {
                    keep(&mut self.unreadable_pins, stage, Versioned { value: cut(reason), mod_revision });
                })
            }
            Key::PinStatus(stage) => {
                let status = read(value, mod_revision);
                // A status that cannot be read is treated as one about no pin, so it is written anew.
                let nothing = PinStatus { honoured: false, reason: None, pin_revision: 0 };
                let known = status.clone().unwrap_or(Versioned { value: nothing, mod_revision });
                keep(&mut self.pin_statuses, stage, known);
                status.map(drop)
            }
            Key::Starts(stage) => read(value, mod_revision).map(|starts| keep(&mut self.starts, stage, starts)),
            Key::Claim(id) => read(value, mod_revision).map(|claim| keep(&mut self.claims, id, claim)),
            // Whoever lets machines in reads them; members need to know only that they can be read.
            Key::Token(_) => read::<TokenRecord>(value, mod_revision).map(drop),
            // The rollout is about all deployments, and a view about one.
            Key::Rollout => read::<Rollout>(value, mod_revision).map(drop),
            Key::Gateway(slot) => read::<GatewayRecord>(value, mod_revision).and_then(|gateway| {
                proven(Identity::of_gateway(&gateway.value))?;
                keep(&mut self.gateways, slot, gateway);
                Ok(())
            }),
        };
        if let Err(reason) = taken {
            self.push_complaint(key, &reason);
            keep(&mut self.unusable, parsed, Versioned { value: cut(&reason), mod_revision });
        }
    }

    /// The generation of the newest placement.
    pub fn placed(&self) -> Option<Generation> {
        self.placement.as_ref().map(|placement| placement.value.generation())
    }

    /// The revision of an unusable value at `key`, which its owner may overwrite.
    pub fn unusable_revision(&self, key: &Key) -> Option<u64> {
        self.unusable.get(key).map(|value| value.mod_revision)
    }

    /// The least room for keys and values of `model` with which all accepted sequences can end, in tokens.
    pub fn kv_tokens_needed(&self, model: &ModelRecord) -> u32 {
        let needed = self.gateways.values().map(|gateway| gateway.value.kv_tokens_needed).max().unwrap_or(0);
        needed.min(model.kv_tokens_max()).max(model.kv_tokens)
    }

    /// The room for keys and values on every stage, in tokens: that of the stages that serve, or that of the newest
    /// placement while none do.
    pub fn kv_tokens(&self) -> Option<u32> {
        let model = &self.model.as_ref()?.value;
        let placed = || self.placement.as_ref().and_then(|placement| placement.value.kv_tokens());
        let served = self.serving().ok().map(|served| served.kv_blocks().saturating_mul(KV_BLOCK_TOKENS));
        Some(model.with_room(served.or_else(placed).unwrap_or(0)).kv_tokens)
    }

    /// The stages that are not about to stop.
    pub(crate) fn staying(&self) -> impl Iterator<Item = (&StageName, &StageRecord)> {
        self.stages.iter().map(|(name, stage)| (name, &stage.value)).filter(|(_, stage)| !stage.leaving)
    }

    /// The revisions of the values that the store has at gateways' slots.
    pub(crate) fn gateway_revisions(&self) -> BTreeMap<u32, u64> {
        let stands = |slot: &u32| !self.recalled.contains_key(&Key::Gateway(*slot));
        let readable = self.gateways.iter().filter(|(slot, _)| stands(slot));
        let readable = readable.map(|(slot, gateway)| (*slot, gateway.mod_revision));
        let unusable = self.unusable.iter().filter_map(|(key, value)| match key {
            Key::Gateway(slot) => Some((*slot, value.mod_revision)),
            _ => None,
        });
        readable.chain(unusable).collect()
    }

    /// The share of each gateway, by slot.
    pub(crate) fn gateway_shares(&self) -> BTreeMap<u32, Share> {
        self.gateways.iter().map(|(slot, gateway)| (*slot, gateway.value.share)).collect()
    }

    /// This view with the loads of its stages, of which `loads` are the newest that are known.
    pub fn with_loads(&self, loads: &Loads) -> Self {
        let mut view = self.clone();
        for (stage, record) in &mut view.stages {
            if let Some(load) = loads.stages.get(stage) {
                record.value.load = load.clone();
            }
        }
        let links = loads.gateways.iter().filter(|(slot, _)| view.gateways.contains_key(slot));
        view.gateway_links = links.map(|(slot, load)| (*slot, load.links.clone())).collect();
        view
    }

    /// Adds a complaint about the value at `key`.
    pub(crate) fn add_complaint(&mut self, key: &Key, reason: &str) {
        self.push_complaint(&key.to_string(), reason);
    }

    fn push_complaint(&mut self, key: &str, reason: &str) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(Complaint { key: cut(key), reason: cut(reason) });
        }
    }

    /// Every pin and its status.
    pub fn pin_reports(&self) -> Vec<PinReport> {
        let readable = self.pins.iter().map(|(stage, pin)| (stage, pin.mod_revision, Some(pin.value), None));
        let unreadable = self.unreadable_pins.iter();
        let unreadable = unreadable.map(|(stage, pin)| (stage, pin.mod_revision, None, Some(pin.value.clone())));
        let mut reports: Vec<_> = readable
            .chain(unreadable)
            .map(|(stage, revision, pin, unreadable)| {
                let status = self.pin_statuses.get(stage).map(|status| &status.value);
                let status = status.filter(|status| status.pin_revision == revision);
                let reason = status.and_then(|status| status.reason.clone()).or(unreadable);
                PinReport { stage: stage.clone(), pin, honoured: status.map(|status| status.honoured), reason }
            })
            .collect();
        reports.sort_by(|one, other| one.stage.cmp(&other.stage));
        reports
    }

    /// The claim that serves `slot` of the newest generation, if it matches the placement.
    fn serving_claim(&self, slot: u32) -> Option<&Versioned<ClaimRecord>> {
        let placement = &self.placement.as_ref()?.value;
        let shard = placement.shard(slot)?;
        let claim = self.claims.get(&ClaimId::new(placement.generation(), slot))?;
        let ClaimRecord { stage, layers, state, .. } = &claim.value;
        let fits = *stage == shard.stage && *layers == shard.layers && *state == ClaimState::Serving;
        fits.then_some(claim)
    }

    /// The serving claims of `generation` in layer order, if together they hold every layer exactly once.
    pub fn cover(&self, generation: Generation) -> Option<Vec<&Versioned<ClaimRecord>>> {
        let layers = self.model.as_ref()?.value.layers;
        let (mut claims, mut end) = (Vec::new(), 0);
        let all = ClaimId::new(generation, 0)..=ClaimId::new(generation, u32::MAX);
        for (slot, (id, claim)) in (0..).zip(self.claims.range(all)) {
            let ClaimRecord { layers, state, .. } = &claim.value;
            if id.slot != slot || layers.start() != end || *state != ClaimState::Serving {
                return None;
            }
            end = layers.end();
            claims.push(claim);
        }
        (end == layers).then_some(claims)
    }

    /// True if every layer of the newest placement has its weights in memory, so that it can be served in a moment.
    pub fn is_ready(&self) -> bool {
        let Some(placement) = self.placement.as_ref().map(|placement| &placement.value) else { return false };
        let ready = |(slot, shard): (u32, &Shard)| {
            let claim = self.claims.get(&ClaimId::new(placement.generation(), slot)).map(|claim| &claim.value);
            claim.is_some_and(|claim| {
                claim.stage == shard.stage && matches!(claim.state, ClaimState::Ready | ClaimState::Serving)
            })
        };
        (0..).zip(placement.shards()).all(ready)
    }

    /// The claims that serve: those of the newest placement, if all of them do. Until then those of the generation
    /// before, if they still hold every layer.
    ///
    /// # Errors
    /// [`NotServing`] names the layers of the newest placement that no stage holds, and the reason.
    pub fn serving(&self) -> Result<Served<'_>, NotServing> {
        self.newest().or_else(|not| {
            let older = self.placed().and_then(|placed| self.claims.range(..ClaimId::new(placed, 0)).next_back());
            let served = older.and_then(|(ClaimId { generation, .. }, _)| {
                Some(Served { generation: *generation, claims: self.cover(*generation)? })
            });
            served.ok_or(not)
        })
    }

    fn newest(&self) -> Result<Served<'_>, NotServing> {
        let Some(model) = self.model.as_ref().map(|model| &model.value) else {
            return Err(NotServing { missing: Vec::new(), reason: "the cluster has no model yet".to_owned() });
        };
        let all = LayerRange::new(0, model.layers).into_iter().collect::<Vec<_>>();
        let Some(placement) = self.placement.as_ref().map(|placement| &placement.value) else {
            let reason = format!("layers 0..{} are held by nobody: no placement is made yet", model.layers);
            return Err(NotServing { missing: all, reason });
        };
        if placement.layers() != model.layers {
            let reason = format!("the placement has {} layers: the model has {}", placement.layers(), model.layers);
            return Err(NotServing { missing: all, reason });
        }
        let slots = (0u32..).zip(placement.shards());
        let missing: Vec<_> = slots.filter(|(slot, _)| self.serving_claim(*slot).is_none()).collect();
        if missing.is_empty() {
            let claims = (0..placement.shards().len() as u32).filter_map(|slot| self.serving_claim(slot)).collect();
            return Ok(Served { generation: placement.generation(), claims });
        }
        let reasons: Vec<_> =
            missing.iter().map(|(slot, shard)| self.why_missing(placement.generation(), *slot, shard)).collect();
        let missing = missing.into_iter().map(|(_, shard)| shard.layers).collect();
        Err(NotServing { missing, reason: reasons.join("; ") })
    }

    fn why_missing(&self, generation: Generation, slot: u32, shard: &Shard) -> String {
        let (layers, stage) = (shard.layers, &shard.stage);
        if !self.stages.contains_key(stage) {
            return format!("layers {layers} are held by nobody: stage {stage} is gone");
        }
        match self.claims.get(&ClaimId::new(generation, slot)).map(|claim| &claim.value.state) {
            Some(ClaimState::Loading) => format!("layers {layers} are being loaded by stage {stage}"),
            Some(ClaimState::Ready) => format!("layers {layers} are about to be loaded by stage {stage}"),
            Some(ClaimState::Failed { reason }) => {
                format!("layers {layers} are held by nobody: stage {stage} could not load them: {reason}")
            }
            Some(ClaimState::Serving) | None => {
                format!("layers {layers} are held by nobody: stage {stage} has not claimed them")
            }
        }
    }
}

fn keep<K: Ord, T>(records: &mut BTreeMap<K, T>, key: K, record: T) {
    records.insert(key, record);
}

fn read<T: DeserializeOwned>(value: &[u8], mod_revision: u64) -> Result<Versioned<T>, String> {
    let value = serde_json::from_slice(value).map_err(|error| format!("unreadable value: {error}"))?;
    Ok(Versioned { value, mod_revision })
}

fn cut(text: &str) -> String {
    if text.len() <= COMPLAINT_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=COMPLAINT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}
