//! Preferences between two whole dialogues, whose prompt is what both share.
//!
//! The prompt is made of whole turns and ends where an assistant is to answer, so that a response
//! never loses its beginning to the prompt. Plain dialogues have the form of HH-RLHF, whose turns
//! begin with `\n\nHuman:` and `\n\nAssistant:`; the second mark is the prompt's last word, and
//! the response begins with a space.

use crate::messages::{Message, Role, Text};

const ASSISTANT: &str = "\n\nAssistant:";

/// Splits two dialogues into the prompt that they share and what follows it in `chosen` and in `rejected`.
pub(crate) fn split(chosen: Text, rejected: Text) -> Result<[Text; 3], String> {
    match (chosen, rejected) {
        (Text::Plain(chosen), Text::Plain(rejected)) => {
            let end = end_in_text(&chosen, &rejected).ok_or(
                "It has no `prompt`, and its two dialogues share no beginning that ends in \
                 \"\\n\\nAssistant:\". Add the key `prompt`.",
            )?;
            let part = |text: &str| Text::Plain(text.to_owned());
            Ok([part(&chosen[..end]), part(&chosen[end..]), part(&rejected[end..])])
        }
        (Text::Messages(chosen), Text::Messages(rejected)) => {
            let end = end_in_messages(&chosen, &rejected).ok_or(
                "It has no `prompt`, and its two conversations share no first message that the \
                 assistant answers in both. Add the key `prompt`.",
            )?;
            let part = |messages: &[Message]| Text::Messages(messages.to_vec());
            Ok([part(&chosen[..end]), part(&chosen[end..]), part(&rejected[end..])])
        }
        _ => {
            Err("One of `chosen` and `rejected` is text, the other a list of messages. Give both \
                  the same form."
                .to_owned())
        }
    }
}

/// Where the last `\n\nAssistant:` within the common beginning ends. What lies before it is equal
/// in both dialogues, so it consists of whole turns.
fn end_in_text(chosen: &str, rejected: &str) -> Option<usize> {
    let shared = chosen.bytes().zip(rejected.bytes()).take_while(|(a, b)| a == b).count();
    let beginning = &chosen[..chosen.floor_char_boundary(shared)];
    beginning.rfind(ASSISTANT).map(|start| start + ASSISTANT.len())
}

/// The number of shared messages after which the assistant answers in both; at least 1.
fn end_in_messages(chosen: &[Message], rejected: &[Message]) -> Option<usize> {
    let shared = chosen.iter().zip(rejected).take_while(|(a, b)| a == b).count();
    let answers = |messages: &[Message], at: usize| {
        messages.get(at).is_some_and(|message| message.role == Role::Assistant)
    };
    (1..=shared).rev().find(|&at| answers(chosen, at) && answers(rejected, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hh(chosen: &str, rejected: &str) -> [String; 3] {
        let pair = split(Text::Plain(chosen.into()), Text::Plain(rejected.into())).unwrap();
        pair.map(|text| match text {
            Text::Plain(text) => text,
            Text::Messages(_) => panic!("not plain"),
        })
    }

    #[test]
    fn the_shared_dialogue_is_the_prompt_and_equal_beginnings_of_responses_are_not() {
        let parts = hh("\n\nHuman: Hi\n\nAssistant: Hello", "\n\nHuman: Hi\n\nAssistant: Hey");
        assert_eq!(parts, ["\n\nHuman: Hi\n\nAssistant:", " Hello", " Hey"]);
    }

    #[test]
    fn dialogues_that_part_in_an_earlier_turn_are_split_there() {
        let start = "\n\nHuman: a\n\nAssistant: b\n\nHuman: ";
        let parts = hh(&format!("{start}c\n\nAssistant: d"), &format!("{start}e\n\nAssistant: d"));
        assert_eq!(parts[0], "\n\nHuman: a\n\nAssistant:");
        assert_eq!(parts[1], " b\n\nHuman: c\n\nAssistant: d");
    }

    #[test]
    fn letters_that_differ_in_their_last_byte_are_not_cut() {
        assert_eq!(hh("\n\nAssistant: é", "\n\nAssistant: è")[1..], [" é", " è"]);
    }

    /// A conversation of alternating turns from the user on; `lengths` are those of its parts.
    fn lengths(chosen: &[&str], rejected: &[&str]) -> Option<[usize; 3]> {
        let talk = |contents: &[&str]| -> Vec<Message> {
            let roles = [Role::User, Role::Assistant].into_iter().cycle();
            let turns = roles.zip(contents);
            turns.map(|(role, content)| Message { role, content: (*content).into() }).collect()
        };
        let pair = split(Text::Messages(talk(chosen)), Text::Messages(talk(rejected))).ok()?;
        Some(pair.map(|text| match text {
            Text::Messages(messages) => messages.len(),
            Text::Plain(_) => panic!("plain"),
        }))
    }

    #[test]
    fn conversations_are_split_before_an_answer() {
        assert_eq!(lengths(&["a", "b"], &["a", "c"]), Some([1, 1, 1]));
        assert_eq!(lengths(&["a", "b", "c", "d"], &["a", "b", "c", "e"]), Some([3, 1, 1]));
        // They part at a question: the answer before it belongs to the responses.
        assert_eq!(lengths(&["a", "b", "c", "d"], &["a", "b", "e"]), Some([1, 3, 2]));
        // Equal, and one the beginning of the other.
        assert_eq!(lengths(&["a", "b"], &["a", "b"]), Some([1, 1, 1]));
        assert_eq!(lengths(&["a", "b", "c", "d"], &["a", "b"]), Some([1, 3, 1]));
        assert_eq!(lengths(&["a", "b"], &["c", "b"]), None);
        assert_eq!(lengths(&["a"], &["a"]), None);
    }
}
