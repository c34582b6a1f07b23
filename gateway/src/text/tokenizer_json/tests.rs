//! Folders' vocabularies against those of GGUF files, and files that are refused.

use serde_json::{Map, Value as Json, json};

use super::FolderFiles;
use crate::text::alphabet::spell_byte;
use crate::text::{Special, Tokenizer, Vocabulary};

/// A vocabulary of the 256 bytes, `th`, `the` and `Ġthe`, and three added tokens.
fn files() -> FolderFiles {
    let mut vocabulary: Map<String, Json> =
        (0..=255_u8).map(|byte| (spell_byte(byte).to_string(), Json::from(byte))).collect();
    for (spelling, id) in [("th", 256), ("the", 257), ("Ġthe", 258)] {
        vocabulary.insert(spelling.to_owned(), id.into());
    }
    let tokenizer = json!({
        "added_tokens": [
            {"id": 259, "content": "<|end|>", "special": true},
            {"id": 260, "content": "<think>", "special": false},
            {"id": 261, "content": "<s>", "special": true},
        ],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        },
        "model": {"type": "BPE", "vocab": vocabulary, "merges": ["t h", "th e", ["Ġ", "the"]]},
    });
    let config = json!({"bos_token": {"content": "<s>"}, "eos_token": "<|end|>", "chat_template": "{{ messages }}"});
    FolderFiles {
        tokenizer: tokenizer.as_object().unwrap().clone(),
        tokenizer_config: config.as_object().unwrap().clone(),
        ..FolderFiles::default()
    }
}

fn message(files: &FolderFiles) -> String {
    files.metadata(300).unwrap_err().to_string()
}

#[test]
fn tokens_merges_and_special_ids_are_those_of_the_files() {
    let metadata = files().metadata(264).unwrap();
    let vocabulary = Vocabulary::from_metadata(&metadata).unwrap();
    assert_eq!((vocabulary.len(), vocabulary.bos(), vocabulary.eos()), (264, Some(261), Some(259)));
    assert_eq!(vocabulary.chat_template(), Some("{{ messages }}"));
    assert_eq!(vocabulary.add_bos(), Some(true));
    let tokenizer = Tokenizer::new(&vocabulary).unwrap();
    let ids = |special| tokenizer.encode("the the<|end|><think>", special).unwrap();
    assert_eq!(ids(Special::Parse), [257, 258, 259, 260]);
    assert_eq!(&ids(Special::Plain)[..2], [257, 258]);
    assert!(ids(Special::Plain).len() > 4, "a client's text does not become a control token");
    let types = metadata.i32_array("tokenizer.ggml.token_type").unwrap();
    assert_eq!(types[256..], [1, 1, 1, 3, 4, 3, 5, 5]);
    assert_eq!(metadata.str_array("tokenizer.ggml.tokens").unwrap().get(263), Some("[PAD263]"));
}

#[test]
fn ends_come_from_the_generation_config_too() {
    let mut files = files();
    files.generation_config.insert("eos_token_id".to_owned(), json!([259, 260]));
    let metadata = files.metadata(262).unwrap();
    assert_eq!(metadata.u32("tokenizer.ggml.eos_token_id").unwrap(), 259);
    assert_eq!(metadata.u32("tokenizer.ggml.eot_token_id").unwrap(), 260);
    files.tokenizer_config.remove("eos_token");
    files.config.insert("eos_token_id".to_owned(), json!(257));
    let metadata = files.metadata(262).unwrap();
    assert_eq!(metadata.u32("tokenizer.ggml.eos_token_id").unwrap(), 259, "the generation config counts first");
}

#[test]
fn several_templates_have_names_and_a_file_of_its_own_counts() {
    let mut files = files();
    let templates = json!([{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]);
    files.tokenizer_config.insert("chat_template".to_owned(), templates);
    let metadata = files.metadata(262).unwrap();
    assert_eq!(metadata.str("tokenizer.chat_template").unwrap(), "a");
    assert_eq!(metadata.str("tokenizer.chat_template.tool_use").unwrap(), "b");
    files.chat_template = Some("c".to_owned());
    assert_eq!(files.metadata(262).unwrap().str("tokenizer.chat_template").unwrap(), "c");
}

/// A vocabulary of characters with spaces as `▁`: the bytes, letters, and what merges make of them.
fn marked_spaces(normalizer: &Json, splitter: &Json) -> FolderFiles {
    let mut vocabulary: Map<String, Json> =
        (0..=255_u8).map(|byte| (format!("<0x{byte:02X}>"), Json::from(u32::from(byte) + 3))).collect();
    for (id, spelling) in ["<unk>", "<s>", "</s>"].iter().enumerate() {
        vocabulary.insert((*spelling).to_owned(), id.into());
    }
    for (id, spelling) in (259..).zip(["▁", "t", "h", "e", "n", "he", "▁t", "th", "▁the", "▁then", "en"]) {
        vocabulary.insert(spelling.to_owned(), id.into());
    }
    let special = |id: u32, content: &str| json!({"id": id, "content": content, "special": true});
    let tokenizer = json!({
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": normalizer,
        "pre_tokenizer": splitter,
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {}}]},
        "model": {
            "type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "vocab": vocabulary,
            "merges": ["h e", "▁ t", "t h", "▁t he", "e n", "▁the n"],
        },
    });
    let config = json!({"bos_token": "<s>", "eos_token": "</s>"});
    FolderFiles {
        tokenizer: tokenizer.as_object().unwrap().clone(),
        tokenizer_config: config.as_object().unwrap().clone(),
        ..FolderFiles::default()
    }
}

