//! `baton join`: becomes a stage of a cluster that another machine shares.

use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use schema::ClusterName;

use super::exit::CliError;
use crate::settings::{
    ClusterOptions, ClusterSettings, ComputeOptions, Environment, FileOptions, GlobalOptions, MemberOptions,
    ModelOptions, SecretText, SharedOptions, StageOptions, StageSettings,
};
use crate::share::{ClusterFolder, JoinToken, Membership, join, kept, own_address};

/// The arguments of `baton join`.
#[derive(Debug, Args)]
pub struct JoinArguments {
    /// The address that `baton up --share` prints [default: the one of the cluster that this machine joined before]
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
}

/// Joins, or takes what was kept, and returns the settings of the stage.
pub(super) async fn settings(
    arguments: JoinArguments,
    file: FileOptions,
    global: &GlobalOptions,
    environment: &Environment,
) -> Result<StageSettings, CliError> {
    let state = environment.state.as_deref().ok_or(CliError::NoStateFolder)?;
    let (membership, own) = match (&arguments.address, &arguments.token) {
        (Some(address), Some(token)) => {
            let token: JoinToken = token.expose().parse()?;
            let machine = stages::memory::machine().host;
            join(address, &token, &machine, &ClusterFolder::new(state, &token.cluster)).await?
        }
        (address, _) => again(state, address.as_deref(), arguments.cluster.or(file.cluster.cluster)).await?,
    };
    let Membership { cluster, store, cluster_key } = membership;
    let mut member = arguments.member.or(file.member);
    // The others reach this machine at the address that the store sees, unless something else is said.
    member.advertise = member.advertise.or_else(|| own.to_string().parse().ok());
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

/// The membership of an earlier join. The address may be another one by now.
async fn again(
    state: &Path,
    address: Option<&str>,
    cluster: Option<ClusterName>,
) -> Result<(Membership, IpAddr), CliError> {
    let cluster = ClusterSettings::name(&ClusterOptions { cluster, ..ClusterOptions::default() });
    let mut membership = kept(&cluster, &ClusterFolder::new(state, &cluster))?;
    if let Some(address) = address {
        membership.store.endpoints = vec![format!("https://{address}")];
    }
    let endpoint = membership.store.endpoints.first().map(String::as_str).unwrap_or_default();
    let own = own_address(endpoint.trim_start_matches("https://")).await?;
    Ok((membership, own))
}
