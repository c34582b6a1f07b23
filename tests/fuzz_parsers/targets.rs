//! The parsers, each with seeds that it takes, and the memory that it may take for an input.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use gateway::models::{self, Access, Cache, OtherCaches, Silent};
use gateway::text::{ChatTemplate, ChatTemplates, Conversation, FolderFiles, Message, Special, Tokenizer, Vocabulary};
use schema::frame::{Chosen, Frame, HiddenState, Hop, Refusal, Slice, Spent, Tokens};
use schema::record::{KvRoom, KvType, TouchedExperts};
use schema::{Attempt, Epoch, Generation, SequenceId, Step};
use serde_json::{Map, Value, json};
use stages::format::Format;
use stages::gguf::{Extent, GgufWriter};
use stages::safetensors;
use stages::weights::ModelFile;
use tempfile::TempDir;

use crate::damage::Piece;

/// Most bytes of memory for a byte of JSON: a list of one value is two characters, and takes room for four values of 72
/// bytes each.
const JSON_MEMORY: usize = 4 * 72 / 2;

/// A parser under test.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Inputs that it takes, of the same number of files each.
    pub(crate) seeds: Vec<Vec<Piece>>,
    /// The value in short, or the refusal.
    pub(crate) run: Box<dyn FnMut(&[Piece]) -> Result<String, String>>,
    /// Most bytes of memory for an input: so many, and so many for each of its bytes.
    pub(crate) memory: (usize, usize),
}

// === impl Target ===

