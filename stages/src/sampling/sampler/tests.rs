use super::*;
use schema::frame::{Adjustment, TokenMask};

const PLAIN: Sampling = Sampling { seed: 7, ..Sampling::PLAIN };

fn readout(sampling: &Sampling, position: u32) -> Readout<'_> {
    Readout::Choose { position, sampling, rule: None }
}

fn choose(logits: &[f32], sampling: Sampling, position: u32) -> u32 {
    Sampler::new(logits.len()).read(logits, 0, readout(&sampling, position)).unwrap().token
}

fn choose_under(rule: &PositionRule, logits: &[f32], sampling: &Sampling, position: u32) -> SampledToken {
    let readout = Readout::Choose { position, sampling, rule: Some(rule) };
    Sampler::new(logits.len()).read(logits, 0, readout).unwrap()
}

/// Logits of the probabilities plus a constant, which must not change the result.
fn logits_of(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|probability| probability.ln() + 3.0).collect()
}

/// Number of draws of each token, over `draws` positions.
fn count(logits: &[f32], sampling: Sampling, draws: u32) -> Vec<u32> {
    let mut sampler = Sampler::new(logits.len());
    let mut counts = vec![0; logits.len()];
    for position in 0..draws {
        counts[sampler.read(logits, 0, readout(&sampling, position)).unwrap().token as usize] += 1;
    }
    counts
}

/// Pearson's statistic of `counts` against `probabilities`. Tokens of probability 0 must not occur.
fn chi_square(counts: &[u32], probabilities: &[f64]) -> f64 {
    let draws = f64::from(counts.iter().sum::<u32>());
    let terms = counts.iter().zip(probabilities).map(|(count, probability)| {
        if *probability == 0.0 {
            assert_eq!(*count, 0, "a token of probability 0 was drawn: {counts:?}");
            return 0.0;
        }
        (f64::from(*count) - draws * probability).powi(2) / (draws * probability)
    });
    terms.sum()
}

const PROBABILITIES: [f32; 6] = [0.05, 0.3, 0.1, 0.3, 0.05, 0.2];
/// With 5 degrees of freedom a fair sampler stays below this value in 999 of 1000 runs. The seeds are fixed, so the
/// result is the same in every run.
const CHI_SQUARE_MAX: f64 = 20.5;
const DRAWS: u32 = 20_000;

#[test]
fn temperature_zero_takes_the_largest_and_of_equals_the_lowest_id() {
    let greedy = Sampling { temperature: 0.0, ..PLAIN };
    assert_eq!(choose(&[0.5, 2.0, 1.0, 2.0], greedy, 3), 1);
    assert_eq!(choose(&[-0.0, 0.0], greedy, 3), 0);
}

#[test]
fn one_kept_token_is_the_likeliest() {
    let logits = logits_of(&PROBABILITIES);
    for position in 0..200 {
        assert_eq!(choose(&logits, Sampling { top_k: 1, ..PLAIN }, position), 1);
        assert_eq!(choose(&logits, Sampling { top_p: 0.0, ..PLAIN }, position), 1);
        assert_eq!(choose(&logits, Sampling { top_p: 1e-9, temperature: 3.0, ..PLAIN }, position), 1);
    }
}

#[test]
fn draws_follow_the_distribution() {
    for seed in [1, 2, 3, u64::MAX] {
        let counts = count(&logits_of(&PROBABILITIES), Sampling { seed, ..PLAIN }, DRAWS);
        let statistic = chi_square(&counts, &PROBABILITIES.map(f64::from));
        assert!(statistic < CHI_SQUARE_MAX, "seed {seed}: {statistic}, {counts:?}");
    }
}

#[test]
fn temperature_comes_first_and_flattens() {
    let counts = count(&logits_of(&PROBABILITIES), Sampling { temperature: 2.0, ..PLAIN }, DRAWS);
    let roots = PROBABILITIES.map(|probability| f64::from(probability).sqrt());
    let sum: f64 = roots.iter().sum();
    let statistic = chi_square(&counts, &roots.map(|root| root / sum));
    assert!(statistic < CHI_SQUARE_MAX, "{statistic}, {counts:?}");
}

