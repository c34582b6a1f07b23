//! Measures the speed of the matrix products: bytes per second for one row, multiplications per second for more rows
//! (8, 64 and 512 by default).
//!
//! `cargo run --release -p baton-stages --example kernel_speed [format ...] [second] [hot | <megabytes>MB] [rows ...]`.
//! `second` uses the second-best instruction set. `hot` uses one matrix again and again, so that it is read from the
//! caches. `48MB` uses as many matrices as have this size together, which is more than the second-level cache holds and
//! less than the third. The best of many short runs counts.

mod plain_read;

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use stages::format::Format;
use stages::kernels::{Isa, MatmulJob, Matrix, Rows, ThreadPool, matmul_on};

/// Outputs and columns: the default model's, then parts of those of a model with a billion weights.
const SHAPES: [(usize, usize); 4] = [(1536, 576), (576, 1536), (1024, 2048), (256, 8192)];

/// Bytes of weights in a measurement of decoding: several times any cache.
const COLD_BYTES: usize = 192 << 20;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let second = wanted.iter().any(|name| name == "second");
    let isa = Isa::all().nth(usize::from(second)).unwrap_or(Isa::SCALAR);
    let hot = wanted.iter().any(|name| name == "hot");
    let megabytes = wanted.iter().find_map(|name| name.strip_suffix("MB")?.parse::<usize>().ok());
    let total = megabytes.map_or(COLD_BYTES, |megabytes| megabytes << 20);
    let chosen: Vec<usize> = wanted.iter().filter_map(|rows| rows.parse().ok()).collect();
    let all_rows = if chosen.is_empty() { vec![1, 8, 64, 512] } else { chosen };
    let threads = [1, 2].map(|threads| ThreadPool::new(NonZeroUsize::new(threads).expect("not zero")));
    println!(
        "{isa:?}; reading memory alone: {}",
        threads.each_ref().map(|pool| format!("{:.1}", read(pool, total))).join(" / ")
    );
    let heads =
        all_rows.iter().map(|rows| format!("{:>15}", if *rows == 1 { "1 row".into() } else { format!("{rows} rows") }));
    let heads = heads.collect::<Vec<_>>().join("  ");
    println!("{:6} {:>11}  {heads}  (1 / 2 threads; one row in GB/s, more in GMAC/s)", "format", "shape");
    for format in Format::ALL {
        if wanted.iter().any(|name| name.starts_with(char::is_uppercase))
            && !wanted.iter().any(|name| name == format.name())
        {
            continue;
        }
        for (outputs, cols) in SHAPES {
            let Some(row_bytes) = format.row_bytes(cols) else { continue };
            let one = row_bytes * outputs;
            let bytes = weights(format, if hot { one } else { total / one * one });
            let matrices = bytes.chunks(one).map(|bytes| Matrix::new(format, outputs, cols, bytes).expect("sound"));
            let matrices: Vec<Matrix<'_>> = matrices.collect();
            let figures = all_rows.iter().map(|&rows| {
                threads.each_ref().map(|pool| {
                    let seconds = product(isa, pool, &matrices, rows);
                    let amount = if rows == 1 { one } else { rows * outputs * cols };
                    format!("{:6.1}", amount as f64 / seconds / 1e9)
                })
            });
            let figures: Vec<String> = figures.map(|pair| pair.join(" / ")).collect();
            let shape = format!("{outputs}x{cols}");
            println!("{:6} {shape:>11}  {}", format.name(), figures.join("  "));
        }
    }
}

/// Gigabytes per second of reading without any computation.
fn read(pool: &ThreadPool, total: usize) -> f64 {
    let bytes = vec![1; total];
    let parts = 64;
    let seconds = best(10, || {
        pool.run(parts, &|part| plain_read::read(&bytes[total * part / parts..total * (part + 1) / parts]));
    });
    total as f64 / seconds / 1e9
}

/// Seconds per product: the best of many short runs. Each has as many products with different weights as take a few
/// milliseconds, so that other load on the machine does not disturb some of the runs.
fn product(isa: Isa, pool: &ThreadPool, matrices: &[Matrix<'_>], rows: usize) -> f64 {
    let (outputs, cols) = (matrices[0].rows(), matrices[0].cols());
    let values: Vec<f32> = (0..rows * cols).map(|index| (index % 17) as f32 - 8.0).collect();
    let mut x = Rows::new();
    let mut out = vec![0.0; rows * outputs];
    let calls = (SLICE_MULTIPLICATIONS / (rows * outputs * cols)).clamp(1, matrices.len());
    let begin = Instant::now();
    let slices = matrices.chunks_exact(calls).cycle().take_while(|_| begin.elapsed() < SLICES_TIME);
    let seconds = slices.map(|matrices| {
        let start = Instant::now();
        for weights in matrices {
            x.load(&values, rows, cols);
            matmul_on(isa, pool, &mut [MatmulJob { weights: *weights, out: &mut out }], &mut x);
        }
        start.elapsed().as_secs_f64() / calls as f64
    });
    let seconds = seconds.fold(f64::INFINITY, f64::min);
    black_box(&out);
    seconds
}

/// Total time of the short runs.
const SLICES_TIME: Duration = Duration::from_millis(120);

/// Number of multiplications in a short run: a millisecond or two of decoding.
const SLICE_MULTIPLICATIONS: usize = 30_000_000;

fn best(times: usize, mut work: impl FnMut()) -> f64 {
    let seconds = (0..times).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min)
}

/// Any bits are valid weights. Clearing the high exponent bits of a float keeps scales from being infinite. Setting one
/// of the other exponent bits keeps floats, and scales that are all exponent, from being so small that processors slow
/// down.
fn weights(format: Format, len: usize) -> Vec<u8> {
    let (mask, set) = match format {
        Format::F32 | Format::F16 | Format::BF16 => (0x3f, 0x20),
        Format::Mxfp4 => (0x3b, 0x20),
        ours if ours.ggml().is_none() => (0x3b, 0x20),
        _ => (0x3b, 0),
    };
    (0..len).map(|index| (index.wrapping_mul(0x9e37_79b9) >> 16) as u8 & mask | set).collect()
}
