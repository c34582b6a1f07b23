//! The chat templates of a folder: one in a file of its own, or one or several in `tokenizer_config.json`.

use serde_json::Value as Json;
use stages::gguf::Metadata;

use super::{FolderFiles, bad, shown};
use crate::text::TextError;

/// GGUF's key of the template that is used unless another is asked for.
const KEY: &str = "tokenizer.chat_template";

/// Writes the templates.
pub(super) fn describe(files: &FolderFiles, metadata: &mut Metadata) -> Result<(), TextError> {
    let wrong = |found: Option<&Json>| {
        bad(format!("expected chat_template to be a text, or a list of texts with names, found {}", shown(found)))
    };
    let found = files.tokenizer_config.get("chat_template");
    match found {
        None | Some(Json::Null) => {}
        Some(Json::String(template)) => drop(metadata.insert(KEY, template.as_str().into())),
        Some(Json::Array(templates)) => {
            let mut names = Vec::new();
            for template in templates {
                let text = |key: &str| template.get(key).and_then(Json::as_str);
                let (Some(name), Some(source)) = (text("name"), text("template")) else {
                    return Err(wrong(Some(template)));
                };
                if name == "default" {
                    metadata.insert(KEY, source.into());
                    continue;
                }
                metadata.insert(&format!("{KEY}.{name}"), source.into());
                names.push(name.to_owned());
            }
            if !names.is_empty() {
                metadata.insert("tokenizer.chat_templates", names.as_slice().into());
            }
        }
        Some(_) => return Err(wrong(found)),
    }
    // A file of its own is the newer form and counts.
    if let Some(template) = &files.chat_template {
        metadata.insert(KEY, template.as_str().into());
    }
    Ok(())
}
