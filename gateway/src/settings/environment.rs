//! Reads the environment. No other module does, except that clap reads the variables of flags.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use engine::link::{ClusterKey, KeyError};

use crate::models::{Access, OtherCaches};

/// Variables without a flag, each with its meaning for help texts.
pub const VARIABLES: &[(&str, &str)] = &[
    ("BATON_API_KEY", "API keys of the HTTP server as in --api-key; doctor, status --watch and bench send the first"),
    ("BATON_CA_FILE", "certificates in PEM form that doctor, status --watch and bench trust, too"),
    ("BATON_CLUSTER_KEY", "the cluster key itself, 64 hex digits, instead of --cluster-key-file"),
    ("BATON_ETCD_PASSWORD", "the password of etcd's user, instead of --etcd-password-file"),
    ("BATON_SIM_KERNELS", "the library that etc/check-msl builds, for --device sim"),
    ("HF_ENDPOINT", "another model hub than https://huggingface.co"),
    ("HF_HOME", "the folder of the hub's own cache (in hub/ there), in which models are looked for"),
    ("HF_HUB_CACHE", "the hub's own cache, if it is not in HF_HOME"),
    ("HF_TOKEN", "the token for files of the hub that are not public"),
    ("NO_COLOR", "no colours on a terminal, if it is not empty"),
    ("OLLAMA_MODELS", "Ollama's store, for ollama: models"),
    ("RUST_LOG", "like --log, for people used to it; --log and BATON_LOG come first"),
];

/// The environment variables without a flag. There is no `Debug`, because it holds secrets.
#[derive(Clone, Default)]
pub struct Environment {
    /// `BATON_API_KEY`. What is no Unicode in it becomes U+FFFD, which no key has, so that it is refused and not
    /// overlooked.
    pub api_key: Option<String>,
    /// `BATON_CA_FILE`.
    pub ca_file: Option<PathBuf>,
    /// `BATON_CLUSTER_KEY`.
    pub cluster_key: Option<String>,
    /// `BATON_ETCD_PASSWORD`.
    pub etcd_password: Option<String>,
    /// `RUST_LOG`.
    pub rust_log: Option<String>,
    /// The hub's address and token, from `HF_ENDPOINT` and `HF_TOKEN`.
    pub access: Access,
    /// Paths of the settings files to try if none is named, in this order.
    pub config_paths: Vec<PathBuf>,
    /// Folder of model files if none is named.
    pub cache: Option<PathBuf>,
    /// Folder of data that the program makes and keeps.
    pub data: Option<PathBuf>,
    /// The home of the person.
    pub home: Option<PathBuf>,
    /// Folder of settings: `XDG_CONFIG_HOME`, or its default.
    pub config: Option<PathBuf>,
    /// Folder of logs and of the lines that were written at a prompt.
    pub state: Option<PathBuf>,
    /// True if `NO_COLOR` asks for no colours.
    pub no_color: bool,
    /// `TERM`.
    pub terminal: Option<String>,
    /// The names of all `BATON_…` variables that are set.
    pub names: Vec<String>,
}

// === impl Environment ===

impl Environment {
    /// Reads the process's environment.
    pub fn read() -> Self {
        Self::from(&|name| variable(name), names())
    }

