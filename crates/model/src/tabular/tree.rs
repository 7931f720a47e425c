//! The prefixes of all responses of a tabular model, numbered.

use std::ops::Range;

/// How the end of a response is written in texts.
pub(crate) const EOS: char = '$';

/// Most prefixes that a tree may have.
pub(crate) const MOST_PREFIXES: usize = 1_000_000;

/// Most letters of an alphabet: a to z.
pub(crate) const MOST_LETTERS: usize = 26;

/// Every prefix of fewer than D tokens over an alphabet of letters, numbered breadth first: 0 is the empty prefix, and the children of a
/// prefix have greater numbers than the prefix. A complete response is a prefix and EOS, so it has the number of that prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixTree {
    letters: usize,
    depth: usize,
    size: usize,
}

impl PrefixTree {
    /// The tree of responses of at most `depth` tokens, EOS included. `None` unless `depth` ≥ 1, `letters` ≤ 26 and there are at most a
    /// million prefixes.
    pub fn new(letters: usize, depth: usize) -> Option<Self> {
        if depth == 0 || letters > MOST_LETTERS {
            return None;
        }
        let longest = if letters == 0 { 1 } else { depth };
        let (mut size, mut layer) = (0_usize, 1_usize);
        for _ in 0..longest {
            size = size.saturating_add(layer);
            layer = layer.saturating_mul(letters);
            if size > MOST_PREFIXES {
                return None;
            }
        }
        Some(Self { letters, depth, size })
    }

    /// Number of letters: the tokens without EOS.
    pub fn letters(&self) -> usize {
        self.letters
    }

    /// Most tokens of a response, EOS included.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Number of prefixes, which is the number of complete responses.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The token that ends a response: the last of the vocabulary.
    pub fn eos(&self) -> u32 {
        self.letters as u32
    }

    /// The prefixes that are one letter longer, in the order of the letters; none where only EOS may follow.
    pub fn children(&self, prefix: usize) -> Range<usize> {
        let first = self.letters * prefix + 1;
        if first < self.size { first..first + self.letters } else { 0..0 }
    }

    /// The prefix of given letters; `None` for EOS, ids outside the vocabulary and prefixes that are too long.
    pub fn number(&self, tokens: &[u32]) -> Option<usize> {
        tokens.iter().try_fold(0, |prefix, token| {
            let mut children = self.children(prefix);
            if *token < self.eos() { children.nth(*token as usize) } else { None }
        })
    }

    /// The prefix of a text such as `ab`; `None` for other characters and texts that are too long.
    pub fn find(&self, text: &str) -> Option<usize> {
        let token = |letter: char| u32::from(letter).checked_sub(u32::from('a'));
        self.number(&text.chars().map(token).collect::<Option<Vec<_>>>()?)
    }

    /// The letters of a prefix, as token ids.
    pub fn tokens(&self, prefix: usize) -> Vec<u32> {
        let mut tokens = Vec::new();
        let mut rest = prefix;
        while rest > 0 {
            tokens.push(((rest - 1) % self.letters) as u32);
            rest = (rest - 1) / self.letters;
        }
        tokens.reverse();
        tokens
    }

    /// The text of a prefix, such as `ab`.
    pub fn text(&self, prefix: usize) -> String {
        self.tokens(prefix).into_iter().map(letter).collect()
    }

    /// The text of a complete response, EOS written as `$`, such as `ab$`.
    pub fn response_text(&self, response: usize) -> String {
        self.text(response) + "$"
    }

    /// Tokens of each complete response, EOS included: 1 to the depth, `[size]`.
    pub fn lengths(&self) -> Vec<usize> {
        let mut lengths = vec![1; self.size];
        for prefix in 0..self.size {
            for child in self.children(prefix) {
                lengths[child] = lengths[prefix] + 1;
            }
        }
        lengths
    }
}

/// The letter of a token.
pub(crate) fn letter(token: u32) -> char {
    char::from(b'a' + (token % MOST_LETTERS as u32) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_texts_and_tokens_go_together() {
        let tree = PrefixTree::new(3, 4).unwrap();
        assert_eq!(tree.size(), 1 + 3 + 9 + 27);
        assert_eq!((tree.text(0), tree.response_text(0)), (String::new(), "$".to_owned()));
        let lengths = tree.lengths();
        for (prefix, length) in lengths.iter().enumerate() {
            assert_eq!(tree.number(&tree.tokens(prefix)), Some(prefix));
            assert_eq!(tree.find(&tree.text(prefix)), Some(prefix));
            assert_eq!(tree.text(prefix).len() + 1, *length);
        }
        let children = tree.children(tree.find("b").unwrap()).map(|child| tree.text(child));
        assert_eq!(children.collect::<Vec<_>>(), ["ba", "bb", "bc"]);
        assert!(tree.children(tree.find("abc").unwrap()).is_empty());
        for text in ["d", "A", "a$", "abca", "é", " "] {
            assert_eq!(tree.find(text), None, "{text}");
        }
        assert_eq!(tree.number(&[3]), None);
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(PrefixTree::new(2, 0), None);
        assert_eq!(PrefixTree::new(27, 1), None);
        assert_eq!(PrefixTree::new(2, 20), None);
        assert_eq!(PrefixTree::new(26, usize::MAX), None);
        assert_eq!(PrefixTree::new(0, usize::MAX).unwrap().size(), 1);
        assert_eq!(PrefixTree::new(1, 1_000_000).unwrap().size(), 1_000_000);
    }
}
