//! Text against llama.cpp's test vocabularies: every case of every vocabulary that baton reads, to the token.
//!
//! `etc/vocabularies` fetches the files, with the cases beside them, into the target folder. `data/vocabularies.json`
//! has further texts, with the tokens that SentencePiece and the `tokenizers` package make of them (`etc/golden`).

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use gateway::text::{Detokenizer, Special, TextError, Tokenizer, Vocabulary};
use proptest::prelude::*;
use serde::Deserialize;
use stages::gguf::GgufHeader;

/// The vocabularies with cases.
const WITH_CASES: &[&str] = &[
    "bert-bge",
    "command-r",
    "deepseek-coder",
    "deepseek-llm",
    "falcon",
    "gemma-4",
    "gpt-2",
    "llama-bpe",
    "llama-spm",
    "mpt",
    "phi-3",
    "qwen2",
    "qwen35",
    "refact",
    "starcoder",
];
/// Lies between two texts in a file of cases.
const BETWEEN: &str = "\n__ggml_vocab_test__\n";

/// `data/vocabularies.json`.
#[derive(Deserialize)]
struct Golden {
    texts: Vec<String>,
    vocabularies: Vec<GoldenVocabulary>,
}

#[derive(Deserialize)]
struct GoldenVocabulary {
    name: String,
    /// The tokens of each text, without bos and eos. `None` where the reference loses text.
    ids: Vec<Option<Vec<u32>>>,
}

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("vocabularies");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/vocabularies");
    let run = Command::new("python3").arg(script).arg(&folder).output().expect("python3 runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    folder
});

static SPM: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer("llama-spm"));
static GEMMA: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer("gemma-4"));

fn vocabulary(name: &str) -> Vocabulary {
    let bytes = std::fs::read(FOLDER.join(format!("ggml-vocab-{name}.gguf"))).unwrap();
    Vocabulary::from_metadata(&GgufHeader::parse(&bytes).unwrap().metadata).unwrap()
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::new(&vocabulary(name)).unwrap()
}

/// The texts of a vocabulary's cases, with their tokens.
fn cases(name: &str) -> Vec<(String, Vec<u32>)> {
    let read = |ending: &str| std::fs::read_to_string(FOLDER.join(format!("ggml-vocab-{name}.gguf.{ending}"))).unwrap();
    let (texts, ids) = (read("inp"), read("out"));
    // A separator may follow the last text, too.
    let texts: Vec<&str> = texts.strip_suffix(BETWEEN).unwrap_or(&texts).split(BETWEEN).collect();
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(texts.len(), ids.len(), "{name}");
    let parse = |line: &&str| line.split_whitespace().map(|id| id.parse().unwrap()).collect();
    texts.into_iter().map(str::to_owned).zip(ids.iter().map(parse)).collect()
}

/// The text that a stream of `ids` gives, piece by piece.
fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut detokenizer = Detokenizer::new(tokenizer);
    ids.iter().map(|&id| detokenizer.push(id)).collect()
}

#[test]
fn every_case_of_llama_cpp_has_its_tokens() {
    let mut checked = 0;
    for name in WITH_CASES {
        let tokenizer = tokenizer(name);
        for (text, ids) in cases(name) {
            assert_eq!(tokenizer.encode(&text, Special::Plain).unwrap(), ids, "{name}: {text:?}");
            checked += 1;
        }
    }
    println!("{checked} cases of {} vocabularies", WITH_CASES.len());
    assert!(checked >= 650, "{checked}");
}

#[test]
fn tokens_give_their_text_back() {
    // WordPiece changes the text.
    for name in WITH_CASES.iter().filter(|name| **name != "bert-bge") {
        let tokenizer = tokenizer(name);
        for (text, ids) in cases(name) {
            assert_eq!(tokenizer.decode(&ids), text, "{name}");
            let streamed = stream(&tokenizer, &ids);
            assert!(streamed == text || streamed.strip_prefix(' ') == Some(&text), "{name}: {text:?}");
        }
    }
}

#[test]
fn texts_have_the_tokens_of_sentencepiece_and_of_tokenizers() {
    let golden: Golden = serde_json::from_str(include_str!("data/vocabularies.json")).unwrap();
    let mut checked = 0;
    for GoldenVocabulary { name, ids } in &golden.vocabularies {
        let tokenizer = tokenizer(name);
        assert_eq!(ids.len(), golden.texts.len());
        for (text, ids) in golden.texts.iter().zip(ids) {
            let Some(ids) = ids else { continue };
            assert_eq!(&tokenizer.encode(text, Special::Plain).unwrap(), ids, "{name}: {text:?}");
            checked += 1;
        }
    }
    assert!(checked >= 450, "{checked}");
}