#[test]
fn top_k_keeps_the_likeliest_and_top_p_counts_among_those() {
    let logits = logits_of(&PROBABILITIES);
    let statistic =
        chi_square(&count(&logits, Sampling { top_k: 3, ..PLAIN }, DRAWS), &[0.0, 0.375, 0.0, 0.375, 0.0, 0.25]);
    assert!(statistic < CHI_SQUARE_MAX, "{statistic}");
    // Two tokens of 0.3 sum to 0.6 of 1. The same two are 0.75 of the 0.8 that `top_k` leaves.
    for sampling in [Sampling { top_p: 0.59, ..PLAIN }, Sampling { top_k: 3, top_p: 0.74, ..PLAIN }] {
        let statistic = chi_square(&count(&logits, sampling, DRAWS), &[0.0, 0.5, 0.0, 0.5, 0.0, 0.0]);
        assert!(statistic < CHI_SQUARE_MAX, "{sampling:?}: {statistic}");
    }
}

#[test]
fn min_p_drops_tokens_far_less_likely_than_the_likeliest() {
    for sampling in [Sampling { min_p: 0.5, ..PLAIN }, Sampling { min_p: 0.5, top_k: 6, ..PLAIN }] {
        let counts = count(&logits_of(&PROBABILITIES), sampling, DRAWS);
        let statistic = chi_square(&counts, &[0.0, 0.375, 0.0, 0.375, 0.0, 0.25]);
        assert!(statistic < CHI_SQUARE_MAX, "{sampling:?}: {statistic}, {counts:?}");
    }
}

#[test]
fn a_long_flat_tail_is_ranked_as_far_as_top_p_reaches() {
    let logits: Vec<f32> = (0..5000).map(|token| -(token as f32) * 1e-4).collect();
    let counts = count(&logits, Sampling { top_p: 0.5, ..PLAIN }, 4000);
    let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    let mut sum = 0.0;
    let kept = logits.iter().take_while(|logit| {
        let before = sum;
        sum += f64::from(**logit).exp();
        before < total / 2.0
    });
    let kept = kept.count();
    let highest = counts.iter().rposition(|count| *count > 0).unwrap();
    assert!(highest < kept && highest > kept - 60, "{highest} of {kept}");
}

#[test]
fn ties_at_the_cut_go_to_the_lower_id() {
    let counts = count(&[1.0; 8], Sampling { top_k: 3, ..PLAIN }, 500);
    assert!(counts[..3].iter().all(|count| *count > 0) && counts[3..].iter().all(|count| *count == 0), "{counts:?}");
}

#[test]
fn equal_inputs_give_equal_tokens_and_each_input_matters() {
    let logits: Vec<f32> = (0..1000).map(|token| ((token * 7919) % 1000) as f32 * 0.001).collect();
    let draw = |sampling: Sampling, position: u32| choose(&logits, sampling, position);
    let all = |sampling: Sampling| (0..16).map(|position| draw(sampling, position)).collect::<Vec<_>>();
    assert_eq!(all(PLAIN), all(PLAIN));
    assert_ne!(all(PLAIN), all(Sampling { seed: 8, ..PLAIN }));
    assert_ne!(all(PLAIN), all(Sampling { seed: 7 + (1 << 32), ..PLAIN }));
    assert_ne!(all(PLAIN), all(Sampling { choice: 1, ..PLAIN }));
    assert_ne!(draw(PLAIN, 0), draw(PLAIN, 1));
}

#[test]
fn the_logprob_is_that_of_the_raw_logits() {
    let logits = logits_of(&PROBABILITIES);
    for sampling in [PLAIN, Sampling { temperature: 0.0, ..PLAIN }, Sampling { temperature: 0.3, top_k: 2, ..PLAIN }] {
        let sampled = Sampler::new(6).read(&logits, 0, readout(&sampling, 11)).unwrap();
        let expected = PROBABILITIES[sampled.token as usize].ln();
        assert!((sampled.logprob - expected).abs() < 1e-5, "{sampled:?}, expected {expected}");
    }
}

