//! A policy with an adapter: only the adapter is trained, and a run that is stopped and resumed gives the same one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use infalign_calibrate::{Calibration, CalibrationMeta};
use infalign_decode::{EncodedPrompt, Sampling, Stream};
use infalign_model::{
    CausalLm, LoraConfig, TargetModules, Tokenizer, TransformerConfig, write_word_tokenizer,
};
use infalign_reward::{Length, LengthUnit};
use infalign_train::{
    Calibrator, CtrlConfig, CtrlTrainer, Keep, OptimizerConfig, SolverConfig, TrainError,
};

const STEPS: usize = 4;

/// The parameters of a network by their ids.
#[derive(Default)]
struct Parameters(HashMap<ParamId, Vec<f32>>);

impl ModuleVisitor for Parameters {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.insert(param.id, param.val().into_data().iter::<f32>().collect());
    }
}

fn parameters(model: &CausalLm) -> HashMap<ParamId, Vec<f32>> {
    let mut parameters = Parameters::default();
    model.net().visit(&mut parameters);
    parameters.0
}

/// A random model of a few words, with an output matrix of its own, and its tokenizer.
fn reference() -> (CausalLm, Tokenizer) {
    let dir = tempfile::tempdir().unwrap();
    let vocabulary = write_word_tokenizer(dir.path(), ["a b c"].into_iter()).unwrap();
    let mut config = TransformerConfig::llama(vocabulary, 16, 24, 2, 2, 16);
    config.tie_word_embeddings = false;
    let tokenizer = Tokenizer::load(dir.path(), &config).unwrap();
    let mut normal = Stream::new(3, "weights", "", 0).normals(0);
    let device = infalign_backend::device(None).unwrap();
    (CausalLm::random(config, &mut || 6.0 * normal(), &device).unwrap(), tokenizer)
}

fn calibration(prompts: &[EncodedPrompt]) -> Calibration {
    let mut calibration = Calibration::new(CalibrationMeta::default());
    for prompt in prompts {
        calibration.insert(&prompt.id, &prompt.text, vec![0.0, 1.0, 2.0, 3.0, 4.0]).unwrap();
    }
    calibration
}

fn config(modules_to_save: &[&str]) -> CtrlConfig {
    let optimizer =
        OptimizerConfig { final_share: 1.0, weight_decay: 0.1, ..OptimizerConfig::new(1e-2) };
    let lora = LoraConfig {
        r: 2,
        lora_alpha: 4.0,
        use_rslora: true,
        target_modules: TargetModules::Named(vec!["q_proj".into(), "down_proj".into()]),
        layers_to_transform: None,
        modules_to_save: modules_to_save.iter().map(|&name| name.into()).collect(),
        rank_pattern: Default::default(),
        alpha_pattern: Default::default(),
    };
    CtrlConfig {
        steps: STEPS,
        prompts_per_step: 2,
        samples_per_prompt: 8,
        target_kl: None,
        beta: Some(0.1),
        checkpoint_every: 1,
        keep: Keep::Last,
        solver: SolverConfig::default(),
        optimizer,
        lora: Some(lora),
    }
}

/// Trains, and stops where `interrupted` is true after `stop_after` steps.
fn train(
    reference: &CausalLm,
    tokenizer: &Tokenizer,
    config: &CtrlConfig,
    checkpoints: &Path,
    stop_after: usize,
) -> Result<CausalLm, TrainError> {
    let prompts = ["a", "a b"].map(|text| EncodedPrompt::new(text, text, tokenizer).unwrap());
    let interrupted = AtomicBool::new(false);
    let trainer = CtrlTrainer {
        config,
        objective: &"identity".parse().unwrap(),
        prompts: &prompts,
        reference,
        tokenizer,
        reward: &Length { unit: LengthUnit::Words },
        calibrator: Calibrator::Table(&calibration(&prompts)),
        rollouts: None,
        sampling: Sampling { max_tokens: 4, ..Sampling::default() },
        batch: 16,
        seed: 1,
        checkpoints: checkpoints.to_path_buf(),
    };
    let done = Cell::new(0);
    let mut observe = |_: &infalign_train::StepMetrics, _: &CausalLm| {
        done.set(done.get() + 1);
        interrupted.store(done.get() == stop_after, Ordering::Relaxed);
        Ok(())
    };
    trainer.run(&mut observe, &interrupted)
}

#[test]
fn only_the_adapter_and_the_modules_to_save_change() {
    let (reference, tokenizer) = reference();
    let before = parameters(&reference);
    for (modules_to_save, n_saved) in [(&[][..], 0), (&["lm_head"], 1)] {
        let dir = tempfile::tempdir().unwrap();
        let policy =
            train(&reference, &tokenizer, &config(modules_to_save), dir.path(), 0).unwrap();
        let after = parameters(&policy);
        // A and B of two modules in each of two blocks.
        assert_eq!(after.len(), before.len() + 8);
        let changed = before.iter().filter(|(id, values)| after[id] != **values).count();
        assert_eq!(changed, n_saved);
        let new = after.iter().filter(|(id, _)| !before.contains_key(id));
        assert!(
            new.clone().count() == 8 && new.into_iter().all(|(_, v)| v.iter().any(|x| *x != 0.0))
        );
        assert_eq!(parameters(&policy.without_adapter()), before);
    }
}

#[test]
fn a_resumed_run_gives_the_same_adapter() {
    let (reference, tokenizer) = reference();
    let config = config(&["lm_head"]);
    let [whole, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let expected = train(&reference, &tokenizer, &config, whole.path(), 0).unwrap();
    let stop = train(&reference, &tokenizer, &config, stopped.path(), 2);
    let Err(TrainError::Interrupted { step: 2, dir }) = stop else { panic!("{stop:?}") };
    assert!(dir.join("adapter_model.safetensors").is_file());
    assert!(
        !dir.join("model.safetensors").exists(),
        "a checkpoint holds no weights that are not trained"
    );
    let resumed = train(&reference, &tokenizer, &config, stopped.path(), 0).unwrap();
    assert_eq!(parameters(&resumed), parameters(&expected));
    assert_eq!(resumed.adapter(), config.lora.as_ref());
}
