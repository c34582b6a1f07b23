//! The tensors of a folder, described as GGUF's: with its names and the order of its dimensions, in the places where
//! they lie or with the way in which they are copied. The matrices of experts, which may be a tensor each, become one
//! tensor in several pieces.

use std::collections::BTreeMap;

use super::coded::Grouping;
use super::config::Config;
use super::encoders::POSITIONS_SKIPPED;
use super::family::{ExpertLayout, Family};
use super::files::WeightFile;
use super::names::Place;
use super::quantisation::Quantisation;
use super::stored::{EXPERTS_MAX, Stored, StoredPart};
use crate::checkpoint::{OpenError, TensorInfo};

/// The ends of names of vectors that are stored as matrices of one row: the gate of a network beside experts, and in
/// some models the bias for choosing experts. The taps of convolutions have such a dimension as well.
const SQUEEZED: [&str; 3] = [".ffn_gate_inp_shexp.weight", ".exp_probs_b.bias", ".shortconv.conv.weight"];

/// The tensors that a model of `family` has in `files`.
pub(super) fn translate(
    config: &Config,
    family: &Family,
    quantisation: &Quantisation,
    files: &[WeightFile],
) -> Result<Vec<TensorInfo>, OpenError> {
    let layers = config.required(&["num_hidden_layers"])?;
    let further = config.count(&["num_nextn_predict_layers"])?.unwrap_or(0);
    let tied = config.flag("tie_word_embeddings")?;
    let grouping = Grouping::of(quantisation, family, files);
    let mut found = Found::default();
    for (number, file) in files.iter().enumerate() {
        for tensor in &file.header.tensors {
            if (family.place)(family, &tensor.name, layers, further) == Some(Place::LeftOut) {
                continue;
            }
            let Some(stored) = grouping.tensor(StoredPart { number, file, tensor })? else { continue };
            let Some(place) = (family.place)(family, &stored.name, layers, further) else {
                let expected = format!("none of this name in a {} model", family.architecture);
                return Err(stored.wrong(expected, "one"));
            };
            found.add(stored, place, family, tied == Some(true))?;
        }
    }
    if tied == Some(false) && family.has_output() && !found.whole.contains_key(OUTPUT) {
        let expected = "true, or a tensor lm_head.weight".to_owned();
        return Err(config.wrong("tie_word_embeddings", expected, "false without one"));
    }
    found.finish()
}

/// Name of the table of positions.
const POSITIONS: &str = "position_embd.weight";

/// Name of the output head's matrix, which is not read from a folder that ties it to the embedding.
const OUTPUT: &str = "output.weight";

/// Translated tensors, and the experts that are still to be joined.
#[derive(Default)]
struct Found<'a> {
    whole: BTreeMap<String, TensorInfo>,
    order: Vec<String>,
    /// The experts of each tensor that joins them, by number.
    experts: BTreeMap<String, BTreeMap<usize, Stored<'a>>>,
}

// === impl Found ===

impl<'a> Found<'a> {
    fn add(&mut self, stored: Stored<'a>, place: Place, family: &Family, tied: bool) -> Result<(), OpenError> {
        match place {
            Place::LeftOut => Ok(()),
            Place::Whole(name) if name == OUTPUT && tied => Ok(()),
            Place::Whole(name) => {
                let squeezed = SQUEEZED.iter().any(|end| name.ends_with(end));
                let minus_one = family.norms_minus_one && name.ends_with("norm.weight");
                let mut info = stored.whole(name, squeezed, minus_one)?;
                if family.skips_positions && info.name == POSITIONS {
                    let expected = || stored.wrong("a row for each position and two more", stored.shown());
                    info = info.without_rows(POSITIONS_SKIPPED).ok_or_else(expected)?;
                }
                self.insert(&stored, info)
            }
            Place::OfExpert(name, expert) => self.add_expert(stored, name, expert),
            Place::Halves(names) => {
                let in_turns = family.experts == ExpertLayout::TransposedInTurns;
                for (half, name) in (0..).zip(names) {
                    let info = stored.half(name, half, in_turns)?;
                    self.insert(&stored, info)?;
                }
                Ok(())
            }
        }
    }

    fn add_expert(&mut self, stored: Stored<'a>, name: String, expert: usize) -> Result<(), OpenError> {
        if expert >= EXPERTS_MAX {
            return Err(stored.wrong(format!("an expert below {EXPERTS_MAX}"), expert.to_string()));
        }
        let experts = self.experts.entry(name.clone()).or_default();
        if experts.is_empty() {
            self.order.push(name);
        }
        if let Some(first) = experts.values().next().filter(|first| !first.is_like(&stored)) {
            return Err(stored.wrong(format!("{}, as {} has", first.shown(), first.name), stored.shown()));
        }
        let again = |other: &Stored<'_>, name: &str| other.wrong("it once", format!("{name} as well"));
        match experts.insert(expert, stored) {
            Some(other) => Err(again(&experts[&expert], &other.name)),
            None => Ok(()),
        }
    }

    fn insert(&mut self, stored: &Stored<'a>, info: TensorInfo) -> Result<(), OpenError> {
        let name = info.name.clone();
        if self.whole.insert(name.clone(), info).is_some() {
            return Err(stored.wrong("it once", format!("another tensor that is {name:?}")));
        }
        self.order.push(name);
        Ok(())
    }

    /// All tensors, in the order of the files.
    fn finish(mut self) -> Result<Vec<TensorInfo>, OpenError> {
        for (name, experts) in std::mem::take(&mut self.experts) {
            let Some(first) = experts.values().next() else { continue };
            if let Some((missing, _)) = experts.keys().enumerate().find(|(expected, found)| expected != *found) {
                let expected = format!("{name:?} of expert {missing}, as there is expert {}", experts.len());
                return Err(first.wrong(expected, "none"));
            }
            let info = Stored::joined(&experts.values().collect::<Vec<_>>(), name.clone())?;
            if self.whole.insert(name.clone(), info).is_some() {
                return Err(first.wrong("it once", format!("another tensor that is {name:?}")));
            }
        }
        let Self { mut whole, order, .. } = self;
        Ok(order.iter().filter_map(|name| whole.remove(name)).collect())
    }
}
