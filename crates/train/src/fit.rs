//! The loop that all trainers but CTRL share: gradients, steps, checkpoints.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use infalign_model::{CausalLm, SequenceClassifier};
use infalign_reward::RewardError;
use serde::{Deserialize, Serialize};

use crate::best::{self, BestCheckpoint};
use crate::checkpoint;
use crate::optimizer::Optimizer;
use crate::{OptimizerConfig, TrainError};

/// Diagnostics of one step, of its examples before the update; of a pair the preferred response is the chosen one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FitMetrics {
    /// From 1.
    pub step: usize,
    /// Mean of the method's own loss over the step's examples: of responses to imitate a sum over tokens, in nats.
    pub loss: f64,
    /// Euclidean norm of the whole gradient, before clipping.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Share of pairs whose `margin` is above 0; 0 within rounding counts ½, in TRL's `rewards/accuracies` 0. Of pairs alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Mean log π/π_ref of the chosen responses, in nats: times β TRL's `rewards/chosen`. Of pairs alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<f64>,
    /// Loss in nats per token. Of responses to imitate alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_per_token: Option<f64>,
    /// `chosen` − `rejected`: times β TRL's `rewards/margins`. Of pairs alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Mean log π/π_ref of the other responses, in nats: times β TRL's `rewards/rejected`. Of pairs alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<f64>,
    /// Mean loss of the examples held out, after the update, where a checkpoint follows. Not written.
    #[serde(skip)]
    pub validation_loss: Option<f64>,
}

/// A model that can be trained: its weights, and its files.
pub(crate) trait Trainable: Clone + Sync {
    /// Its weights.
    type Net: Module;

    /// The weights, for an optimiser.
    fn net(&self) -> Self::Net;

    /// The model after an optimiser step.
    fn stepped(self, net: Self::Net) -> Self;

    /// The same with gradients, its weights leaves of its own: two backward passes at once through shared ones deadlock in burn's autodiff.
    fn leaves(&self) -> Self;

    fn save(&self, dir: &Path) -> Result<(), TrainError>;

    /// What [`Trainable::save`] wrote after training began from this model, with gradients.
    fn load(&self, dir: &Path) -> Result<Self, TrainError>;
}

impl Trainable for CausalLm {
    type Net = infalign_model::Transformer;

    fn net(&self) -> Self::Net {
        self.net().clone()
    }

    fn stepped(self, net: Self::Net) -> Self {
        self.with_net(net)
    }

    fn leaves(&self) -> Self {
        self.valid().train()
    }

    fn save(&self, dir: &Path) -> Result<(), TrainError> {
        Ok(self.save(dir)?)
    }

    fn load(&self, dir: &Path) -> Result<Self, TrainError> {
        Ok(self.load_trained(dir)?.train())
    }
}

impl Trainable for SequenceClassifier {
    type Net = infalign_model::ClassifierNet;

    fn net(&self) -> Self::Net {
        self.net()
    }

    fn stepped(self, net: Self::Net) -> Self {
        self.with_net(net)
    }

    fn leaves(&self) -> Self {
        self.valid().train()
    }

    fn save(&self, dir: &Path) -> Result<(), TrainError> {
        Ok(self.save(dir)?)
    }

    fn load(&self, dir: &Path) -> Result<Self, TrainError> {
        Ok(self.load_trained(dir)?.train())
    }
}

/// The value of a loss and its gradient.
pub(crate) fn backward<M: Module>(loss: Tensor<1>, module: &M) -> (f64, GradientsParams) {
    let value = loss.clone().inner();
    let grads = GradientsParams::from_grads(loss.backward(), module);
    // Last, since reading waits for the device.
    (value.into_scalar::<f64>(), grads)
}

/// The mean loss that a model has on examples it does not learn from.
pub(crate) type Validate<'a, T> = dyn Fn(&T) -> Result<f64, TrainError> + 'a;

/// What a fit ends with.
pub(crate) struct Fitted<T> {
    /// Of the last step, or of the best checkpoint.
    pub(crate) model: T,
    /// Diagnostics of the last step.
    pub(crate) last: FitMetrics,
    /// The checkpoint that was chosen, where one was.
    pub(crate) best: Option<BestCheckpoint>,
}

/// How a loss is minimised.
pub(crate) struct Fit<'a> {
    pub(crate) optimizer: &'a OptimizerConfig,
    /// At least 1.
    pub(crate) steps: usize,
    /// Folder of the checkpoints.
    pub(crate) checkpoints: &'a Path,
    /// Steps from one checkpoint to the next.
    pub(crate) checkpoint_every: usize,
}