#[test]
fn nan_and_infinity_are_errors_and_masked_logits_are_not() {
    let mut sampler = Sampler::new(3);
    let error = sampler.read(&[0.0, f32::NAN, 1.0], 0, readout(&PLAIN, 0)).unwrap_err();
    assert!(matches!(error, SamplingError::Logit { token: 1, .. }));
    assert!(sampler.read(&[0.0, f32::INFINITY, 1.0], 0, readout(&PLAIN, 0)).is_err());
    assert!(sampler.read(&[f32::NEG_INFINITY; 3], 0, readout(&PLAIN, 0)).is_err());
    assert_eq!(sampler.read(&[], 0, readout(&PLAIN, 0)).unwrap_err(), SamplingError::Empty);
    for position in 0..50 {
        let masked = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        assert_eq!(
            sampler.read(&masked, 0, readout(&PLAIN, position)).unwrap(),
            SampledToken { token: 1, logprob: 0.0, rank: 0, alternatives: Vec::new() }
        );
    }
}

#[test]
fn a_rule_changes_the_choice_and_not_the_score() {
    let logits = logits_of(&PROBABILITIES);
    let greedy = Sampling { temperature: 0.0, ..PLAIN };
    let rule = |adjustments, mask| PositionRule { adjustments, mask };
    let only = rule(Vec::new(), Some(TokenMask::Only(vec![0, 5])));
    let forbidden = rule(vec![Adjustment::forbid(1), Adjustment::forbid(3)], None);
    let favoured = rule(vec![Adjustment { bias: 100.0, ..Adjustment::none(4) }], None);
    for (rule, expected) in [(&only, 5), (&forbidden, 5), (&favoured, 4)] {
        let sampled = choose_under(rule, &logits, &greedy, 0);
        assert_eq!(sampled.token, expected, "{rule:?}");
        assert!((sampled.logprob - PROBABILITIES[expected as usize].ln()).abs() < 1e-5, "{sampled:?}");
    }
    let mut counts = vec![0; 6];
    for position in 0..DRAWS {
        counts[choose_under(&only, &logits, &PLAIN, position).token as usize] += 1;
    }
    let statistic = chi_square(&counts, &[0.2, 0.0, 0.0, 0.0, 0.0, 0.8]);
    assert!(statistic < CHI_SQUARE_MAX, "{statistic}, {counts:?}");
    let nothing = rule(vec![Adjustment::forbid(2)], Some(TokenMask::Only(vec![2, 9])));
    let readout = Readout::Choose { position: 8, sampling: &PLAIN, rule: Some(&nothing) };
    let error = Sampler::new(6).read(&logits, 0, readout).unwrap_err();
    assert_eq!(error, SamplingError::NothingAllowed { position: 8 });
}

#[test]
fn scores_are_of_the_given_token_with_its_rank_and_the_likeliest_ones() {
    let logits = logits_of(&PROBABILITIES);
    let mut sampler = Sampler::new(6);
    let scored = sampler.read(&logits, 3, Readout::Score { token: 2 }).unwrap();
    assert_eq!((scored.token, scored.rank), (2, 4));
    assert!((scored.logprob - 0.1_f32.ln()).abs() < 1e-5);
    let tokens: Vec<_> = scored.alternatives.iter().map(|other| other.token).collect();
    assert_eq!(tokens, [1, 3, 5]);
    assert!((scored.alternatives[2].logprob - 0.2_f32.ln()).abs() < 1e-5);
    let chosen = sampler.read(&logits, 20, readout(&Sampling::GREEDY, 1)).unwrap();
    assert_eq!((chosen.token, chosen.rank, chosen.alternatives.len()), (1, 1, 6));
    assert_eq!(chosen.alternatives[0].logprob.to_bits(), chosen.logprob.to_bits());
    let unknown = sampler.read(&logits, 0, Readout::Score { token: 6 }).unwrap_err();
    assert_eq!(unknown, SamplingError::Unknown { found: 6, expected: 6 });
}

