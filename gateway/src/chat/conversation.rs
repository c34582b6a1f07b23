//! The messages of a conversation, and the file that they are kept in: a JSON object with `messages`, as in a request
//! of the chat API.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::limits::CONVERSATION_BYTES_MAX;

/// The author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The system prompt.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// The author.
    pub role: Role,
    /// The text.
    pub content: String,
    /// The reasoning before an answer, which goes back to the model as it came.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reasoning_content: String,
}

/// A conversation: a system prompt, if there is one, and the turns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    messages: Vec<Message>,
}

/// The reason that a conversation cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// The file cannot be written.
    #[error("cannot write {path}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// The file is too long.
    #[error("{path} has over {CONVERSATION_BYTES_MAX} bytes, the most that a gateway takes", path = path.display())]
    Long {
        /// The file.
        path: PathBuf,
    },
    /// The file has no conversation.
    #[error(
        "{path} has no conversation: expected {{\"messages\": [{{\"role\": …, \"content\": …}}]}}: {reason}",
        path = path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// The part that could not be parsed.
        reason: String,
    },
}

// === impl Message ===

impl Message {
    /// A message without reasoning.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), reasoning_content: String::new() }
    }
}

// === impl Conversation ===

impl Conversation {
    /// The messages in order.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The system prompt.
    pub fn system(&self) -> Option<&str> {
        self.messages.first().filter(|first| first.role == Role::System).map(|first| first.content.as_str())
    }

    /// Replaces the system prompt. An empty `text` removes it.
    pub fn set_system(&mut self, text: &str) {
        if self.system().is_some() {
            self.messages.remove(0);
        }
        if !text.is_empty() {
            self.messages.insert(0, Message::new(Role::System, text));
        }
    }

    /// Adds a turn.
    pub fn push(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// Takes the last turn back.
    pub fn pop(&mut self) -> Option<Message> {
        self.messages.pop()
    }

    /// Removes all turns. The system prompt stays.
    pub fn clear(&mut self) {
        self.messages.truncate(usize::from(self.system().is_some()));
    }

    /// Writes the conversation to `path`, which is replaced if it exists.
    ///
    /// # Errors
    /// [`ConversationError::Write`]
    pub fn save(&self, path: &Path) -> Result<(), ConversationError> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other);
        let written = text.and_then(|text| fs::write(path, text + "\n"));
        written.map_err(|cause| ConversationError::Write { path: path.to_owned(), cause })
    }

    /// Reads the conversation in `path`.
    ///
    /// # Errors
    /// [`ConversationError`] if the file cannot be read, is too long, or has no conversation.
    pub fn load(path: &Path) -> Result<Self, ConversationError> {
        let mut text = Vec::new();
        let opened = File::open(path);
        let read = opened.and_then(|file| file.take(CONVERSATION_BYTES_MAX + 1).read_to_end(&mut text));
        read.map_err(|cause| ConversationError::Read { path: path.to_owned(), cause })?;
        if text.len() as u64 > CONVERSATION_BYTES_MAX {
            return Err(ConversationError::Long { path: path.to_owned() });
        }
        serde_json::from_slice(&text)
            .map_err(|error| ConversationError::Content { path: path.to_owned(), reason: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation() -> Conversation {
        let mut conversation = Conversation::default();
        conversation.set_system("Be brief.");
        conversation.push(Message::new(Role::User, "2 + 2?"));
        conversation.push(Message { reasoning_content: "hm".to_owned(), ..Message::new(Role::Assistant, "4") });
        conversation
    }

    #[test]
    fn a_conversation_comes_back_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        conversation().save(&path).unwrap();
        assert_eq!(Conversation::load(&path).unwrap(), conversation());
    }

    #[test]
    fn a_file_without_a_conversation_is_refused_with_the_form_that_is_expected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        for text in ["", "[]", "{\"messages\":[{\"role\":\"king\",\"content\":\"\"}]}", "{\"messages\":[],\"x\":1}"] {
            fs::write(&path, text).unwrap();
            let error = Conversation::load(&path).unwrap_err().to_string();
            assert!(error.contains("expected {\"messages\": [{\"role\": …"), "{text}: {error}");
        }
        File::create(&path).unwrap().set_len(CONVERSATION_BYTES_MAX + 1).unwrap();
        assert!(matches!(Conversation::load(&path), Err(ConversationError::Long { .. })));
        assert!(matches!(Conversation::load(folder.path()), Err(ConversationError::Read { .. })));
    }

    #[test]
    fn the_system_prompt_is_replaced_removed_and_survives_a_clear() {
        let mut conversation = conversation();
        conversation.set_system("Be kind.");
        conversation.clear();
        assert_eq!((conversation.system(), conversation.messages().len()), (Some("Be kind."), 1));
        conversation.set_system("");
        assert_eq!(conversation.messages(), []);
    }
}
