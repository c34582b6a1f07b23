//! The choice of experts for a row, from the router's logits. In single precision and one order of operations, so that
//! a row's experts depend on the row alone. Of equal scores the lower expert is chosen.

use super::exponentials::Exponentials;
use super::math::sigmoid;
use crate::kernels::Isa;
use crate::model::{RouterScore, Routing};

/// An expert of a row, and the weight of its result.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Choice {
    pub(super) expert: u32,
    pub(super) weight: f32,
}

/// A router's constants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Router<'a> {
    pub(super) isa: Isa,
    pub(super) routing: Routing,
    /// Added to scores for the choice alone, if the model has it.
    pub(super) selection_bias: Option<&'a [f32]>,
    /// Factors of the weights, one for each expert, if the model has them.
    pub(super) scales: Option<&'a [f32]>,
}

// === impl Router ===

impl Router<'_> {
    /// Writes the experts of a row to `choices`, the lowest first. `logits`, one for each expert, become scores, and
    /// `ranks`, as many, are working memory.
    pub(super) fn choose(&self, logits: &mut [f32], ranks: &mut [f32], choices: &mut [Choice]) {
        let Routing { score, normalise, scale, groups, weigh_inputs: _ } = self.routing;
        let scores = logits;
        match score {
            RouterScore::Softmax => softmax(scores, ranks),
            RouterScore::Sigmoid => sigmoid(self.isa, scores),
            RouterScore::SoftmaxOfChosen | RouterScore::SigmoidOfChosen => {}
        }
        ranks.copy_from_slice(scores);
        if let Some(bias) = self.selection_bias {
            ranks.iter_mut().zip(bias).for_each(|(rank, bias)| *rank += bias);
        }
        if let Some((count, chosen)) = groups {
            leave_groups(ranks, count, chosen, score);
        }
        for choice in choices.iter_mut() {
            let expert = take_largest(ranks);
            *choice = Choice { expert: expert as u32, weight: scores[expert] };
        }
        match score {
            RouterScore::SoftmaxOfChosen => softmax_of_weights(choices),
            RouterScore::SigmoidOfChosen => {
                choices.iter_mut().for_each(|choice| sigmoid(self.isa, std::slice::from_mut(&mut choice.weight)));
            }
            RouterScore::Softmax | RouterScore::Sigmoid => {}
        }
        if normalise {
            let sum: f32 = choices.iter().map(|choice| choice.weight).sum();
            choices.iter_mut().for_each(|choice| choice.weight /= sum);
        }
        choices.iter_mut().for_each(|choice| choice.weight *= scale);
        if let Some(scales) = self.scales {
            choices.iter_mut().for_each(|choice| choice.weight *= scales[choice.expert as usize]);
        }
        choices.sort_unstable_by_key(|choice| choice.expert);
    }
}

/// Makes `scores` their softmax. `exponentials` is working memory.
fn softmax(scores: &mut [f32], exponentials: &mut [f32]) {
    let all = Exponentials::detect();
    let Some((_, largest)) = all.largest(scores) else { return };
    let sum = all.of(scores, largest, 1.0, exponentials) as f32;
    scores.iter_mut().zip(exponentials).for_each(|(score, exponential)| *score = *exponential / sum);
}

/// Makes the weights of `choices`, which are logits and begin with the largest, their softmax.
fn softmax_of_weights(choices: &mut [Choice]) {
    let Some(Choice { weight: largest, .. }) = choices.first().copied() else { return };
    for choice in choices.iter_mut() {
        let mut exponential = [0.0];
        Exponentials::detect().of(&[choice.weight], largest, 1.0, &mut exponential);
        [choice.weight] = exponential;
    }
    let sum: f32 = choices.iter().map(|choice| choice.weight).sum();
    choices.iter_mut().for_each(|choice| choice.weight /= sum);
}

/// Leaves the ranks of the `chosen` best of `count` equal groups and makes all others the lowest. A group of softmax
/// scores is as good as its best expert, a group of sigmoid scores as the sum of its two best.
fn leave_groups(ranks: &mut [f32], count: usize, chosen: usize, score: RouterScore) {
    let size = ranks.len() / count;
    let worth = |group: &[f32]| {
        let best = group.iter().copied().fold([f32::NEG_INFINITY; 2], |[first, second], rank| {
            if rank > first { [rank, first] } else { [first, second.max(rank)] }
        });
        if score == RouterScore::Sigmoid { best[0] + best[1] } else { best[0] }
    };
    let left = |group: usize, ranks: &[f32]| {
        let own = worth(&ranks[group * size..][..size]);
        let better = |other: usize| {
            let theirs = worth(&ranks[other * size..][..size]);
            theirs > own || (theirs == own && other < group)
        };
        (0..count).filter(|other| better(*other)).count() < chosen
    };
    // Bit `group` is set if the group is left.
    let kept = (0..count).fold(0_u128, |kept, group| kept | u128::from(left(group, ranks)) << group);
    for (group, ranks) in ranks.chunks_exact_mut(size).enumerate() {
        if kept >> group & 1 == 0 {
            ranks.fill(f32::MIN);
        }
    }
}

