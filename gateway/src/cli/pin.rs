//! `baton pin` and `baton unpin`: writes an operator's pin to the store if the stages can obey it, or deletes it.

use engine::membership::{delete_pin, put_pin};
use engine::store::{Committed, EtcdStore, Store};
use schema::StageName;
use schema::record::Pin;

use super::cluster;
use super::exit::{CliError, Exit};
use crate::placement_plan::{PlanDocument, assume_pin};
use crate::settings::ClusterSettings;

/// Writes the pin if the stages can obey it now, or deletes it (`None`). Prints the resulting plan.
pub(super) async fn run(
    settings: &ClusterSettings,
    stage: StageName,
    pin: Option<Pin>,
    json: bool,
) -> Result<Exit, CliError> {
    let store = EtcdStore::open(&settings.etcd).await?;
    let keyspace = cluster::serving(&store, &settings.cluster).await?;
    let mut view = cluster::read(&store, &keyspace, settings.client_key.as_ref()).await?;
    let readable = view.pins.get(&stage).map(|pin| pin.mod_revision);
    let seen = readable.or(view.unreadable_pins.get(&stage).map(|pin| pin.mod_revision));
    assume_pin(&mut view, &stage, pin);
    let document = PlanDocument::new(&view);
    let txn = match (&pin, seen) {
        (Some(pin), _) => put_pin(&keyspace, &stage, pin, seen),
        (None, Some(seen)) => delete_pin(&keyspace, &stage, seen),
        (None, None) => return Err(CliError::NoPin { stage }),
    };
    if let Some(refused) = document.refused_pins.iter().find(|refused| refused.stage == stage) {
        return Err(CliError::PinRefused { stage, reason: refused.reason.clone() });
    }
    match store.commit(txn).await? {
        Committed::Applied { .. } => document.print(json),
        Committed::Refused => Err(CliError::PinChanged { stage }),
    }
}
