//! Rotary settings, in the spellings of transformers 4 and 5.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Family;
use super::check::unsupported;
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

/// Moves `rope_parameters` (transformers 5) to `rope_theta`, `partial_rotary_factor`, `rope_scaling` and, for Gemma 3's two kinds of block,
/// `rope_local_base_freq`, and takes out a scaling that changes nothing. A `rope_scaling` that stands beside it wins, as it does there.
///
/// # Errors
/// [`ModelError::Config`] for a kind of scaling that is not known, and for forms that are not the family's.
pub(super) fn normalise(
    family: Family,
    keys: &mut Map<String, Value>,
    path: &Path,
) -> Result<(), ModelError> {
    if family != Family::Gemma3 {
        // Only there do blocks with a window have a rotation of their own.
        keys.remove("rope_local_base_freq");
    }
    match keys.remove("rope_parameters") {
        None | Some(Value::Null) => {}
        Some(Value::Object(parameters)) => {
            let parameters = full_attention(family, parameters, keys, path)?;
            unpack(parameters, keys);
        }
        Some(other) => {
            return Err(unsupported(path, "rope_parameters", &other, "only an object is"));
        }
    }
    check_scaling(keys, path)
}

/// The parameters of blocks without a window; what those with one have goes into `keys`.
fn full_attention(
    family: Family,
    mut parameters: Map<String, Value>,
    keys: &mut Map<String, Value>,
    path: &Path,
) -> Result<Map<String, Value>, ModelError> {
    let kinds = ["full_attention", "sliding_attention"];
    let nested = kinds.iter().any(|kind| parameters.contains_key(*kind));
    if nested != (family == Family::Gemma3) {
        let hint = "one rotation a kind of block is for Gemma 3, and for that alone";
        return Err(unsupported(path, "rope_parameters", &parameters, hint));
    }
    if !nested {
        return Ok(parameters);
    }
    if let Some(Value::Object(sliding)) = parameters.remove("sliding_attention") {
        let kind = sliding.get("rope_type").and_then(Value::as_str).unwrap_or("default");
        if kind != "default" {
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

fn unpack(mut parameters: Map<String, Value>, keys: &mut Map<String, Value>) {
    for key in ["rope_theta", "partial_rotary_factor"] {
        keys.extend(parameters.remove_entry(key));
    }
    let given = keys.get("rope_scaling").is_some_and(|scaling| !scaling.is_null());
    if !given {
        keys.insert("rope_scaling".into(), Value::Object(parameters));
    }
}

fn check_scaling(keys: &mut Map<String, Value>, path: &Path) -> Result<(), ModelError> {
    let Some(Value::Object(scaling)) = keys.get_mut("rope_scaling") else { return Ok(()) };
    if let Some(kind) = scaling.remove("type") {
        scaling.entry("rope_type").or_insert(kind);
    }
    let kind = scaling.get("rope_type").cloned().unwrap_or_else(|| "default".into());
    match kind.as_str() {
        Some("default") => drop(keys.remove("rope_scaling")),
        Some("linear" | "llama3") => {}
        _ => {
            let hint = "only default, linear and llama3 are";
            return Err(unsupported(path, "rope_scaling", &kind, hint));
        }
    }
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

    #[test]
    fn both_spellings_say_the_same() {
        let read = |text: &str| {
            let Ok(Value::Object(mut keys)) = serde_json::from_str(text) else {
                panic!("an object")
            };
            let family = if text.contains("_attention") { Family::Gemma3 } else { Family::Llama };
            normalise(family, &mut keys, Path::new("config.json")).map(|()| keys)
        };
        let four = r#"{"rope_theta": 5.0, "rope_scaling": {"type": "linear", "factor": 2.0}}"#;
        let five =
            r#"{"rope_parameters": {"rope_theta": 5.0, "rope_type": "linear", "factor": 2.0}}"#;
        assert_eq!(read(four).unwrap(), read(five).unwrap());
        let plain = r#"{"rope_theta": 5.0, "rope_scaling": {"rope_type": "default"}}"#;
        assert_eq!(read(plain).unwrap().len(), 1);
        let two = r#"{"rope_parameters": {"full_attention": {"rope_theta": 7.0, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 3.0, "rope_type": "default"}}}"#;
        let two = read(two).unwrap();
        assert_eq!((&two["rope_theta"], &two["rope_local_base_freq"]), (&7.0.into(), &3.0.into()));
        let both = r#"{"rope_parameters": {"rope_theta": 5.0, "rope_type": "default"},
            "rope_scaling": {"type": "linear", "factor": 2.0}}"#;
        assert_eq!(read(both).unwrap(), read(four).unwrap());
    }

    #[test]
    fn forms_that_would_change_numbers_are_refused() {
        let refused = |family, text: &str| {
            let Ok(Value::Object(mut keys)) = serde_json::from_str(text) else {
                panic!("an object")
            };
            normalise(family, &mut keys, Path::new("config.json")).unwrap_err().to_string()
        };
        let nested = r#"{"rope_parameters": {"full_attention": {"rope_theta": 7.0}}}"#;
        let flat = r#"{"rope_parameters": {"rope_theta": 7.0}}"#;
        let scaled = r#"{"rope_parameters": {"sliding_attention": {"rope_type": "linear"}}}"#;
        let yarn =
            r#"{"rope_scaling": {"rope_type": "yarn"}, "rope_parameters": {"rope_theta": 7.0}}"#;
        for (family, text, told) in [
            (Family::Llama, nested, "Gemma 3"),
            (Family::Gemma3, flat, "Gemma 3"),
            (Family::Gemma3, scaled, "only default is in blocks"),
            (Family::Llama, yarn, "yarn"),
            (Family::Llama, r#"{"rope_parameters": [1]}"#, "only an object"),
        ] {
            let error = refused(family, text);
            assert!(error.contains("rope_") && error.contains(told), "{error}");
        }
    }
}
