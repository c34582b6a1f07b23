//! The models that this server serves, and the one that a request means. Each is a cluster's: the first cluster is
//! there as long as the server, others come and go, and each may change its model.

use std::sync::{Arc, PoisonError, RwLock};

use schema::ClusterName;
use tokio::sync::watch;

use super::error::ApiError;
use super::limits::MODELS_MAX;
use super::model_alias::ModelAlias;
use super::served_model::ServedModel;

/// The models, by cluster.
pub struct Models {
    first: watch::Sender<Arc<ServedModel>>,
    /// In the order in which they came.
    others: RwLock<Vec<Arc<ServedModel>>>,
}

/// The reason for which a model is not served beside the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelRefused {
    /// There are as many as there may be.
    #[error("{MODELS_MAX} models are served already: expected fewer")]
    Full,
    /// Requests could not tell the two apart.
    #[error("cluster {cluster} serves a model {name} already: expected another model, or another name of its file")]
    SameName {
        /// The model's name.
        name: String,
        /// The cluster that has it.
        cluster: ClusterName,
    },
    /// The cluster has one already.
    #[error("cluster {cluster} is served already")]
    SameCluster {
        /// The cluster.
        cluster: ClusterName,
    },
}

fn check(
    first: &Arc<ServedModel>,
    others: &[Arc<ServedModel>],
    cluster: &ClusterName,
    name: &str,
) -> Result<(), ModelRefused> {
    for there in std::iter::once(first).chain(others) {
        if there.cluster == *cluster {
            return Err(ModelRefused::SameCluster { cluster: cluster.clone() });
        }
        if there.model.name == name {
            return Err(ModelRefused::SameName { name: name.to_owned(), cluster: there.cluster.clone() });
        }
    }
    if others.len() + 1 >= MODELS_MAX { Err(ModelRefused::Full) } else { Ok(()) }
}

// === impl Models ===

impl Models {
    /// `first` alone: the model of requests that name none.
    pub fn new(first: Arc<ServedModel>) -> Self {
        Self { first: watch::Sender::new(first), others: RwLock::default() }
    }

    /// The model of requests that name none, and of the pages about the cluster.
    pub fn first(&self) -> Arc<ServedModel> {
        Arc::clone(&self.first.borrow())
    }

    /// The first model as it changes.
    pub(super) fn firsts(&self) -> watch::Receiver<Arc<ServedModel>> {
        self.first.subscribe()
    }

    /// All models, the first one first.
    pub fn all(&self) -> Vec<Arc<ServedModel>> {
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(self.first()).chain(others.iter().cloned()).collect()
    }

    /// Checks that the model `name` of `cluster` may be served beside the others.
    ///
    /// # Errors
    /// [`ModelRefused`] if there are too many, or if its name or cluster is there already.
    pub fn check(&self, cluster: &ClusterName, name: &str) -> Result<(), ModelRefused> {
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        check(&self.first(), &others, cluster, name)
    }

    /// Serves one more model.
    ///
    /// # Errors
    /// As for [`Models::check`].
    pub fn add(&self, model: Arc<ServedModel>) -> Result<(), ModelRefused> {
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        check(&self.first(), &others, &model.cluster, &model.model.name)?;
        others.push(model);
        Ok(())
    }

    /// Serves `model` from now on in the place of the one that its cluster had. Requests that have that one go on.
    /// Returns it, or `None` if the cluster has none here.
    ///
    /// # Errors
    /// [`ModelRefused::SameName`] if another cluster serves a model of that name.
    pub fn replace(&self, model: Arc<ServedModel>) -> Result<Option<Arc<ServedModel>>, ModelRefused> {
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        let first = self.first();
        let is_same = |there: &Arc<ServedModel>| there.cluster != model.cluster && there.model.name == model.model.name;
        if let Some(there) = std::iter::once(&first).chain(&*others).find(|there| is_same(there)) {
            return Err(ModelRefused::SameName { name: model.model.name.clone(), cluster: there.cluster.clone() });
        }
        if first.cluster == model.cluster {
            return Ok(Some(self.first.send_replace(model)));
        }
        let place = others.iter_mut().find(|there| there.cluster == model.cluster);
        Ok(place.map(|place| std::mem::replace(place, model)))
    }

