//! Compares weight formats with llama.cpp on a fixed text. Both read the same file: the default model in that
//! format.
//!
//! llama.cpp has two results for the same weights: one with its kernels for the format, which round activations to 8
//! bits as ours do, and one with the weights expanded to floats, without any rounding. Mostly the two agree. In the
//! formats with blocks of 256 its kernels round 256 activations with one scale (ours: 32), and the two results are up
//! to 2.5 % apart. So those formats are compared with the result for floats, the others with the result of llama.cpp's
//! kernels for the format.

mod common;
mod losses;
mod requantise;

use std::path::Path;
use std::sync::Mutex;

use losses::{losses, mean};
use requantise::Stored;
use schema::record::KvType;
use serde_json::Value;
use stages::format::Format;

/// Maximum difference of our perplexity from llama.cpp's, as a fraction of it.
const DIFFERENCE_MAX: f64 = 0.005;
/// Number of formats tested at the same time, on one thread each, because writing and hashing a file takes as long as
/// computing.
const PARALLEL_FORMATS: usize = 2;

/// A format's perplexities.
struct Figures {
    format: Format,
    ours: f64,
    /// llama.cpp's perplexity with its kernels for the format.
    theirs: f64,
    /// llama.cpp's perplexity with the same weights as floats.
    floats: f64,
}

#[test]
fn perplexity_is_llama_cpps_within_half_a_percent_in_every_format_of_gguf() {
    let golden: Value = serde_json::from_str(include_str!("../../tests/data/smollm2_formats.json")).unwrap();
    let ids: Vec<u32> = golden["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // The others are those of folders, which `folder_quantised.rs` holds against transformers.
    let formats: Vec<Format> = Format::ALL.into_iter().filter(|format| format.ggml().is_some()).collect();
    let (waiting, done) = (Mutex::new(formats.iter().copied()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_FORMATS {
            scope.spawn(|| {
                while let Some(format) = take(&waiting) {
                    let figures = Figures::of(format, &golden["formats"][format.name()], &ids, folder.path());
                    println!("{}", figures.line());
                    done.lock().unwrap().push(figures);
                }
            });
        }
    });
    let done = done.into_inner().unwrap();
    assert_eq!(done.len(), formats.len());
    let beyond: Vec<String> = done.iter().filter(|one| one.difference() > DIFFERENCE_MAX).map(Figures::line).collect();
    assert!(beyond.is_empty(), "more than half a percent from llama.cpp:\n{}", beyond.join("\n"));
}

/// The next format. This is a function of its own so that the lock is not held while the format is tested.
fn take(waiting: &Mutex<impl Iterator<Item = Format>>) -> Option<Format> {
    waiting.lock().unwrap().next()
}

// === impl Figures ===

impl Figures {
    fn of(format: Format, golden: &Value, ids: &[u32], folder: &Path) -> Self {
        let path = folder.join(format.name());
        let hash = requantise::write(&common::default_model(), format, Stored::Quantised, &path).unwrap();
        assert_eq!(hash, golden["sha256"], "{}: llama.cpp read another file: see etc/golden/README.md", format.name());
        let tokens = golden["tokens"].as_u64().unwrap() as usize;
        let ours = mean(&losses(&path, &ids[..tokens], 1, KvType::F16)).exp();
        std::fs::remove_file(&path).unwrap();
        let number = |key: &str| golden[key].as_f64().unwrap();
        Self { format, ours, theirs: number("perplexity"), floats: number("floats_perplexity") }
    }

    /// Difference of our perplexity from llama.cpp's, as a fraction of it.
    fn difference(&self) -> f64 {
        let reference = if self.format.block_values() == 256 { self.floats } else { self.theirs };
        (self.ours / reference - 1.0).abs()
    }

    fn line(&self) -> String {
        let Self { format, ours, theirs, floats } = self;
        format!(
            "{:5} perplexity {ours:8.4}; llama.cpp's {theirs:8.4}, ratio {:.4}; with weights as floats {floats:8.4}, \
             ratio {:.4}",
            format.name(),
            ours / theirs,
            ours / floats
        )
    }
}
