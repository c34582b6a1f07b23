//! Encoding: from owned frames to bytes.

use flatbuffers::{FlatBufferBuilder, WIPOffset};

use super::generated::link as wire;
use super::token_rule::{PositionRule, Sampling, TokenMask};
use super::types::{Chosen, Frame, HiddenState, Hop, Refusal, Slice, Spent, Tokens};

type Builder<'a> = FlatBufferBuilder<'a>;

// === impl Frame ===

impl Frame {
    /// The frame's bytes: the first part of a message.
    pub fn encode(&self) -> Vec<u8> {
        let mut builder = Builder::with_capacity(1024);
        let (body_type, body) = match self {
            Self::Hop(hop) => (wire::Body::Hop, encode_hop(&mut builder, hop).as_union_value()),
            Self::Tokens(tokens) => (wire::Body::Tokens, encode_tokens(&mut builder, tokens).as_union_value()),
            Self::Refusal(refusal) => (wire::Body::Refusal, encode_refusal(&mut builder, refusal).as_union_value()),
        };
        let frame = wire::Frame::create(&mut builder, &wire::FrameArgs { body_type, body: Some(body) });
        wire::finish_frame_buffer(&mut builder, frame);
        builder.finished_data().to_vec()
    }
}

fn encode_hop<'a>(builder: &mut Builder<'a>, hop: &Hop) -> WIPOffset<wire::Hop<'a>> {
    let slices: Vec<_> = hop.slices.iter().map(|slice| encode_slice(builder, slice)).collect();
    let slices = Some(builder.create_vector(&slices));
    let spent = Some(encode_spent(builder, &hop.spent));
    wire::Hop::create(
        builder,
        &wire::HopArgs {
            generation: hop.generation.0,
            gateway: hop.gateway,
            epoch: hop.epoch.0,
            step: hop.step.0,
            slot: hop.slot,
            rows: hop.rows,
            hidden: hop.hidden,
            slices,
            spent,
        },
    )
}

fn encode_slice<'a>(builder: &mut Builder<'a>, slice: &Slice) -> WIPOffset<wire::Slice<'a>> {
    let tokens = Some(builder.create_vector(&slice.tokens));
    let blocks = Some(builder.create_vector(&slice.blocks));
    let logits = Some(builder.create_vector(&slice.logits));
    let scored = (!slice.scored.is_empty()).then(|| builder.create_vector(&slice.scored));
    let sampling = Some(encode_sampling(builder, &slice.rule.sampling));
    let rules = (!slice.rule.positions.is_empty()).then(|| {
        let rules: Vec<_> = slice.rule.positions.iter().map(|rule| encode_rule(builder, rule)).collect();
        builder.create_vector(&rules)
    });
    let window_blocks = (!slice.window_blocks.is_empty()).then(|| builder.create_vector(&slice.window_blocks));
    let hidden_states = (!slice.hidden_states.is_empty()).then(|| builder.create_vector(&slice.hidden_states));
    wire::Slice::create(
        builder,
        &wire::SliceArgs {
            sequence: slice.sequence.0,
            attempt: slice.attempt.0,
            position: slice.position,
            count: slice.count,
            prompt_tokens: slice.prompt_tokens,
            tokens,
            blocks,
            logits,
            scored,
            alternatives: slice.rule.alternatives,
            sampling,
            rules,
            hidden_states,
            window_first: slice.window_first,
            window_blocks,
        },
    )
}

fn encode_sampling<'a>(builder: &mut Builder<'a>, sampling: &Sampling) -> WIPOffset<wire::Sampling<'a>> {
    wire::Sampling::create(
        builder,
        &wire::SamplingArgs {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            typical_p: sampling.typical_p,
            top_n_sigma: sampling.top_n_sigma,
            xtc_probability: sampling.xtc_probability,
            xtc_threshold: sampling.xtc_threshold,
            seed: sampling.seed,
            choice: sampling.choice,
        },
    )
}

