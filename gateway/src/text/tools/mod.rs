//! Calls of tools in a model's text: the formats of model families, and the parsers that find calls while text arrives.

mod call_id;
mod call_object;
mod call_parser;
mod call_text;
mod format;
mod gemma_calls;
mod grammar;
mod json_calls;
mod json_scan;
mod known_tools;
mod limits;
pub(super) mod marks;
mod mistral_calls;
mod named_calls;
mod parameter_type;
mod python_literal;
mod pythonic_calls;
mod syntax;
mod tagged_calls;
#[cfg(test)]
mod tests;

pub use call_id::CallIds;
pub(super) use call_id::TemplateCallId;
pub use call_parser::CallParser;
pub(super) use call_text::instructions;
pub use format::ToolFormat;
pub use grammar::{CallGrammar, CallMode};
pub use known_tools::KnownTools;
