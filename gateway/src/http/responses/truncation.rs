//! Cuts a conversation that does not fit the context, for requests with `truncation` "auto": its oldest turns are left
//! out.

use crate::http::generation::text_model::{Conversation, TextError, TextModel};

/// The prompt of `conversation` without as many of its oldest turns as exceed `tokens_max`. A turn begins with a
/// message of the user, so that no result of a tool loses its call. System messages at the beginning and the last turn
/// stay; the prompt is longer than `tokens_max` if they are too long. Encodes a few times at most: it bisects.
///
/// # Errors
/// Those of the text model.
pub(super) fn encode_fitting(
    text: &dyn TextModel,
    conversation: &Conversation,
    tokens_max: usize,
) -> Result<Vec<u32>, TextError> {
    let whole = text.encode_chat(conversation)?;
    if whole.len() <= tokens_max {
        return Ok(whole);
    }
    let starts = turn_starts(conversation);
    let from_turn = |turn: usize| text.encode_chat(&from(conversation, starts[turn]));
    // The first turn from which the rest fits: from turns before `least` it is too long, and from `most` on it fits.
    let (mut least, mut most, mut fitting) = (0, starts.len(), None);
    while least < most {
        let middle = least + (most - least) / 2;
        let prompt = from_turn(middle)?;
        if prompt.len() <= tokens_max {
            (most, fitting) = (middle, Some(prompt));
        } else {
            least = middle + 1;
        }
    }
    match (fitting, starts.len()) {
        (Some(prompt), _) => Ok(prompt),
        (None, 0) => Ok(whole),
        (None, turns) => from_turn(turns - 1),
    }
}

/// The positions of the messages that begin a turn.
fn turn_starts(conversation: &Conversation) -> Vec<usize> {
    let messages = conversation.messages.iter().enumerate();
    messages.filter(|(_, message)| message.role == "user").map(|(position, _)| position).collect()
}

/// The system messages at the beginning of `conversation`, and its messages from `start` on.
fn from(conversation: &Conversation, start: usize) -> Conversation {
    let first = conversation.messages.iter().take(start).take_while(|message| message.role == "system");
    let messages = first.chain(&conversation.messages[start..]).cloned().collect();
    Conversation { messages, ..conversation.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::generation::text_model::{ByteText, Message};

    fn fitting(tokens_max: usize) -> String {
        let messages = [
            ("system", "S"),
            ("user", "11"),
            ("assistant", "aa"),
            ("user", "22"),
            ("assistant", "bb"),
            ("tool", "cc"),
            ("user", "33"),
        ];
        let messages = messages.map(|(role, content)| Message::text(role, content)).to_vec();
        let prompt = encode_fitting(&ByteText, &messages.into(), tokens_max).unwrap();
        prompt.into_iter().filter_map(char::from_u32).collect()
    }

    #[test]
    fn whole_turns_are_left_out_and_only_as_many_as_have_to_be() {
        assert_eq!(fitting(13), "S11aa22bbcc33");
        assert_eq!(fitting(12), "S22bbcc33");
        assert_eq!(fitting(9), "S22bbcc33");
        assert_eq!(fitting(8), "S33");
        assert_eq!(fitting(3), "S33");
    }

    #[test]
    fn the_last_turn_stays_even_if_it_is_too_long() {
        assert_eq!(fitting(2), "S33");
        let one = vec![Message::text("user", "111")];
        assert_eq!(encode_fitting(&ByteText, &one.into(), 2).unwrap().len(), 3);
        let none = vec![Message::text("assistant", "111")];
        assert_eq!(encode_fitting(&ByteText, &none.into(), 2).unwrap().len(), 3);
    }
}
