//! The tools that a request lets the model call.

use std::sync::Arc;

use crate::text::conversation::{Tool, ToolChoice};

/// The tools that a model may call. A call of another one is text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KnownTools(Arc<[Tool]>);

// === impl KnownTools ===

impl KnownTools {
    /// Those of `tools` that `choice` allows.
    pub fn new(tools: &[Tool], choice: &ToolChoice) -> Self {
        Self(tools.iter().filter(|tool| choice.allows(&tool.name)).cloned().collect())
    }

    /// The tool of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tool> {
        self.0.iter().find(|tool| tool.name == name)
    }

    /// True if the model may call none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order of the request.
    pub fn iter(&self) -> impl Iterator<Item = &Tool> {
        self.0.iter()
    }
}
