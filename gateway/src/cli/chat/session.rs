//! The conversation of a person with the model: reads lines, obeys commands, shows answers.

use std::io;
use std::path::Path;

use tokio::runtime::Runtime;

use super::super::exit::{CliError, Exit};
use super::super::output;
use super::command::{Input, help};
use super::prompt::{Line, Prompt};
use super::prompt_sign::PromptSign;
use super::transcript::Transcript;
use crate::chat::{AnswerEnd, ChatClient, Conversation, Message, Piece, Role};
use crate::client::Failure;

/// A conversation with one endpoint.
pub(super) struct Session {
    pub(super) runtime: Runtime,
    pub(super) client: ChatClient,
    pub(super) url: String,
    pub(super) conversation: Conversation,
    pub(super) transcript: Transcript,
}

/// The outcome of a request.
enum Outcome {
    Answered(AnswerEnd),
    Interrupted,
    Failed(Failure),
}

// === impl Session ===

impl Session {
    /// Answers one message.
    pub(super) fn answer_once(&mut self, message: String) -> Result<Exit, CliError> {
        self.conversation.push(Message::new(Role::User, message));
        match self.answer()? {
            Outcome::Answered(_) => Ok(Exit::Ok),
            Outcome::Interrupted => Ok(Exit::Interrupted),
            Outcome::Failed(cause) => Err(CliError::Endpoint { url: self.url.clone(), cause }),
        }
    }

    /// Talks until the person leaves.
    pub(super) fn talk(&mut self, history: Option<&Path>) -> Result<Exit, CliError> {
        let mut prompt = Prompt::open(history);
        output::print(&format!("{} on {}; /help shows the commands\n", self.client.model(), self.url))?;
        loop {
            let line = match prompt.read()? {
                Line::Written(line) => line,
                Line::Dropped => {
                    output::print("(Ctrl-D or /quit leaves)\n")?;
                    continue;
                }
                Line::End => return Ok(Exit::Ok),
            };
            match Input::parse(&line) {
                Ok(Input::Quit) => return Ok(Exit::Ok),
                Ok(input) => self.obey(input)?,
                Err(problem) => output::print(&format!("{problem}\n"))?,
            }
        }
    }

    fn obey(&mut self, input: Input) -> io::Result<()> {
        match input {
            Input::Blank | Input::Quit => Ok(()),
            Input::Message(text) => {
                self.conversation.push(Message::new(Role::User, text));
                self.turn()
            }
            Input::Help => output::print(&help()),
            Input::System(text) => {
                self.conversation.set_system(&text);
                output::print(if text.is_empty() { "no system prompt\n" } else { "the system prompt is set\n" })
            }
            Input::Clear => {
                self.conversation.clear();
                output::print("the turns are forgotten\n")
            }
            Input::Retry => {
                if self.conversation.messages().last().is_some_and(|last| last.role == Role::Assistant) {
                    self.conversation.pop();
                }
                match self.conversation.messages().last() {
                    Some(last) if last.role == Role::User => self.turn(),
                    _ => output::print("there is no message to answer\n"),
                }
            }
            Input::Save(path) => match self.conversation.save(&path) {
                Ok(()) => output::print(&format!("saved to {}\n", path.display())),
                Err(error) => output::print(&format!("{}\n", output::chain(&error))),
            },
            Input::Load(path) => match Conversation::load(&path) {
                Ok(conversation) => {
                    let count = conversation.messages().len();
                    self.conversation = conversation;
                    output::print(&format!("{count} messages from {}\n", path.display()))
                }
                Err(error) => output::print(&format!("{}\n", output::chain(&error))),
            },
        }
    }