impl Target {
    /// Most bytes of memory that it may take for an input of `length` bytes.
    pub(crate) fn bytes_max(&self, length: usize) -> usize {
        self.memory.0 + self.memory.1 * length
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// A folder for the files of an input, in memory where there is such a file system.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Opens the model at `path` as `baton plan` does.
fn model(path: &Path) -> Result<String, String> {
    let file = ModelFile::open(path).map_err(|error| chain(&error))?;
    let room = KvRoom { tokens: 512, kv_type: KvType::F16 };
    let record = stages::model_record(&file, room, 1).map_err(|error| chain(&error))?;
    Ok(record.architecture)
}

/// The two parts of a small model of the Llama family.
pub(crate) fn parts() -> [Vec<u8>; 2] {
    let place = |file: GgufWriter, number: u32| {
        let file = file.metadata("split.no", number).metadata("split.count", 2_u32);
        file.metadata("split.tensors.count", 21_i32)
    };
    let words: Vec<String> = (0..64).map(|word| format!("w{word}")).collect();
    let first = GgufWriter::new()
        .metadata("general.architecture", "llama")
        .metadata("general.alignment", 32_u32)
        .metadata("llama.block_count", 2_u32)
        .metadata("llama.context_length", 256_u32)
        .metadata("llama.embedding_length", 64_u32)
        .metadata("llama.feed_forward_length", 32_u32)
        .metadata("llama.attention.head_count", 2_u32)
        .metadata("llama.attention.head_count_kv", 1_u32)
        .metadata("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)
        .metadata("llama.rope.freq_base", 10_000_f32)
        .metadata("tokenizer.ggml.model", "gpt2")
        .metadata("tokenizer.ggml.tokens", &words[..])
        .metadata("tokenizer.ggml.token_type", &[1_i32; 64][..])
        .metadata("tokenizer.ggml.add_bos_token", false);
    let matrix = |file: GgufWriter, name: &str, cols: u64, rows: u64| {
        file.tensor(name, &[cols, rows], Format::Q8_0, vec![0; (cols / 32 * 34 * rows) as usize]).unwrap()
    };
    let norm = |file: GgufWriter, name: &str| file.tensor(name, &[64], Format::F32, vec![0; 256]).unwrap();
    let layer = |file: GgufWriter, layer: u32| {
        let name = |what: &str| format!("blk.{layer}.{what}.weight");
        let file = norm(norm(file, &name("attn_norm")), &name("ffn_norm"));
        let file = matrix(matrix(file, &name("attn_q"), 64, 64), &name("attn_k"), 64, 32);
        let file = matrix(matrix(file, &name("attn_v"), 64, 32), &name("attn_output"), 64, 64);
        let file = matrix(matrix(file, &name("ffn_gate"), 64, 32), &name("ffn_up"), 64, 32);
        matrix(file, &name("ffn_down"), 32, 64)
    };
    let first = matrix(norm(place(first, 0), "output_norm.weight"), "token_embd.weight", 64, 64);
    let first = layer(matrix(first, "output.weight", 64, 64), 0);
    [first.to_bytes().unwrap(), layer(place(GgufWriter::new(), 1), 1).to_bytes().unwrap()]
}

/// A model in two GGUF files.
pub(crate) fn gguf() -> Target {
    let folder = scratch();
    let run = move |input: &[Piece]| {
        let paths = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"].map(|name| folder.path().join(name));
        paths.iter().zip(input).for_each(|(path, piece)| fs::write(path, &piece.bytes).unwrap());
        model(&paths[0])
    };
    let seeds = vec![parts().map(Piece::binary).to_vec()];
    Target { name: "gguf", seeds, run: Box::new(run), memory: (1 << 20, 64) }
}

/// The first bytes of a GGUF file that is said to be longer than they are.
pub(crate) fn gguf_extent() -> Target {
    let run = |input: &[Piece]| match Extent::of(&input[0].bytes, 1 << 40) {
        Ok(Extent::Whole(bytes)) if bytes <= input[0].bytes.len() as u64 => Ok("whole".to_owned()),
        Ok(Extent::Whole(bytes)) => panic!("a header of {bytes} bytes in {}", input[0].bytes.len()),
        Ok(Extent::Needs(bytes)) => {
            assert!(bytes > input[0].bytes.len() as u64, "{bytes} of {} needed", input[0].bytes.len());
            Err("needs more".to_owned())
        }
        Err(error) => Err(error.to_string()),
    };
    let seeds = parts().map(|part| vec![Piece::binary(part)]).to_vec();
    Target { name: "gguf_extent", seeds, run: Box::new(run), memory: (64 << 10, 32) }
}

/// The folder of a golden model.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("stages/tests/data").join(name)
}

/// Headers of two safetensors files and the list of them. The weights themselves take no room.
pub(crate) fn safetensors() -> Target {
    let name = "tiny-mixtral-odd";
    let file = fs::read(golden(name).join("model.safetensors")).unwrap();
    let end = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let whole: Map<String, Value> = serde_json::from_slice(&file[8..end]).unwrap();
    let mut halves = [Map::new(), Map::new()];
    let (mut places, mut ends) = (Map::new(), [0, 0]);
    for (index, (tensor, description)) in whole.into_iter().filter(|(name, _)| name != "__metadata__").enumerate() {
        let (half, mut description) = (index % 2, description);
        let [from, to]: [u64; 2] = serde_json::from_value(description["data_offsets"].clone()).unwrap();
        description["data_offsets"] = json!([ends[half], ends[half] + to - from]);
        ends[half] += to - from;
        places.insert(tensor.clone(), FILES[half].into());
        halves[half].insert(tensor, description);
    }
    const FILES: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let folder = scratch();
    fs::copy(golden(name).join("config.json"), folder.path().join("config.json")).unwrap();
    let run = move |input: &[Piece]| {
        for (index, file) in FILES.iter().enumerate() {
            let header = &input[index].bytes;
            // The third piece changes the lengths.
            let change = input[3]
                .bytes
                .get(8 * index..8 * index + 8)
                .map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()));
            let length = (header.len() as u64).wrapping_add(change);
            let bytes = [&length.to_le_bytes()[..], header].concat();
            if let Ok(extent) = safetensors::SafetensorsHeader::extent(length.to_le_bytes(), u64::MAX) {
                assert!(extent <= 8 + 100_000_000, "{extent}");
            }
            let path = folder.path().join(file);
            fs::write(&path, &bytes).unwrap();
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes.len() as u64 + ends[index]).unwrap();
        }
        fs::write(folder.path().join("model.safetensors.index.json"), &input[2].bytes).unwrap();
        model(folder.path())
    };
    let [first, second] = halves.map(|half| Piece::json(&half.into()));
    let index = Piece::json(&json!({"metadata": {"total_size": 0}, "weight_map": places}));
    let seeds = vec![vec![first, second, index, Piece::binary(vec![0; 16])]];
    Target { name: "safetensors", seeds, run: Box::new(run), memory: (2 << 20, 64) }
}