impl Fit<'_> {
    /// Minimises a loss from the newest checkpoint, or from `model`, to the last step.
    ///
    /// - gradient: the loss of a step, from 0, and its gradient; it depends on the model and the step alone.
    /// - validate: the loss of examples that are not learned from, which is taken at every checkpoint; the model of the least is kept.
    /// - observe: called after every step; its error ends the run without a checkpoint of that step.
    /// - interrupted: when it becomes true, the run checkpoints after the current step and stops; a reward that is stopped by itself has it
    ///   checkpoint after the step before, where there was one.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`] and [`TrainError::Diverged`] name the checkpoint to go on from.
    pub(crate) fn run<T: Trainable>(
        &self,
        model: T,
        gradient: impl Fn(&T, usize) -> Result<(f64, GradientsParams), TrainError>,
        validate: Option<&Validate<'_, T>>,
        observe: &mut dyn FnMut(&FitMetrics) -> Result<(), TrainError>,
        interrupted: &AtomicBool,
    ) -> Result<Fitted<T>, TrainError> {
        let (mut model, mut optimizer, mut last) = self.begin(model)?;
        if validate.is_some() && last.step >= self.checkpoint_every {
            // Before any work: without it, another checkpoint would be taken for the best.
            best::intact(self.checkpoints)?;
        }
        while last.step < self.steps {
            let (loss, grads) = match gradient(&model, last.step) {
                Err(TrainError::Reward(RewardError::Stopped)) => {
                    let save = || self.save(&model, &optimizer, &last);
                    return Err(checkpoint::stopped(self.checkpoints, last.step, save));
                }
                found => found?,
            };
            let learning_rate = self.optimizer.rate(last.step, self.steps);
            let (net, grad_norm) = optimizer.step(model.net(), grads, learning_rate);
            let step = last.step + 1;
            last = FitMetrics { step, loss, grad_norm, learning_rate, ..FitMetrics::default() };
            let found = [("the loss", loss), ("the gradient's norm", grad_norm)];
            check_finite(self.checkpoints, last.step, &found)?;
            model = model.stepped(net);
            let ends = last.step == self.steps;
            let due = ends || last.step % self.checkpoint_every == 0;
            if let Some(validate) = validate.filter(|_| due) {
                self.validate(validate, &model, &mut last)?;
            }
            observe(&last)?;
            let stop = interrupted.load(Ordering::Relaxed);
            if stop || due {
                let dir = self.save(&model, &optimizer, &last)?;
                if stop && !ends {
                    return Err(TrainError::Interrupted { step: last.step, dir });
                }
            }
        }
        if validate.is_none() {
            return Ok(Fitted { model, last, best: None });
        }
        let (best, folder) = best::intact(self.checkpoints)?;
        Ok(Fitted { model: model.load(&folder)?, last, best: Some(best) })
    }

    fn save<T: Trainable>(
        &self,
        model: &T,
        optimizer: &Optimizer,
        last: &FitMetrics,
    ) -> Result<PathBuf, TrainError> {
        let save = |folder: &Path| model.save(folder);
        checkpoint::write(self.checkpoints, last.step, optimizer, last, save)
    }

    /// Takes the validation loss of a model into the step's diagnostics, and keeps the model if it is the best.
    fn validate<T: Trainable>(
        &self,
        validate: &Validate<'_, T>,
        model: &T,
        last: &mut FitMetrics,
    ) -> Result<(), TrainError> {
        let validation_loss = validate(model)?;
        check_finite(self.checkpoints, last.step, &[("the validation loss", validation_loss)])?;
        last.validation_loss = Some(validation_loss);
        let this = BestCheckpoint { step: last.step, validation_loss };
        best::keep(self.checkpoints, this, |folder| model.save(folder))
    }

    fn begin<T: Trainable>(&self, model: T) -> Result<(T, Optimizer, FitMetrics), TrainError> {
        let optimizer = Optimizer::new(self.optimizer);
        let Some(path) = checkpoint::intact(self.checkpoints)? else {
            return Ok((model.leaves(), optimizer, FitMetrics::default()));
        };
        let optimizer = optimizer.load(&checkpoint::optimizer_path(&path))?;
        Ok((model.load(&path)?, optimizer, checkpoint::load_state(&path)?))
    }
}

/// An observer of steps that has nothing to complain of, as [`Fit::run`] takes it.
pub(crate) fn infallible(
    observe: &mut dyn FnMut(&FitMetrics),
) -> impl FnMut(&FitMetrics) -> Result<(), TrainError> {
    move |step: &FitMetrics| {
        observe(step);
        Ok(())
    }
}

/// Refuses to go on from a step that found something else than finite numbers.
///
/// - found: what they are, and their values.
pub(crate) fn check_finite(
    checkpoints: &Path,
    step: usize,
    found: &[(&'static str, f64)],
) -> Result<(), TrainError> {
    let Some(&(what, value)) = found.iter().find(|(_, value)| !value.is_finite()) else {
        return Ok(());
    };
    let checkpoint =
        checkpoint::newest(checkpoints).map_or("none".into(), |path| path.display().to_string());
    Err(TrainError::Diverged { step, what, value, checkpoint })
}

/// Steps that the newest checkpoint of a folder holds: what a resumed run will not do again.
///
/// # Errors
/// [`TrainError::State`] when the checkpoint is damaged.
pub fn fitted_steps(checkpoints: &Path) -> Result<usize, TrainError> {
    /// What every trainer's state says.
    #[derive(Deserialize)]
    struct State {
        step: usize,
    }
    checkpoint::newest(checkpoints)
        .map_or(Ok(0), |path| Ok(checkpoint::load_state::<State>(&path)?.step))
}

/// Steps from one checkpoint to the next, unless a recipe says otherwise.
pub(crate) fn checkpoint_every() -> usize {
    50
}

/// Refuses counts of 0.
pub(crate) fn check_counts(counts: &[(&'static str, usize)]) -> Result<(), TrainError> {
    match counts.iter().find(|(_, count)| *count == 0) {
        Some(&(key, _)) => Err(TrainError::setting(key, "0", "at least 1")),
        None => Ok(()),
    }
}

/// Refuses the first setting that is out of range.
///
/// - settings: of each its key, its value, whether that is valid, and what is.
pub(crate) fn check_settings(
    settings: impl IntoIterator<Item = (&'static str, String, bool, &'static str)>,
) -> Result<(), TrainError> {
    for (key, value, fine, valid) in settings {
        if !fine {
            return Err(TrainError::setting(key, value, valid));
        }
    }
    Ok(())
}
