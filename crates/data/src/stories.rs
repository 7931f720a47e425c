//! Openings of short stories, or of all their paragraphs, as prompts.
//!
//! The text holds stories one after another, and a blank line stands between stories just as
//! between paragraphs: only the words tell where a story begins. A paragraph begins a story if it
//! starts with `Once upon a time`, `Once there` or `Once, there`, or if it starts with `One day, a`
//! (`an`) or `One day there was` and does not follow directly on such an opening, where it goes on
//! with the story that has just begun. Any other paragraph belongs to the story before it.

use std::collections::HashSet;
use std::path::Path;

use crate::lines::numbered;
use crate::{DataError, Prompt};

const ALWAYS: [&str; 3] = ["Once upon a time", "Once there ", "Once, there "];
const UNLESS_AFTER_AN_OPENING: [&str; 3] = ["One day, a ", "One day, an ", "One day there was "];

/// The first `n_words` words of each story as a prompt, in the file's order.
///
/// The text is the file's own, the space between words included. Stories with fewer words and
/// openings that occurred before are left out.
///
/// # Errors
/// [`DataError`] when the file cannot be read, no story of that length begins in it, or `n_words`
/// is 0.
pub fn openings(path: &Path, n_words: usize) -> Result<Vec<Prompt>, DataError> {
    beginnings(path, n_words, stories, "story that long")
}

/// The first `n_words` words of each paragraph as a prompt, in the file's order. Blank lines part paragraphs.
///
/// Paragraphs with fewer words and openings that occurred before are left out.
///
/// # Errors
/// As [`openings`].
pub fn paragraph_openings(path: &Path, n_words: usize) -> Result<Vec<Prompt>, DataError> {
    beginnings(path, n_words, |text| text.split("\n\n").collect(), "paragraph that long")
}

/// The beginnings of the pieces of a file's text.
fn beginnings(
    path: &Path,
    n_words: usize,
    pieces: fn(&str) -> Vec<&str>,
    what: &'static str,
) -> Result<Vec<Prompt>, DataError> {
    if n_words == 0 {
        let (name, value) = ("n_words", "0".to_owned());
        return Err(DataError::Argument { name, value, range: "at least 1" });
    }
    let lines: Vec<_> = numbered(path)?.into_iter().map(|(_, line)| line).collect();
    let text = lines.join("\n");
    let mut seen = HashSet::new();
    let openings: Vec<_> = pieces(&text)
        .into_iter()
        .filter_map(|piece| first_words(piece, n_words))
        .filter(|opening| seen.insert(*opening))
        .map(Prompt::new)
        .collect();
    if openings.is_empty() {
        return Err(DataError::Empty { path: path.to_path_buf(), what });
    }
    Ok(openings)
}

/// The stories of the text. What comes before the first opening is no story.
fn stories(text: &str) -> Vec<&str> {
    let starts = story_starts(text);
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(start, end)| &text[*start..end]).collect()
}

fn story_starts(text: &str) -> Vec<usize> {
    let begins = |paragraph: &str, with: &[&str]| with.iter().any(|s| paragraph.starts_with(s));
    let mut starts = Vec::new();
    let mut after_an_opening = false;
    let mut at = 0;
    for paragraph in text.split("\n\n") {
        let opens = begins(paragraph, &ALWAYS)
            || (begins(paragraph, &UNLESS_AFTER_AN_OPENING) && !after_an_opening);
        if opens {
            starts.push(at);
        }
        after_an_opening = opens;
        at += paragraph.len() + "\n\n".len();
    }
    starts
}

/// The beginning of `story` up to the end of its `n_words`-th word; `None` if it has fewer.
fn first_words(story: &str, n_words: usize) -> Option<&str> {
    let last = story.split_whitespace().nth(n_words - 1)?;
    // `last` is a slice of `story`: the distance of the two addresses is where it begins in it.
    let start = last.as_ptr().addr() - story.as_ptr().addr();
    Some(&story[..start + last.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Text;
    use crate::test_files::{plain, real};

    fn texts(text: &str, n_words: usize) -> Vec<String> {
        let file = plain("stories.txt", text);
        openings(file.path(), n_words).unwrap().into_iter().map(text_of).collect()
    }

    fn text_of(prompt: Prompt) -> String {
        match prompt.text {
            Text::Plain(text) => text,
            Text::Messages(_) => panic!("an opening is plain text"),
        }
    }

    #[test]
    fn the_beginnings_of_stories_are_told_from_their_paragraphs() {
        let text = "the end of another.\n\nOne day, a cat slept.\n\nIt woke.\n\n\
                    Once upon a time, there was\n\nOne day, a dog came.\n\nOnce there was a bird.";
        assert_eq!(texts(text, 4), ["One day, a cat", "Once upon a time,", "Once there was a"]);
    }

    #[test]
    fn openings_keep_their_white_space_and_may_cross_paragraphs() {
        assert_eq!(texts("Once there  was\n\nmuch to do.", 4), ["Once there  was\n\nmuch"]);
        assert_eq!(texts("Once there was\r\n\r\nmuch", 4), ["Once there was\n\nmuch"]);
    }

    #[test]
    fn short_stories_and_repeated_openings_are_left_out() {
        let text = "Once there was one.\n\nOnce there was one.\n\nOnce there it was, long ago.";
        assert_eq!(texts(text, 4), ["Once there was one.", "Once there it was,"]);
        assert_eq!(texts(text, 6), ["Once there it was, long ago."]);
    }

    #[test]
    fn every_paragraph_that_is_long_enough_begins_a_prompt_once() {
        let file = plain(
            "stories.txt",
            "One day, a cat\nslept.\n\nIt woke.\n\nThe dog was there.\n\nThe dog was",
        );
        let texts = paragraph_openings(file.path(), 3).unwrap().into_iter().map(text_of);
        assert_eq!(texts.collect::<Vec<_>>(), ["One day, a", "The dog was"]);
        let error = paragraph_openings(file.path(), 9).unwrap_err().to_string();
        assert!(error.contains("holds no paragraph that long"), "{error}");
    }

    #[test]
    fn no_words_and_no_stories_are_errors() {
        let file = plain("stories.txt", "First Citizen:\nBefore we proceed");
        let error = |n_words| openings(file.path(), n_words).unwrap_err().to_string();
        assert_eq!(error(0), "n_words is 0; it has to be at least 1.");
        assert!(error(3).contains("holds no story that long"));
    }

    #[test]
    fn the_real_sample_has_its_stories() {
        let Some(path) = real("text/tinystories-sample.txt") else { return };
        let texts: Vec<_> = openings(&path, 8).unwrap().into_iter().map(text_of).collect();
        assert_eq!(texts.len(), 122);
        assert_eq!(texts[0], "One day, a little girl named Lily found");
        assert_eq!(texts[1], "Once upon a time, there was a little");
        assert!(texts.iter().all(|text| text.split_whitespace().count() == 8));
        assert_eq!(paragraph_openings(&path, 8).unwrap().len(), 1123);
    }
}
