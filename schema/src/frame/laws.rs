//! The laws of frames: decoding returns what was encoded, and no input makes the decoder panic or return a value over
//! the bounds.

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::{ADJUSTMENTS_MAX, ALTERNATIVES_MAX, HEADER_BYTES_MAX, HIDDEN_MAX, MASK_BYTES_MAX};
use super::{
    Adjustment, Alternative, Chosen, Frame, FrameError, HIDDEN_STATE_BYTES_MAX, HiddenState, Hop, PositionRule,
};
use super::{ROWS_MAX, RULE_BYTES_MAX, SLICES_MAX, SPENT_MAX, TokenMask, TokenRule, Tokens};
use super::{Refusal, Sampling, Slice, Spent};
use crate::{Attempt, Epoch, Generation, SequenceId, Step};

// === strategies for legal frames ===

fn sampling() -> impl Strategy<Value = Sampling> {
    let share = || 0.0_f32..=1.0;
    let filters = (any::<u32>(), share(), share(), share(), 0.0_f32..10.0);
    (0.0_f32..100.0, filters, (share(), share()), any::<u64>(), any::<u32>()).prop_map(
        |(temperature, (top_k, top_p, min_p, typical_p, top_n_sigma), xtc, seed, choice)| Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            typical_p,
            top_n_sigma,
            xtc_probability: xtc.0,
            xtc_threshold: xtc.1,
            seed,
            choice,
        },
    )
}

fn ascending(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::btree_set(any::<u32>(), count).prop_map(|set| set.into_iter().collect())
}

fn mask() -> impl Strategy<Value = Option<TokenMask>> {
    prop_oneof![
        Just(None),
        ascending(0..9).prop_map(|tokens| Some(TokenMask::Only(tokens))),
        ascending(0..9).prop_map(|tokens| Some(TokenMask::Without(tokens))),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Some(TokenMask::Bits(bytes))),
    ]
}

fn position() -> impl Strategy<Value = PositionRule> {
    let bias = prop_oneof![-100.0_f32..100.0, Just(f32::NEG_INFINITY)];
    let changes = prop::collection::btree_map(any::<u32>(), (bias, 0.1_f32..3.0, -2.0_f32..2.0), 0..5);
    (changes, mask()).prop_map(|(changes, mask)| {
        let change = |(token, (bias, repetition, penalty))| Adjustment { token, bias, repetition, penalty };
        PositionRule { adjustments: changes.into_iter().map(change).collect(), mask }
    })
}

fn rule(chosen: usize) -> impl Strategy<Value = TokenRule> {
    let positions = prop_oneof![Just(0), Just(chosen)].prop_flat_map(|count| prop::collection::vec(position(), count));
    (sampling(), 0..=ALTERNATIVES_MAX, positions).prop_map(|(sampling, alternatives, positions)| TokenRule {
        sampling,
        alternatives,
        positions,
    })
}

fn slice(with_tokens: bool) -> impl Strategy<Value = Slice> {
    let asked = (1_u32..40).prop_flat_map(|count| {
        let offsets = prop::sample::subsequence((0..count).collect::<Vec<_>>(), 0..=count as usize);
        (Just(count), offsets, any::<bool>()).prop_map(|(count, offsets, embeds)| {
            if embeds { (count, Vec::new(), offsets) } else { (count, offsets, Vec::new()) }
        })
    });
    let scored = asked.prop_flat_map(|(count, logits, hidden_states)| {
        let scored = prop::collection::vec(any::<u32>(), 0..=logits.len());
        (Just(count), Just(logits), scored, Just(hidden_states))
    });
    scored.prop_flat_map(move |(count, logits, scored, hidden_states)| {
        let tokens = prop::collection::vec(any::<u32>(), if with_tokens { count as usize } else { 0 });
        let blocks = prop::collection::vec(any::<u32>(), 0..20);
        let window = (any::<u32>(), prop::collection::vec(any::<u32>(), 0..20));
        let ids = (any::<u64>(), any::<u32>(), 0..u32::MAX - 100, any::<u32>());
        let rule = rule(logits.len() - scored.len());
        (ids, tokens, blocks, window, rule).prop_map(move |(ids, tokens, blocks, window, rule)| Slice {
            sequence: SequenceId(ids.0),
            attempt: Attempt(ids.1),
            position: ids.2,
            count,
            prompt_tokens: ids.3,
            tokens,
            blocks,
            logits: logits.clone(),
            scored: scored.clone(),
            rule,
            hidden_states: hidden_states.clone(),
            window_first: window.0,
            window_blocks: window.1,
        })
    })
}

