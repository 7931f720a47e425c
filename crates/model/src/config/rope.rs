//! Rotary settings, in the spellings of transformers 4 and 5.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::unsupported;
use super::{Family, names};
use crate::ModelError;

/// How the rotary frequencies are scaled for contexts longer than those of pretraining.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// All divided by one factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3: low frequencies divided by a factor, high ones kept, and a ramp between them.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Context / wavelength below which a frequency is low.
        low_freq_factor: f64,
        /// Context / wavelength above which it is high.
        high_freq_factor: f64,
        /// The context of pretraining, in tokens; absent means `max_position_embeddings`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        original_max_position_embeddings: Option<f64>,
    },
}

impl RopeScaling {
    /// Whether every frequency stays a number.
    pub(super) fn is_valid(&self) -> bool {
        let positive = |value: f64| value > 0.0 && value.is_finite();
        match *self {
            Self::Linear { factor } => positive(factor),
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                let original = original.is_none_or(positive);
                original && [factor, low, high].into_iter().all(positive) && high > low
            }
        }
    }

    /// The same with the context of pretraining written out, in a model with the given context; none where it changes nothing.
    pub(crate) fn resolved(mut self, context: usize) -> Option<Self> {
        if let Self::Llama3 { original_max_position_embeddings: original, .. } = &mut self {
            original.get_or_insert(context as f64);
        }
        Some(self).filter(|scaling| *scaling != Self::Linear { factor: 1.0 })
    }

    /// The scaled frequency, in radians per token.
    pub(crate) fn scale(&self, frequency: f64, context: usize) -> f64 {
        match *self {
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let original = original_max_position_embeddings.unwrap_or(context as f64);
                let turns = original * frequency / std::f64::consts::TAU;
                let ramp = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                let kept = ramp.clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }
}

/// Kinds of block, of which Gemma 3 has a rotation each.
const KINDS: [&str; 2] = ["full_attention", "sliding_attention"];

/// Keys that may also stand beside a rotation. What it holds itself wins.
const BESIDE: [&str; 2] = ["rope_theta", "partial_rotary_factor"];

/// Moves `rope_parameters` (transformers 5) and `rope_scaling` (its name in transformers 4) to the family's keys for the base of the
/// frequencies and the share of a head that is rotated, to `rope_scaling` and, for Gemma 3's two kinds of block, `rope_local_base_freq`.
/// A scaling that changes nothing is taken out.
///
/// # Errors
/// [`ModelError::Config`] for a kind of scaling that is not known, for forms that are not the family's, and for two spellings that differ:
/// transformers then forgets all of `rope_parameters`, the base of the frequencies too.
pub(super) fn normalise(
    family: Family,
    keys: &mut Map<String, Value>,
    path: &Path,
) -> Result<(), ModelError> {
    if family != Family::Gemma3 {
        // Only there do blocks with a window have a rotation of their own.
        keys.remove("rope_local_base_freq");
    }
    if names::own(family, "rope_scaling").is_none() {
        // Positions are learned.
        return Ok(());
    }
    let parameters = take(keys, "rope_parameters", path)?;
    let parameters = full_attention(family, parameters, keys, path)?;
    let scaling = take(keys, "rope_scaling", path)?;
    let mut rotation = agreed(family, parameters, scaling, keys, path)?;
    for key in BESIDE {
        let own = names::own(family, key).map(str::to_owned);
        keys.extend(own.zip(rotation.remove(key)));
    }
    put_scaling(family, rotation, keys, path)
}

/// Takes an object out; an absent one is empty.
fn take(
    keys: &mut Map<String, Value>,
    key: &'static str,
    path: &Path,
) -> Result<Map<String, Value>, ModelError> {
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(other) => Err(unsupported(path, key, &other, "only an object is")),
    }
}

/// The parameters of blocks without a window; what those with one have goes into `keys`.
fn full_attention(
    family: Family,
    mut parameters: Map<String, Value>,
    keys: &mut Map<String, Value>,
    path: &Path,
) -> Result<Map<String, Value>, ModelError> {
    if parameters.is_empty() {
        return Ok(parameters);
    }
    let nested = is_nested(&parameters);
    if nested != (family == Family::Gemma3) {
        let hint = "one rotation a kind of block is for Gemma 3, and for that alone";
        return Err(unsupported(path, "rope_parameters", &parameters, hint));
    }
    if !nested {
        return Ok(parameters);
    }
    if let Some(Value::Object(sliding)) = parameters.remove("sliding_attention") {
        let kind = sliding.get("rope_type").or_else(|| sliding.get("type"));
        if kind.and_then(Value::as_str).unwrap_or("default") != "default" {
            let hint = "only default is in blocks with a window";
            return Err(unsupported(path, "rope_parameters", &sliding, hint));
        }
        keys.extend(
            sliding.get("rope_theta").map(|theta| ("rope_local_base_freq".into(), theta.clone())),
        );
    }
    match parameters.remove("full_attention") {
        Some(Value::Object(full)) => Ok(full),
        _ => Ok(Map::new()),
    }
}

