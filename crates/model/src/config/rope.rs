//! Rotary settings, in the spellings of transformers 4 and 5.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// Moves `rope_parameters` (transformers 5) to `rope_theta`, `partial_rotary_factor`, `rope_scaling` and, for two kinds of block,
/// `rope_local_base_freq`, and takes out a scaling that changes nothing.
///
/// # Errors
/// [`ModelError::Config`] for a kind of scaling that is not known.
pub(super) fn normalise(keys: &mut Map<String, Value>, path: &Path) -> Result<(), ModelError> {
    if let Some(Value::Object(mut parameters)) = keys.remove("rope_parameters") {
        if let Some(Value::Object(full)) = parameters.remove("full_attention") {
            if let Some(theta) =
                parameters.get("sliding_attention").and_then(|p| p.get("rope_theta"))
            {
                keys.insert("rope_local_base_freq".into(), theta.clone());
            }
            parameters = full;
        }
        for key in ["rope_theta", "partial_rotary_factor"] {
            keys.extend(parameters.remove_entry(key));
        }
        keys.insert("rope_scaling".into(), Value::Object(parameters));
    }
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
            normalise(&mut keys, Path::new("config.json")).map(|()| keys)
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
        let error = read(r#"{"rope_scaling": {"rope_type": "yarn"}}"#).unwrap_err().to_string();
        assert!(error.contains("rope_scaling") && error.contains("yarn"), "{error}");
    }
}