    /// Serves the model of `cluster` no more, unless that is the first one. Requests that have it go on.
    pub fn remove(&self, cluster: &ClusterName) -> Option<Arc<ServedModel>> {
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        let at = others.iter().position(|model| model.cluster == *cluster)?;
        Some(others.remove(at))
    }

    /// The model that requests call by `name`, which is the first one's if they give none. Names of models come before
    /// aliases, which are the first one's, so that `*` hides no model.
    ///
    /// # Errors
    /// A 404 that lists what there is.
    pub(super) fn named(&self, name: Option<&str>) -> Result<Arc<ServedModel>, ApiError> {
        let Some(name) = name else { return Ok(self.first()) };
        let (all, first) = (self.all(), self.first());
        let aliases = &first.settings.model_aliases;
        let found = all.iter().find(|model| model.model.name == name);
        match found.or_else(|| all.first().filter(|_| aliases.iter().any(|alias| alias.admits(name)))) {
            Some(model) => Ok(Arc::clone(model)),
            None => {
                let names: Vec<_> = all.iter().map(|model| model.model.name.as_str()).collect();
                Err(ApiError::model_not_found(name, &names))
            }
        }
    }

    /// The model of the cluster called `name`, which is the first one if there is none.
    ///
    /// # Errors
    /// A 404 that lists the clusters.
    pub(super) fn of_cluster(&self, name: Option<&str>) -> Result<Arc<ServedModel>, ApiError> {
        let Some(name) = name else { return Ok(self.first()) };
        let all = self.all();
        let found = all.iter().find(|model| model.cluster.as_str() == name);
        found.cloned().ok_or_else(|| {
            let clusters: Vec<_> = all.iter().map(|model| model.cluster.as_str()).collect();
            ApiError::cluster_not_found(name, &clusters)
        })
    }

