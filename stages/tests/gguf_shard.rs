//! The pages that a shard maps, the tensors that it returns, and the bytes that stay in memory.

mod gguf_fixture;

use std::path::Path;

use gguf_fixture::{HIDDEN, LAYERS, VOCABULARY, WIDE, file, model, noise};
use schema::LayerRange;
use schema::record::{KvRoom, KvType};
use stages::format::Format;
use stages::gguf::{GgufHeader, GgufWriter};
use stages::weights::{MapError, MappedShard, ModelFile, RowError, TensorError};

fn layers(start: u32, end: u32) -> LayerRange {
    LayerRange::new(start, end).unwrap()
}

fn shard(tied: bool, start: u32, end: u32) -> (tempfile::TempDir, MappedShard) {
    let (folder, path) = file(model(tied));
    let shard = ModelFile::open(&path).unwrap().map(layers(start, end)).unwrap();
    (folder, shard)
}

/// Number of this process's mappings of `path`, and their resident bytes, as the system reports them.
#[cfg(target_os = "linux")]
fn mapped(path: &Path) -> (usize, u64) {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let path = path.canonicalize().unwrap();
    let path = path.to_str().unwrap();
    let (mut areas, mut resident, mut inside) = (0, 0, false);
    for line in smaps.lines() {
        if line.contains("-") && !line.contains(" kB") && line.contains(" r") {
            inside = line.ends_with(path);
            areas += usize::from(inside);
        } else if let Some(kilobytes) = line.strip_prefix("Rss:").filter(|_| inside) {
            resident += kilobytes.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024;
        }
    }
    (areas, resident)
}