fn encode_rule<'a>(builder: &mut Builder<'a>, rule: &PositionRule) -> WIPOffset<wire::PositionRule<'a>> {
    let adjustments = (!rule.adjustments.is_empty()).then(|| {
        let changes = rule.adjustments.iter();
        let changes: Vec<_> = changes
            .map(|change| wire::Adjustment::new(change.token, change.bias, change.repetition, change.penalty))
            .collect();
        builder.create_vector(&changes)
    });
    let mask = rule.mask.as_ref().map(|mask| encode_mask(builder, mask));
    wire::PositionRule::create(builder, &wire::PositionRuleArgs { adjustments, mask })
}

fn encode_mask<'a>(builder: &mut Builder<'a>, mask: &TokenMask) -> WIPOffset<wire::Mask<'a>> {
    let mut args = wire::MaskArgs::default();
    match mask {
        TokenMask::Only(tokens) => args.only = Some(builder.create_vector(tokens)),
        TokenMask::Without(tokens) => args.without = Some(builder.create_vector(tokens)),
        TokenMask::Bits(bytes) => args.bits = Some(builder.create_vector(bytes)),
    }
    wire::Mask::create(builder, &args)
}

type SpentVector<'a> = WIPOffset<flatbuffers::Vector<'a, flatbuffers::ForwardsUOffset<wire::Spent<'a>>>>;

fn encode_spent<'a>(builder: &mut Builder<'a>, spent: &[Spent]) -> SpentVector<'a> {
    let spent: Vec<_> = spent
        .iter()
        .map(|spent| {
            let args = wire::SpentArgs {
                slot: spent.slot,
                rows: spent.rows,
                compute_us: spent.compute_us,
                queue_us: spent.queue_us,
            };
            wire::Spent::create(builder, &args)
        })
        .collect();
    builder.create_vector(&spent)
}

fn encode_tokens<'a>(builder: &mut Builder<'a>, tokens: &Tokens) -> WIPOffset<wire::Tokens<'a>> {
    let chosen: Vec<_> = tokens.chosen.iter().map(|chosen| encode_chosen(builder, chosen)).collect();
    let chosen = Some(builder.create_vector(&chosen));
    let spent = Some(encode_spent(builder, &tokens.spent));
    let hidden_states = (!tokens.hidden_states.is_empty()).then(|| {
        let states: Vec<_> = tokens.hidden_states.iter().map(|state| encode_hidden_state(builder, state)).collect();
        builder.create_vector(&states)
    });
    wire::Tokens::create(
        builder,
        &wire::TokensArgs {
            generation: tokens.generation.0,
            epoch: tokens.epoch.0,
            step: tokens.step.0,
            chosen,
            spent,
            hidden_states,
        },
    )
}

fn encode_hidden_state<'a>(builder: &mut Builder<'a>, state: &HiddenState) -> WIPOffset<wire::HiddenState<'a>> {
    let HiddenState { sequence, attempt, position, .. } = *state;
    let values = Some(builder.create_vector(&state.values));
    let args = wire::HiddenStateArgs { sequence: sequence.0, attempt: attempt.0, position, values };
    wire::HiddenState::create(builder, &args)
}

fn encode_chosen<'a>(builder: &mut Builder<'a>, chosen: &Chosen) -> WIPOffset<wire::Chosen<'a>> {
    let alternatives = (!chosen.alternatives.is_empty()).then(|| {
        let alternatives = chosen.alternatives.iter();
        let alternatives: Vec<_> =
            alternatives.map(|other| wire::Alternative::new(other.token, other.logprob)).collect();
        builder.create_vector(&alternatives)
    });
    wire::Chosen::create(
        builder,
        &wire::ChosenArgs {
            sequence: chosen.sequence.0,
            attempt: chosen.attempt.0,
            position: chosen.position,
            token: chosen.token,
            logprob: chosen.logprob,
            rank: chosen.rank,
            alternatives,
        },
    )
}

fn encode_refusal<'a>(builder: &mut Builder<'a>, refusal: &Refusal) -> WIPOffset<wire::Refusal<'a>> {
    let reason = Some(builder.create_string(&refusal.reason));
    wire::Refusal::create(
        builder,
        &wire::RefusalArgs {
            generation: refusal.generation.0,
            epoch: refusal.epoch.0,
            step: refusal.step.0,
            slot: refusal.slot,
            reason,
            passing: refusal.passing,
            epoch_known: refusal.epoch_known.0,
        },
    )
}