#[test]
fn the_filters_of_llama_cpp_leave_these_tokens() {
    let logits = logits_of(&PROBABILITIES);
    // Standard deviation of the logits 0.75: half of it below 0.3 is 0.206.
    let near =
        chi_square(&count(&logits, Sampling { top_n_sigma: 0.5, ..PLAIN }, DRAWS), &[0.0, 0.5, 0.0, 0.5, 0.0, 0.0]);
    assert!(near < CHI_SQUARE_MAX, "{near}");
    // Entropy 1.57: the information of 0.2 (1.61) is nearest.
    let counts = count(&logits, Sampling { typical_p: 0.1, ..PLAIN }, 500);
    assert_eq!(counts[5], 500, "{counts:?}");
    // Of the tokens above 0.15, only the least likely one stays, whenever the filter applies.
    let always = Sampling { xtc_probability: 1.0, xtc_threshold: 0.15, ..PLAIN };
    let counts = count(&logits, always, DRAWS);
    let statistic = chi_square(&counts, &[0.125, 0.0, 0.25, 0.0, 0.125, 0.5]);
    assert!(statistic < CHI_SQUARE_MAX, "{statistic}, {counts:?}");
    let half = count(&logits, Sampling { xtc_probability: 0.5, ..always }, DRAWS);
    let expected = [0.0875, 0.15, 0.175, 0.15, 0.0875, 0.35];
    let statistic = chi_square(&half, &expected);
    assert!(statistic < CHI_SQUARE_MAX, "{statistic}, {half:?}");
}

/// The token by way of a changed copy of the logits: an adjustment that changes nothing asks for one.
fn choose_from_a_copy(mask: TokenMask, logits: &[f32], sampling: &Sampling, position: u32) -> u32 {
    let rule = PositionRule { adjustments: vec![Adjustment::none(0)], mask: Some(mask) };
    choose_under(&rule, logits, sampling, position).token
}

#[test]
fn a_mask_leaves_the_same_token_whether_the_likeliest_is_allowed_or_not() {
    let samplings = [
        Sampling::GREEDY,
        PLAIN,
        Sampling { temperature: 0.7, min_p: 0.2, ..PLAIN },
        Sampling { top_k: 5, top_p: 0.9, ..PLAIN },
        Sampling { typical_p: 0.6, ..PLAIN },
        Sampling { top_n_sigma: 1.0, ..PLAIN },
        Sampling { xtc_probability: 1.0, xtc_threshold: 0.1, temperature: 1.5, ..PLAIN },
    ];
    for position in 0..300_u32 {
        let noise = |token: u32| (position * 31 + token).wrapping_mul(0x9e37_79b9) >> 8;
        let logits: Vec<f32> = (0..45).map(|token| noise(token) as f32 / (1 << 21) as f32 - 4.0).collect();
        let words = [noise(100) | 4, noise(101)];
        let listed = |allowed: bool| {
            (0..45).filter(|token| (words[*token as usize / 32] >> (token % 32) & 1 == 1) == allowed).collect()
        };
        let bits = words.iter().flat_map(|word| word.to_le_bytes()).take(6).collect();
        for mask in [TokenMask::Only(listed(true)), TokenMask::Without(listed(false)), TokenMask::Bits(bits)] {
            for sampling in &samplings {
                let rule = PositionRule { mask: Some(mask.clone()), adjustments: Vec::new() };
                let found = choose_under(&rule, &logits, sampling, position).token;
                assert!(mask.allows(found), "{position}: {found}, {mask:?}");
                let expected = choose_from_a_copy(mask.clone(), &logits, sampling, position);
                assert_eq!(found, expected, "{position}: {mask:?}, {sampling:?}");
            }
        }
    }
}