    /// Shows the answer to the last message. A message without an answer is taken back.
    fn turn(&mut self) -> io::Result<()> {
        match self.answer()? {
            Outcome::Answered(end) => self.transcript.remark(&remark(&end)),
            Outcome::Interrupted => self.transcript.remark("(stopped)"),
            Outcome::Failed(cause) => {
                self.conversation.pop();
                let advice = match cause {
                    Failure::Refused { status: 400, .. } => "; the message is taken back, /clear makes room",
                    _ => "; the message is taken back, the arrow up brings it again",
                };
                let text = output::replace_control_chars(&format!("error: {}: {cause}{advice}", self.url));
                output::print(&format!("{text}\n"))
            }
        }
    }

    /// Streams an answer to stdout, and adds it to the conversation. Ctrl-C stops it; what came until then counts.
    fn answer(&mut self) -> io::Result<Outcome> {
        let (mut text, mut reasoning) = (String::new(), String::new());
        let mut written = Ok(());
        let waiting = PromptSign::new();
        let (client, conversation, transcript) = (&self.client, &self.conversation, &mut self.transcript);
        let piece = |piece: Piece| {
            match &piece {
                Piece::Progress(progress) => waiting.show(*progress),
                Piece::Reasoning(_) | Piece::Text(_) => waiting.clear(),
            }
            let shown = transcript.piece(&piece);
            if written.is_ok() {
                written = shown;
            }
            match piece {
                Piece::Reasoning(more) => reasoning += &more,
                Piece::Text(more) => text += &more,
                Piece::Progress(_) => {}
            }
        };
        let outcome = self.runtime.block_on(async {
            tokio::select! {
                // If signals cannot be received, Ctrl-C ends the process.
                Ok(()) = tokio::signal::ctrl_c() => Outcome::Interrupted,
                ended = client.answer(conversation.messages(), piece) => match ended {
                    Ok(end) => Outcome::Answered(end),
                    Err(cause) => Outcome::Failed(cause),
                },
            }
        });
        waiting.clear();
        self.transcript.end()?;
        written?;
        if matches!(outcome, Outcome::Interrupted) && text.is_empty() {
            // A message without an answer would be answered with the next one.
            self.conversation.pop();
        } else if !matches!(outcome, Outcome::Failed(_)) {
            let answer = Message { reasoning_content: reasoning, ..Message::new(Role::Assistant, text) };
            self.conversation.push(answer);
        }
        Ok(outcome)
    }
}

/// One line about an answer: tokens, speed, and the stages that computed it.
fn remark(end: &AnswerEnd) -> String {
    let mut parts = Vec::new();
    if let Some(timings) = &end.timings {
        parts.push(format!("{} tokens", timings.predicted_n));
        if timings.predicted_per_second > 0.0 {
            parts.push(format!("{:.1} tokens/s", timings.predicted_per_second));
        }
        parts.push(format!("first after {:.2} s", timings.prompt_ms / 1000.0));
        let stages = timings.stages.iter().map(|s| format!("{} {}..{}", s.stage, s.layers[0], s.layers[1]));
        let stages: Vec<_> = stages.collect();
        if !stages.is_empty() {
            parts.push(format!("layers of {}", stages.join(", ")));
        }
    }
    if end.finish_reason.as_deref() == Some("length") {
        parts.push("cut: it has as many tokens as it may have (--max-tokens)".to_owned());
    }
    if parts.is_empty() { String::new() } else { format!("({})", parts.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{AnswerStage, AnswerTimings};

    #[test]
    fn a_remark_says_how_fast_an_answer_was_and_who_computed_it() {
        let timings = AnswerTimings {
            predicted_n: 9,
            predicted_per_second: 12.34,
            prompt_ms: 250.0,
            stages: vec![AnswerStage { stage: "mini-1".to_owned(), layers: [0, 15] }],
        };
        let end = AnswerEnd { finish_reason: Some("stop".to_owned()), timings: Some(timings) };
        assert_eq!(remark(&end), "(9 tokens; 12.3 tokens/s; first after 0.25 s; layers of mini-1 0..15)");
        assert_eq!(remark(&AnswerEnd::default()), "");
    }
}
