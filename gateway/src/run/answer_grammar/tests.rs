//! Walks through the grammars of calls whose marks are control tokens: what they allow is read as calls that fit their
//! schemas, and no other control token is ever chosen.

use engine::generate::NextTokens;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use schema::frame::TokenMask;
use serde_json::{Value, json};

use super::*;
use crate::text::{
    AnswerPart, AnswerRequest, Conversation, MarkedDetokenizer, Message, PromptEnding, Tool, ToolChoice, Vocabulary,
    VocabularyFields,
};

/// The formats whose marks are control tokens in a vocabulary of their families.
const FORMATS: &[ToolFormat] = &[
    ToolFormat::Harmony,
    ToolFormat::DeepSeekTags,
    ToolFormat::Glm,
    ToolFormat::Kimi,
    ToolFormat::DeepSeekFenced,
    ToolFormat::DeepSeek,
    ToolFormat::Gemma,
    ToolFormat::FunctionGemma,
    ToolFormat::Mistral,
    ToolFormat::MistralArray,
    ToolFormat::Lfm,
    ToolFormat::Phi,
    ToolFormat::Cohere,
    ToolFormat::Hermes,
];
/// Control tokens that are no marks of calls. The second one ends an answer.
const OTHER: [&str; 2] = ["<|im_start|>", "<|im_end|>"];
/// Tokens after which a walk makes for the end of its text.
const WALK_TOKENS: usize = 40;
/// Tokens after which a walk has failed.
const WALK_TOKENS_MAX: usize = 4000;

/// A model of one token for each byte and each mark.
struct Model {
    tokenizer: Arc<Tokenizer>,
    marks: ControlMarks,
    format: AnswerFormat,
    grammars: AnswerGrammars,
}

// === impl Model ===

impl Model {
    fn new(tools: ToolFormat) -> Self {
        let format = AnswerFormat { tools, reasoning: None };
        let is_tag = |mark: &&str| mark.starts_with(['<', '[']) && mark.ends_with(['>', ']']);
        let mut control: Vec<&str> = format.marks(true).into_iter().filter(is_tag).chain(OTHER).collect();
        control.sort_unstable();
        control.dedup();
        let vocabulary = Vocabulary::new(VocabularyFields::bytes_and(&control)).unwrap();
        let tokenizer = Arc::new(Tokenizer::new(&vocabulary).unwrap());
        let marks = ControlMarks::of(&vocabulary, &format.marks(true));
        let compiler = Arc::new(Grammars::new(&tokenizer));
        let grammars = AnswerGrammars::new(&tokenizer, compiler, format, &marks, None);
        Self { tokenizer, marks, format, grammars }
    }

    fn plan(&self, tool_choice: ToolChoice) -> AnswerPlan {
        let parameters = json!({
            "type": "object",
            "properties": {"n": {"type": "integer"}, "unit": {"enum": ["m", "km"]}},
            "required": ["n", "unit"],
            "additionalProperties": false,
        });
        let tool = |name: &str| Tool {
            name: name.to_owned(),
            parameters: Some(parameters.clone()),
            strict: true,
            ..Tool::default()
        };
        let conversation = Conversation {
            messages: vec![Message::text("user", "go")],
            tools: vec![tool("walk"), tool("run")],
            template_kwargs: serde_json::Map::new(),
            ending: PromptEnding::Generation,
            template: None,
        };
        let request = AnswerRequest { tool_choice, ..AnswerRequest::from(conversation) };
        AnswerPlan::new(self.format, &request, "")
    }

    /// Walks at random through the grammar of answers by `plan`, to its end. Returns the parts of the answer.
    fn walk(&self, plan: &AnswerPlan, seed: u64) -> Vec<AnswerPart> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut place = self.grammars.of(plan, None).unwrap().unwrap().begin();
        let (mut decoder, mut parser) = (MarkedDetokenizer::new(&self.tokenizer, self.marks.clone()), plan.parser());
        let (mut parts, mut length) = (Vec::new(), 0);
        loop {
            let next = match place.next().unwrap() {
                NextTokens::End => break,
                NextTokens::Forced(tokens) => tokens,
                NextTokens::Masked(mask) => vec![self.choose(&mask, length >= WALK_TOKENS, &mut random)],
                NextTokens::Any => panic!("any token is allowed"),
            };
            if self.tokenizer.stop_tokens().contains(&next[0]) {
                break;
            }
            for token in next {
                assert!(place.accept(token).unwrap(), "{token} is not taken");
                parts.extend(parser.push(&decoder.push(token)));
                length += 1;
            }
            assert!(length < WALK_TOKENS_MAX, "{:?}: no end", self.format.tools);
        }
        parts.extend(parser.finish());
        parts
    }

    fn choose(&self, mask: &TokenMask, hurry: bool, random: &mut StdRng) -> u32 {
        let allowed: Vec<u32> = (0..self.tokenizer.vocab_size() as u32).filter(|token| mask.allows(*token)).collect();
        let (control, text): (Vec<u32>, Vec<u32>) =
            allowed.iter().partition(|token| self.tokenizer.token_bytes(**token).is_empty());
        for token in &control {
            let is_mark = self.marks.spelling(*token).is_some();
            assert!(is_mark || self.tokenizer.stop_tokens().contains(token), "control token {token} is allowed");
        }
        let closes =
            |token: &u32| matches!(self.tokenizer.token_bytes(*token), b"\"" | b"}" | b"]" | b")" | b"," | b" ");
        let closing: Vec<u32> = text.iter().copied().filter(closes).chain(control).collect();
        let from = if closing.is_empty() || !hurry && random.random_bool(0.7) { &allowed } else { &closing };
        *from.choose(random).unwrap()
    }
}

