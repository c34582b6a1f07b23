//! The time that the planner takes for clusters of the usual size, and for a thousand unequal stages and two hundred
//! layers. Run it with `cargo bench --bench planner`.

use criterion::{Criterion, criterion_group, criterion_main};
use engine::planner::{Candidate, plan_with_links};
use schema::record::{FormatSpeed, ModelRecord};

const FORMAT: &str = "Q4_K";

/// A model with layers of different sizes and an output head as large as several layers.
fn model(layers: u32) -> ModelRecord {
    let layer_bytes: Vec<_> = (0..layers).map(|layer| 200_000_000 + u64::from(layer % 7) * 9_000_000).collect();
    ModelRecord {
        hidden: 8192,
        context_tokens: 8192,
        // The planner does not use it.
        embedding_bytes: 1,
        layer_multiplications: layer_bytes.iter().map(|bytes| bytes * 2).collect(),
        head_bytes: 900_000_000,
        head_multiplications: 1_100_000_000,
        layer_format: Some(FORMAT.to_owned()),
        kv_bytes_per_token_layer: 4096,
        kv_tokens: 8192,
        scratch_bytes: 16_777_216,
        ..ModelRecord::new("large", layer_bytes)
    }
}

/// `count` stages, each with room for about `layers_each` layers, and with a latency of at least `link_us` microseconds
/// to the next stage. All are different: they combine 13 paces, 5 budgets and 17 latencies, and no two have one speed.
fn candidates(count: u64, layers_each: u64, link_us: u32) -> Vec<Candidate> {
    let candidate = |index: u64| {
        let pace = 1 + index * 7919 % 13;
        let speed = FormatSpeed {
            bytes_per_second: pace * 3_000_000_000 + index,
            multiplications_per_second: pace * 20_000_000_000,
        };
        Candidate {
            name: format!("s{index:04}").parse().expect("a legal name"),
            // 1.5 GB hold the head and the scratch memory. A layer takes 0.23 to 0.29 GB: weights, keys and values.
            budget_bytes: 1_500_000_000 + (layers_each + index * 31 % 5) * 270_000_000,
            speed: [(FORMAT.to_owned(), speed)].into(),
            link_us: link_us + (index * 131 % 17) as u32 * link_us / 5,
            link_megabits_per_second: None,
            fixed: None,
        }
    };
    (0..count).map(candidate).collect()
}

fn planner(criterion: &mut Criterion) {
    for (stages, layers, layers_each, link_us) in
        [(4, 48, 20, 200), (4, 48, 40, 50_000), (1000, 200, 2, 200), (1000, 200, 200, 200), (1000, 200, 200, 50_000)]
    {
        let (model, candidates) = (model(layers), candidates(stages, layers_each, link_us));
        criterion.bench_function(
            &format!("{stages} stages, {layers} layers, room for {layers_each} each, links of {link_us} us"),
            |bencher| {
                bencher.iter(|| plan_with_links(&model, &candidates).expect("a plan"));
            },
        );
    }
}

criterion_group!(benches, planner);
criterion_main!(benches);
