//! Whether a run fits into memory, told and checked before it begins.

use anyhow::{Result, bail};
use infalign_backend::{Device, DeviceName, is_cpu};
use infalign_train::MemoryNeed;

use super::inputs::Inputs;
use crate::machine::Memory;

/// What to lower where a run does not fit.
const REMEDY: &str = "train an adapter ([train.lora]), take a smaller model, or lower batch, train.samples_per_prompt or \
                      generation.max_tokens";

/// Prints what the most demanding method that CTRL trains needs, and what there is.
///
/// # Errors
/// When what has to be there at once, at the least, is more than there is.
pub(crate) fn check(inputs: &Inputs<'_>, there: Option<u64>) -> Result<()> {
    let prompts = inputs.train.iter().chain(&inputs.test);
    let longest = prompts.map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
    let (recipe, mut most) = (inputs.recipe, None::<MemoryNeed>);
    let calibrated = recipe.calibration.as_ref().and_then(|calibration| calibration.samples);
    let calibrated = calibrated.unwrap_or(0).saturating_mul(inputs.train.len());
    let evaluated = recipe.evaluation.samples.saturating_mul(inputs.test.len());
    for config in recipe.method.iter().filter_map(|method| recipe.ctrl(&method.kind)) {
        let (model, sampling) = (&inputs.reference, &recipe.generation);
        let responses = config.prompts_per_step.saturating_mul(config.samples_per_prompt);
        let batch = recipe.batch.min(responses.max(calibrated).max(evaluated));
        let need = MemoryNeed::of_ctrl(&config, model, sampling, batch, longest)?;
        if most.is_none_or(|most| need.total() > most.total()) {
            most = Some(need);
        }
    }
    let Some(need) = most else { return Ok(()) };
    tell!("{}", told(&need, there));
    let Some(there) = there else { return Ok(()) };
    if need.least() > there {
        bail!(
            "the run does not fit into memory: it needs {} and there are {}; {REMEDY}",
            gib(need.least()),
            gib(there)
        );
    }
    if need.total() > there {
        tell!("warning: that may be more than there is; if the run ends for want of it, {REMEDY}");
    }
    Ok(())
}

/// Bytes of the device's memory, of the machine's those that are free for this process; None where the device does not tell.
///
/// - name: what the device was opened by.
pub(super) fn available(device: &Device, name: Option<&DeviceName>) -> Option<u64> {
    if is_cpu(device) { Some(Memory::now().available) } else { infalign_backend::memory(name) }
}

fn told(need: &MemoryNeed, there: Option<u64>) -> String {
    let MemoryNeed { weights, gradients, optimizer, cache, activations, logits } = *need;
    format!(
        "memory: about {}{}: weights {}, optimiser {}, and in turns keys and values {}, or gradients {}, activations {} and logits {}",
        gib(need.total()),
        there.map(|there| format!(" of {}", gib(there))).unwrap_or_default(),
        gib(weights),
        gib(optimizer),
        gib(cache),
        gib(gradients),
        gib(activations),
        gib(logits)
    )
}

/// Bytes for people: GiB, or MiB where that is clearer.
pub(super) fn gib(bytes: u64) -> String {
    match bytes as f64 / f64::from(1 << 30) {
        gib if gib >= 1.0 => format!("{gib:.1} GiB"),
        gib => format!("{:.0} MiB", gib * 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_told() {
        let need = MemoryNeed {
            weights: 3 << 30,
            gradients: 2 << 30,
            optimizer: 2 << 30,
            cache: 100 << 20,
            activations: 1 << 30,
            logits: 0,
        };
        assert_eq!(need.least(), 7 << 30);
        assert_eq!(
            told(&need, Some(16 << 30)),
            "memory: about 8.0 GiB of 16.0 GiB: weights 3.0 GiB, optimiser 2.0 GiB, and in turns keys and values 100 MiB, or gradients \
             2.0 GiB, activations 1.0 GiB and logits 0 MiB"
        );
        let of_unknown = told(&need, None);
        assert!(of_unknown.starts_with("memory: about 8.0 GiB: weights"), "{of_unknown}");
    }
}
