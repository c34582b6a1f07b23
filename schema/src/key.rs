//! The keys of a cluster in the store, `/baton/v1/<cluster>/…`, and beside them those that nobody watches,
//! `/baton/v1-load/<cluster>/…`.

use std::fmt;

use crate::{ClusterName, Deployment, Generation, StageName, TokenId};

/// Builds and parses the store keys of one deployment of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyspace {
    cluster: ClusterName,
    deployment: Deployment,
    prefix: String,
    load_prefix: String,
}

/// A key below the cluster's prefix, parsed. Each variant names the key and its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `key-mark`: the public mark of the cluster key.
    KeyMark,
    /// `model`: the model that the cluster serves.
    Model,
    /// `stages/<stage>`: a live stage process.
    Stage(StageName),
    /// `evictions/<stage>`: the reason for which a peer evicted the stage from the cluster.
    Eviction(StageName),
    /// `pins/<stage>`: an operator's pin for the stage.
    Pin(StageName),
    /// `pins-status/<stage>`: the status of that pin.
    PinStatus(StageName),
    /// `starts/<stage>`: the number of recent starts of the stage.
    Starts(StageName),
    /// `placement`: the assignment of layers to stages.
    Placement,
    /// `claims/<generation>/<slot>`: the stage that holds this shard.
    Claim(ClaimId),
    /// `gateways/<slot>`: a live gateway.
    Gateway(u32),
    /// `tokens/<id>`: a token with which machines join.
    Token(TokenId),
    /// `rollout`: the deployments that members serve. Only the first deployment's keyspace has it.
    Rollout,
}

/// The shard that a claim is about. Ids are in the order of generations, and within one in the order of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimId {
    /// The generation of the placement.
    pub generation: Generation,
    /// The shard's place in it.
    pub slot: u32,
}

/// The end of a key's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It stays until somebody deletes it.
    Permanent,
    /// It is under a lease of the process that wrote it, and goes with it.
    Leased,
    /// It stays, but names revisions of its store, so that it means nothing in another one. Members write it again.
    Derived,
}

/// A key below the cluster's prefix that baton did not write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown key {key:?}: expected key-mark, model, placement, stages/<stage>, evictions/<stage>, pins/<stage>, \
     pins-status/<stage>, starts/<stage>, claims/<generation>/<slot>, gateways/<slot>, tokens/<id>, rollout or \
     deployments/<n>/… below {prefix}"
)]
pub struct UnknownKey {
    key: String,
    prefix: String,
}

/// The loads of gateways among those of stages, whose names have no slash.
const GATEWAYS: &str = "gateways/";
/// The keys of the further deployments among those of the first.
const DEPLOYMENTS: &str = "deployments/";

// === impl Keyspace ===

impl Keyspace {
    /// The prefix of the keys of all clusters.
    pub const ALL_CLUSTERS: &'static str = "/baton/v1/";

    /// The keys of the first deployment of `cluster`, and those of the cluster as a whole.
    pub fn new(cluster: &ClusterName) -> Self {
        Self::of(cluster, Deployment::FIRST)
    }

    /// The keys of `deployment` of `cluster`.
    pub fn of(cluster: &ClusterName, deployment: Deployment) -> Self {
        let below = match deployment {
            Deployment::FIRST => String::new(),
            Deployment(number) => format!("{DEPLOYMENTS}{number}/"),
        };
        let [prefix, load_prefix] =
            [Self::ALL_CLUSTERS, "/baton/v1-load/"].map(|all| format!("{all}{cluster}/{below}"));
        Self { cluster: cluster.clone(), deployment, prefix, load_prefix }
    }

    /// The deployment.
    pub fn deployment(&self) -> Deployment {
        self.deployment
    }

    /// The keys of another deployment of the cluster.
    pub fn beside(&self, deployment: Deployment) -> Self {
        Self::of(&self.cluster, deployment)
    }

    /// The keyspace of the further deployment that the full name `key` belongs to. `None` if it belongs to none. Only
    /// the keys of the first deployment have those of others among them.
    pub fn further(&self, key: &str) -> Option<Self> {
        let rest =
            [&self.prefix, &self.load_prefix].into_iter().find_map(|prefix| key.strip_prefix(prefix.as_str()))?;
        let (number, _) = rest.strip_prefix(DEPLOYMENTS)?.split_once('/')?;
        let found = self.beside(Deployment(number.parse().ok()?));
        let is_further = self.deployment == Deployment::FIRST && found.deployment != Deployment::FIRST;
        (is_further && (key.starts_with(&found.prefix) || key.starts_with(&found.load_prefix))).then_some(found)
    }

