//! A cluster's keys and values as anybody with the store's address can write them: each member reads all of them and
//! plans by them.

use engine::decide::{Action, Stability, decide};
use engine::store::{Entry, Revision};
use engine::view::ClusterView;
use schema::{Keyspace, StageName};
use serde_json::{Value, json};

use crate::damage::Piece;
use crate::targets::Target;

/// Examples of every key.
const DOCUMENT: &str = include_str!("../../etc/keys.md");

/// The keys of [`DOCUMENT`] and their values, and those of the cluster's other stage, of which it has no example.
pub(crate) fn examples() -> Vec<Value> {
    let blocks = DOCUMENT.split("```key\n").skip(1).filter_map(|block| block.split("\n```").next());
    let pairs: Vec<(&str, &str)> = blocks.filter_map(|block| block.split_once('\n')).collect();
    let other = |(key, value): &(&str, &str)| {
        let value = value.replace("[22,30]", "[0,22]").replace("mini-2", "mini-1");
        (key.replace("stages/mini-2", "stages/mini-1").replace("claims/3/1", "claims/3/0"), value)
    };
    let same = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let others = pairs.iter().map(other).filter(|(key, _)| key.contains("/mini-1") || key.ends_with("/3/0"));
    same.chain(others).map(|(key, value)| json!([key, serde_json::from_str::<Value>(&value).unwrap()])).collect()
}

/// The entries of a list of keys and values. Values that are texts stand for their own bytes, JSON or not.
fn entries(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let pairs: Vec<(String, Value)> = serde_json::from_slice(bytes).map_err(|_| "no list of keys".to_owned())?;
    let entry = |(key, value): (String, Value)| Entry {
        key,
        value: value.as_str().map_or_else(|| value.to_string(), str::to_owned).into_bytes(),
        mod_revision: Revision(1),
        lease: None,
    };
    Ok(pairs.into_iter().map(entry).collect())
}

/// Every key of a cluster, as each stage in it sees and decides them.
pub(crate) fn records() -> Target {
    let keyspace = Keyspace::new(&"home".parse().unwrap());
    let stranger: StageName = "stranger".parse().unwrap();
    let run = move |input: &[Piece]| {
        let entries = entries(&input[0].bytes)?;
        let view = ClusterView::new(&keyspace, None, 1, &entries);
        let mut outcomes: Vec<String> = Vec::new();
        for stage in view.stages.keys().take(4).chain([&stranger]) {
            for stability in [Stability::Changing, Stability::Standing] {
                let action = decide(&view, stage, stability);
                outcomes.push(format!("{action:?}").chars().take_while(|letter| letter.is_alphanumeric()).collect());
                if let Action::Wait(waiting) = action {
                    outcomes.extend(waiting.reason(&view));
                }
            }
        }
        outcomes.push(view.serving().map_or_else(|error| error.reason, |_| "serving".to_owned()));
        outcomes.push(format!("{} pins", view.pin_reports().len()));
        if view.unusable.is_empty() && view.is_ready() { Ok(outcomes.join("; ")) } else { Err(outcomes.join("; ")) }
    };
    let seeds = vec![vec![Piece::json(&Value::Array(examples()))]];
    Target { name: "records", seeds, run: Box::new(run), memory: (4 << 20, 512) }
}