/// The index of the largest rank, the first of equal ones, which is then out of the way.
fn take_largest(ranks: &mut [f32]) -> usize {
    let mut best = 0;
    for index in 1..ranks.len() {
        // A NaN is never larger, so a row of them takes the first ones.
        if ranks[index] > ranks[best] || ranks[best] == f32::NEG_INFINITY && ranks[index] != f32::NEG_INFINITY {
            best = index;
        }
    }
    ranks[best] = f32::NEG_INFINITY;
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Routing =
        Routing { score: RouterScore::Softmax, normalise: false, scale: 1.0, groups: None, weigh_inputs: false };

    fn choose(routing: Routing, bias: Option<&[f32]>, logits: &[f32], count: usize) -> Vec<(u32, f32)> {
        let mut found = Vec::new();
        for isa in Isa::all() {
            let (mut scores, mut ranks) = (logits.to_vec(), vec![0.0; logits.len()]);
            let mut choices = vec![Choice::default(); count];
            Router { isa, routing, selection_bias: bias, scales: None }.choose(&mut scores, &mut ranks, &mut choices);
            found.push(choices.iter().map(|choice| (choice.expert, choice.weight)).collect::<Vec<_>>());
        }
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "every instruction set gives the same bits");
        found.swap_remove(0)
    }

    fn close(found: &[(u32, f32)], expected: &[(u32, f64)]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.0, expected.0);
            assert!((f64::from(found.1) - expected.1).abs() < 1e-6, "{found:?}, expected {expected:?}");
        }
    }

    #[test]
    fn the_largest_are_chosen_and_of_equal_ones_the_lower() {
        let found = choose(PLAIN, None, &[1.0, 3.0, 2.0, 3.0, 2.0], 3);
        assert_eq!(found.iter().map(|(expert, _)| *expert).collect::<Vec<_>>(), [1, 2, 3]);
        let sum: f64 = [1.0_f64, 3.0, 2.0, 3.0, 2.0].iter().map(|logit| logit.exp()).sum();
        close(&found, &[(1, 3.0_f64.exp() / sum), (2, 2.0_f64.exp() / sum), (3, 3.0_f64.exp() / sum)]);
    }

    #[test]
    fn weights_are_normalised_and_scaled_if_the_model_says_so() {
        let routing = Routing { normalise: true, scale: 2.5, ..PLAIN };
        let (a, b) = (0.5_f64.exp(), 2.0_f64.exp());
        close(&choose(routing, None, &[0.5, -1.0, 2.0], 2), &[(0, 2.5 * a / (a + b)), (2, 2.5 * b / (a + b))]);
        let routing = Routing { score: RouterScore::SoftmaxOfChosen, ..PLAIN };
        close(&choose(routing, None, &[0.5, -1.0, 2.0], 2), &[(0, a / (a + b)), (2, b / (a + b))]);
        // Sigmoids that are all 1 in single precision do not hide the larger logit.
        let routing = Routing { score: RouterScore::SigmoidOfChosen, ..PLAIN };
        close(&choose(routing, None, &[30.0, -1.0, 40.0], 1), &[(2, 1.0)]);
        close(&choose(routing, None, &[0.5, -1.0, 2.0], 2), &[(0, a / (1.0 + a)), (2, b / (1.0 + b))]);
    }

    #[test]
    fn a_selection_bias_changes_the_choice_and_not_the_weights() {
        let routing = Routing { score: RouterScore::Sigmoid, ..PLAIN };
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        close(&choose(routing, Some(&[0.0, 0.0, 1.0]), &[1.0, 0.5, -2.0], 2), &[(0, sigmoid(1.0)), (2, sigmoid(-2.0))]);
    }

    #[test]
    fn experts_come_from_the_best_groups() {
        let sigmoid = Routing { score: RouterScore::Sigmoid, groups: Some((3, 1)), ..PLAIN };
        let logits = [4.0, -4.0, 2.0, 1.9, 3.0, -3.0];
        let experts = |found: Vec<(u32, f32)>| found.iter().map(|(expert, _)| *expert).collect::<Vec<_>>();
        assert_eq!(experts(choose(sigmoid, None, &logits, 2)), [2, 3], "by the sum of the two best");
        let softmax = Routing { groups: Some((3, 2)), ..PLAIN };
        assert_eq!(experts(choose(softmax, None, &logits, 3)), [0, 4, 5], "by the best");
    }

    #[test]
    fn a_row_that_is_not_a_number_has_experts_whose_weights_are_none_either() {
        let chosen = [RouterScore::SoftmaxOfChosen, RouterScore::SigmoidOfChosen];
        for score in [RouterScore::Softmax, RouterScore::Sigmoid].into_iter().chain(chosen) {
            let mut choices = [Choice::default(); 2];
            let router =
                Router { isa: Isa::best(), routing: Routing { score, ..PLAIN }, selection_bias: None, scales: None };
            router.choose(&mut [f32::NAN; 4], &mut [0.0; 4], &mut choices);
            assert!(choices[0].expert < choices[1].expert && choices[1].expert < 4, "{choices:?}");
            assert!(choices.iter().all(|choice| choice.weight.is_nan()), "{choices:?}");
        }
    }
}
