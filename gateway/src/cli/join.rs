//! `baton join`: becomes a stage of a cluster that another machine shares, or lists those on the network.

use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use schema::ClusterName;
use tracing::{info, warn};

use super::exit::CliError;
use super::shared_clusters;
use crate::settings::{
    ClusterOptions, ClusterSettings, ComputeOptions, Environment, FileOptions, GlobalOptions, InterfaceChoice,
    MemberOptions, ModelOptions, NetworkOptions, SecretText, SharedOptions, StageOptions, StageSettings,
};
use crate::share::{
    AuthorityPin, ClusterFolder, JoinError, JoinToken, Membership, addresses_of, join, kept, kept_pin, own_address,
};

/// The arguments of `baton join`.
#[derive(Debug, Args)]
pub struct JoinArguments {
    /// The address that `baton up --share` prints [default: the one of the cluster that this machine joined before, or
    /// that the cluster of a token announces]
    #[arg(value_name = "HOST:PORT")]
    pub(super) address: Option<String>,
    /// The token that `baton up --share` or `baton token create` prints [default: what this machine got with one]
    #[arg(value_name = "TOKEN", requires = "address")]
    pub(super) token: Option<SecretText>,
    #[command(flatten)]
    pub(super) model: ModelOptions,
    /// Name of the cluster that this machine joined before, if no token says it [default: home]
    #[arg(long, env = "BATON_CLUSTER", value_name = "NAME")]
    pub(super) cluster: Option<ClusterName>,
    #[command(flatten)]
    pub(super) stage: StageOptions,
    #[command(flatten)]
    pub(super) compute: ComputeOptions,
    #[command(flatten)]
    pub(super) member: MemberOptions,
    #[command(flatten)]
    pub(super) network: NetworkOptions,
    /// List the clusters that announce themselves on this network, and join none
    #[arg(long, conflicts_with = "address")]
    pub(super) list: bool,
    /// Print that list as JSON
    #[arg(long, conflicts_with = "address")]
    pub(super) json: bool,
}

/// The step that follows on `baton join`.
pub(super) enum Step {
    /// The stage serves.
    Serve(Box<StageSettings>),
    /// A list was printed, and that is all.
    Listed,
}

// === impl JoinArguments ===

impl JoinArguments {
    /// The arguments with a token that stands in the place of the address, and perhaps a model after it, in their own
    /// places.
    fn with_token_alone(mut self) -> Self {
        let is_free = self.token.is_none() || self.model.model.is_none();
        if let Some(text) = self.address.take_if(|text| is_free && JoinToken::begins(text)) {
            let after = self.token.replace(SecretText::from(text));
            self.model.model = after.map(|word| word.expose().to_owned()).or(self.model.model);
        }
        self
    }
}

/// Joins, or takes what was kept, and returns the settings of the stage. Where there is nothing to begin with, the
/// clusters on the network are listed.
pub(super) async fn begin(
    arguments: JoinArguments,
    file: FileOptions,
    global: &GlobalOptions,
    environment: &Environment,
) -> Result<Step, CliError> {
    let arguments = arguments.with_token_alone();
    let state = environment.state.as_deref().ok_or(CliError::NoStateFolder)?;
    let discovers = arguments.network.clone().or(file.network.clone()).discovers();
    if arguments.list || arguments.json {
        if !discovers {
            return Err(CliError::DiscoveryOff);
        }
        shared_clusters::print(arguments.json).await?;
        return Ok(Step::Listed);
    }
    let joined = match (&arguments.address, &arguments.token) {
        (Some(address), Some(token)) => first(Some(address), token.expose(), state, discovers).await,
        (None, Some(token)) => first(None, token.expose(), state, discovers).await,
        (address, _) => {
            let cluster = arguments.cluster.clone().or(file.cluster.cluster.clone());
            again(state, address.as_deref(), cluster, discovers).await
        }
    };
    let (membership, own) = match joined {
        Err(CliError::Join(error @ JoinError::NotJoined { .. })) if discovers && arguments.address.is_none() => {
            return if shared_clusters::print(false).await? > 0 { Ok(Step::Listed) } else { Err(error.into()) };
        }
        joined => joined?,
    };
    settings(arguments, file, (membership, own), global, environment).map(Box::new).map(Step::Serve)
}

/// The settings of the stage.
fn settings(
    arguments: JoinArguments,
    file: FileOptions,
    (membership, own): (Membership, IpAddr),
    global: &GlobalOptions,
    environment: &Environment,
) -> Result<StageSettings, CliError> {
    let Membership { cluster, store, cluster_key } = membership;
    let mut member = arguments.member.or(file.member);
    // The others reach this machine at the address that the store sees, and choose the best of its others, unless
    // something else is said.
    if member.advertise.is_none() {
        member.interfaces.get_or_insert(InterfaceChoice::All);
        member.advertise = own.to_string().parse().ok();
    }
    let environment = Environment { cluster_key: Some(cluster_key.to_hex()), ..environment.clone() };
    let shared = SharedOptions {
        cluster: ClusterOptions { cluster: Some(cluster), ..ClusterOptions::default() },
        member,
        model: arguments.model.or(file.model),
    };
    let (compute, stage) = (arguments.compute.or(file.compute), arguments.stage.or(file.stage));
    let mut settings = StageSettings::new(shared, &compute, stage, global, &environment)?;
    settings.cluster.etcd = store;
    settings.model.fetches = true;
    Ok(settings)
}

