//! Patterns that split texts, and that programs read in two ways.

use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

/// Refuses a pattern with a `+` behind a number of times, such as `\p{N}{1,3}+`. That is up to three digits here, as in tiktoken, but any number
/// of them in transformers.
pub(super) fn check(tokenizer: &tokenizers::Tokenizer) -> Result<(), String> {
    match tokenizer.get_pre_tokenizer().and_then(ambiguous) {
        None => Ok(()),
        Some(pattern) => Err(format!(
            "its pattern {pattern:?} has a `+` behind `{{…}}`, which is read in two ways: take the `+` away if the number of times is the most that one piece has, or else enclose what is before the `+` in `(?:…)`"
        )),
    }
}

/// The first such pattern.
fn ambiguous(splitter: &PreTokenizerWrapper) -> Option<&str> {
    match splitter {
        PreTokenizerWrapper::Sequence(parts) => {
            let parts: &[PreTokenizerWrapper] = parts.as_ref();
            parts.iter().find_map(ambiguous)
        }
        PreTokenizerWrapper::Split(Split { pattern: SplitPattern::Regex(pattern), .. }) => {
            Some(pattern.as_str()).filter(|pattern| repeats_counted(pattern))
        }
        _ => None,
    }
}

/// Whether a `+` follows a number of times, and not the name of a class or the code of a character, as in `\p{L}+` and `\x{20}+`.
fn repeats_counted(pattern: &str) -> bool {
    pattern.match_indices("}+").any(|(end, _)| {
        pattern[..end].rsplit_once('{').is_some_and(|(before, times)| {
            let is_number =
                !times.is_empty() && times.chars().all(|c| matches!(c, '0'..='9' | ','));
            is_number && !before.ends_with("\\x")
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{Tokenizer, TransformerConfig};

    /// Whether a tokenizer that splits in this way is read.
    fn loaded(pre_tokenizer: &Value) -> Result<(), String> {
        let contents = json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null, "decoder": null,
            "pre_tokenizer": pre_tokenizer, "model": { "type": "WordLevel", "vocab": { "a": 0 }, "unk_token": "a" },
        });
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), contents.to_string()).unwrap();
        let config = TransformerConfig::llama(1, 8, 8, 1, 2, 16);
        Tokenizer::load(dir.path(), &config).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_counted_repetition_that_is_repeated_is_refused() {
        let split = |kind: &str, pattern: &str| json!({ "type": "Split", "pattern": { (kind): pattern }, "behavior": "Isolated", "invert": false });
        for pattern in [r"\p{N}{1,3}+", r"\p{L}+|\p{N}{2}+ ?", r"\p{N}{1,}+", r"\p{N}{,3}+"] {
            let alone = split("Regex", pattern);
            let within = json!({ "type": "Sequence", "pretokenizers": [{ "type": "Digits", "individual_digits": true }, alone] });
            for pre_tokenizer in [alone, within] {
                let error = loaded(&pre_tokenizer).unwrap_err();
                assert!(error.contains(&format!("{pattern:?}")), "{error}");
            }
        }
        for pattern in [r"\p{L}+", r"\p{N}{1,3}", r"(?:\p{N}{1,3})+", r"[^\p{L}]++", r"\x{20}+"] {
            assert_eq!(loaded(&split("Regex", pattern)), Ok(()), "{pattern}");
        }
        assert_eq!(loaded(&split("String", "{1,3}+")), Ok(()));
        assert_eq!(loaded(&Value::Null), Ok(()));
    }
}
