//! A policy in training, and the optimiser that changes it.

use burn::optim::GradientsParams;
use infalign_model::CausalLm;

use crate::optimizer::Optimizer;

/// The policy and its optimiser.
pub(crate) struct Learner {
    /// With gradients enabled.
    pub(crate) policy: CausalLm,
    pub(crate) optimizer: Optimizer,
    /// Norms of the gradients since they were last asked for.
    norms: Vec<f64>,
    /// Of the current rollout.
    pub(crate) learning_rate: f64,
}

impl Learner {
    pub(crate) fn new(policy: CausalLm, optimizer: Optimizer) -> Self {
        Self { policy: policy.train(), optimizer, norms: Vec::new(), learning_rate: 0.0 }
    }

    /// Takes one step against a gradient. One that is not finite changes nothing, and shows in [`Learner::take_norm`].
    pub(crate) fn step(&mut self, grads: GradientsParams) {
        let net = self.policy.net().clone();
        let (net, norm) = self.optimizer.step(net, grads, self.learning_rate);
        self.policy = self.policy.clone().with_net(net);
        self.norms.push(norm);
    }

    /// Mean norm of the gradients since the last call, before clipping.
    pub(crate) fn take_norm(&mut self) -> f64 {
        let norms = std::mem::take(&mut self.norms);
        norms.iter().sum::<f64>() / norms.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::Learner;
    use crate::optimizer::{Optimizer, OptimizerConfig};
    use crate::solver::tests::model;

    #[test]
    fn the_norm_of_several_steps_is_their_mean_since_the_last_call() {
        let mut learner = Learner::new(model(1), Optimizer::new(&OptimizerConfig::new(0.1)));
        for (norms, mean) in [(vec![1.0, 3.0], 2.0), (vec![5.0, 6.0, 7.0], 6.0)] {
            learner.norms.extend(norms);
            assert_eq!(learner.take_norm(), mean);
        }
    }
}
