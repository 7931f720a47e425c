//! The keys of `config.json` under the names of the families that have their own.

use std::path::Path;

use serde_json::{Map, Value};

use super::Family;
use super::check::unsupported;
use crate::ModelError;

/// A family's own names: the common one first. A key without a name of its own has no meaning in the family, and is neither read nor
/// written.
type Names = &'static [(&'static str, Option<&'static str>)];

const GPT2: Names = &[
    ("hidden_size", Some("n_embd")),
    ("intermediate_size", Some("n_inner")),
    ("num_hidden_layers", Some("n_layer")),
    ("num_attention_heads", Some("n_head")),
    ("hidden_act", Some("activation_function")),
    ("max_position_embeddings", Some("n_positions")),
    ("rms_norm_eps", Some("layer_norm_epsilon")),
    ("num_key_value_heads", None),
    ("head_dim", None),
    ("rope_theta", None),
    ("rope_scaling", None),
    ("attention_bias", None),
    ("mlp_bias", None),
];

const GPT_NEOX: Names = &[
    ("rms_norm_eps", Some("layer_norm_eps")),
    ("rope_theta", Some("rotary_emb_base")),
    ("partial_rotary_factor", Some("rotary_pct")),
    ("num_key_value_heads", None),
    ("head_dim", None),
    ("mlp_bias", None),
];

/// Common names that GPT-2's files may have too. There they go before the family's own, as they do in transformers.
const GPT2_ALIASES: [&str; 4] =
    ["hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"];

fn names(family: Family) -> Names {
    match family {
        Family::Gpt2 => GPT2,
        Family::GptNeox => GPT_NEOX,
        _ => &[],
    }
}

/// What the family calls a key: None where it has no such key.
pub(super) fn own(family: Family, common: &str) -> Option<&str> {
    let named = names(family).iter().find(|(name, _)| *name == common);
    named.map_or(Some(common), |(_, own)| *own)
}

/// Gives the family's keys their common names.
///
/// # Errors
/// [`ModelError::Config`] for a key under a name that is another family's: transformers takes its default in place of it.
pub(super) fn to_common(
    family: Family,
    keys: &mut Map<String, Value>,
    path: &Path,
) -> Result<(), ModelError> {
    if family == Family::Gpt2 {
        complete_gpt2(keys);
    }
    for &(common, own) in names(family) {
        let other = keys.remove(common).filter(|value| !value.is_null());
        let Some(own) = own else { continue };
        let aliased = family == Family::Gpt2 && GPT2_ALIASES.contains(&common);
        let value = match (other, keys.remove(own)) {
            (Some(value), _) if aliased => value,
            (_, Some(value)) => value,
            (Some(value), None) => {
                let hint = format!(
                    "files of this family have `{own}`, and transformers does not look at this key: write that one, or leave it out"
                );
                return Err(unsupported(path, common, &value, &hint));
            }
            (None, None) => continue,
        };
        keys.insert(common.into(), value);
    }
    Ok(())
}

/// GPT-2's context may be `n_ctx`, and its feed-forward layer is four times as wide as the stream unless `n_inner` is a number.
fn complete_gpt2(keys: &mut Map<String, Value>) {
    if let Some(context) = keys.remove("n_ctx") {
        keys.entry("n_positions").or_insert(context);
    }
    let width = ["hidden_size", "n_embd"].iter().find_map(|key| keys.get(*key)?.as_u64());
    if let (None | Some(Value::Null), Some(width)) = (keys.get("n_inner"), width) {
        keys.insert("n_inner".into(), width.saturating_mul(4).into());
    }
}

/// Gives the keys the family's own names.
pub(super) fn to_own(family: Family, keys: Map<String, Value>) -> Map<String, Value> {
    let rename = |(key, value): (String, Value)| Some((own(family, &key)?.to_owned(), value));
    keys.into_iter().filter_map(rename).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn names_go_there_and_back() {
        let mut keys = object(r#"{"n_embd": 8, "n_inner": null, "n_ctx": 16, "vocab_size": 5}"#);
        to_common(Family::Gpt2, &mut keys, Path::new("config.json")).unwrap();
        let common = r#"{"hidden_size": 8, "intermediate_size": 32, "max_position_embeddings": 16, "vocab_size": 5}"#;
        assert_eq!(keys, object(common));
        keys.insert("rope_theta".into(), 1.into());
        let own = r#"{"n_embd": 8, "n_inner": 32, "n_positions": 16, "vocab_size": 5}"#;
        assert_eq!(to_own(Family::Gpt2, keys), object(own));
        assert_eq!(own_of_neox("rope_theta"), Some("rotary_emb_base"));
        assert_eq!(own_of_neox("hidden_size"), Some("hidden_size"));
        assert_eq!(own_of_neox("mlp_bias"), None);
    }

    fn own_of_neox(key: &str) -> Option<&str> {
        own(Family::GptNeox, key)
    }
}
