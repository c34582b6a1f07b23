//! The forward pass of the golden models in double precision, written as simply as possible. The tests compare it with
//! the logits that Hugging Face's transformers computed for a model, and with the runner's. For the runner, it rounds
//! keys and values to half precision, as the KV cache does.

use half::f16;

use super::golden::Golden;

type Rows = Vec<Vec<f64>>;

/// The logits at all positions of the input. `half_precision` rounds keys and values.
pub fn logits(golden: &Golden, half_precision: bool) -> Rows {
    let embedding = || golden.matrix("model.embed_tokens.weight").expect("a table");
    multiply(&golden.matrix("lm_head.weight").unwrap_or_else(embedding), &hidden_states(golden, half_precision))
}

/// The hidden states at all positions of the input, after the final norm.
pub fn hidden_states(golden: &Golden, half_precision: bool) -> Rows {
    let number = |key: &str| golden.number(key) as usize;
    let (heads, kv_heads) = (number("num_attention_heads"), number("num_key_value_heads"));
    let embedding = golden.matrix("model.embed_tokens.weight").expect("a table");
    let mut x: Rows = golden.input_ids.iter().map(|id| embedding[*id as usize].clone()).collect();
    for layer in 0..number("num_hidden_layers") {
        let name = |suffix: &str| format!("model.layers.{layer}.{suffix}");
        let normed = norm_rows(golden, &x, &name("input_layernorm.weight"));
        let project =
            |which: &str, heads: usize| heads_of(golden, &normed, &name(&format!("self_attn.{which}")), heads);
        let queries = project("q", heads);
        let round = |rows: Vec<Rows>| if half_precision { rounded(rows) } else { rows };
        let (keys, values) = (round(project("k", kv_heads)), round(project("v", kv_heads)));
        let attended = attend(golden, &queries, &keys, &values);
        add(&mut x, &multiply(&golden.matrix(&name("self_attn.o_proj.weight")).expect("O"), &attended));

        let normed = norm_rows(golden, &x, &name("post_attention_layernorm.weight"));
        let product = |which: &str, rows: &Rows| {
            multiply(&golden.matrix(&name(&format!("mlp.{which}_proj.weight"))).expect("a matrix"), rows)
        };
        let (gate, up) = (product("gate", &normed), product("up", &normed));
        let swiglu = |(gate, up): (&f64, &f64)| gate / (1.0 + (-gate).exp()) * up;
        let gated = gate.iter().zip(&up).map(|(gate, up)| gate.iter().zip(up).map(swiglu).collect()).collect();
        add(&mut x, &product("down", &gated));
    }
    norm_rows(golden, &x, "model.norm.weight")
}

/// The cosine of the angle between two vectors.
pub fn cosine(exact: &[f64], found: &[f32]) -> f64 {
    let found: Vec<f64> = found.iter().map(|value| f64::from(*value)).collect();
    assert_eq!(exact.len(), found.len());
    dot(exact, &found) / (dot(exact, exact) * dot(&found, &found)).sqrt()
}

/// Queries, keys or values as `[position][head][dimension]`, with bias, norm and rotation if they apply. `name` is the
/// common beginning of the tensors' names, and ends in `.q`, `.k` or `.v`.
fn heads_of(golden: &Golden, rows: &Rows, name: &str, heads: usize) -> Vec<Rows> {
    let mut projected = multiply(&golden.matrix(&format!("{name}_proj.weight")).expect("a matrix"), rows);
    if let Some(bias) = golden.vector(&format!("{name}_proj.bias")) {
        projected.iter_mut().for_each(|row| row.iter_mut().zip(&bias).for_each(|(value, bias)| *value += bias));
    }
    let width = projected[0].len() / heads;
    let frequencies = golden.rope_frequencies(width);
    let is_value = name.ends_with(".v");
    let head_norm = golden.vector(&format!("{name}_norm.weight")).filter(|_| !is_value);
    let finished = |position: usize, head: &[f64]| -> Vec<f64> {
        let head = head_norm.as_ref().map_or(head.to_vec(), |weight| norm(golden, head, weight));
        if is_value { head } else { apply_rope(&head, position, &frequencies) }
    };
    let heads_of_row =
        |(position, row): (usize, &Vec<f64>)| row.chunks(width).map(|head| finished(position, head)).collect();
    projected.iter().enumerate().map(heads_of_row).collect()
}

/// Rotates each pair of a head's dimensions. A dimension of the first half is paired with that of the second half.
fn apply_rope(head: &[f64], position: usize, frequencies: &[f64]) -> Vec<f64> {
    let half = head.len() / 2;
    let mut rotated = head.to_vec();
    for (pair, frequency) in frequencies.iter().enumerate() {
        let (sin, cos) = (position as f64 * frequency).sin_cos();
        rotated[pair] = head[pair] * cos - head[pair + half] * sin;
        rotated[pair + half] = head[pair + half] * cos + head[pair] * sin;
    }
    rotated
}

/// The attention of each position over itself and the positions before it, at most `sliding_window` in all, as
/// `[position][head and dimension]`.
fn attend(golden: &Golden, queries: &[Rows], keys: &[Rows], values: &[Rows]) -> Rows {
    // Query heads that share a key-value head.
    let group = queries[0].len() / keys[0].len();
    let window = golden.config["sliding_window"].as_u64().unwrap_or(u64::MAX) as usize;
    let attended = |position: usize, head: usize| -> Vec<f64> {
        let query = &queries[position][head];
        let visible = (position + 1).saturating_sub(window)..position + 1;
        let score = |token: usize| dot(query, &keys[token][head / group]) / (query.len() as f64).sqrt();
        let weights: Vec<f64> = visible.clone().map(|token| score(token).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut out = vec![0.0; values[0][0].len()];
        for (token, weight) in visible.zip(weights) {
            out.iter_mut().zip(&values[token][head / group]).for_each(|(out, value)| *out += weight / sum * value);
        }
        out
    };
    let heads = queries[0].len();
    (0..queries.len()).map(|position| (0..heads).flat_map(|head| attended(position, head)).collect()).collect()
}

/// Rounds to half precision.
fn rounded(rows: Vec<Rows>) -> Vec<Rows> {
    let round = |value: f64| f16::from_f64(value).to_f64();
    rows.into_iter()
        .map(|heads| heads.into_iter().map(|head| head.into_iter().map(round).collect()).collect())
        .collect()
}

fn norm_rows(golden: &Golden, rows: &Rows, name: &str) -> Rows {
    let weight = golden.vector(name).expect("a norm");
    rows.iter().map(|row| norm(golden, row, &weight)).collect()
}

/// RMS norm.
fn norm(golden: &Golden, row: &[f64], weight: &[f64]) -> Vec<f64> {
    let epsilon = golden.config["rms_norm_eps"].as_f64().expect("an epsilon");
    let scale = 1.0 / (dot(row, row) / row.len() as f64 + epsilon).sqrt();
    row.iter().zip(weight).map(|(value, weight)| value * scale * weight).collect()
}

/// Each of `rows` times the matrix whose rows make one output each.
fn multiply(weights: &Rows, rows: &Rows) -> Rows {
    rows.iter().map(|row| weights.iter().map(|weights| dot(weights, row)).collect()).collect()
}

fn add(rows: &mut Rows, terms: &Rows) {
    rows.iter_mut().flatten().zip(terms.iter().flatten()).for_each(|(value, term)| *value += term);
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
