//! Describes a model by its file, for clients that ask. Nothing here is needed to serve the model.

use engine::generate::Pooling;
use serde_json::{Map, Number, Value as Json};
use stages::gguf::{Metadata, Value};
use stages::model::{ModelSpec, PoolingType};
use stages::weights::ModelFile;

use crate::http::{EmbeddingModel, ModelDescription};
use crate::text::{ChatTemplate, ChatTemplates, Vocabulary};

/// The key of the chat template, which has a field of its own.
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
/// Variables and words in the templates of models that can reason before they answer.
const REASONING_VARIABLES: [&str; 3] = ["enable_thinking", "reasoning_effort", "thinking"];
const REASONING_WORDS: [&str; 4] = ["<think>", "reasoning_content", "[THINK]", "<|channel|>"];

/// The names of `general.file_type` by its number, for the formats that baton computes. They are llama.cpp's.
const FILE_TYPES: &[(u32, &str)] = &[
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (37, "TQ2_0"),
    (38, "MXFP4_MOE"),
];

/// The description of the model in `file`, whose model is `spec`, and whose text metadata are `vocabulary` and
/// `templates`.
pub(super) fn describe(
    file: &ModelFile,
    spec: &ModelSpec,
    vocabulary: &Vocabulary,
    templates: &ChatTemplates,
) -> ModelDescription {
    let header = file.header();
    let template = templates.usual();
    let reads = |name: &str| template.is_some_and(|template| template.variables().contains(name));
    let words = |template: &ChatTemplate| REASONING_WORDS.iter().any(|word| template.source().contains(word));
    ModelDescription {
        file_name: file.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        file_bytes: file.bytes(),
        fingerprint: file.fingerprint().to_string(),
        architecture: header.metadata.str_or("general.architecture", "").unwrap_or_default().to_owned(),
        parameters: header.tensors.iter().map(|tensor| tensor.dims.iter().product::<u64>()).sum(),
        quantization: quantization(file),
        metadata: json(&header.metadata),
        chat_template: template.map(|template| template.source().to_owned()),
        tool_use_template: templates.tool_use_source().map(str::to_owned),
        takes_tools: templates.with_tools().is_some_and(|template| template.variables().contains("tools")),
        reasons: REASONING_VARIABLES.into_iter().any(reads) || template.is_some_and(words),
        bos: vocabulary.spelling(vocabulary.bos()).to_owned(),
        eos: vocabulary.spelling(vocabulary.eos()).to_owned(),
        fim: vocabulary.fim(),
        embedding: EmbeddingModel {
            dimensions: spec.hidden as u32,
            pooling: pooling(spec),
            only: spec.is_bidirectional(),
        },
    }
}

/// The tokens whose hidden states make an embedding. Where the file does not say, it is the last one, as in vLLM and
/// Ollama: attention is causal, so it alone has seen the whole text. Where all tokens see it, it is the mean, as in the
/// sentence-transformers library.
fn pooling(spec: &ModelSpec) -> Option<Pooling> {
    match spec.pooling_type {
        PoolingType::None if spec.is_bidirectional() => Some(Pooling::Mean),
        PoolingType::Mean => Some(Pooling::Mean),
        PoolingType::Cls => Some(Pooling::Cls),
        PoolingType::None | PoolingType::Last => Some(Pooling::Last),
        PoolingType::Rank => None,
    }
}

/// The format of the file's weights: the one that it names, or the most used one.
fn quantization(file: &ModelFile) -> String {
    let named = file.header().metadata.get_u32("general.file_type").ok().flatten();
    let known = FILE_TYPES.iter().find(|(number, _)| Some(*number) == named);
    if let Some((_, name)) = known {
        return (*name).to_owned();
    }
    let bytes = |format| -> u64 { file.matrices().filter(|info| info.format == format).map(|info| info.bytes).sum() };
    let most_used = file.matrix_formats().into_iter().max_by_key(|format| bytes(*format));
    most_used.map(|format| format.name().to_owned()).unwrap_or_default()
}

/// The metadata as JSON.
fn json(metadata: &Metadata) -> Map<String, Json> {
    let entries = metadata.iter().filter(|(key, _)| *key != CHAT_TEMPLATE);
    entries.map(|(key, value)| (key.to_owned(), json_value(value))).collect()
}

fn json_value(value: &Value) -> Json {
    match value {
        Value::Integer(_, number) => Number::from_i128(*number).map_or(Json::Null, Json::Number),
        // Infinities and NaN, which JSON does not have, become null.
        Value::Float(_, number) => Json::from(*number),
        Value::Bool(flag) => Json::Bool(*flag),
        Value::String(text) => Json::String(text.to_string()),
        Value::Numbers(_) | Value::Strings(_) | Value::Nested { .. } => Json::Array(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stages::gguf::ValueKind;

    #[test]
    fn metadata_values_become_the_json_values_of_their_type() {
        let cases = [
            (Value::Integer(ValueKind::U64, i128::from(u64::MAX)), Json::from(u64::MAX)),
            (Value::Integer(ValueKind::I32, -5), Json::from(-5)),
            (Value::Float(ValueKind::F32, 0.5), Json::from(0.5)),
            (Value::Float(ValueKind::F64, f64::NAN), Json::Null),
            (Value::Bool(true), Json::Bool(true)),
            (Value::String("llama".into()), Json::from("llama")),
            (Value::Strings(["a"].into_iter().collect()), Json::Array(Vec::new())),
        ];
        for (value, expected) in cases {
            assert_eq!(json_value(&value), expected, "{value:?}");
        }
    }
}
