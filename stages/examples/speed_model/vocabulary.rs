//! A vocabulary to go with random weights: another model's, with unused tokens behind it up to the size that is wanted.
//! Does not know the rules of tokenizers.

use std::path::Path;

use stages::gguf::{GgufWriter, Value};
use stages::weights::ModelFile;

/// What files call a gap in the numbering (`tokenizer.ggml.token_type`).
const UNUSED: i32 = 5;

/// Adds the vocabulary of the file at `path` to `file`, lengthened to `size` tokens.
///
/// # Errors
/// When there is no vocabulary to be had there, or it has more tokens.
pub fn copy(path: &Path, size: usize, mut file: GgufWriter) -> Result<GgufWriter, Box<dyn std::error::Error>> {
    let header = ModelFile::open(path)?.vocabulary_header()?;
    let metadata = header.metadata;
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
            // One value a token, which vocabularies of pairs have no use for.
            "tokenizer.ggml.scores" => continue,
            _ => value.clone(),
        };
        file = file.metadata(key, value);
    }
    Ok(file)
}
