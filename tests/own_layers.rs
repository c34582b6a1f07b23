//! A machine that joins fetches the header and its own layers from the machine that shares the cluster, and has nothing
//! else on its disk: after kill -9 it goes on where it was, and a chunk that is not the model's is refused. The model
//! is a file of the first machine, of which the second has no copy and no address. Two homes on one machine, and a
//! relay between them that holds back what the test says.
#![cfg(feature = "tls")]

mod common;

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use common::cluster::{Cluster, address};
use common::etcd::free_port;
use common::home::Home;
use common::http::GatewayClient;
use common::relay::Relay;
use common::{model_path, wait_for};
use schema::LayerRange;
use stages::gguf::Extent;
use stages::weights::ModelFile;

const WAIT_MAX: Duration = Duration::from_secs(60);
const PROMPT: [u32; 6] = [504, 4149, 282, 3575, 314, 3030];
/// Bytes on one connection after which the relay holds it: a map is written before, and the fetch is not over.
const HELD_AFTER: u64 = 28 << 20;
/// Bytes of the model that a resumed fetch may fetch again: those after the last map, and whole chunks at ends.
const AGAIN_BYTES_MAX: u64 = 32 << 20;

/// Bytes that a stage with `layers` may have on its disk: its own, and the header.
fn own_bytes(file: &ModelFile, path: &Path, layers: LayerRange) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let Ok(Extent::Whole(header)) = Extent::of(&bytes, bytes.len() as u64) else { panic!("no header") };
    let own = file.bytes_of(layers).unwrap();
    header + own.iter().flatten().map(|range| range.end - range.start).sum::<u64>()
}

/// Inverts the bits of the byte at `at` of a file whose time of modification stays. Returns the byte before.
fn flip(path: &Path, at: u64) -> u8 {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let (mut byte, modified) = ([0], file.metadata().unwrap().modified().unwrap());
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
    file.set_modified(modified).unwrap();
    byte[0]
}