fn spent() -> impl Strategy<Value = Vec<Spent>> {
    let spent = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let spent = spent.prop_map(|(slot, rows, compute_us, queue_us)| Spent { slot, rows, compute_us, queue_us });
    prop::collection::vec(spent, 0..6)
}

fn hop() -> impl Strategy<Value = Frame> {
    let hidden = prop_oneof![Just(0), 1..=HIDDEN_MAX];
    let slices = hidden.prop_flat_map(|hidden| (Just(hidden), prop::collection::vec(slice(hidden == 0), 0..6)));
    let ids = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>(), any::<u32>());
    (ids, slices, spent()).prop_map(|(ids, (hidden, slices), spent)| {
        let rows = slices.iter().map(|slice| slice.count).sum();
        let (generation, gateway, epoch, step, slot) = (Generation(ids.0), ids.1, Epoch(ids.2), Step(ids.3), ids.4);
        Frame::Hop(Hop { generation, gateway, epoch, step, slot, rows, hidden, slices, spent })
    })
}

fn chosen() -> impl Strategy<Value = Chosen> {
    let logprob = || -1e9_f32..=0.0;
    let alternative = (any::<u32>(), logprob()).prop_map(|(token, logprob)| Alternative { token, logprob });
    let alternatives = prop::collection::vec(alternative, 0..=ALTERNATIVES_MAX as usize);
    (any::<u64>(), any::<[u32; 4]>(), logprob(), alternatives).prop_map(
        |(sequence, [attempt, position, token, rank], logprob, alternatives)| Chosen {
            sequence: SequenceId(sequence),
            attempt: Attempt(attempt),
            position,
            token,
            logprob,
            rank,
            alternatives,
        },
    )
}

fn hidden_state() -> impl Strategy<Value = HiddenState> {
    (any::<u64>(), any::<u32>(), any::<u32>(), prop::collection::vec(-1e9_f32..1e9, 0..40)).prop_map(
        |(sequence, attempt, position, values)| HiddenState {
            sequence: SequenceId(sequence),
            attempt: Attempt(attempt),
            position,
            values,
        },
    )
}

fn tokens() -> impl Strategy<Value = Frame> {
    let results = (prop::collection::vec(chosen(), 0..20), prop::collection::vec(hidden_state(), 0..5));
    (any::<[u64; 3]>(), results, spent()).prop_map(|([generation, epoch, step], (chosen, hidden_states), spent)| {
        let (generation, epoch, step) = (Generation(generation), Epoch(epoch), Step(step));
        Frame::Tokens(Tokens { generation, epoch, step, chosen, spent, hidden_states })
    })
}

fn refusal() -> impl Strategy<Value = Frame> {
    (any::<[u64; 3]>(), any::<u32>(), any::<String>()).prop_map(|([generation, epoch, step], slot, reason)| {
        let (generation, epoch, step) = (Generation(generation), Epoch(epoch), Step(step));
        Frame::Refusal(Refusal { generation, epoch, step, slot, reason, passing: slot % 2 == 0, epoch_known: epoch })
    })
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![4 => hop(), 2 => tokens(), 1 => refusal()]
}

// === bounds of a decoded frame ===

fn is_within_bounds(frame: &Frame) -> bool {
    let spent = |spent: &[Spent]| spent.len() <= SPENT_MAX;
    match frame {
        Frame::Hop(hop) => {
            let counts: u64 = hop.slices.iter().map(|slice| u64::from(slice.count)).sum();
            hop.slices.len() <= SLICES_MAX
                && hop.rows <= ROWS_MAX
                && counts == u64::from(hop.rows)
                && hop.hidden <= HIDDEN_MAX
                && hop.slices.iter().all(|slice| slice_is_within_bounds(slice, hop.hidden == 0))
                && spent(&hop.spent)
        }
        Frame::Tokens(tokens) => {
            let values: usize = tokens.hidden_states.iter().map(|state| state.values.len()).sum();
            tokens.chosen.len() <= ROWS_MAX as usize && spent(&tokens.spent) && 4 * values <= HEADER_BYTES_MAX
        }
        Frame::Refusal(refusal) => refusal.reason.len() <= HEADER_BYTES_MAX,
    }
}

