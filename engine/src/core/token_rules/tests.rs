use std::time::Duration;

use schema::frame::Sampling;

use super::*;
use crate::testing::StepGrammar;

fn rules(tokens: TokenOptions) -> TokenRules {
    let request = Request {
        prompt: vec![1, 2, 2],
        tokens_max: 50,
        tokens,
        stop_tokens: vec![90],
        deadline: Duration::from_secs(1),
        priority: 0,
        pooling: None,
    };
    TokenRules::new(&request)
}

fn options() -> TokenOptions {
    TokenOptions::new(Sampling::GREEDY)
}

/// The rule after the prompt and `answer`, which was generated.
fn after(rules: &mut TokenRules, answer: &[u32]) -> PositionRule {
    for token in answer {
        rules.push(*token).unwrap();
    }
    let history = [&[1, 2, 2], answer].concat();
    rules.assume(&history, &[]).positions.pop().unwrap_or_default()
}

#[test]
fn plain_options_have_no_rules() {
    let assumed = rules(options()).assume(&[1, 2, 2], &[5, 6]);
    assert_eq!(assumed, AssumedRules { count: 3, positions: Vec::new() });
}

#[test]
fn repetition_counts_all_tokens_and_the_other_penalties_the_answer_only() {
    let penalties = Penalties { repetition: 1.5, presence: 1.0, frequency: 0.25, ..Penalties::NONE };
    let found = after(&mut rules(TokenOptions { penalties, ..options() }), &[7, 2, 7]);
    let change = |token, penalty| Adjustment { token, bias: 0.0, repetition: 1.5, penalty };
    assert_eq!(found.adjustments, [change(1, 0.0), change(2, 1.25), change(7, 1.5)]);
    let penalties = Penalties { repetition: 1.5, last_tokens: Some(2), ..Penalties::NONE };
    let found = after(&mut rules(TokenOptions { penalties, ..options() }), &[7, 8]);
    assert_eq!(found.adjustments, [change(7, 0.0), change(8, 0.0)]);
}

#[test]
fn bias_minimum_and_forbidden_sequences_change_these_tokens() {
    let tokens = TokenOptions {
        bias: vec![(5, -100.0), (6, 2.0)],
        tokens_min: 2,
        forbidden: vec![vec![7], vec![8, 9]],
        ..options()
    };
    let mut rules = rules(tokens);
    let biased = |token, bias| Adjustment { bias, ..Adjustment::none(token) };
    let forbid = Adjustment::forbid;
    assert_eq!(after(&mut rules, &[]).adjustments, [biased(5, -100.0), biased(6, 2.0), forbid(7), forbid(90)]);
    let found = after(&mut rules, &[4, 8]).adjustments;
    assert_eq!(found, [biased(5, -100.0), biased(6, 2.0), forbid(7), forbid(9)]);
}

#[test]
fn a_rule_of_an_assumed_token_is_the_one_that_the_token_gets_when_it_comes() {
    let penalties = Penalties { repetition: 1.2, presence: 0.5, frequency: 0.5, ..Penalties::NONE };
    let grammar = Some(StepGrammar::shared());
    let tokens = TokenOptions { penalties, grammar, tokens_min: 3, ..options() };
    let mut history = vec![1, 2, 2];
    let mut rules = rules(tokens);
    let mut compared = 0;
    while history.len() < 40 {
        match rules.advance().unwrap() {
            Continuation::Chosen => {}
            Continuation::Forced(forced) => {
                for token in forced {
                    assert!(rules.push(token).unwrap());
                    history.push(token);
                }
                continue;
            }
            Continuation::End => break,
        }
        let allowed = |rule: &PositionRule| (0..97).find(|token| rule.mask.as_ref().is_none_or(|m| m.allows(*token)));
        let own = rules.assume(&history, &[]);
        let token = allowed(&own.positions[0]).unwrap();
        let assumed = rules.assume(&history, &[token, 3]);
        assert_eq!(assumed.positions[0], own.positions[0], "an assumption changed the rule before it");
        assert!(rules.push(token).unwrap());
        history.push(token);
        if assumed.count > 1 {
            assert_eq!(rules.advance().unwrap(), Continuation::Chosen);
            assert_eq!(rules.assume(&history, &[]).positions[0], assumed.positions[1]);
            compared += 1;
        }
    }
    assert!(compared > 3, "{compared} rules were compared");
}

#[test]
fn a_grammar_goes_before_what_the_other_options_forbid() {
    let tokens = TokenOptions { forbidden: vec![vec![3]], ..options() };
    let rules = rules(tokens);
    let only = |tokens: &[u32]| Some(TokenMask::Only(tokens.to_vec()));
    assert_eq!(rules.position(&[1, 2, 2], only(&[3, 4])).adjustments, [Adjustment::forbid(3)]);
    assert_eq!(rules.position(&[1, 2, 2], only(&[3])).adjustments, []);
}