#[test]
#[cfg(target_os = "linux")]
fn a_middle_shard_has_its_own_pages_resident_and_no_others() {
    let (_folder, path) = file(model(true));
    let model = ModelFile::open(&path).unwrap();
    assert_eq!(mapped(&path), (0, 0), "an open model maps nothing");

    let range = layers(2, 4);
    let shard = model.map(range).unwrap();
    let own = model.record(KvRoom { tokens: 1, kv_type: KvType::F16 }, 1).unwrap().shard_bytes(range).weights;
    let mut sum = 0u64;
    for layer in 2..4 {
        for suffix in ["attn_norm.weight", "ffn_up.weight"] {
            let tensor = shard.layer_tensor(layer, suffix).unwrap();
            sum += tensor.bytes().iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
    }
    assert!(sum > 0);
    let (areas, resident) = mapped(&path);
    // The layers are neighbours and form one run. The tensor that every stage has forms another, which may never be
    // read.
    assert!(areas <= 2, "{areas}");
    let slack = 4 * (16 << 10);
    assert!((own..=own + slack).contains(&resident), "own {own}, resident {resident}");
    assert_eq!(shard.residency().bytes(), resident);
    assert!((own..=own + slack).contains(&shard.mapped_bytes()), "own {own}, mapped {}", shard.mapped_bytes());

    let tensor = shard.layer_tensor(3, "ffn_up.weight").unwrap();
    drop(shard);
    assert_eq!(tensor.bytes(), noise(3, WIDE * HIDDEN / 32 * 34), "a tensor keeps its pages mapped");
    drop(tensor);
    assert_eq!(mapped(&path), (0, 0), "dropping the last tensor unmaps the file");
}

#[test]
#[cfg(target_os = "linux")]
fn prefetching_loads_all_pages_and_looking_up_tokens_loads_none() {
    let (_folder, path) = file(model(false));
    let shard = ModelFile::open(&path).unwrap().map(layers(0, 2)).unwrap();
    let rows = shard.embedding().unwrap();
    let mut row = vec![0.0; HIDDEN as usize];
    for token in 0..VOCABULARY as u32 {
        rows.read(token, &mut row).unwrap();
    }
    assert_eq!(mapped(&path).1, 0, "rows are read, not mapped");
    shard.prefetch();
    assert!(shard.residency().bytes() >= shard.mapped_bytes());
    assert_eq!(mapped(&path).1, shard.residency().bytes());
}

#[test]
fn tensors_have_the_bytes_of_the_file() {
    let (_folder, shard) = shard(true, 2, 4);
    let matrix = shard.layer_tensor(2, "ffn_up.weight").unwrap();
    assert_eq!(matrix.bytes(), noise(2, WIDE * HIDDEN / 32 * 34));
    let view = matrix.matrix();
    assert_eq!((view.format(), view.rows(), view.cols()), (Format::Q8_0, WIDE as usize, HIDDEN as usize));
    let norm = shard.layer_tensor(3, "attn_norm.weight").unwrap().f32s().unwrap();
    assert_eq!((norm.len(), norm[0], norm[255]), (256, 3.0, 258.0));
    let error = matrix.f32s().unwrap_err().to_string();
    assert!(error.contains("too large to expand to floats: expected at most 262144 values, found 1048576"), "{error}");
}

#[test]
fn a_tensor_of_another_range_is_refused_with_both_named() {
    let (_folder, shard) = shard(false, 2, 4);
    let message = |name: &str| shard.tensor(name).unwrap_err().to_string();
    assert_eq!(
        message("blk.4.ffn_up.weight"),
        r#"tensor "blk.4.ffn_up.weight" belongs to layer 4: expected one of layers 2..4, which this shard holds"#
    );
    assert!(message("blk.1.ffn_up.weight").contains("belongs to layer 1"));
    assert!(message("output_norm.weight").contains("belongs to the output head"));
    assert!(message("token_embd.weight").contains("belongs to the embedding"));
    assert_eq!(message("blk.2.ffn_down.weight"), r#"there is no tensor "blk.2.ffn_down.weight" in the model file"#);
    assert!(shard.embedding().is_none() && shard.output().is_err());
}

#[test]
fn an_optional_tensor_is_none_only_when_the_file_has_none() {
    let (_folder, shard) = shard(true, 2, 4);
    assert!(shard.find("blk.2.attn_q.bias").unwrap().is_none());
    assert!(shard.find("blk.2.ffn_up.weight").unwrap().is_some());
    assert!(matches!(shard.find("blk.5.ffn_up.weight"), Err(TensorError::Outside { .. })));
    assert!(shard.optional("rope_freqs.weight").is_some(), "every stage has shared tensors");
    assert!(shard.optional("blk.5.ffn_up.weight").is_none());
    assert!(shard.optional_layer_tensor(2, "ffn_up.weight").is_some());
}

#[test]
fn the_first_shard_reads_the_embedding_by_rows() {
    let (_folder, shard) = shard(true, 0, 2);
    let rows = shard.embedding().unwrap();
    assert_eq!((rows.rows(), rows.cols()), (VOCABULARY, HIDDEN as usize));
    let mut row = vec![0.0; HIDDEN as usize];
    rows.read(511, &mut row).unwrap();
    assert_eq!((row[0], row[255]), ((511 * 256) as f32, (511 * 256 + 255) as f32));

    let error = rows.read(512, &mut row).unwrap_err();
    assert!(matches!(error, RowError::Token { token: 512, rows: 512 }), "{error}");
    let error = rows.read(0, &mut row[..100]).unwrap_err();
    assert_eq!(error.to_string(), "an embedding row has 256 values: expected room for as many, found 100");
    assert!(matches!(shard.tensor("token_embd.weight"), Err(TensorError::ByRows { .. })));
    assert!(shard.output().is_err(), "only the last shard has the output head");
}

#[test]
fn the_last_shard_has_the_output_head_tied_or_not() {
    let (_folder, tied) = shard(true, 4, LAYERS);
    assert_eq!((tied.output().unwrap().name(), tied.output().unwrap().format()), ("token_embd.weight", Format::F32));
    assert_eq!(tied.tensor("output_norm.weight").unwrap().f32s().unwrap()[1], 1.5);
    assert!(tied.embedding().is_none());

    let (_folder, own) = shard(false, 4, LAYERS);
    assert_eq!((own.output().unwrap().name(), own.output().unwrap().format()), ("output.weight", Format::F16));
    assert!(matches!(own.tensor("token_embd.weight"), Err(TensorError::Outside { .. })));
}

#[test]
fn a_shard_of_all_layers_has_the_embedding_and_the_output_head() {
    let (_folder, shard) = shard(true, 0, LAYERS);
    let mut row = vec![0.0; HIDDEN as usize];
    shard.embedding().unwrap().read(7, &mut row).unwrap();
    let table = shard.output().unwrap();
    assert_eq!(table.matrix().row(7), gguf_fixture::float_bytes(row));
}

#[test]
fn layers_past_the_last_are_refused() {
    let (_folder, path) = file(model(true));
    let error = ModelFile::open(&path).unwrap().map(layers(4, 7)).unwrap_err();
    assert!(matches!(error, MapError::NoSuchLayers { have: 6, .. }));
    assert_eq!(error.to_string(), "cannot map layers 4..7: expected an end of at most 6, the model's layers");
}

#[test]
fn a_tensor_of_experts_is_split_by_expert() {
    let experts = noise(5, 34 * 2 * 3);
    let mut writer = GgufWriter::new()
        .metadata("general.architecture", "moe")
        .metadata("moe.block_count", 1u32)
        .tensor("blk.0.ffn_up_exps.weight", &[32, 2, 3], Format::Q8_0, experts.clone())
        .unwrap();
    writer = writer.tensor("token_embd.weight", &[32, 4], Format::Q8_0, noise(1, 34 * 4)).unwrap();
    let (_folder, path) = file(writer);
    let shard = ModelFile::open(&path).unwrap().map(layers(0, 1)).unwrap();
    let tensor = shard.layer_tensor(0, "ffn_up_exps.weight").unwrap();
    assert_eq!(tensor.matrix().rows(), 6);
    let second = tensor.matrix_at(1).unwrap();
    assert_eq!((second.rows(), second.bytes()), (2, &experts[68..136]));
    assert!(tensor.matrix_at(2).is_some() && tensor.matrix_at(3).is_none());
}

#[test]
fn a_file_replaced_on_disk_does_not_change_what_is_read() {
    let (folder, path) = file(model(true));
    let model = ModelFile::open(&path).unwrap();
    let other = folder.path().join("other.gguf");
    std::fs::write(&other, b"something else").unwrap();
    std::fs::rename(&other, &path).unwrap();
    let shard = model.map(layers(1, 2)).unwrap();
    assert_eq!(shard.layer_tensor(1, "ffn_up.weight").unwrap().bytes(), noise(1, WIDE * HIDDEN / 32 * 34));
    assert_eq!(model.vocabulary_metadata().unwrap().str_array("tokenizer.ggml.tokens").unwrap().len(), 512);
}

#[test]
fn a_file_with_the_header_and_the_bytes_of_a_shard_is_enough_for_it() {
    for tied in [true, false] {
        let (folder, path) = file(model(tied));
        let (bytes, whole) = (std::fs::read(&path).unwrap(), ModelFile::open(&path).unwrap());
        let header = GgufHeader::parse(&bytes).unwrap().data_offset as usize;
        for range in [layers(0, 2), layers(2, 4), layers(4, LAYERS), layers(0, LAYERS)] {
            let mut parts = vec![0; bytes.len()];
            parts[..header].copy_from_slice(&bytes[..header]);
            for own in whole.bytes_of(range).unwrap().concat() {
                let own = own.start as usize..own.end as usize;
                parts[own.clone()].copy_from_slice(&bytes[own]);
            }
            let path = folder.path().join("parts.gguf");
            std::fs::write(&path, &parts).unwrap();
            let partial = ModelFile::open_partial(&path, whole.fingerprint()).unwrap();
            assert_eq!(partial.fingerprint(), whole.fingerprint());
            let (ours, theirs) = (partial.map(range).unwrap(), whole.map(range).unwrap());
            for (ours, theirs) in ours.matrices().iter().zip(theirs.matrices()) {
                assert_eq!(ours.bytes(), theirs.bytes(), "{range}, tied: {tied}");
            }
            for (ours, theirs) in ours.embedding().iter().zip(theirs.embedding()) {
                let mut rows = [(); 2].map(|()| vec![0.0; HIDDEN as usize]);
                ours.read(VOCABULARY as u32 - 1, &mut rows[0]).unwrap();
                theirs.read(VOCABULARY as u32 - 1, &mut rows[1]).unwrap();
                assert_eq!(rows[0], rows[1]);
            }
            // It is written while it is used; only another length is a change.
            std::fs::write(&path, &bytes).unwrap();
            partial.check_unchanged().unwrap();
            std::fs::write(&path, &bytes[..header]).unwrap();
            partial.check_unchanged().unwrap_err();
        }
    }
}
