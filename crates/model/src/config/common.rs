//! What the configurations of all families may spell in more than one way.

use serde_json::{Map, Value};

const TOKENS: [&str; 3] = ["bos_token_id", "eos_token_id", "pad_token_id"];

/// Gives keys the one spelling that is read: `dtype` is the newer name of `torch_dtype`, and may stand beside it; a token id of -1 is none.
pub(super) fn spellings(keys: &mut Map<String, Value>) {
    if let Some(dtype) = keys.remove("dtype").filter(|dtype| !dtype.is_null()) {
        keys.insert("torch_dtype".into(), dtype);
    }
    forget_negative_ids(keys);
}

/// Takes token ids below 0 for none.
pub(crate) fn forget_negative_ids(keys: &mut Map<String, Value>) {
    let negative = |id: &Value| id.as_i64().is_some_and(|id| id < 0);
    for key in TOKENS {
        match keys.get_mut(key) {
            Some(Value::Array(ids)) => ids.retain(|id| !negative(id)),
            Some(id) if negative(id) => *id = Value::Null,
            _ => {}
        }
    }
}