/// The state of a stage, the reason of it, and the layers that it is given, as `baton status` has them.
fn stage_of(home: &Home, store: SocketAddr, name: &str) -> Option<(String, String, LayerRange)> {
    let output = home.command(&["status", "--json", "--etcd", &format!("http://{store}")]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let stage = status["stages"].as_array()?.iter().find(|stage| stage["stage"] == name)?;
    let text = |field: &str| stage[field].as_str().unwrap_or_default().to_owned();
    Some((text("state"), text("reason"), serde_json::from_value(stage["layers"].clone()).ok()?))
}

#[test]
fn a_machine_that_joins_has_its_own_layers_on_its_disk_and_nothing_else() {
    let (first, second) = (Home::new(), Home::new());
    let model = first.0.path().join("own.gguf");
    std::fs::copy(model_path(), &model).unwrap();
    let file = ModelFile::open(&model).unwrap();
    let [shared, store] = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let (share, listen) = (format!("--share={shared}"), format!("--store-listen={store}"));
    let up = ["up", model.to_str().unwrap(), &share, &listen, "--listen=127.0.0.1:0", "--discovery=off"];
    // It cannot hold the model alone, so the layers stay divided as they are at first.
    let stages = ["--stages=1", "--stages-min=2", "--threads=1", "--kv-tokens=512", "--memory=100MB"];
    let mut up = first.baton(&[&up[..], &stages].concat());
    let line = up.line("baton join");
    let token = line.split_whitespace().last().unwrap();
    let relay = Relay::start(shared);
    let join = relay.address.to_string();
    let stage_arguments = ["--threads=1", "--name=second"];
    let reason = || stage_of(&first, store, "second").map_or_else(String::new, |(_, reason, _)| reason);

    // --- In the middle of the fetch, Ctrl-C ends it at once.
    relay.hold_after(HELD_AFTER);
    let stage = second.baton(&[&["join", &join, token], &stage_arguments[..]].concat());
    wait_for("a part of the layers", WAIT_MAX, || second.mapped() > HELD_AFTER / 2);
    let seen = stage.interrupted();
    assert!(seen.iter().all(|line| !line.contains("panicked")), "{seen:#?}");

    // --- The status says how far the fetch is, and kill -9 loses nothing that is in the map.
    let mut stage = second.baton(&[&["join"], &stage_arguments[..]].concat());
    wait_for("the progress in the status", WAIT_MAX, || reason().starts_with("fetching its layers, "));
    stage.child.kill().unwrap();
    stage.child.wait().unwrap();
    let before = second.mapped();

    // --- A chunk that is not the model's is refused, and its sender is named.
    let (_, _, layers) = stage_of(&first, store, "second").expect("a placement");
    let at = file.bytes_of(layers).unwrap()[0].last().unwrap().end - 1;
    let right = flip(&model, at);
    relay.hold_after(u64::MAX);
    let mut stage = second.baton(&[&["join"], &stage_arguments[..]].concat());
    let wrong = stage.line("sent a wrong chunk");
    assert!(wrong.contains(&join) && wrong.contains("expected BLAKE3"), "{wrong}");
    wait_for("the refusal in the status", WAIT_MAX, || reason().contains("sent a wrong chunk"));
    stage.interrupt();
    assert_eq!(flip(&model, at), !right, "another byte is at its place");

    // --- Started again, it fetches what it lacks, and serves.
    let (kept, passed) = (second.mapped(), relay.passed());
    assert!(kept >= before, "a refused chunk cost what was there");
    let mut stage = second.baton(&[&["join"], &stage_arguments[..]].concat());
    let client = GatewayClient { http: address(&up.line("ready after")) };
    let (_, _, layers) = stage_of(&first, store, "second").expect("a placement");
    let (own, disk) = (own_bytes(&file, &model, layers), second.disk_bytes());
    let fetched = relay.passed() - passed;
    println!("layers {layers}: own bytes {own}, kept {kept}, fetched at the end {fetched}, on the disk {disk}");
    assert!(fetched <= own - kept.min(own) + AGAIN_BYTES_MAX, "{fetched} bytes came, {kept} of {own} were there");
    assert!(disk >= own && disk <= own + own / 100, "{disk} bytes on the disk: expected {own} and at most 1 % more");
    let (tokens, _) = client.complete(&PROMPT, 8);
    let manifests: Vec<_> = std::fs::read_dir(first.0.path().join("cache/baton/manifests")).unwrap().collect();
    assert_eq!(manifests.len(), 1, "the first machine keeps the hashes of its model");

    // --- A damaged map costs nobody the bytes that he has mapped: another process fetches into the same file.
    std::fs::write(second.layers().unwrap().join("map.json"), "[").unwrap();
    let mut third = second.baton(&["join", "--threads=1", "--name=third"]);
    third.line("the map is damaged");
    third.line("the model is agreed on");
    assert_eq!(client.complete(&PROMPT, 8).0, tokens);
    assert_eq!(stage.child.try_wait().unwrap(), None, "the stage that had the file mapped has ended");
    third.interrupt();

    // --- Both machines list, check and keep what their processes use.
    let run = |home: &Home, words: &[&str]| {
        let output = home.command(&[&["cache"], words].concat()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let listed: serde_json::Value = serde_json::from_str(&run(&second, &["list", "--json"]).1).unwrap();
    assert_eq!((listed[0]["name"].as_str(), listed[0]["kind"].as_str()), (Some("own"), Some("partial")), "{listed}");
    assert_eq!((listed[0]["in_use"].as_bool(), listed[0]["layers_of_model"].as_u64()), (Some(true), Some(30)));
    let (code, verified) = run(&second, &["verify"]);
    assert_eq!(code, Some(0), "{verified}");
    assert!(verified.starts_with("own: sound"), "{verified}");
    let kept = (second.mapped(), second.disk_bytes());
    let (_, pruned) = run(&second, &["prune", "--yes"]);
    assert!(pruned.contains("in use: own"), "{pruned}");
    assert_eq!((second.mapped(), second.disk_bytes()), kept, "of a model in use, something was removed");
    assert_eq!(run(&second, &["verify"]).0, Some(0), "of a model in use, something was changed");
    assert_eq!(client.complete(&PROMPT, 8).0, tokens);
    stage.interrupt();
    let here = second.layers().unwrap().join("model.gguf");
    flip(&here, 5000);
    let (code, verified) = run(&second, &["verify"]);
    assert_eq!(code, Some(1), "{verified}");
    assert!(verified.starts_with("own: wrong") && verified.contains("expected BLAKE3"), "{verified}");
    let (_, pruned) = run(&second, &["prune", "--yes"]);
    assert!(pruned.contains("removed own"), "{pruned}");
    assert_eq!(second.layers(), None);

    // --- The tokens are those of one machine with the whole file.
    assert_eq!(tokens, Cluster::start(1, &["--threads=1"], &[]).complete(&PROMPT, 8).0);
}
