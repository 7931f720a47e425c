//! A few steps of CTRL for best-of-N: `cargo run -p infalign --example train`
//!
//! The quickstart's model, 40 reference rewards a prompt, and six steps on exp(10 u).
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use infalign::calibrate::{Calibration, CalibrationMeta};
use infalign::decode::{EncodedPrompt, Generator, Sampling};
use infalign::model::{CausalLm, Tokenizer};
use infalign::reward::{Length, LengthUnit};
use infalign::train::{Calibrator, CtrlConfig, CtrlTrainer, Objective, ReferenceRewards};

const CONFIG: &str = r#"{"steps": 6, "prompts_per_step": 2, "samples_per_prompt": 8, "target_kl": 0.5,
                         "optimizer": {"learning_rate": 1e-3}}"#;
const MAX_TOKENS: usize = 24;

fn main() -> anyhow::Result<()> {
    let folder = Path::new("recipes/quickstart/model");
    let reference = CausalLm::load(folder, &infalign::backend::device(None)?)?;
    let tokenizer = Tokenizer::load(folder, reference.config())?;
    let texts = ["late on friday at the library :", "on a cold monday at the hostel :"];
    let prompts = texts.map(|text| EncodedPrompt::new(text, text, &tokenizer));
    let prompts = prompts.into_iter().collect::<Result<Vec<_>, _>>()?;
    let reward = Length { unit: LengthUnit::Words };
    let table = calibrated(&reference, &tokenizer, &prompts, &reward)?;
    let checkpoints = tempfile::tempdir()?;
    let trainer = CtrlTrainer {
        config: &serde_json::from_str::<CtrlConfig>(CONFIG)?,
        objective: &"exp:10".parse::<Objective>()?,
        prompts: &prompts,
        reference: &reference,
        tokenizer: &tokenizer,
        reward: &reward,
        calibrator: Calibrator::Table(&table),
        rollouts: None,
        sampling: Sampling { max_tokens: MAX_TOKENS, ..Sampling::default() },
        batch: 64,
        seed: 1,
        checkpoints: checkpoints.path().to_path_buf(),
    };
    let mut observe = |step: &infalign::train::StepMetrics, _: &CausalLm| {
        println!("step {} KL {:.3} u {:.3}", step.step, step.kl, step.reward_calibrated);
        Ok(())
    };
    let policy = trainer.run(&mut observe, &AtomicBool::new(false))?;
    let folder = checkpoints.path().join("policy");
    std::fs::create_dir(&folder)?;
    policy.save(&folder)?; // as transformers reads it
    Ok(())
}

/// The rewards of 40 responses of the reference policy to each prompt.
fn calibrated(
    reference: &CausalLm,
    tokenizer: &Tokenizer,
    prompts: &[EncodedPrompt],
    reward: &Length,
) -> anyhow::Result<Calibration> {
    let model = reference.clone().for_inference();
    let sampling = Sampling { max_tokens: MAX_TOKENS, ..Sampling::default() };
    let sampler =
        Generator::new(model.as_ref(), tokenizer.stops(), &sampling, 1, "calibration", 64);
    let rewards = ReferenceRewards { sampler: &sampler, tokenizer, reward, samples: 40, block: 80 };
    let mut table = Calibration::new(CalibrationMeta::default());
    rewards.fill(&mut table, prompts, &mut |_, _| ControlFlow::Continue(()))?;
    Ok(table)
}
