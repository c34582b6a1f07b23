//! The deployments that the members of a cluster serve: the value of `rollout`.

use serde::{Deserialize, Serialize};

use crate::Deployment;

/// The deployment that requests get and, while the cluster changes its model, the one that is to take its place. A
/// cluster without the key has only its first one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RolloutFields")]
pub struct Rollout {
    serving: Deployment,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Deployment>,
}

/// A deployment cannot take its own place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deployment {found} is both `serving` and `next`: expected two deployments, or no `next`")]
pub struct RolloutError {
    /// The deployment.
    pub found: Deployment,
}

#[derive(Deserialize)]
struct RolloutFields {
    serving: Deployment,
    #[serde(default)]
    next: Option<Deployment>,
}

// === impl Rollout ===

impl Rollout {
    /// Only `serving`.
    pub const fn settled(serving: Deployment) -> Self {
        Self { serving, next: None }
    }

    /// The same with `next` to take the place of the one that serves.
    ///
    /// # Errors
    /// [`RolloutError`] if that one serves already.
    pub fn with_next(self, next: Deployment) -> Result<Self, RolloutError> {
        Self::try_from(RolloutFields { serving: self.serving, next: Some(next) })
    }

    /// The deployment that requests get.
    pub fn serving(self) -> Deployment {
        self.serving
    }

    /// The deployment that is to take its place.
    pub fn next(self) -> Option<Deployment> {
        self.next
    }

    /// The deployments that members serve, that of the requests first.
    pub fn wanted(self) -> impl Iterator<Item = Deployment> {
        std::iter::once(self.serving).chain(self.next)
    }

    /// True if members serve `deployment`.
    pub fn wants(self, deployment: Deployment) -> bool {
        self.wanted().any(|wanted| wanted == deployment)
    }
}

impl TryFrom<RolloutFields> for Rollout {
    type Error = RolloutError;

    fn try_from(RolloutFields { serving, next }: RolloutFields) -> Result<Self, RolloutError> {
        match next {
            Some(found) if found == serving => Err(RolloutError { found }),
            next => Ok(Self { serving, next }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_reads_back_as_itself_and_is_short_once_it_is_over() {
        let settled = Rollout::settled(Deployment(2));
        let changing = settled.with_next(Deployment(3)).unwrap();
        for (rollout, text) in [(settled, r#"{"serving":2}"#), (changing, r#"{"serving":2,"next":3}"#)] {
            assert_eq!(serde_json::to_string(&rollout).unwrap(), text);
            assert_eq!(serde_json::from_str::<Rollout>(text).unwrap(), rollout);
        }
        assert!(changing.wants(Deployment(3)) && !settled.wants(Deployment(3)));
        assert_eq!(Rollout::default(), Rollout::settled(Deployment::FIRST));
    }

    #[test]
    fn a_deployment_cannot_take_its_own_place() {
        let error = serde_json::from_str::<Rollout>(r#"{"serving":2,"next":2}"#).unwrap_err().to_string();
        assert!(error.contains("deployment 2 is both `serving` and `next`"), "{error}");
        assert!(Rollout::settled(Deployment(1)).with_next(Deployment(1)).is_err());
    }
}