    fn from(variable: &dyn Fn(&str) -> Option<OsString>, names: Vec<String>) -> Self {
        let text = |name| variable(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
        let path = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = path("HOME");
        let config = path("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
        let caches = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        let cache = path("XDG_CACHE_HOME").or_else(|| home.as_ref().map(|home| home.join(caches)));
        let shares = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
        let data = path("XDG_DATA_HOME").or_else(|| home.as_ref().map(|home| home.join(shares)));
        let states = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/state" };
        let state = path("XDG_STATE_HOME").or_else(|| home.as_ref().map(|home| home.join(states)));
        let given = |name| variable(name).filter(|value| !value.is_empty());
        let own = config.as_ref().map(|config| config.join("baton/baton.toml"));
        Self {
            api_key: given("BATON_API_KEY").map(|value| value.to_string_lossy().into_owned()),
            ca_file: given("BATON_CA_FILE").map(PathBuf::from),
            cluster_key: text("BATON_CLUSTER_KEY"),
            etcd_password: text("BATON_ETCD_PASSWORD"),
            rust_log: text("RUST_LOG"),
            access: Access {
                search_path: None,
                hub_endpoint: text("HF_ENDPOINT"),
                hub_token: text("HF_TOKEN"),
                others: other_caches(&path, home.as_deref()),
            },
            config_paths: own.into_iter().chain([PathBuf::from("/etc/baton/baton.toml")]).collect(),
            cache: cache.map(|cache| cache.join("baton")),
            data: data.map(|data| data.join("baton")),
            home,
            config,
            state: state.map(|state| state.join("baton")),
            no_color: given("NO_COLOR").is_some(),
            terminal: text("TERM"),
            names,
        }
    }

    /// Folder of the self-signed certificate and its key, if there is a folder for data.
    pub fn tls_folder(&self) -> Option<PathBuf> {
        self.data.as_ref().map(|data| data.join("tls"))
    }

    /// The cluster key, if the environment has one.
    ///
    /// # Errors
    /// [`KeyError`] if the value is not a key.
    pub fn cluster_key(&self) -> Result<Option<ClusterKey>, KeyError> {
        self.cluster_key.as_ref().map(|text| text.parse()).transpose()
    }
}

/// The folders in which other programs keep models. Their defaults are those programs' own.
fn other_caches(path: &dyn Fn(&'static str) -> Option<PathBuf>, home: Option<&Path>) -> OtherCaches {
    let in_home = |place: &str| home.map(|home| home.join(place));
    let caches = path("XDG_CACHE_HOME").or_else(|| in_home(".cache"));
    let hub_home = path("HF_HOME").or_else(|| caches.map(|caches| caches.join("huggingface")));
    let hub = path("HF_HUB_CACHE").or_else(|| hub_home.map(|home| home.join("hub")));
    let lm_studio = [".lmstudio/models", ".cache/lm-studio/models"].map(in_home);
    let ollama = match path("OLLAMA_MODELS") {
        Some(named) => vec![named],
        // The second is that of Ollama's service on Linux.
        None => in_home(".ollama/models").into_iter().chain([PathBuf::from(OLLAMA_SERVICE)]).collect(),
    };
    OtherCaches { hub: hub.into_iter().collect(), lm_studio: lm_studio.into_iter().flatten().collect(), ollama }
}

/// Ollama's store where it runs as a service.
const OLLAMA_SERVICE: &str = "/usr/share/ollama/.ollama/models";

#[expect(clippy::disallowed_methods, reason = "this is the place where the environment is read")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

#[expect(clippy::disallowed_methods, reason = "this is the place where the environment is read")]
fn names() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| name.starts_with("BATON_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        Environment::from(&find, Vec::new())
    }

    #[test]
    fn folders_follow_xdg_and_then_home() {
        let home = environment(&[("HOME", "/home/me")]);
        let caches = if cfg!(target_os = "macos") { "/home/me/Library/Caches/baton" } else { "/home/me/.cache/baton" };
        assert_eq!(home.cache, Some(caches.into()));
        assert_eq!(home.config_paths[0], PathBuf::from("/home/me/.config/baton/baton.toml"));
        let xdg = environment(&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "/c"), ("XDG_CONFIG_HOME", "/s")]);
        assert_eq!(xdg.cache, Some("/c/baton".into()));
        assert_eq!(xdg.config_paths, [PathBuf::from("/s/baton/baton.toml"), "/etc/baton/baton.toml".into()]);
        let shares = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
        assert_eq!(home.tls_folder(), Some(Path::new("/home/me").join(shares).join("baton/tls")));
        assert_eq!(environment(&[("XDG_DATA_HOME", "/d")]).data, Some("/d/baton".into()));
        assert_eq!(environment(&[("XDG_STATE_HOME", "/l")]).state, Some("/l/baton".into()));
        assert_eq!(environment(&[]).cache, None);
        assert_eq!(environment(&[("XDG_CACHE_HOME", "relative")]).cache, None);
    }

    #[test]
    fn other_programs_folders_are_where_they_say_or_where_they_are_usually() {
        let home = environment(&[("HOME", "/home/me")]).access.others;
        assert_eq!(home.hub, [PathBuf::from("/home/me/.cache/huggingface/hub")]);
        assert_eq!(home.lm_studio[0], PathBuf::from("/home/me/.lmstudio/models"));
        assert_eq!(home.ollama[0], PathBuf::from("/home/me/.ollama/models"));
        let named = [("HOME", "/home/me"), ("HF_HOME", "/h"), ("OLLAMA_MODELS", "/o")];
        let others = environment(&named).access.others;
        assert_eq!((&others.hub[..], &others.ollama[..]), (&["/h/hub".into()][..], &["/o".into()][..]));
        assert_eq!(environment(&[("HF_HUB_CACHE", "/c")]).access.others.hub, [PathBuf::from("/c")]);
        assert_eq!(environment(&[]).access.others.hub, Vec::<PathBuf>::new());
    }

    #[test]
    fn an_api_key_that_is_no_unicode_is_not_overlooked() {
        use std::os::unix::ffi::OsStringExt;
        let find = |name: &str| (name == "BATON_API_KEY").then(|| OsString::from_vec(b"a\xffb".to_vec()));
        assert_eq!(Environment::from(&find, Vec::new()).api_key.as_deref(), Some("a\u{fffd}b"));
        assert_eq!(environment(&[("BATON_API_KEY", "")]).api_key, None);
    }

    #[test]
    fn the_cluster_key_is_checked() {
        assert!(environment(&[]).cluster_key().unwrap().is_none());
        assert!(environment(&[("BATON_CLUSTER_KEY", "")]).cluster_key().unwrap().is_none());
        assert!(environment(&[("BATON_CLUSTER_KEY", "xyz")]).cluster_key().is_err());
        assert!(environment(&[("BATON_CLUSTER_KEY", &"0f".repeat(32))]).cluster_key().unwrap().is_some());
    }
}