#[test]
fn a_vocabulary_without_a_rule_for_words_is_refused() {
    for name in ["aquila", "gpt-neox"] {
        let bytes = std::fs::read(FOLDER.join(format!("ggml-vocab-{name}.gguf"))).unwrap();
        let error = Vocabulary::from_metadata(&GgufHeader::parse(&bytes).unwrap().metadata).unwrap_err();
        assert!(format!("{error:?}").contains("tokenizer.ggml.pre"), "{name}: {error:?}");
    }
}

#[test]
fn white_space_behind_phi_3_s_marks_goes_with_them() {
    let tokenizer = tokenizer("phi-3");
    let spaced = tokenizer.encode("<|user|>\n Hello<|end|> \n<|assistant|>\n", Special::Parse).unwrap();
    assert_eq!(spaced, tokenizer.encode("<|user|>Hello<|end|><|assistant|>", Special::Parse).unwrap());
    assert_eq!(tokenizer.decode(&spaced), "Hello");
    // Only those of a template, never those that a client spells.
    let plain = tokenizer.encode("<|user|>\n Hello", Special::Plain).unwrap();
    assert_eq!(tokenizer.decode(&plain), "<|user|>\n Hello");
}

#[test]
fn gemma_4_ends_turns_with_tokens_of_its_own_and_writes_html() {
    let vocabulary = vocabulary("gemma-4");
    let spellings: Vec<&str> = vocabulary.stops().iter().map(|&id| vocabulary.spelling(Some(id))).collect();
    assert_eq!(spellings, ["<eos>", "<|tool_response>", "<turn|>"]);
    assert!(GEMMA.add_bos());
    let ids = GEMMA.encode("<s>a</s>\n\n\n<b>", Special::Plain).unwrap();
    assert_eq!(GEMMA.decode(&ids), "<s>a</s>\n\n\n<b>");
}

#[test]
fn a_text_behind_other_text_gets_no_space_in_front() {
    let hello = SPM.encode("Hello", Special::Plain).unwrap();
    assert_eq!(SPM.token_spelling(hello[0]), "▁Hello");
    let hello = SPM.encode_continuation("Hello", Special::Plain).unwrap();
    assert_eq!(SPM.token_spelling(hello[0]), "Hello");
    assert_eq!(SPM.token_piece(1), b"<s>");
    assert_eq!(SPM.token_bytes(3 + 0xE2), [0xE2]);
}

#[test]
fn texts_that_are_embedded_begin_and_end_with_their_tokens() {
    for (name, bos, end) in [("bert-bge", "[CLS]", "[SEP]"), ("nomic-bert-moe", "<s>", "</s>")] {
        let vocabulary = vocabulary(name);
        let tokenizer = Tokenizer::new(&vocabulary).unwrap();
        assert!(tokenizer.add_bos());
        assert_eq!(vocabulary.spelling(tokenizer.bos()), bos);
        assert_eq!(vocabulary.spelling(tokenizer.appended_eos()), end);
    }
}

#[test]
fn templates_for_occasions_are_read_by_name() {
    let vocabulary = vocabulary("command-r");
    assert_eq!(vocabulary.named_templates().map(|(name, _)| name).collect::<Vec<_>>(), ["rag", "tool_use"]);
}

proptest! {
    #[test]
    fn any_text_comes_back_from_its_tokens(text in "(\\PC|[ \n\t]){0,60}") {
        for tokenizer in [&*SPM, &*GEMMA] {
            // The sign that stands for a space comes back as one.
            let expected = text.replace('\u{2581}', " ");
            let ids = match tokenizer.encode(&text, Special::Plain) {
                Ok(ids) => ids,
                Err(TextError::Unspellable { found }) => return Err(TestCaseError::fail(found)),
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            };
            prop_assert_eq!(tokenizer.decode(&ids), expected.as_str());
            let behind = tokenizer.encode_continuation(&text, Special::Plain).unwrap();
            prop_assert_eq!(stream(tokenizer, &behind), expected);
        }
    }

    #[test]
    fn a_stream_of_any_tokens_adds_up_to_their_bytes(ids in proptest::collection::vec(0_u32..32_000, 0..40)) {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| SPM.token_bytes(id)).copied().collect();
        let mut streamed = stream(&SPM, &ids);
        let whole = String::from_utf8_lossy(&bytes);
        if streamed.len() < whole.len() {
            // A character that never became complete is no text in a stream.
            streamed.push(char::REPLACEMENT_CHARACTER);
        }
        prop_assert_eq!(streamed, whole);
    }

    #[test]
    fn no_text_becomes_a_control_token(text in "(<s>|</s>|<unk>|<0x0A>|[a-z ]|<|>|s|/){0,12}") {
        for tokenizer in [&*SPM, &*GEMMA] {
            let ids = tokenizer.encode(&text, Special::Plain).unwrap();
            prop_assert!(ids.iter().all(|&id| !tokenizer.token_bytes(id).is_empty()));
            prop_assert_eq!(tokenizer.decode(&ids), text.as_str());
        }
    }
}