    /// The keyspace that the full name `key` lies in: that of a further deployment, or this one.
    pub fn owner(&self, key: &str) -> Self {
        self.further(key).unwrap_or_else(|| self.clone())
    }

    /// The prefix of all keys of the deployment that its members watch. It ends with `/`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The prefix of the loads of stages and gateways, which nobody watches. It ends with `/`.
    pub fn load_prefix(&self) -> &str {
        &self.load_prefix
    }

    /// The full name of the key with the load of `stage`.
    pub fn load_name(&self, stage: &StageName) -> String {
        format!("{}{stage}", self.load_prefix)
    }

    /// The stage whose load lies at the full name `key`. `None` if it is another key.
    pub fn parse_load(&self, key: &str) -> Option<StageName> {
        key.strip_prefix(&self.load_prefix)?.parse().ok()
    }

    /// The full name of the key with the load of the gateway in `slot`.
    pub fn gateway_load_name(&self, slot: u32) -> String {
        format!("{}{GATEWAYS}{slot}", self.load_prefix)
    }

    /// The slot of the gateway whose load lies at the full name `key`. `None` if it is another key.
    pub fn parse_gateway_load(&self, key: &str) -> Option<u32> {
        let slot = key.strip_prefix(&self.load_prefix)?.strip_prefix(GATEWAYS)?;
        slot.parse().ok().filter(|parsed: &u32| parsed.to_string() == slot)
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The full name of `key`.
    pub fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Parses the full name `key`.
    ///
    /// # Errors
    /// [`UnknownKey`] if it is not one of baton's keys.
    pub fn parse(&self, key: &str) -> Result<Key, UnknownKey> {
        let unknown = || UnknownKey { key: key.chars().take(200).collect(), prefix: self.prefix.clone() };
        let rest = key.strip_prefix(&self.prefix).ok_or_else(unknown)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let parsed = match parts[..] {
            ["key-mark"] => Some(Key::KeyMark),
            ["model"] => Some(Key::Model),
            ["placement"] => Some(Key::Placement),
            ["stages", stage] => stage.parse().ok().map(Key::Stage),
            ["evictions", stage] => stage.parse().ok().map(Key::Eviction),
            ["pins", stage] => stage.parse().ok().map(Key::Pin),
            ["pins-status", stage] => stage.parse().ok().map(Key::PinStatus),
            ["starts", stage] => stage.parse().ok().map(Key::Starts),
            ["claims", generation, slot] => generation
                .parse()
                .ok()
                .zip(slot.parse().ok())
                .map(|(generation, slot)| Key::Claim(ClaimId::new(Generation(generation), slot))),
            ["tokens", id] => id.parse().ok().map(Key::Token),
            ["gateways", slot] => slot.parse().ok().map(Key::Gateway),
            ["rollout"] if self.deployment == Deployment::FIRST => Some(Key::Rollout),
            _ => None,
        };
        // A number written another way ("007") would be a second name for the same key.
        parsed.filter(|parsed| parsed.to_string() == rest).ok_or_else(unknown)
    }
}

// === impl Key ===

impl Key {
    /// The end of its life.
    pub fn lifetime(&self) -> Lifetime {
        match self {
            Self::KeyMark | Self::Model | Self::Pin(_) | Self::Placement | Self::Token(_) | Self::Rollout => {
                Lifetime::Permanent
            }
            Self::Stage(_) | Self::Eviction(_) | Self::Starts(_) | Self::Claim(_) | Self::Gateway(_) => {
                Lifetime::Leased
            }
            Self::PinStatus(_) => Lifetime::Derived,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyMark => f.write_str("key-mark"),
            Self::Model => f.write_str("model"),
            Self::Stage(stage) => write!(f, "stages/{stage}"),
            Self::Eviction(stage) => write!(f, "evictions/{stage}"),
            Self::Pin(stage) => write!(f, "pins/{stage}"),
            Self::PinStatus(stage) => write!(f, "pins-status/{stage}"),
            Self::Starts(stage) => write!(f, "starts/{stage}"),
            Self::Placement => f.write_str("placement"),
            Self::Claim(ClaimId { generation, slot }) => write!(f, "claims/{generation}/{slot}"),
            Self::Token(id) => write!(f, "tokens/{id}"),
            Self::Gateway(slot) => write!(f, "gateways/{slot}"),
            Self::Rollout => f.write_str("rollout"),
        }
    }
}

// === impl ClaimId ===

impl ClaimId {
    /// The claim of `slot` of `generation`.
    pub const fn new(generation: Generation, slot: u32) -> Self {
        Self { generation, slot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyspace() -> Keyspace {
        Keyspace::new(&"home".parse().unwrap())
    }

    #[test]
    fn every_key_reads_back_as_itself() {
        let stage: StageName = "mini-1".parse().unwrap();
        for key in [
            Key::KeyMark,
            Key::Model,
            Key::Placement,
            Key::Stage(stage.clone()),
            Key::Eviction(stage.clone()),
            Key::Pin(stage.clone()),
            Key::PinStatus(stage.clone()),
            Key::Starts(stage),
            Key::Claim(ClaimId::new(Generation(7), 2)),
            Key::Gateway(0),
            Key::Token("7f3a90c1".parse().unwrap()),
            Key::Rollout,
        ] {
            let name = keyspace().name(&key);
            assert_eq!(keyspace().parse(&name).unwrap(), key, "{name}");
            let later = keyspace().beside(Deployment(3));
            let (is_rollout, name) = (key == Key::Rollout, later.name(&key));
            assert_eq!(later.parse(&name).ok(), (!is_rollout).then_some(key), "{name}");
        }
    }

    #[test]
    fn the_keys_of_further_deployments_lie_below_those_of_the_first() {
        let later = keyspace().beside(Deployment(3));
        assert_eq!((later.prefix(), later.cluster()), ("/baton/v1/home/deployments/3/", keyspace().cluster()));
        assert_eq!(later.beside(Deployment::FIRST), keyspace());
        let stage: StageName = "mini-1".parse().unwrap();
        for name in [later.name(&Key::Model), later.load_name(&stage), later.gateway_load_name(2)] {
            assert_eq!(keyspace().further(&name), Some(later.clone()), "{name}");
            assert_eq!(later.further(&name), None);
            assert!(keyspace().parse(&name).is_err() && keyspace().parse_load(&name).is_none());
        }
        for name in [
            "/baton/v1/home/deployments/0/model",
            "/baton/v1/home/deployments/03/model",
            "/baton/v1/home/deployments/3",
            "/baton/v1/home/deployments/x/model",
            "/baton/v1/home/model",
            "/baton/v1/other/deployments/3/model",
        ] {
            assert_eq!(keyspace().further(name), None, "{name}");
        }
    }

    #[test]
    fn a_load_lies_beside_the_keys_that_are_watched() {
        let stage: StageName = "mini-1".parse().unwrap();
        let name = keyspace().load_name(&stage);
        assert_eq!(name, "/baton/v1-load/home/mini-1");
        assert_eq!(keyspace().parse_load(&name), Some(stage));
        assert!(!name.starts_with(keyspace().prefix()) && keyspace().parse(&name).is_err());
        let gateway = keyspace().gateway_load_name(7);
        assert_eq!((keyspace().parse_gateway_load(&gateway), keyspace().parse_load(&gateway)), (Some(7), None));
        for other in ["/baton/v1-load/home/gateways/07", "/baton/v1-load/home/gateways/", &name] {
            assert_eq!(keyspace().parse_gateway_load(other), None);
        }
        for other in ["/baton/v1-load/other/mini-1", "/baton/v1-load/home/", "/baton/v1/home/stages/mini-1"] {
            assert_eq!(keyspace().parse_load(other), None);
        }
    }

    #[test]
    fn the_cluster_is_in_the_prefix() {
        assert_eq!(keyspace().cluster().as_str(), "home");
    }

    #[test]
    fn a_foreign_key_is_unknown() {
        for key in [
            "",
            "/baton/v1/home",
            "/baton/v1/other/model",
            "/baton/v1/home/claims/1",
            "/baton/v1/home/claims/01/2",
            "/baton/v1/home/stages/a/b",
            "/baton/v1/home/stages/",
            "/baton/v1/home/nonsense",
        ] {
            assert!(keyspace().parse(key).is_err(), "{key:?} was accepted");
        }
    }
}