fn is_nested(rotation: &Map<String, Value>) -> bool {
    KINDS.iter().any(|kind| rotation.contains_key(*kind))
}

/// The rotation that both spellings give. Gemma 3 has what `rope_scaling` says put over the rest.
fn agreed(
    family: Family,
    mut parameters: Map<String, Value>,
    scaling: Map<String, Value>,
    keys: &Map<String, Value>,
    path: &Path,
) -> Result<Map<String, Value>, ModelError> {
    let refuse = |hint: &str| Err(unsupported(path, "rope_scaling", &scaling, hint));
    if is_nested(&scaling) {
        return refuse("rotations of kinds of block stand in rope_parameters");
    }
    if family == Family::Gemma3 {
        if scaling.contains_key("type") && !scaling.contains_key("rope_type") {
            return refuse("transformers does not look at `type` here: name the kind `rope_type`");
        }
        parameters.extend(scaling);
        return Ok(complete(family, parameters, keys));
    }
    if scaling.is_empty() {
        return Ok(complete(family, parameters, keys));
    }
    let unopposed = parameters.is_empty();
    let [four, five] = [&scaling, &parameters].map(|given| complete(family, given.clone(), keys));
    if unopposed || four == five {
        return Ok(four);
    }
    refuse("rope_parameters says something else, or more: leave one of the two out")
}

/// A rotation with what stands beside it, in one spelling.
fn complete(
    family: Family,
    mut rotation: Map<String, Value>,
    keys: &Map<String, Value>,
) -> Map<String, Value> {
    for key in BESIDE {
        if let Some(value) = names::own(family, key).and_then(|own| keys.get(own)) {
            rotation.entry(key).or_insert_with(|| value.clone());
        }
    }
    let kind = rotation.remove("type").unwrap_or_else(|| "default".into());
    rotation.entry("rope_type").or_insert(kind);
    for value in rotation.values_mut() {
        // So that 8 and 8.0 are equal.
        if let Some(number) = value.as_f64() {
            *value = number.into();
        }
    }
    rotation
}

