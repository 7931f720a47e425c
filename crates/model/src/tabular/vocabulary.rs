//! A tokenizer for the letters of a tabular model.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::TabularLm;
use super::tree::{EOS, letter};
use crate::{ModelError, Tokenizer};

impl TabularLm {
    /// The tokenizer of the model, in memory: a token a letter, EOS written `$` and left out of decoded texts. It opens every text with
    /// EOS, so that the empty text is a prompt.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when it cannot be built.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        let (eos, sign) = (self.tree().eos(), EOS.to_string());
        let letters = (0..eos).map(|token| (letter(token).to_string(), json!(token)));
        let vocabulary: Map<String, Value> = letters.chain([(sign.clone(), json!(eos))]).collect();
        let opening = json!({"SpecialToken": {"id": sign, "type_id": 0}});
        let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        let mut opened = Map::new();
        opened.insert(sign.clone(), json!({"id": sign, "ids": [eos], "tokens": [sign]}));
        let tokenizer = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [{"id": eos, "content": sign, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
            "normalizer": null,
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": false},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [opening, sequence("A")],
                "pair": [opening, sequence("A"), sequence("B")],
                "special_tokens": opened,
            },
            "decoder": {"type": "Fuse"},
            // A word that is not in the vocabulary: other characters than the letters are errors.
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
        });
        Tokenizer::from_bytes(tokenizer.to_string(), BTreeSet::from([eos]), Some(eos), eos)
    }
}
