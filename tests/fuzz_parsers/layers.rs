//! Both sides of fetching layers: a member that asks for anything, and a machine that answers with anything; and the
//! manifest of hashes between them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use engine::store::{EtcdAccess, EtcdTls};
use gateway::layers::{ChunkManifest, FoundSources, LayerClient, LayerFetch, LayerService, LayersError};
use gateway::models::{Access, Cache};
use gateway::share::STORE_NAME;
use serde_json::{Value, json};
use stages::weights::ModelFile;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;

use crate::damage::Piece;
use crate::liar::Liar;
use crate::targets::{Target, chain, parts, scratch};

/// Longest wait for the end of a connection whose client has ended it.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);
/// Bytes of a stream, from its first, that may be flipped.
const FLIPPED_BYTES: usize = 400;

/// The small model, in files of a folder.
fn model() -> (TempDir, ModelFile) {
    let folder = scratch();
    let paths = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"].map(|name| folder.path().join(name));
    paths.iter().zip(parts()).for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let file = ModelFile::open(&paths[0]).unwrap();
    (folder, file)
}

/// A head with its length before it.
fn head(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// The names of the answers in `bytes`, and true if none of them is a refusal.
fn names(mut bytes: &[u8]) -> (String, bool) {
    let (mut names, mut is_served) = (String::new(), !bytes.is_empty());
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (head, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        let reply: Value = serde_json::from_slice(head).expect("an answer has a head of JSON");
        let body = reply["body"].as_u64();
        names.push_str(&body.map_or_else(|| reply["refused"].to_string().replace('"', ""), |_| "body".to_owned()));
        names.push(' ');
        is_served &= body.is_some();
        bytes = &rest[body.unwrap_or(0) as usize..];
    }
    assert!(bytes.is_empty(), "{} bytes after the last answer", bytes.len());
    (names, is_served)
}

/// Says `bytes` to the service on a connection of its own, and returns its answers.
async fn converse(service: &LayerService, bytes: &[u8]) -> (String, bool) {
    let (client, server) = duplex(1 << 20);
    let (mut read, mut write) = tokio::io::split(client);
    let said = async {
        // The service may break off at any byte.
        let _ = write.write_all(bytes).await;
        let _ = write.shutdown().await;
    };
    let mut heard = Vec::new();
    let listened = read.read_to_end(&mut heard);
    let talk = async { tokio::join!(service.serve(server, ([127, 0, 0, 1], 1).into()), said, listened) };
    let (_, _, listened) = timeout(ANSWER_WAIT_MAX, talk).await.expect("a connection ends with its client");
    listened.unwrap();
    names(&heard)
}

/// Conversations of a member with the machine that serves layers.
pub(crate) fn layers_port() -> Target {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (folder, file) = model();
    let fingerprint = file.fingerprint().clone();
    let service = LayerService::default();
    service.offer(file, &Cache::new(folder.path().join("cache"), Access::default()));
    let manifest = json!({"manifest": {"fingerprint": fingerprint}});
    let bytes = |part: u64, start: u64, bytes: u64| json!({"bytes": {"part": part, "start": start, "bytes": bytes}});
    let good = [vec![manifest.clone()], vec![bytes(0, 0, 64), bytes(1, 9, 700), manifest.clone()]];
    let seeds = good.map(|requests| vec![Piece::json(&requests.into()), Piece::binary(vec![0; FLIPPED_BYTES])]);
    let other = [manifest, bytes(0, 0, 64)].map(|request| head(request.to_string().as_bytes())).concat();
    let run = move |input: &[Piece]| {
        let _kept = &folder;
        let requests: Value = serde_json::from_slice(&input[0].bytes).map_err(|_| "no JSON".to_owned())?;
        // At most a hundred: each byte range that is served has its time.
        let requests = requests.as_array().into_iter().flatten().take(100);
        let mut stream: Vec<u8> = requests.flat_map(|request| head(request.to_string().as_bytes())).collect();
        stream.iter_mut().zip(&input[1].bytes).for_each(|(byte, mask)| *byte ^= mask);
        runtime.block_on(async {
            let (answers, is_served) = converse(&service, &stream).await;
            // Another member is served as before, and does not wait for bytes that there are not.
            assert_eq!(converse(&service, &other).await, ("body body ".to_owned(), true));
            let answers = answers.split(' ').take(3).collect::<Vec<_>>().join(" ");
            if is_served { Ok(answers) } else { Err(answers) }
        })
    };
    // A stream each way, and an answer of as many chunks as may be asked for at once.
    Target { name: "layers_port", seeds: seeds.to_vec(), run: Box::new(run), memory: (16 << 20, 512) }
}

/// The manifest of a model.
pub(crate) fn manifest() -> Target {
    let (_folder, file) = model();
    let good = serde_json::to_value(ChunkManifest::compute(&file, &mut |_| {}).unwrap()).unwrap();
    let hashes = "0f".repeat(32 * 3);
    let long = json!({
        "fingerprint": "f", "chunk_bytes": 1 << 20, "parts": [{"bytes": (2 << 20) + 1, "chunks": hashes}],
    });
    let run = |input: &[Piece]| {
        let manifest: ChunkManifest = serde_json::from_slice(&input[0].bytes).map_err(|error| error.to_string())?;
        let again = serde_json::to_vec(&manifest).unwrap();
        let again: ChunkManifest = serde_json::from_slice(&again).expect("what is taken is written and read again");
        assert_eq!((again.root(), &again), (manifest.root(), &manifest));
        Ok("file ".repeat(manifest.part_bytes().len().min(9)))
    };
    let seeds = [good, long].map(|manifest| vec![Piece::json(&manifest)]).to_vec();
    Target { name: "manifest", seeds, run: Box::new(run), memory: (64 << 10, 64) }
}

/// The answer of a machine that has the place of the one with the model.
pub(crate) fn layers_reply() -> Target {
    let (_folder, file) = model();
    let fingerprint = file.fingerprint().clone();
    let manifest = serde_json::to_value(ChunkManifest::compute(&file, &mut |_| {}).unwrap()).unwrap();
    let (liar, caches) = (Liar::start(), scratch());
    let tls = EtcdTls {
        authority: Some(liar.authority().to_owned()),
        identity: Some(liar.identity()),
        server_name: Some(STORE_NAME.to_owned()),
    };
    let access = EtcdAccess { endpoints: vec![format!("https://{}", liar.address())], tls, login: None };
    let body = manifest.to_string();
    let seed = vec![
        Piece::json(&json!({"body": body.len()})),
        Piece::json(&manifest),
        Piece::binary(vec![0; FLIPPED_BYTES]),
        Piece::binary(vec![0; FLIPPED_BYTES]),
    ];
    let run = move |input: &[Piece]| {
        let mut answer = head(&input[0].bytes);
        answer.extend(&input[1].bytes);
        answer.iter_mut().zip(&input[2].bytes).for_each(|(byte, mask)| *byte ^= mask);
        liar.answers(answer, input[3].bytes.clone());
        let client = LayerClient::new(&access, FoundSources::default()).unwrap().expect("there is an address");
        let root: PathBuf = caches.path().join("cache");
        let _ = fs::remove_dir_all(&root);
        let cache = Cache::new(root, Access::default());
        // The order to stop is there already, so nothing is asked for after the manifest, and nothing twice.
        match LayerFetch::open(client, ("m", &fingerprint), &cache, Arc::new(AtomicBool::new(true))) {
            Ok(_) | Err(LayersError::Stopped) => Ok("a manifest".to_owned()),
            Err(LayersError::Cache(error)) => Ok(chain(&error).replace(caches.path().to_str().unwrap(), "")),
            Err(error) => Err(chain(&error).replace(liar.address(), "it")),
        }
    };
    Target { name: "layers_reply", seeds: vec![seed], run: Box::new(run), memory: (82 << 20, 512) }
}