/// Puts a scaling that changes something into `keys`.
fn put_scaling(
    family: Family,
    mut rotation: Map<String, Value>,
    keys: &mut Map<String, Value>,
    path: &Path,
) -> Result<(), ModelError> {
    let kind = rotation.get("rope_type").cloned().unwrap_or_default();
    match kind.as_str() {
        Some("default") => return Ok(()),
        Some("llama3") if family != Family::Gemma3 => {
            // Unlike all else, what stands beside the rotation wins.
            let beside = keys.remove_entry("original_max_position_embeddings");
            rotation.extend(beside.filter(|(_, value)| !value.is_null()));
        }
        Some("linear" | "llama3") => {}
        _ => {
            let hint = "only default, linear and llama3 are";
            return Err(unsupported(path, "rope_scaling", &kind, hint));
        }
    }
    keys.insert("rope_scaling".into(), Value::Object(rotation));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: Some(32.0),
        };
        let turns = |turns: f64| turns * std::f64::consts::TAU / 32.0;
        assert_eq!(scaling.scale(turns(5.0), 64), turns(5.0));
        assert_eq!(scaling.scale(turns(0.5), 64), turns(0.5) / 8.0);
        let middle = scaling.scale(turns(2.5), 64);
        assert!((middle - turns(2.5) * (0.5 / 8.0 + 0.5)).abs() < 1e-15);
    }

    fn read(family: Family, text: &str) -> Result<Map<String, Value>, ModelError> {
        let mut keys = serde_json::from_str(text).unwrap();
        normalise(family, &mut keys, Path::new("config.json")).map(|()| keys)
    }

    #[test]
    fn both_spellings_say_the_same() {
        let llama = |text: &str| read(Family::Llama, text).unwrap();
        let four = r#"{"rope_theta": 5.0, "rope_scaling": {"type": "linear", "factor": 2.0}}"#;
        let five =
            r#"{"rope_parameters": {"rope_theta": 5.0, "rope_type": "linear", "factor": 2.0}}"#;
        assert_eq!(llama(four), llama(five));
        let plain = r#"{"rope_theta": 5.0, "rope_scaling": {"rope_type": "default"}}"#;
        assert_eq!(llama(plain).len(), 1);
        let both = r#"{"rope_theta": 5, "rope_scaling": {"type": "linear", "factor": 2},
            "rope_parameters": {"rope_theta": 5.0, "rope_type": "linear", "factor": 2.0}}"#;
        assert_eq!(llama(both), llama(four));
        // An empty one is none.
        for (full, empty) in [(four, "rope_parameters"), (five, "rope_scaling")] {
            let beside = full.replacen('{', &format!(r#"{{"{empty}": {{}}, "#), 1);
            assert_eq!(llama(&beside), llama(four), "{beside}");
        }
    }

    #[test]
    fn what_a_rotation_holds_goes_before_what_stands_beside_it() {
        for spelling in ["rope_scaling", "rope_parameters"] {
            let within = r#"{"rope_type": "linear", "factor": 2.0, "rope_theta": 5.0,
                "partial_rotary_factor": 0.5}"#;
            let llama = format!(r#"{{"rope_theta": 7.0, "{spelling}": {within}}}"#);
            let llama = read(Family::Llama, &llama).unwrap();
            assert_eq!(llama["rope_theta"], 5.0, "{spelling}");
            assert_eq!(llama["partial_rotary_factor"], 0.5, "{spelling}");
            assert_eq!(llama["rope_scaling"].as_object().unwrap().len(), 2, "{spelling}");
            let neox =
                format!(r#"{{"rotary_emb_base": 7.0, "rotary_pct": 1, "{spelling}": {within}}}"#);
            let neox = read(Family::GptNeox, &neox).unwrap();
            assert_eq!((&neox["rotary_emb_base"], &neox["rotary_pct"]), (&5.0.into(), &0.5.into()));
        }
    }

    #[test]
    fn gemma_3_rotates_by_kinds_of_block() {
        let kinds = r#""rope_parameters": {"full_attention": {"rope_theta": 7.0, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 3.0, "rope_type": "default"}}"#;
        let thetas = |text: &str| {
            let keys = read(Family::Gemma3, text).unwrap();
            (keys["rope_theta"].clone(), keys["rope_local_base_freq"].clone())
        };
        assert_eq!(thetas(&format!("{{{kinds}}}")), (7.0.into(), 3.0.into()));
        let scaling =
            r#""rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5.0}"#;
        let both = format!("{{{kinds}, {scaling}}}");
        assert_eq!(thetas(&both), (5.0.into(), 3.0.into()));
        assert_eq!(read(Family::Gemma3, &both).unwrap()["rope_scaling"]["factor"], 2.0);
    }

    #[test]
    fn the_context_of_pretraining_may_stand_beside_the_rotation() {
        let original = |family, rotation: &str| {
            let text = format!(r#"{{"original_max_position_embeddings": 16, {rotation}}}"#);
            let keys = read(family, &text).unwrap();
            keys["rope_scaling"]["original_max_position_embeddings"].as_f64()
        };
        let alone = r#""rope_scaling": {"rope_type": "llama3"}"#;
        let within =
            r#""rope_parameters": {"rope_type": "llama3", "original_max_position_embeddings": 32}"#;
        assert_eq!(original(Family::Llama, alone), Some(16.0));
        assert_eq!(original(Family::Llama, within), Some(16.0));
        assert_eq!(original(Family::Gemma3, alone), None);
    }

    #[test]
    fn forms_that_would_change_numbers_are_refused() {
        let nested = r#"{"rope_parameters": {"full_attention": {"rope_theta": 7.0}}}"#;
        let flat = r#"{"rope_parameters": {"rope_theta": 7.0}}"#;
        let scaled = r#"{"rope_parameters": {"sliding_attention": {"rope_type": "linear"}}}"#;
        let typed = r#"{"rope_parameters": {"sliding_attention": {"type": "linear"}}}"#;
        let base = r#"{"rope_scaling": {"rope_type": "linear", "factor": 2.0},
            "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 7.0}}"#;
        let factor = base.replacen("2.0", "4.0", 1).replace(r#", "rope_theta": 7.0"#, "");
        let elsewhere = nested.replace("parameters", "scaling");
        for (family, text, told) in [
            (Family::Llama, nested, "Gemma 3"),
            (Family::Gemma3, flat, "Gemma 3"),
            (Family::Gemma3, scaled, "only default is in blocks"),
            (Family::Gemma3, typed, "only default is in blocks"),
            (Family::Gemma3, r#"{"rope_scaling": {"type": "linear"}}"#, "`rope_type`"),
            (Family::Mistral, elsewhere.as_str(), "in rope_parameters"),
            (Family::Llama, r#"{"rope_scaling": {"rope_type": "yarn"}}"#, "yarn"),
            (Family::Llama, r#"{"rope_parameters": [1]}"#, "only an object"),
            (Family::Llama, base, "rope_parameters says something else"),
            (Family::Llama, factor.as_str(), "rope_parameters says something else"),
        ] {
            let error = read(family, text).unwrap_err().to_string();
            assert!(error.contains("rope_") && error.contains(told), "{error}");
        }
    }
}
