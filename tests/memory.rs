//! What each stage process has in its memory, as the operating system counts it. Alone in its file: a page that two
//! processes map counts half for each, so no other cluster may run beside these.

mod common;

use common::cluster::Cluster;
use common::golden::{answers, golden, numbers};
use stages::weights::ModelFile;

/// The `smaps` of a process, summed over the mappings `of` accepts (by path), field by field, in bytes.
fn smaps(pid: u32, field: &str, of: impl Fn(&str) -> bool) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut counted = false;
    let mut sum = 0;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first.contains('-') && !first.ends_with(':') {
            counted = of(line.split_whitespace().nth(5).unwrap_or_default());
        } else if counted && first.strip_suffix(':') == Some(field) {
            sum += words.next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024;
        }
    }
    sum
}

fn pss(pid: u32) -> u64 {
    smaps(pid, "Pss", |_| true)
}

#[test]
fn each_stage_has_only_its_own_layers_in_memory() {
    const SLACK_BYTES: u64 = 2 << 20;
    let golden = golden();
    let model = common::model_path();
    let file = ModelFile::open(&model).unwrap();
    let record = file.record(8192, 1).unwrap();
    let name = model.file_name().unwrap().to_string_lossy().into_owned();
    let one = {
        let cluster = Cluster::start(1, &[], &[]);
        answers(&cluster, &golden);
        pss(cluster.stage_pids()[0])
    };
    let cluster = Cluster::start(3, &[], &[]);
    answers(&cluster, &golden);
    let mut sum = 0;
    for stage in cluster.stages() {
        let pid = stage["pid"].as_u64().unwrap() as u32;
        let layers = numbers(&stage["layers"]);
        let range = schema::LayerRange::new(layers[0], layers[1]).unwrap();
        let own = record.shard_bytes(range).weights;
        let resident = smaps(pid, "Rss", |path| path.ends_with(&name));
        let files = smaps(pid, "Pss", |path| path.starts_with('/'));
        let all = pss(pid);
        println!(
            "layers {range}: own tensors {own}, resident of the model file {resident}, proportional set {all}: \
             files {files}, anonymous {}",
            all - files
        );
        assert!(resident > own / 2, "layers {range} are not even mapped: is the file another one?");
        assert!(resident <= own + SLACK_BYTES, "layers {range}: {resident} bytes of the model file, its own are {own}");
        sum += all;
    }
    println!("three stages {sum}, one stage {one}: {:.3}", sum as f64 / one as f64);
    assert!(sum as f64 <= 1.15 * one as f64, "three stages take {sum} bytes together, one takes {one}");
}
