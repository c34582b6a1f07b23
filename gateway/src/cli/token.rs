//! `baton token`: makes, lists and revokes the tokens with which machines join.

use std::time::Duration;

use clap::{Args, Subcommand};
use engine::store::EtcdStore;
use schema::record::TokenState;
use schema::{Keyspace, TokenId};
use serde::Serialize;

use super::arguments::ClientArguments;
use super::exit::{CliError, Exit};
use super::output::{self, TIME_UNITS};
use super::table::Table;
use crate::settings::{ClusterSettings, Environment};
use crate::share::{ClusterFolder, JoinToken, add, list, now_s, revoke, shared_address};

/// Longest time that a token is made for, unless it is for ever.
const TTL_MAX: Duration = Duration::from_secs(3650 * 24 * 3600);

/// The arguments of `baton token`.
#[derive(Debug, Args)]
pub struct TokenArguments {
    #[command(subcommand)]
    pub(super) deed: TokenDeed,
}

/// The deed.
#[derive(Debug, Subcommand)]
pub enum TokenDeed {
    /// Show the tokens of the cluster
    List(ClientArguments),
    /// Make a token, and print the line with which a machine joins
    Create {
        /// Time for which it is valid, such as 30m, 24h or 7d, or `never` for no end
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = ttl)]
        ttl: Ttl,
        #[command(flatten)]
        client: ClientArguments,
    },
    /// Take a token back; machines that joined with it stay
    Revoke {
        /// The token, by its id in `baton token list`
        #[arg(value_name = "ID")]
        id: TokenId,
        #[command(flatten)]
        client: ClientArguments,
    },
}

/// The time for which a token is valid. `None` for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl(Option<Duration>);

fn ttl(text: &str) -> Result<Ttl, String> {
    if text == "never" {
        return Ok(Ttl(None));
    }
    let expected = || "expected a number with s, m, h or d, such as 24h, of at most 10 years, or never".to_owned();
    let found = TIME_UNITS.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let (number, seconds) = found.ok_or_else(expected)?;
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*seconds)).ok_or_else(expected)?;
    let time = Duration::from_secs(seconds);
    if time.is_zero() || time > TTL_MAX { Err(expected()) } else { Ok(Ttl(Some(time))) }
}

/// A token in the list.
#[derive(Debug, Serialize)]
struct TokenDocument {
    id: TokenId,
    state: TokenState,
    created_s: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_s: Option<u64>,
}

// === impl TokenDeed ===

impl TokenDeed {
    /// The flags that all deeds have.
    pub(super) fn client(&self) -> &ClientArguments {
        match self {
            Self::List(client) | Self::Create { client, .. } | Self::Revoke { client, .. } => client,
        }
    }
}

/// Does what is asked.
pub(super) async fn run(
    arguments: TokenArguments,
    settings: &ClusterSettings,
    environment: &Environment,
) -> Result<Exit, CliError> {
    let store = EtcdStore::open(&settings.etcd).await?;
    let keyspace = Keyspace::new(&settings.cluster);
    let json = arguments.deed.client().json;
    match arguments.deed {
        TokenDeed::List(_) => {
            let now_s = now_s();
            let tokens = list(&store, &keyspace).await?.into_iter().map(|(id, (record, _))| {
                let (state, created_s, expires_s) = (record.state(now_s), record.created_s, record.expires_s);
                TokenDocument { id, state, created_s, expires_s }
            });
            let tokens: Vec<_> = tokens.collect();
            output::print(&if json { output::json(&tokens)? } else { table(&tokens, now_s) })?;
        }
        TokenDeed::Create { ttl, .. } => {
            let state = environment.state.as_deref().ok_or(CliError::NoStateFolder)?;
            let (address, pin) = shared_address(&ClusterFolder::new(state, &settings.cluster))?;
            let token = JoinToken::generate(settings.cluster.clone(), pin);
            let token = token.map_err(|source| CliError::Random { source })?;
            add(&store, &keyspace, &token, ttl.0).await?;
            let line = format!("baton join {address} {token}");
            let text =
                serde_json::json!({"id": token.id, "address": address, "token": token.to_string(), "join": line});
            output::print(&if json { output::json(&text)? } else { format!("{line}\n") })?;
        }
        TokenDeed::Revoke { id, .. } => {
            revoke(&store, &keyspace, &id).await?;
            let text = format!("token {id} is revoked; machines that joined with it stay\n");
            output::print(&if json {
                output::json(&serde_json::json!({"id": id, "state": "revoked"}))?
            } else {
                text
            })?;
        }
    }
    Ok(Exit::Ok)
}

fn table(tokens: &[TokenDocument], now_s: u64) -> String {
    let mut table = Table::new(&["ID", "STATE", "MADE", "TIME"]);
    for token in tokens {
        let state = match token.state {
            TokenState::Valid => "valid",
            TokenState::Expired => "expired",
            TokenState::Revoked => "revoked",
        };
        let time = match token.expires_s {
            None => "never ends".to_owned(),
            Some(end) if end > now_s => format!("{} left", output::time(end - now_s)),
            Some(end) => format!("ended {} ago", output::time(now_s - end)),
        };
        let made = format!("{} ago", output::time(now_s.saturating_sub(token.created_s)));
        table.row([token.id.to_string(), state.to_owned(), made, time]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_number_and_a_unit() {
        let seconds = |text| ttl(text).unwrap().0.map(|time| time.as_secs());
        let expected = [Some(30), Some(1800), Some(86_400), Some(604_800), None];
        assert_eq!(["30s", "30m", "24h", "7d", "never"].map(seconds), expected);
        for text in ["", "24", "h", "0h", "-1h", "1w", "99999999999999999999d", "4000d"] {
            assert!(ttl(text).is_err(), "{text}");
        }
    }
}