fn slice_is_within_bounds(slice: &Slice, with_tokens: bool) -> bool {
    slice.position.checked_add(slice.count).is_some()
        && slice.tokens.len() == if with_tokens { slice.count as usize } else { 0 }
        && slice.blocks.len().max(slice.window_blocks.len()) <= HEADER_BYTES_MAX / size_of::<u32>()
        && slice.logits.len() <= slice.count as usize
        && slice.logits.iter().all(|offset| *offset < slice.count)
        && slice.scored.len() <= slice.logits.len()
        && slice.hidden_states.iter().all(|offset| *offset < slice.count)
        && (slice.hidden_states.is_empty() || slice.logits.is_empty())
        && slice.rule.sampling.check().is_ok()
        && slice.rule.alternatives <= ALTERNATIVES_MAX
        && [0, slice.logits.len() - slice.scored.len()].contains(&slice.rule.positions.len())
        && slice.rule.positions.iter().all(position_is_within_bounds)
}

fn position_is_within_bounds(rule: &PositionRule) -> bool {
    let ascending = |tokens: &[u32]| tokens.windows(2).all(|pair| pair[0] < pair[1]);
    let mask = match &rule.mask {
        None => true,
        Some(TokenMask::Only(tokens) | TokenMask::Without(tokens)) => ascending(tokens),
        Some(TokenMask::Bits(bytes)) => bytes.len() <= MASK_BYTES_MAX,
    };
    let tokens: Vec<_> = rule.adjustments.iter().map(|change| change.token).collect();
    let usable = |change: &Adjustment| !change.apply(0.0).is_nan() && change.apply(1.0) < f32::INFINITY;
    mask && tokens.len() <= ADJUSTMENTS_MAX && ascending(&tokens) && rule.adjustments.iter().all(usable)
}

fn decodes_to_nothing_or_something_sane(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(frame) = Frame::decode(bytes) {
        prop_assert!(is_within_bounds(&frame), "{frame:?}");
        // NaN log probabilities are legal and unequal to themselves, so the encoded bytes are compared.
        prop_assert_eq!(Frame::decode(&frame.encode()).map(|again| again.encode()), Ok(frame.encode()));
    }
    Ok(())
}

// === laws ===

proptest! {
    #[test]
    fn decoding_reverses_encoding(frame in frame()) {
        prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }

    #[test]
    fn it_decodes_at_any_address(frame in frame(), shift in 0_usize..16) {
        let bytes = [vec![0; shift], frame.encode()].concat();
        prop_assert_eq!(Frame::decode(&bytes[shift..]), Ok(frame));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        decodes_to_nothing_or_something_sane(&bytes)?;
    }

    #[test]
    fn random_bytes_behind_the_right_identifier_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 8..600),
        root in 0_u8..64,
    ) {
        bytes[..8].copy_from_slice(&[root, 0, 0, 0, b'B', b'T', b'N', b'2']);
        decodes_to_nothing_or_something_sane(&bytes)?;
    }

    #[test]
    fn changed_bytes_never_panic_or_exceed_the_bounds(
        frame in frame(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = frame.encode();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] ^= value;
        }
        decodes_to_nothing_or_something_sane(&bytes)?;
    }

    #[test]
    fn a_field_changed_to_an_extreme_never_panics(
        frame in frame(),
        at in any::<prop::sample::Index>(),
        value in prop::sample::select(vec![0_u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, 1 << 20, 4097]),
    ) {
        let mut bytes = frame.encode();
        let at = at.index(bytes.len() / 4) * 4;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        decodes_to_nothing_or_something_sane(&bytes)?;
    }

    #[test]
    fn a_frame_cut_short_or_grown_never_panics(
        frame in frame(),
        cut in any::<prop::sample::Index>(),
        more in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let bytes = frame.encode();
        decodes_to_nothing_or_something_sane(&bytes[..cut.index(bytes.len())])?;
        decodes_to_nothing_or_something_sane(&[&bytes[..], &more].concat())?;
    }

    #[test]
    fn activations_fit_their_hop_and_nothing_else(frame in hop(), off in 1_usize..9) {
        let Frame::Hop(hop) = frame else { unreachable!() };
        let bytes = hop.rows as usize * hop.hidden as usize * 4;
        prop_assert_eq!(hop.check_activations(bytes), Ok(()));
        let refused = matches!(hop.check_activations(bytes + off), Err(FrameError::Activations { .. }));
        prop_assert!(refused);
        prop_assert!(bytes < off || hop.check_activations(bytes - off).is_err());
    }
}

// === bounds, one by one ===

fn smallest_hop() -> Hop {
    let slice = Slice {
        sequence: SequenceId(1),
        attempt: Attempt(0),
        position: 0,
        count: 1,
        prompt_tokens: 1,
        tokens: vec![9],
        blocks: vec![0],
        logits: vec![0],
        scored: Vec::new(),
        rule: TokenRule::GREEDY,
        hidden_states: Vec::new(),
        window_first: 0,
        window_blocks: Vec::new(),
    };
    Hop {
        generation: Generation(1),
        gateway: 0,
        epoch: Epoch(1),
        step: Step(1),
        slot: 0,
        rows: 1,
        hidden: 0,
        slices: vec![slice],
        spent: Vec::new(),
    }
}

