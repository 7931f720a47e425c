//! Every module says what it is for.

use super::{File, Finding};

/// A file below src/ has to begin with a module doc whose first paragraph is a sentence.
pub(super) fn check(file: &File) -> Vec<Finding> {
    if !file.path.contains("/src/") || is_sentence(&first_paragraph(&file.text)) {
        return Vec::new();
    }
    let what = "The file has to begin with a `//!` doc of at least one full sentence. Say what \
                the module is for and what it decides.";
    vec![Finding::new(&file.path, 1, what)]
}

fn first_paragraph(text: &str) -> String {
    let doc = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    doc.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

fn is_sentence(paragraph: &str) -> bool {
    let n_words = paragraph.split_whitespace().count();
    n_words >= 3 && paragraph.ends_with(['.', ':', '?', '!'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(path: &str, text: &str) -> bool {
        check(&File { path: path.to_owned(), text: text.to_owned() }).is_empty()
    }

    #[test]
    fn a_sentence_over_several_lines_passes() {
        assert!(passes(
            "crates/a/src/b.rs",
            "//! One sentence,\n//! two lines.\n//!\n//! More\nuse x;"
        ));
    }

    #[test]
    fn a_missing_doc_or_a_catchword_does_not() {
        for text in [
            "use x;",
            "",
            "//! Placeholder.\n",
            "//! Some words without an end\n",
            "// A plain comment.\n",
        ] {
            assert!(!passes("xtask/src/b.rs", text), "{text}");
        }
        assert!(passes("crates/a/tests/b.rs", "use x;"));
    }
}
