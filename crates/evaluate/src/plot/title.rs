//! A figure's title, broken into lines that fit.

/// The most lines of a title whose front can be shortened.
const MOST: usize = 3;

/// The lines of a title. Of a long one, `NAME: what is shown`, the name is shortened, so that the rest stays whole.
///
/// - `room`: characters of a line.
pub(super) fn lines(title: &str, room: usize) -> Vec<String> {
    const STEP: usize = 8;
    let whole = wrapped(title, room);
    let Some((name, rest)) = title.rsplit_once(": ").filter(|_| whole.len() > MOST) else {
        return whole;
    };
    let mut kept = name.chars().count();
    loop {
        kept = kept.saturating_sub(STEP);
        let start: String = name.chars().take(kept).collect();
        let shorter = wrapped(&format!("{}…: {rest}", start.trim_end()), room);
        if kept == 0 || shorter.len() <= MOST {
            return shorter;
        }
    }
}

/// A text in lines, broken at spaces where there are some.
pub(super) fn wrapped(text: &str, room: usize) -> Vec<String> {
    let (mut lines, mut line, mut used) = (Vec::new(), String::new(), 0);
    for piece in text.split(' ').flat_map(|word| pieces(word, room)) {
        let length = piece.chars().count();
        if used > 0 && used + 1 + length > room {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        line += &piece;
        used += length;
    }
    lines.push(line);
    lines
}

/// A word, cut where it is longer than a line.
fn pieces(word: &str, room: usize) -> Vec<String> {
    let characters: Vec<char> = word.chars().collect();
    characters.chunks(room.max(1)).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_broken_at_spaces_and_long_words_anywhere() {
        assert_eq!(lines("", 10), [""]);
        assert_eq!(lines("one two", 10), ["one two"]);
        assert_eq!(lines("one two three", 10), ["one two", "three"]);
        assert_eq!(lines("a 0123456789012", 10), ["a", "0123456789", "012"]);
    }

    #[test]
    fn what_is_shown_stays_where_the_name_is_long() {
        for name in ["recipe".repeat(40), "a recipe ".repeat(30)] {
            let title = format!("{name}: score against what decoding costs, by the judge");
            let lines = lines(&title, 44);
            assert!(lines.len() <= MOST, "{lines:?}");
            assert!(lines.iter().all(|line| line.chars().count() <= 44), "{lines:?}");
            let text = lines.join(" ");
            assert!(text.contains("…: score against what decoding costs, by the judge"), "{text}");
        }
    }
}