#[test]
fn the_largest_micro_batch_goes_through() {
    let mut hop = smallest_hop();
    let mut slice = hop.slices.remove(0);
    (slice.count, slice.tokens, slice.blocks) = (4, vec![1; 4], vec![7; 100]);
    hop.slices = vec![slice; SLICES_MAX];
    hop.rows = ROWS_MAX;
    // As much of rules as a gateway sends.
    let mask = Some(TokenMask::Bits(vec![0x55; 1 << 15]));
    for slice in hop.slices.iter_mut().take(RULE_BYTES_MAX >> 15) {
        slice.rule.positions = vec![PositionRule { adjustments: Vec::new(), mask: mask.clone() }];
    }
    hop.spent = vec![Spent { slot: 1, rows: 2, compute_us: 3, queue_us: 4 }; SPENT_MAX];
    let bytes = Frame::Hop(hop.clone()).encode();
    assert!(bytes.len() <= HEADER_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(Frame::decode(&bytes), Ok(Frame::Hop(hop)));
}

#[test]
fn the_largest_answer_goes_through() {
    let alternatives = vec![Alternative { token: 1, logprob: -0.5 }; ALTERNATIVES_MAX as usize];
    let (sequence, attempt) = (SequenceId(1), Attempt(1));
    let chosen = Chosen { sequence, attempt, position: 1, token: 1, logprob: -0.5, rank: 1, alternatives };
    let chosen = vec![chosen; ROWS_MAX as usize];
    let spent = vec![Spent { slot: 1, rows: 2, compute_us: 3, queue_us: 4 }; SPENT_MAX];
    let (generation, epoch, step) = (Generation(1), Epoch(1), Step(1));
    let answer = Tokens { generation, epoch, step, chosen, spent, hidden_states: Vec::new() };
    let tokens = Frame::Tokens(answer.clone());
    assert_eq!(Frame::decode(&tokens.encode()), Ok(tokens));
    // As many hidden states as a gateway asks for, of a narrow model and of the widest.
    for width in [1024, HIDDEN_MAX as usize] {
        let state = HiddenState { sequence, attempt, position: 1, values: vec![0.5; width] };
        let hidden_states = vec![state; HIDDEN_STATE_BYTES_MAX / (4 * width)];
        let bytes = Frame::Tokens(Tokens { chosen: Vec::new(), hidden_states, ..answer.clone() }).encode();
        assert!(bytes.len() <= HEADER_BYTES_MAX, "{} bytes", bytes.len());
        assert!(Frame::decode(&bytes).is_ok(), "{width} values");
    }
}

#[test]
fn hidden_states_over_their_bounds_are_refused_by_name() {
    let state = |values| HiddenState { sequence: SequenceId(1), attempt: Attempt(0), position: 0, values };
    for (expected, hidden_states) in [
        ("hidden_state.values", vec![state(vec![0.0; HIDDEN_MAX as usize + 1])]),
        ("hidden_state.values", vec![state(vec![f32::NAN])]),
        ("hidden_states", vec![state(Vec::new()); ROWS_MAX as usize + 1]),
    ] {
        let (generation, epoch, step) = (Generation(1), Epoch(1), Step(1));
        let tokens = Tokens { generation, epoch, step, chosen: Vec::new(), spent: Vec::new(), hidden_states };
        match Frame::decode(&Frame::Tokens(tokens).encode()) {
            Err(FrameError::Bound { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn each_field_over_its_bound_is_refused_by_name() {
    let changed: [(&str, fn(&mut Hop)); 22] = [
        ("rows", |hop| hop.slices.clear()),
        ("slices", |hop| hop.slices = vec![hop.slices[0].clone(); SLICES_MAX + 1]),
        ("rows", |hop| hop.rows = 0),
        ("rows", |hop| hop.rows = ROWS_MAX + 1),
        ("rows", |hop| hop.rows = 2),
        ("hidden", |hop| hop.hidden = HIDDEN_MAX + 1),
        ("slice.count", |hop| hop.slices[0].count = 0),
        ("slice.position", |hop| hop.slices[0].position = u32::MAX),
        ("slice.tokens", |hop| hop.slices[0].tokens.push(1)),
        ("slice.logits", |hop| hop.slices[0].logits = vec![1]),
        ("slice.scored", |hop| hop.slices[0].scored = vec![1, 2]),
        ("slice.hidden_states", |hop| hop.slices[0].hidden_states = vec![0]),
        ("slice.hidden_states", |hop| (hop.slices[0].logits, hop.slices[0].hidden_states) = (vec![], vec![1])),
        ("slice.alternatives", |hop| hop.slices[0].rule.alternatives = ALTERNATIVES_MAX + 1),
        ("slice.rules", |hop| hop.slices[0].rule.positions = vec![PositionRule::default(); 2]),
        ("rule.adjustments", |hop| adjust(hop, vec![Adjustment::none(1); ADJUSTMENTS_MAX + 1])),
        ("rule.adjustments", |hop| adjust(hop, vec![Adjustment::none(2), Adjustment::none(1)])),
        ("adjustment", |hop| adjust(hop, vec![Adjustment { repetition: 0.0, ..Adjustment::none(1) }])),
        ("mask", |hop| forbid(hop, TokenMask::Only(vec![3, 3]))),
        ("mask", |hop| forbid(hop, TokenMask::Bits(vec![0; MASK_BYTES_MAX + 1]))),
        ("sampling", |hop| hop.slices[0].rule.sampling.temperature = f32::NAN),
        ("spent", |hop| hop.spent = vec![Spent { slot: 0, rows: 0, compute_us: 0, queue_us: 0 }; SPENT_MAX + 1]),
    ];
    for (expected, change) in changed {
        let mut hop = smallest_hop();
        change(&mut hop);
        match Frame::decode(&Frame::Hop(hop).encode()) {
            Err(FrameError::Bound { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

fn adjust(hop: &mut Hop, adjustments: Vec<Adjustment>) {
    hop.slices[0].rule.positions = vec![PositionRule { adjustments, mask: None }];
}

fn forbid(hop: &mut Hop, mask: TokenMask) {
    hop.slices[0].rule.positions = vec![PositionRule { adjustments: Vec::new(), mask: Some(mask) }];
}

#[test]
fn a_frame_of_another_version_is_refused_by_number() {
    let mut bytes = Frame::Hop(smallest_hop()).encode();
    bytes[7] = b'1';
    let error = Frame::decode(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "frame of version 1: expected 3, that of this version of baton");
}

#[test]
fn bytes_without_the_identifier_are_refused_before_decoding() {
    assert_eq!(Frame::decode(b""), Err(FrameError::Identifier));
    assert_eq!(Frame::decode(b"GET / HTTP/1.1\r\n"), Err(FrameError::Identifier));
    let long = vec![0; HEADER_BYTES_MAX + 1];
    assert_eq!(Frame::decode(&long), Err(FrameError::TooLong { found: HEADER_BYTES_MAX + 1 }));
}

// === generated code ===

/// Digests of `link.fbs` and of `generated.rs` as flatc 25.12.19 made it.
const MADE_TOGETHER: (u64, u64) = (0x7369_2c52_b27d_4852, 0x6065_e5cd_dc10_2070);

/// FNV-1a, 64 bits. It detects that one of the files changed and gives no further guarantee.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Runs on every machine. After a change to one of the two files both must be generated anew, and then this line
/// updated.
#[test]
fn the_schema_and_the_generated_code_were_made_together() {
    let together = (digest(include_str!("../../fbs/link.fbs")), digest(include_str!("generated.rs")));
    assert_eq!(together, MADE_TOGETHER, "regenerate with etc/generate-schema and note the digests here");
}

/// Compares `generated.rs` with the output of flatc for `link.fbs`, on machines that have flatc of this version.
#[test]
fn the_generated_code_is_what_flatc_makes_of_the_schema() {
    let found = Command::new("flatc").arg("--version").output();
    let version = found.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    if !version.as_deref().is_ok_and(|version| version.ends_with(" 25.12.19")) {
        println!("generated.rs was NOT compared: expected flatc 25.12.19 on PATH, found {version:?}");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let fresh = std::env::temp_dir().join(format!("baton-generated-{}.rs", std::process::id()));
    let status = Command::new(root.join("etc/generate-schema")).arg(&fresh).status().unwrap();
    let made = std::fs::read_to_string(&fresh);
    let _ = std::fs::remove_file(&fresh);
    assert!(status.success(), "etc/generate-schema failed");
    let committed = std::fs::read_to_string(root.join("schema/src/frame/generated.rs")).unwrap();
    assert!(
        made.unwrap() == committed,
        "generated.rs is not what etc/generate-schema makes: run it and commit the result"
    );
}