#[test]
fn characters_with_marked_spaces_are_a_sentencepiece_vocabulary() {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let prepend = json!({"type": "Prepend", "prepend": "▁"});
    let both = json!({"type": "Sequence", "normalizers": [prepend, replace]});
    let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme});
    let split = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"});
    for (normalizer, splitter, prefixed) in [
        (both, json!(null), true),
        (replace, split, false),
        (json!(null), metaspace("first"), true),
        (json!(null), metaspace("never"), false),
    ] {
        let metadata = marked_spaces(&normalizer, &splitter).metadata(280).unwrap();
        assert_eq!(metadata.str("tokenizer.ggml.model").unwrap(), "llama");
        let vocabulary = Vocabulary::from_metadata(&metadata).unwrap();
        assert_eq!((vocabulary.bos(), vocabulary.eos(), vocabulary.add_bos()), (Some(1), Some(2), Some(true)));
        let tokenizer = Tokenizer::new(&vocabulary).unwrap();
        let ids = tokenizer.encode("then the é", Special::Plain).unwrap();
        // `h e` comes first, so that ` then` is ` the` and `n`, which are joined last; é is two bytes.
        let after = [267, 259, 0xC3 + 3, 0xA9 + 3];
        let expected = if prefixed { vec![268] } else { vec![260, 264, 263] };
        assert_eq!(ids, [expected, after.to_vec()].concat(), "{normalizer} {splitter}");
        assert_eq!(tokenizer.decode(&ids).trim_start(), "then the é");
    }
    let message = marked_spaces(&json!({"type": "NFKC"}), &json!(null)).metadata(280).unwrap_err().to_string();
    assert!(message.contains("BPE of characters with normalizer"), "{message}");
}

/// A folder's files with this tokenizer, whose special tokens are BERT's.
fn encoder(tokenizer: &Json) -> FolderFiles {
    let config = json!({"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"});
    FolderFiles {
        tokenizer: tokenizer.as_object().unwrap().clone(),
        tokenizer_config: config.as_object().unwrap().clone(),
        ..FolderFiles::default()
    }
}

#[test]
fn word_piece_is_spelled_as_in_gguf_files() {
    let special: Vec<Json> = ["[UNK]", "[CLS]", "[SEP]"]
        .into_iter()
        .enumerate()
        .map(|(id, content)| json!({"id": id, "content": content, "special": true}))
        .collect();
    let tokenizer = json!({
        "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "cls": ["[CLS]", 1], "sep": ["[SEP]", 2]},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "play": 3, "##ing": 4, ",": 5},
        },
    });
    let vocabulary = Vocabulary::from_metadata(&encoder(&tokenizer).metadata(6).unwrap()).unwrap();
    let spellings: Vec<&str> = vocabulary.tokens().map(|(spelling, _)| spelling).collect();
    assert_eq!(spellings, ["[UNK]", "[CLS]", "[SEP]", "▁play", "ing", "▁,"]);
    let tokenizer = Tokenizer::new(&vocabulary).unwrap();
    assert_eq!(tokenizer.encode("Playing, [SEP] ing", Special::Plain).unwrap(), [3, 4, 5, 0, 0, 0, 0]);
    assert_eq!((tokenizer.add_bos(), tokenizer.bos(), tokenizer.appended_eos()), (true, Some(1), Some(2)));
}