    /// The further names by which requests may call `model`, without `*`.
    pub(super) fn aliases<'a>(&self, model: &'a ServedModel) -> impl Iterator<Item = &'a str> + use<'a> {
        let is_first = model.cluster == self.first.borrow().cluster;
        // All models have the settings of the server.
        let aliases = model.settings.model_aliases.iter().filter_map(ModelAlias::named);
        aliases.filter(move |alias| is_first && *alias != model.model.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::app_state::Settings;
    use crate::http::generation::text_model::ByteText;
    use crate::http::live::LiveFeed;
    use crate::http::served_model::ModelInfo;
    use engine::generate::{Pipeline, PipelineStatus, Rejection, Request, TokenStream};
    use engine::view::ClusterView;

    /// A pipeline that serves nothing: the registry does not ask it.
    struct NoPipeline;

    #[async_trait::async_trait]
    impl Pipeline for NoPipeline {
        async fn generate(&self, _: Request) -> Result<TokenStream, Rejection> {
            Err(Rejection::NotServing { reason: String::new() })
        }

        fn refused(&self, _: &Rejection) {}

        fn status(&self) -> PipelineStatus {
            PipelineStatus::default()
        }

        fn metrics(&self) -> prometheus::Registry {
            prometheus::Registry::new()
        }

        fn view(&self) -> Arc<ClusterView> {
            Arc::default()
        }
    }

    fn served(cluster: &str, name: &str, aliases: &[&str]) -> Arc<ServedModel> {
        let model_aliases = aliases.iter().map(|alias| alias.parse().unwrap()).collect();
        Arc::new(ServedModel {
            cluster: cluster.parse().unwrap(),
            pipeline: Arc::new(NoPipeline),
            text: Arc::new(ByteText),
            model: ModelInfo { name: name.to_owned(), ..ModelInfo::default() },
            settings: Arc::new(Settings { model_aliases, ..Settings::default() }),
            live: LiveFeed::default(),
            pins: None,
            drills: None,
        })
    }

    fn found(models: &Models, name: Option<&str>) -> Result<String, ApiError> {
        models.named(name).map(|model| model.cluster.to_string())
    }

    #[test]
    fn a_request_gets_the_model_that_it_names_and_else_the_first() {
        let models = Models::new(served("home", "tiny", &["gpt-5"]));
        models.add(served("second", "small", &[])).unwrap();
        for (name, cluster) in
            [(None, "home"), (Some("tiny"), "home"), (Some("gpt-5"), "home"), (Some("small"), "second")]
        {
            assert_eq!(found(&models, name).unwrap(), cluster, "{name:?}");
        }
        let error = found(&models, Some("large")).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code()), (404, Some("model_not_found")));
        assert!(error.message().contains("this server has `tiny` and `small`"), "{}", error.message());
        models.remove(&"second".parse().unwrap()).unwrap();
        assert!(found(&models, Some("small")).is_err());
        assert!(models.remove(&"home".parse().unwrap()).is_none());
    }

    #[test]
    fn a_cluster_changes_its_model_in_its_place() {
        let models = Models::new(served("home", "tiny", &["gpt-5"]));
        models.add(served("second", "small", &[])).unwrap();
        for (cluster, name, before) in [("home", "large", "tiny"), ("second", "medium", "small")] {
            let replaced = models.replace(served(cluster, name, &["gpt-5"])).unwrap().unwrap();
            assert_eq!(replaced.model.name, before);
            assert_eq!(found(&models, Some(name)).unwrap(), cluster);
            assert!(found(&models, Some(before)).is_err());
        }
        assert_eq!((models.first().model.name.as_str(), models.all().len()), ("large", 2));
        assert_eq!(found(&models, Some("gpt-5")).unwrap(), "home");
        let refused = models.replace(served("second", "large", &[])).err().unwrap();
        assert!(matches!(refused, ModelRefused::SameName { .. }), "{refused}");
        assert!(models.replace(served("third", "huge", &[])).unwrap().is_none());
    }

    #[test]
    fn an_alias_for_every_name_hides_no_model() {
        let models = Models::new(served("home", "tiny", &["*", "small"]));
        models.add(served("second", "small", &["large"])).unwrap();
        assert_eq!(found(&models, Some("small")).unwrap(), "second");
        assert_eq!(found(&models, Some("large")).unwrap(), "home");
    }

    #[test]
    fn a_model_that_requests_could_not_tell_apart_is_refused_and_so_is_one_too_many() {
        let models = Models::new(served("home", "tiny", &[]));
        let refused = models.add(served("second", "tiny", &[])).unwrap_err();
        assert!(refused.to_string().starts_with("cluster home serves a model tiny already"), "{refused}");
        assert!(matches!(models.add(served("home", "small", &[])), Err(ModelRefused::SameCluster { .. })));
        for number in 1..MODELS_MAX {
            models.add(served(&format!("c{number}"), &format!("m{number}"), &[])).unwrap();
        }
        assert_eq!(models.add(served("last", "one", &[])), Err(ModelRefused::Full));
        assert_eq!(models.all().len(), MODELS_MAX);
    }

    #[test]
    fn pages_about_a_cluster_are_the_first_ones_unless_another_is_named() {
        let models = Models::new(served("home", "tiny", &[]));
        models.add(served("second", "small", &[])).unwrap();
        let found = |name| models.of_cluster(name).map(|model| model.model.name.clone());
        assert_eq!(found(None).unwrap(), "tiny");
        assert_eq!(found(Some("second")).unwrap(), "small");
        let error = found(Some("third")).unwrap_err();
        assert!(error.message().contains("expected `home` or `second`"), "{}", error.message());
    }
}
