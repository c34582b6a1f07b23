//! A vocabulary for random weights: another model's vocabulary, followed by unused tokens up to the requested size.
//! Does not depend on the rules of tokenizers.

use std::path::Path;

use stages::gguf::{GgufWriter, Value};
use stages::weights::ModelFile;

/// The value for a gap in the numbering (`tokenizer.ggml.token_type`).
const UNUSED: i32 = 5;

/// Adds the vocabulary of the file at `path` to `file`, lengthened to `size` tokens.
///
/// # Errors
/// If the file has no vocabulary, or its vocabulary has more than `size` tokens.
pub fn copy(path: &Path, size: usize, mut file: GgufWriter) -> Result<GgufWriter, Box<dyn std::error::Error>> {
    let metadata = ModelFile::open(path)?.vocabulary_metadata()?;
    let tokens = metadata.str_array("tokenizer.ggml.tokens")?;
    if tokens.len() > size {
        let found = tokens.len();
        return Err(
            format!("expected a vocabulary of at most {size} tokens in {}, found {found}", path.display()).into()
        );
    }
    let mut texts: Vec<String> = tokens.iter().map(str::to_owned).collect();
    let mut kinds = metadata.i32_array("tokenizer.ggml.token_type")?;
    texts.extend((texts.len()..size).map(|token| format!("[PAD{token}]")));
    kinds.resize(size, UNUSED);
    for (key, value) in metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        let value = match key {
            "tokenizer.ggml.tokens" => Value::from(&texts[..]),
            "tokenizer.ggml.token_type" => Value::from(&kinds[..]),
            // One value per token, which vocabularies of pairs do not use.
            "tokenizer.ggml.scores" => continue,
            _ => value.clone(),
        };
        file = file.metadata(key, value);
    }
    Ok(file)
}