/// The names and the arguments of the calls in `parts`.
fn calls(parts: &[AnswerPart]) -> Vec<(String, Value)> {
    let mut calls: Vec<(String, String)> = Vec::new();
    for part in parts {
        match part {
            AnswerPart::Call { name } => calls.push((name.clone(), String::new())),
            AnswerPart::Arguments(more) => calls.last_mut().unwrap().1.push_str(more),
            _ => {}
        }
    }
    let parse = |(name, arguments): (String, String)| {
        (name, serde_json::from_str(&arguments).unwrap_or_else(|error| panic!("{arguments}: {error}")))
    };
    calls.into_iter().map(parse).collect()
}

fn assert_fit(format: ToolFormat, parts: &[AnswerPart]) {
    for (name, arguments) in calls(parts) {
        assert!(["walk", "run"].contains(&name.as_str()), "{format:?}: {name}");
        let keys: Vec<&String> = arguments.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["n", "unit"], "{format:?}: {arguments}");
        assert!(arguments["n"].is_number() && ["m", "km"].map(Value::from).contains(&arguments["unit"]), "{format:?}");
    }
}

#[test]
fn required_calls_are_called_in_every_format_of_control_tokens() {
    for format in FORMATS {
        let model = Model::new(*format);
        let plan = model.plan(ToolChoice::Required);
        for seed in 0..8 {
            let parts = model.walk(&plan, seed);
            assert!(!calls(&parts).is_empty(), "{format:?}: {parts:?}");
            assert_fit(*format, &parts);
            let is_text = |part: &AnswerPart| matches!(part, AnswerPart::Text(text) if !text.trim().is_empty());
            assert!(*format == ToolFormat::Harmony || !parts.iter().any(is_text), "{format:?}: {parts:?}");
        }
    }
}

#[test]
fn a_named_call_is_the_only_one() {
    for format in FORMATS {
        let model = Model::new(*format);
        let plan = model.plan(ToolChoice::Allowed { names: vec!["run".to_owned()], required: true });
        let parts = model.walk(&plan, 3);
        let names: Vec<String> = calls(&parts).into_iter().map(|(name, _)| name).collect();
        assert!(!names.is_empty() && names.iter().all(|name| name == "run"), "{format:?}: {parts:?}");
    }
}

#[test]
fn strict_calls_beside_text_fit_their_schemas() {
    for format in FORMATS {
        let model = Model::new(*format);
        let plan = model.plan(ToolChoice::Auto);
        let mut called = 0;
        for seed in 0..12 {
            let parts = model.walk(&plan, seed);
            called += calls(&parts).len();
            assert_fit(*format, &parts);
        }
        assert!(called > 0, "{format:?}: no walk has a call");
    }
}

#[test]
fn going_back_over_a_mark_leaves_no_trace() {
    for format in FORMATS {
        let model = Model::new(*format);
        let plan = model.plan(ToolChoice::Auto);
        let grammar = model.grammars.of(&plan, None).unwrap().unwrap();
        let mut random = StdRng::seed_from_u64(5);
        let mut place = grammar.begin();
        let mut path: Vec<u32> = Vec::new();
        for _ in 0..80 {
            let next = match place.next().unwrap() {
                NextTokens::Masked(mask) => vec![model.choose(&mask, random.random_bool(0.5), &mut random)],
                NextTokens::Forced(tokens) => tokens,
                NextTokens::Any | NextTokens::End => break,
            };
            if model.tokenizer.stop_tokens().contains(&next[0]) {
                break;
            }
            for token in next {
                assert!(place.accept(token).unwrap());
                path.push(token);
            }
            let back = if random.random_bool(0.4) { random.random_range(0..=path.len().min(9)) } else { 0 };
            place.rollback(back);
            path.truncate(path.len() - back);
            let mut fresh = grammar.begin();
            path.iter().for_each(|token| assert!(fresh.accept(*token).unwrap()));
            assert_eq!(place.next(), fresh.next(), "{format:?}: {path:?}");
        }
    }
}