/// Joins by a token: at `address` or, if nobody is there or none is given, where the cluster of the token announces
/// itself. Whoever announces it falsely does not have the key that the token's pin names.
async fn first(
    address: Option<&str>,
    token: &str,
    state: &Path,
    discovers: bool,
) -> Result<(Membership, IpAddr), CliError> {
    let token: JoinToken = token.parse()?;
    let (machine, folder) = (stages::memory::machine().host, ClusterFolder::new(state, &token.cluster));
    let mut failed = match address {
        None if !discovers => return Err(CliError::DiscoveryOff),
        None => JoinError::NotAnnounced { cluster: token.cluster.clone() },
        Some(address) => match join(address, &token, &machine, &folder).await {
            Err(error @ JoinError::Connect { .. }) if discovers => error,
            joined => return Ok(joined?),
        },
    };
    for found in addresses_of(token.pin).await.iter().map(ToString::to_string) {
        match join(&found, &token, &machine, &folder).await {
            Ok(joined) => {
                info!(cluster = %token.cluster, address = found, "the cluster was found by its announcement");
                return Ok(joined);
            }
            Err(error @ (JoinError::Connect { .. } | JoinError::Pin { .. } | JoinError::Broken { .. })) => {
                warn!(address = found, %error, "the cluster of the token is announced there, and it is not there");
                // Of an address that was given, its own error says more.
                if address.is_none() {
                    failed = error;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(failed.into())
}

/// The membership of an earlier join. The address may be another one by now: one that is given, or that the cluster
/// announces. The store checks the certificates of both.
async fn again(
    state: &Path,
    address: Option<&str>,
    cluster: Option<ClusterName>,
    discovers: bool,
) -> Result<(Membership, IpAddr), CliError> {
    let cluster = ClusterSettings::name(&ClusterOptions { cluster, ..ClusterOptions::default() });
    let folder = ClusterFolder::new(state, &cluster);
    let mut membership = kept(&cluster, &folder)?;
    if let Some(address) = address {
        membership.store.endpoints = vec![format!("https://{address}")];
    }
    let endpoint = membership.store.endpoints.first().map(String::as_str).unwrap_or_default();
    let own = match (own_address(endpoint.trim_start_matches("https://")).await, kept_pin(&folder)) {
        (Err(failed), Some(pin)) if discovers && address.is_none() => {
            moved(&mut membership, pin).await.ok_or(failed)?
        }
        (own, _) => own?,
    };
    Ok((membership, own))
}

/// Adds the addresses at which the cluster of `pin` announces itself, and returns this machine's own address as the
/// first of them that answers has it.
async fn moved(membership: &mut Membership, pin: AuthorityPin) -> Option<IpAddr> {
    let mut own = None;
    for found in addresses_of(pin).await {
        match own_address(&found.to_string()).await {
            Ok(address) => {
                info!(cluster = %membership.cluster, address = %found, "the cluster announces itself elsewhere");
                membership.store.endpoints.push(format!("https://{found}"));
                own = own.or(Some(address));
            }
            Err(error) => warn!(%error, "somebody announces the cluster there"),
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;
    use crate::cli::arguments::Verb;

    fn places(words: &[&str]) -> [Option<String>; 3] {
        let cli = Cli::try_parse_from([&["baton", "join"], words].concat()).unwrap();
        let Verb::Join(arguments) = cli.verb else { panic!("not join") };
        let JoinArguments { address, token, model, .. } = arguments.with_token_alone();
        [address, token.map(|token| token.expose().to_owned()), model.model]
    }

    #[test]
    fn a_token_may_stand_alone_or_before_a_model() {
        for (words, expected) in [
            (&["a:1", "bt1-x", "m.gguf"][..], [Some("a:1"), Some("bt1-x"), Some("m.gguf")]),
            (&["a:1", "bt1-x"], [Some("a:1"), Some("bt1-x"), None]),
            (&["bt1-x", "m.gguf"], [None, Some("bt1-x"), Some("m.gguf")]),
            (&["bt1-x"], [None, Some("bt1-x"), None]),
            (&["a:1"], [Some("a:1"), None, None]),
            (&[], [None, None, None]),
        ] {
            assert_eq!(places(words), expected.map(|word| word.map(str::to_owned)), "{words:?}");
        }
    }
}
