use super::*;

const PLAIN: Sampling = Sampling { seed: 7, ..Sampling::PLAIN };

fn choose(logits: &[f32], sampling: Sampling, position: u32) -> u32 {
    Sampler::new(logits.len()).choose(logits, &sampling, position).unwrap().token
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
        counts[sampler.choose(logits, &sampling, position).unwrap().token as usize] += 1;
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
        let sampled = Sampler::new(6).choose(&logits, &sampling, 11).unwrap();
        let expected = PROBABILITIES[sampled.token as usize].ln();
        assert!((sampled.logprob - expected).abs() < 1e-5, "{sampled:?}, expected {expected}");
    }
}

#[test]
fn nan_and_infinity_are_errors_and_masked_logits_are_not() {
    let mut sampler = Sampler::new(3);
    let error = sampler.choose(&[0.0, f32::NAN, 1.0], &PLAIN, 0).unwrap_err();
    assert!(matches!(error, SamplingError::Logit { token: 1, .. }));
    assert!(sampler.choose(&[0.0, f32::INFINITY, 1.0], &PLAIN, 0).is_err());
    assert!(sampler.choose(&[f32::NEG_INFINITY; 3], &PLAIN, 0).is_err());
    assert_eq!(sampler.choose(&[], &PLAIN, 0).unwrap_err(), SamplingError::Empty);
    for position in 0..50 {
        let masked = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        assert_eq!(sampler.choose(&masked, &PLAIN, position).unwrap(), SampledToken { token: 1, logprob: 0.0 });
    }
}
