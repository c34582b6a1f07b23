//! A model as its header describes it, wherever that lies, or as the catalogue does. No weights are read.

use std::path::Path;

use schema::record::ModelRecord;
use serde::Serialize;
use stages::weights::ModelFile;

use super::exit::CliError;
use super::{fit, output};
use crate::models::{self, Cache, Entry, ModelError, RemoteHeader, Silent, Source};
use crate::settings::ModelSettings;

/// A model's figures.
pub(super) struct Described {
    pub(super) record: ModelRecord,
    /// Number of parameters.
    pub(super) parameters: u64,
    /// Number of those that are multiplied with for a token.
    pub(super) active: u64,
    /// Length of its files, in bytes.
    pub(super) bytes: u64,
    pub(super) figures: Figures,
}

/// The place that a model's figures are from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub(super) enum Figures {
    /// Its header, on this machine.
    File,
    /// Its header, which was fetched without the weights.
    RemoteHeader {
        /// The model at its hub.
        source: String,
        /// Bytes that were fetched.
        fetched_bytes: u64,
    },
    /// The catalogue.
    Catalogue {
        /// The reason that its header cannot be read.
        reason: String,
    },
}

// === impl Described ===

impl Described {
    /// Reads the header of `model`: a path, a name of a file that is here, a model of a hub, whose header is fetched if
    /// its file is not here, or a name of the catalogue, whose figures count if its header cannot be read either.
    /// Blocking.
    ///
    /// # Errors
    /// [`CliError`] if the model is not known, cannot be reached, or is not supported.
    pub(super) fn new(model: &str, cache: &Cache, settings: &ModelSettings) -> Result<Self, CliError> {
        let not_here = |error| ModelError::NoHeader { model: model.to_owned(), source: Box::new(error) };
        let remote = |header: Result<RemoteHeader, ModelError>| {
            let header = header.map_err(|error| match error {
                ModelError::NoHub { .. } => ModelError::NotHere { model: model.to_owned() },
                other => not_here(other),
            });
            Self::of_remote(model, &header?, settings)
        };
        let here = match Source::parse(model) {
            Ok(Source::File(path)) => Some(path),
            Ok(Source::Catalogue(entry)) => match models::locate(&entry.name, cache) {
                None => return Ok(Self::of_listed(entry, cache, settings)),
                here => here,
            },
            Ok(Source::Hub(file)) => match models::cached(&file, cache) {
                None => return remote(RemoteHeader::of_file(&file, cache)),
                here => here,
            },
            Ok(Source::Repository(repository)) => match models::cached_repository(&repository, cache) {
                None => return remote(RemoteHeader::of_repository(&repository, cache)),
                here => here,
            },
            Ok(Source::Url(url)) => match models::cached_url(&url, cache) {
                None => return remote(RemoteHeader::of_url(&url)),
                here => here,
            },
            // Nothing is fetched for it.
            Ok(Source::Ollama(_)) => Some(models::resolve(Some(model), cache, &mut Silent)?),
            Err(unknown) => Some(models::locate(model, cache).ok_or(unknown)?),
        };
        let path = here.ok_or_else(|| ModelError::NotHere { model: model.to_owned() })?;
        Self::of_header(model, &path, settings, Figures::File)
    }

    /// The model of `entry`, whose file is not here: by its header at a hub, or else by the catalogue. Blocking.
    pub(super) fn of_listed(entry: &Entry, cache: &Cache, settings: &ModelSettings) -> Self {
        let header = RemoteHeader::of_entry(entry, cache).map_err(CliError::from);
        let described = header.and_then(|header| Self::of_remote(&entry.name, &header, settings));
        described.unwrap_or_else(|error| Self::of_entry(entry, settings, output::chain(&error)))
    }

    /// The model of `entry` by the catalogue, as its header cannot be read for `reason`.
    pub(super) fn of_entry(entry: &Entry, settings: &ModelSettings, reason: String) -> Self {
        let record = fit::estimate(entry, settings);
        let figures = Figures::Catalogue { reason };
        Self { record, parameters: entry.parameters, active: entry.active, bytes: entry.bytes, figures }
    }

    fn of_remote(model: &str, header: &RemoteHeader, settings: &ModelSettings) -> Result<Self, CliError> {
        let (source, fetched_bytes) = (header.source().to_owned(), header.bytes());
        Self::of_header(model, header.path(), settings, Figures::RemoteHeader { source, fetched_bytes })
    }

    fn of_header(model: &str, path: &Path, settings: &ModelSettings, figures: Figures) -> Result<Self, CliError> {
        let unusable = |reason: String| CliError::Header { model: model.to_owned(), reason };
        let file = ModelFile::open(path).map_err(|error| unusable(output::chain(&error)))?;
        let record = fit::record(&file, settings).map_err(|error| unusable(output::chain(&error)))?;
        let values = file.header().tensors.iter().map(|tensor| tensor.dims.iter().product::<u64>());
        let active = record.layer_multiplications.iter().sum::<u64>() + record.head_multiplications;
        Ok(Self { parameters: values.sum(), active, record, bytes: file.bytes(), figures })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Access, catalogue};

    #[test]
    fn a_model_that_is_not_here_is_refused_with_the_way_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(
            folder.path().to_owned(),
            Access { hub_endpoint: Some("http://127.0.0.1:1".to_owned()), ..Access::default() },
        );
        let refuse = |model: &str| {
            let error = Described::new(model, &cache, &fit::tests::settings()).err().unwrap();
            output::chain(&error)
        };
        assert!(refuse("hf:a/b/c.gguf").contains("baton pull hf:a/b/c.gguf"), "{}", refuse("hf:a/b/c.gguf"));
        assert!(refuse("gpt5").contains("expected one of smollm2"));
        assert!(refuse("./none.gguf").contains("none.gguf"));
    }

    #[test]
    fn a_listed_model_keeps_the_catalogues_figures_if_its_header_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access { hub_endpoint: Some("http://127.0.0.1:1".to_owned()), ..Access::default() };
        let cache = Cache::new(folder.path().to_owned(), access);
        let described = Described::new("qwen3-14b", &cache, &fit::tests::settings()).ok().unwrap();
        let Figures::Catalogue { reason } = described.figures else { panic!("{:?}", described.figures) };
        assert!(reason.contains("no source of qwen3-14b has its file: hf:"), "{reason}");
        let entry = catalogue().iter().find(|entry| entry.name == "qwen3-14b").unwrap();
        assert_eq!((described.parameters, described.bytes), (entry.parameters, entry.bytes));
        let default = Described::new("smollm2", &cache, &fit::tests::settings()).ok().unwrap();
        assert!(matches!(default.figures, Figures::Catalogue { reason } if reason.contains("fetched whole")));
    }
}