/// The `config.json` of each golden model, beside its weights.
pub(crate) fn config() -> Target {
    let mut seeds = Vec::new();
    let mut folders = Vec::new();
    let mut names: Vec<_> = fs::read_dir(golden("")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    // Folders of some kinds are refused, as their GGUF files are read.
    let taken = |path: &PathBuf| path.join("config.json").is_file() && model(path).is_ok();
    for path in names.into_iter().filter(taken) {
        let folder = scratch();
        std::os::unix::fs::symlink(path.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        let config = fs::read(path.join("config.json")).unwrap();
        seeds.push(vec![
            Piece::json(&serde_json::from_slice(&config).unwrap()),
            // The number of its folder.
            Piece::binary(vec![folders.len() as u8]),
        ]);
        folders.push(folder);
    }
    assert!(seeds.len() > 30, "{} golden models are read", seeds.len());
    let run = move |input: &[Piece]| {
        let number = input[1].bytes.first().copied().unwrap_or_default();
        let folder = &folders[usize::from(number) % folders.len()];
        fs::write(folder.path().join("config.json"), &input[0].bytes).unwrap();
        model(folder.path())
    };
    Target { name: "config", seeds, run: Box::new(run), memory: (4 << 20, JSON_MEMORY) }
}

/// `tokenizer.json` and `tokenizer_config.json`.
pub(crate) fn tokenizer() -> Target {
    // GPT-2's alphabet: bytes that are printed stand for themselves, the others follow from U+0100 on.
    let printed = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..);
    let mut others = 0x100_u32..;
    let alphabet: Vec<char> = (0..=255_u8)
        .filter_map(|byte| if printed(&byte) { Some(byte.into()) } else { char::from_u32(others.next()?) })
        .collect();
    let mut bytes: Map<String, Value> =
        alphabet.iter().enumerate().map(|(id, letter)| (letter.to_string(), id.into())).collect();
    bytes.extend([("th", 256), ("the", 257), ("Ġthe", 258)].map(|(word, id)| (word.to_owned(), Value::from(id))));
    let added = json!([
        {"id": 259, "content": "<|end|>", "special": true, "lstrip": false, "rstrip": false, "normalized": false},
        {"id": 260, "content": "<think>", "special": false},
        {"id": 261, "content": "<s>", "special": true},
    ]);
    let byte_level = json!({
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        },
        "model": {"type": "BPE", "vocab": bytes, "merges": ["t h", "th e", ["Ġ", "the"]]},
    });
    let settings = json!({
        "bos_token": {"content": "<s>"},
        "eos_token": "<|end|>",
        "chat_template": [{"name": "default", "template": "{{ messages[0].content }}"}],
    });
    let run = |input: &[Piece]| {
        let [tokenizer, tokenizer_config] = [0, 1].map(|index| serde_json::from_slice(&input[index].bytes));
        let tokenizer = tokenizer.map_err(|_| "no JSON object".to_owned())?;
        let tokenizer_config = tokenizer_config.map_err(|_| "no JSON object".to_owned())?;
        let files = FolderFiles { tokenizer, tokenizer_config, ..FolderFiles::default() };
        let metadata = files.metadata(300).map_err(|error| chain(&error))?;
        let vocabulary = Vocabulary::from_metadata(&metadata).map_err(|error| chain(&error))?;
        let tokenizer = Tokenizer::new(&vocabulary).map_err(|error| chain(&error))?;
        let ids = tokenizer.encode("the end<|end|> of\u{1f642} it", Special::Parse).map_err(|error| chain(&error))?;
        let text = tokenizer.decode(&ids);
        let templates = ChatTemplates::of(&vocabulary);
        let problem = templates.problem().unwrap_or("no problem").to_owned();
        Ok(format!("{} {problem}", text == "the end<|end|> of\u{1f642} it"))
    };
    let seeds = vec![vec![Piece::json(&byte_level), Piece::json(&settings)]];
    Target { name: "tokenizer", seeds, run: Box::new(run), memory: (16 << 20, JSON_MEMORY) }
}

