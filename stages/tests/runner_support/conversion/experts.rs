//! Golden models' experts in the form of GGUF files: a tensor for all gates, one for what they are multiplied with, and
//! one for all downs.

use super::Tensors;

/// A layout of tensors that hold several experts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    /// `[expert][output][input]`, gates before ups.
    Outputs,
    /// `[expert][input][output]`, gates before ups.
    Inputs,
    /// `[expert][input][output]`, gates and ups in turns.
    Turns,
}

/// The tensors of a GGUF file that a tensor of several experts, or of both gates and ups, becomes. `None` for others.
pub(super) fn of_fused(architecture: &str, name: &str, dims: &[u64], values: &[f32]) -> Option<Tensors> {
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    // Of a matrix that is not one of several experts, it is the only one.
    let (ours, layout): (&[&str], _) = match (rest, architecture) {
        ("experts.gate_up_proj", "gemma4") if layer != "0" => (&["ffn_gate_up_exps"], Layout::Outputs),
        ("experts.gate_up_proj" | "mlp.experts.gate_up_proj", "gemma4" | "qwen3vlmoe")
        | ("block_sparse_moe.input_linear.weight", _) => (&["ffn_gate_exps", "ffn_up_exps"], Layout::Outputs),
        ("experts.down_proj" | "mlp.experts.down_proj", "gemma4" | "qwen3vlmoe")
        | ("block_sparse_moe.output_linear.weight", _) => (&["ffn_down_exps"], Layout::Outputs),
        ("shared_mlp.input_linear.weight", _) => (&["ffn_gate_shexp", "ffn_up_shexp"], Layout::Outputs),
        ("feed_forward.experts.gate_up_proj", _) => (&["ffn_gate_exps", "ffn_up_exps"], Layout::Inputs),
        ("feed_forward.experts.down_proj", _) => (&["ffn_down_exps"], Layout::Inputs),
        ("mlp.experts.gate_up_proj" | "mlp.experts.gate_up_proj_bias", "gpt-oss") => {
            (&["ffn_gate_exps", "ffn_up_exps"], Layout::Turns)
        }
        ("mlp.experts.down_proj" | "mlp.experts.down_proj_bias", "gpt-oss") => (&["ffn_down_exps"], Layout::Turns),
        _ => return None,
    };
    let bias = rest.ends_with("_bias");
    let count = if dims.len() == 2 && !bias { 1 } else { dims[0] as usize };
    let (inputs, all_outputs) = match (layout, dims) {
        (_, [.., outputs]) if bias => (1, *outputs as usize),
        (Layout::Outputs, [.., outputs, inputs]) => (*inputs as usize, *outputs as usize),
        (_, [.., inputs, outputs]) => (*inputs as usize, *outputs as usize),
        _ => panic!("{name} has {dims:?}"),
    };
    let outputs = all_outputs / ours.len();
    let tensor = |(part, ours_name): (usize, &&str)| {
        let value = |expert: usize, output: usize, input: usize| {
            let output = if layout == Layout::Turns { output * ours.len() + part } else { part * outputs + output };
            let within = if layout == Layout::Outputs { output * inputs + input } else { input * all_outputs + output };
            values[expert * inputs * all_outputs + within]
        };
        let each = (0..count).flat_map(|expert| (0..outputs).map(move |output| (expert, output)));
        let stored = each.flat_map(|(expert, output)| (0..inputs).map(move |input| value(expert, output, input)));
        let all = [count, outputs, inputs].map(|dim| dim as u64);
        let dims = match (bias, dims.len()) {
            (true, _) => &all[..2],
            (false, 2) => &all[1..],
            _ => &all[..],
        };
        let kind = if bias { "bias" } else { "weight" };
        (format!("blk.{layer}.{ours_name}.{kind}"), (dims.to_vec(), stored.collect()))
    };
    Some(ours.iter().enumerate().map(tensor).collect())
}

/// The layer, the number and the tensor's suffix of one expert's matrix.
pub(super) fn expert(name: &str) -> Option<(String, usize, &'static str)> {
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (_, rest) = rest.split_once(".experts.")?;
    let (index, matrix) = rest.split_once('.')?;
    let suffix = match matrix {
        "gate_proj.weight" | "w1.weight" => "ffn_gate_exps.weight",
        "up_proj.weight" | "w3.weight" => "ffn_up_exps.weight",
        "down_proj.weight" | "w2.weight" => "ffn_down_exps.weight",
        other => panic!("{other} is known"),
    };
    Some((layer.to_owned(), index.parse().ok()?, suffix))
}