#[test]
fn a_unigram_models_pieces_and_scores_are_those_of_the_list() {
    let pieces = json!([["<s>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁a", -2.0], ["b", -2.5], ["▁ab", -6.0]]);
    let special: Vec<Json> = ["<s>", "</s>", "<unk>"]
        .into_iter()
        .enumerate()
        .map(|(id, content)| json!({"id": id, "content": content, "special": true}))
        .collect();
    let tokenizer = json!({
        "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        ]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces},
    });
    let config = json!({"bos_token": "<s>", "eos_token": "</s>"});
    let files = FolderFiles { tokenizer_config: config.as_object().unwrap().clone(), ..encoder(&tokenizer) };
    let vocabulary = Vocabulary::from_metadata(&files.metadata(6).unwrap()).unwrap();
    assert_eq!(vocabulary.scores()[3..], [-2.0, -2.5, -6.0]);
    let tokenizer = Tokenizer::new(&vocabulary).unwrap();
    assert_eq!(tokenizer.encode("ab  a c", Special::Plain).unwrap()[..3], [3, 4, 3]);
    assert!(tokenizer.encode("c", Special::Plain).unwrap().contains(&2));
    let mut broken = tokenizer_of(&files);
    broken["model"]["vocab"][4] = json!(["b", "high"]);
    let broken = FolderFiles { tokenizer: broken.as_object().unwrap().clone(), ..files };
    assert!(message(&broken).contains("expected pieces with a score"), "{}", message(&broken));
}

fn tokenizer_of(files: &FolderFiles) -> Json {
    Json::Object(files.tokenizer.clone())
}

#[test]
fn other_kinds_of_tokenizers_are_refused_by_name() {
    let change = |key: &str, value: Json| {
        let mut files = files();
        match key.strip_prefix("model.") {
            Some(key) => files.tokenizer["model"][key] = value,
            None => drop(files.tokenizer.insert(key.to_owned(), value)),
        }
        message(&files)
    };
    for (key, value, expected) in [
        ("model.type", json!("WordLevel"), "unknown tokenizer model \"model WordLevel\": known are byte-level BPE"),
        ("model.type", json!("WordPiece"), "WordPiece with normalizer null"),
        ("model.type", json!("Unigram"), "Unigram with pre-tokenizer"),
        ("model.byte_fallback", json!(true), "BPE of characters with pre-tokenizer"),
        ("model.dropout", json!(0.1), "BPE with dropout 0.1"),
        ("model.end_of_word_suffix", json!("</w>"), "BPE with end_of_word_suffix \\\"</w>\\\""),
        ("normalizer", json!({"type": "Lowercase"}), "BPE with normalizer"),
        ("model", json!(null), "expected an object \"model\" in tokenizer.json, found null"),
        (
            "model.vocab",
            json!([]),
            "expected an object \"vocab\" in tokenizer.json, or a list of a model Unigram, found []",
        ),
        ("model.merges", json!({}), "expected a list \"merges\" in tokenizer.json, found {}"),
        ("model.merges", json!([["a b", "c"]]), "expected merges of two parts without spaces"),
        ("model.merges", json!([1]), "expected merges of two parts"),
        ("added_tokens", json!(1), "expected a list \"added_tokens\", found 1"),
        ("added_tokens", json!([{"id": 300}]), "expected added tokens with a content"),
        ("added_tokens", json!([{"id": 7, "content": "x"}]), "expected an id of its own for token \"x\", found 7"),
        (
            "added_tokens",
            json!([{"id": 299, "content": "the"}]),
            "expected one id for token \"the\", found 257 and 299",
        ),
        ("added_tokens", json!([{"id": -1, "content": "x"}]), "expected ids below 1048576, found -1 of token \"x\""),
        (
            "added_tokens",
            json!([{"id": 400, "content": "<s>"}, {"id": 259, "content": "<|end|>"}]),
            "expected at most 300 tokens, as the embedding has rows, found 401",
        ),
    ] {
        let found = change(key, value);
        assert!(found.contains(expected), "{key}: {expected} is missing in {found}");
    }
    let mut files = files();
    files.tokenizer_config.insert("eos_token".to_owned(), json!("</s>"));
    assert!(message(&files).contains("expected the eos_token \"</s>\" among the tokens"), "{}", message(&files));
    files.tokenizer_config.remove("eos_token");
    files.config.insert("eos_token_id".to_owned(), json!(9999));
    assert!(message(&files).contains("expected special ids below 300, found 9999"), "{}", message(&files));
}

#[test]
fn a_folder_without_a_tokenizer_is_refused_with_the_missing_file() {
    let folder = tempfile::tempdir().unwrap();
    let found = FolderFiles::read(folder.path()).unwrap_err().to_string();
    assert!(found.contains("expected tokenizer.json in it, found none"), "{found}");
    std::fs::write(folder.path().join("tokenizer.json"), "[1").unwrap();
    let found = FolderFiles::read(folder.path()).unwrap_err().to_string();
    assert!(found.contains("tokenizer.json: expected a JSON object"), "{found}");
}

#[test]
fn a_file_of_nothing_but_lists_is_refused_before_it_is_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let lists = format!(r#"{{"merges": [{}]}}"#, vec!["[]"; 2 << 20].join(","));
    std::fs::write(folder.path().join("tokenizer.json"), lists).unwrap();
    let found = FolderFiles::read(folder.path()).unwrap_err().to_string();
    assert!(found.contains("expected at most 2097152 lists and objects, found 2097154 in the JSON"), "{found}");
}
