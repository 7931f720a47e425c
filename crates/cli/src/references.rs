//! `reference-samples.json`: the reference's samples, and in a recipe's run those of its own row besides.

use std::fmt;

use infalign_evaluate::Sampled;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// One set of samples, or a list of two. Which it is shows before any key is read, so that errors name the key.
pub(crate) struct References {
    /// What policies are compared with.
    pub(crate) reference: Sampled,
    /// The reference's own row, where there is one.
    pub(crate) base: Option<Sampled>,
}

impl<'de> Deserialize<'de> for References {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Form)
    }
}

struct Form;

impl<'de> Visitor<'de> for Form {
    type Value = References;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("samples, or a list of two sets of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<References, A::Error> {
        let reference = Sampled::deserialize(MapAccessDeserializer::new(map))?;
        Ok(References { reference, base: None })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sets: A) -> Result<References, A::Error> {
        let reference: Option<Sampled> = sets.next_element()?;
        let reference = reference.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let base: Option<Sampled> = sets.next_element()?;
        let base = base.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        Ok(References { reference, base: Some(base) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_key() {
        let error =
            |text: &str| serde_json::from_str::<References>(text).err().unwrap().to_string();
        let misspelt = r#"{"prompts": [], "responses": [], "rewardz": []}"#;
        for text in [misspelt.to_owned(), format!("[{misspelt}, {misspelt}]")] {
            assert!(error(&text).contains("missing field `rewards`"), "{}", error(&text));
        }
        let whole = misspelt.replace('z', "s");
        assert!(error(&format!("[{whole}]")).contains("a list of two sets"));
        let read = |text: &str| serde_json::from_str::<References>(text).unwrap().base;
        assert_eq!(read(&whole), None);
        assert_eq!(read(&format!("[{whole}, {whole}]")), Some(Sampled::default()));
    }
}