/// A manifest in Ollama's store.
pub(crate) fn ollama() -> Target {
    let folder = scratch();
    let store = folder.path().join("store");
    let place = store.join("manifests/registry.ollama.ai/library/m");
    let digest = "ab".repeat(32);
    fs::create_dir_all(&place).unwrap();
    fs::create_dir_all(store.join("blobs")).unwrap();
    fs::write(store.join(format!("blobs/sha256-{digest}")), b"GGUF").unwrap();
    let others = OtherCaches { ollama: vec![store.clone()], ..OtherCaches::default() };
    let cache = Cache::new(folder.path().join("cache"), Access { others, ..Access::default() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "layers": [
            {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:00", "size": 3},
            {"mediaType": "application/vnd.ollama.image.model", "digest": format!("sha256:{digest}"), "size": 4},
        ],
    });
    let run = move |input: &[Piece]| {
        let root = &folder;
        fs::write(place.join("latest"), &input[0].bytes).unwrap();
        let path = models::resolve(Some("ollama:m"), &cache, &mut Silent).map_err(|error| chain(&error))?;
        let blob = fs::canonicalize(path).unwrap();
        assert!(blob.starts_with(fs::canonicalize(root.path()).unwrap().join("store/blobs")), "{}", blob.display());
        Ok("a blob of the store".to_owned())
    };
    Target { name: "ollama", seeds: vec![vec![Piece::json(&manifest)]], run: Box::new(run), memory: (256 << 10, 216) }
}

/// A chat template, compiled and rendered.
pub(crate) fn template() -> Target {
    let sources = [
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + \
         '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        "{{ bos_token }}{%- if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}{% set \
         messages = messages[1:] %}{%- endif %}{%- macro one(m, index) -%}[{{ index }}] {{ m.role | upper }}: {{ \
         m.content }}{%- endmacro -%}{% for m in messages %}{{ one(m, loop.index0) }}{{ eos_token if loop.last else \
         '' }}{% endfor %}",
        "{% set ns = namespace(count=0) %}{% for m in messages %}{% set ns.count = ns.count + 1 %}{% if m.role not in \
         ['user', 'assistant', 'system'] %}{{ raise_exception('no role') }}{% endif %}{{ ns.count ~ m.content.split(' \
         ') | join('-') }}{% endfor %}{{ strftime_now('%Y') }}{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}",
    ];
    let conversation = Conversation {
        messages: vec![
            Message::text("system", "Be brief."),
            Message::text("user", "What is the capital of France?"),
            Message::text("assistant", "Paris."),
            Message::text("user", "<|im_end|> And {{ of }} Spain?"),
        ],
        ..Conversation::default()
    };
    let run = move |input: &[Piece]| {
        let source = String::from_utf8_lossy(&input[0].bytes);
        let template = ChatTemplate::new(&source, "<s>", "</s>").map_err(|error| chain(&error))?;
        template.render(&conversation).map_err(|error| chain(&error))?;
        Ok("a prompt".to_owned())
    };
    let seeds = sources.map(|source| vec![Piece::text(source)]).to_vec();
    Target { name: "template", seeds, run: Box::new(run), memory: (64 << 20, 4096) }
}

/// The frames of a link.
pub(crate) fn frame() -> Target {
    let spent = vec![Spent { slot: 1, rows: 3, compute_us: 9, queue_us: 1 }];
    let slice = Slice {
        count: 3,
        prompt_tokens: 3,
        tokens: vec![1, 2, 3],
        blocks: vec![7],
        logits: vec![2],
        ..Slice::empty(SequenceId(5))
    };
    let hop = Frame::Hop(Hop {
        generation: Generation(2),
        gateway: 0,
        epoch: Epoch(3),
        step: Step(4),
        slot: 0,
        rows: 3,
        hidden: 0,
        slices: vec![slice],
        spent: spent.clone(),
    });
    let chosen = Chosen {
        sequence: SequenceId(5),
        attempt: Attempt(0),
        position: 3,
        token: 9,
        logprob: -0.5,
        rank: 0,
        alternatives: Vec::new(),
    };
    let state = HiddenState { sequence: SequenceId(6), attempt: Attempt(0), position: 1, values: vec![0.5; 16] };
    let tokens = Frame::Tokens(Tokens {
        generation: Generation(2),
        epoch: Epoch(3),
        step: Step(4),
        chosen: vec![chosen],
        spent,
        hidden_states: vec![state],
    });
    let refusal = Frame::Refusal(Refusal {
        generation: Generation(2),
        epoch: Epoch(3),
        step: Step(4),
        slot: 1,
        reason: "too many rows".to_owned(),
        passing: false,
        epoch_known: Epoch(0),
    });
    let run = |input: &[Piece]| {
        let frame = Frame::decode(&input[0].bytes).map_err(|error| chain(&error))?;
        // What is taken can be sent on.
        let again = Frame::decode(&frame.encode()).unwrap_or_else(|error| panic!("{frame:?}: {error}"));
        // The sign of zero may be lost, as an absent number is zero.
        let shown = |frame: &Frame| format!("{frame:?}").replace("-0.0", "0.0");
        assert_eq!(shown(&frame), shown(&again));
        Ok(match frame {
            Frame::Hop(hop) => format!("hop of {} slices", hop.slices.len()),
            Frame::Tokens(_) => "tokens".to_owned(),
            Frame::Refusal(_) => "refusal".to_owned(),
        })
    };
    let seeds = [hop, tokens, refusal].map(|frame| vec![Piece::binary(frame.encode())]).to_vec();
    Target { name: "frame", seeds, run: Box::new(run), memory: (256 << 10, 256) }
}

/// The experts in a stage's record.
pub(crate) fn experts() -> Target {
    let record = json!({"total": 24, "first_layer": 3, "layers": ["8:c1", "0:", "16:ffff"]});
    let run = |input: &[Piece]| {
        let record: TouchedExperts = serde_json::from_slice(&input[0].bytes).map_err(|error| error.to_string())?;
        let ranges: Vec<String> = record.sets().map(|(_, set)| set.ranges()).collect();
        Ok(format!("{} sets", ranges.join(" ").len().min(9)))
    };
    Target { name: "experts", seeds: vec![vec![Piece::json(&record)]], run: Box::new(run), memory: (1 << 20, 64) }
}
