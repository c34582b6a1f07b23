//! The metadata of a checkpoint and the descriptions of its tensors, from all of its files.

use std::collections::HashMap;

use super::TensorInfo;
use crate::gguf::{self, Metadata};

/// The key of a model's architecture.
const ARCHITECTURE: &str = "general.architecture";

/// Tensors that the files of an architecture call by another's name, and the name that says what they are: the
/// converter writes LFM2's last norm as that of the embedding.
const RENAMED: [(&str, &str, &str); 1] = [("lfm2", "token_embd_norm.weight", "output_norm.weight")];

/// Metadata and tensors of a checkpoint. Every tensor lies inside its files and has a unique name.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The metadata, with GGUF's keys.
    pub metadata: Metadata,
    /// The tensors, with GGUF's names, in the order of the files.
    pub tensors: Vec<TensorInfo>,
    by_name: HashMap<Box<str>, u32>,
}

// === impl Header ===

impl Header {
    /// The header with these tensors. The error is the index of the first tensor whose name an earlier one has.
    pub(super) fn new(metadata: Metadata, mut tensors: Vec<TensorInfo>) -> Result<Self, usize> {
        let architecture = metadata.get_str(ARCHITECTURE).ok().flatten().unwrap_or_default();
        for tensor in &mut tensors {
            if let Some((_, _, usual)) =
                RENAMED.iter().find(|(of, name, _)| *of == architecture && *name == tensor.name)
            {
                (*usual).clone_into(&mut tensor.name);
            }
        }
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (index, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.as_str().into(), index as u32).is_some() {
                return Err(index);
            }
        }
        Ok(Self { metadata, tensors, by_name })
    }

    /// The header of one GGUF file, which is part 0.
    pub fn of_gguf(header: gguf::GgufHeader) -> Self {
        let tensors = header.tensors.into_iter().map(|tensor| TensorInfo::of_gguf(tensor, 0)).collect();
        Self::new(header.metadata, tensors).unwrap_or_else(|_| unreachable!("the file's header has unique names"))
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.by_name.get(name)? as usize)
    }
}
