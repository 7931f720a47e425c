//! What the reference says of stored pairs: what they came with, or what it is asked for when a step first needs it.

use std::sync::OnceLock;

use infalign_model::CausalLm;

use super::ResponsePair;
use crate::TrainError;
use crate::passes::sum;

/// log π_ref(y | x) of both responses of each pair, in nats, as far as they are known.
pub(super) struct ReferenceLogProbs<'a> {
    reference: &'a CausalLm,
    pairs: &'a [ResponsePair],
    known: Vec<OnceLock<[f64; 2]>>,
}

impl<'a> ReferenceLogProbs<'a> {
    pub(super) fn new(reference: &'a CausalLm, pairs: &'a [ResponsePair]) -> Self {
        let known = |pair: &ResponsePair| pair.reference.map_or_else(OnceLock::new, OnceLock::from);
        Self { reference, pairs, known: pairs.iter().map(known).collect() }
    }

    /// Those of a pair. One that did not come with them is scored the first time, by itself, so that its numbers depend neither on the step that
    /// first needs it nor on where a run was resumed.
    pub(super) fn of(&self, index: usize) -> Result<[f64; 2], TrainError> {
        if let Some(known) = self.known[index].get() {
            return Ok(*known);
        }
        // Not within the lock: a thread that waits in there may take up other work, and come back here.
        let tokens = self.reference.log_probs(&self.pairs[index].responses)?;
        Ok(*self.known[index].get_or_init(|| [sum(&tokens[0]), sum(&tokens[1])]))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicBool;

    use infalign_decode::Stream;
    use infalign_model::{Sequence, TransformerConfig};

    use super::*;
    use crate::baselines::{OfflineConfig, OfflineTrainer, PairLoss, Stored};
    use crate::batches::Batches;
    use crate::{FitMetrics, OptimizerConfig};

    const VOCABULARY: u32 = 8;
    const SEED: u64 = 1;
    const STEPS: usize = 2;
    const EXAMPLES: usize = 4;

    fn model() -> CausalLm {
        let config = TransformerConfig::llama(VOCABULARY as usize, 16, 24, 2, 2, 16);
        let mut normal = Stream::new(SEED, "weights", "", 0).normals(0);
        let device = infalign_backend::device(None).unwrap();
        CausalLm::random(config, &mut || 8.0 * normal(), &device).unwrap()
    }

    /// Different pairs of responses to the prompt 1, as a file gives them.
    fn pairs(n: u32) -> Vec<ResponsePair> {
        let sequence =
            |response: &[u32]| Sequence { tokens: [&[1], response].concat(), prompt_length: 1 };
        let pair = |i: u32| ResponsePair {
            responses: [sequence(&[i % VOCABULARY, i / VOCABULARY, 0]), sequence(&[3, 0])],
            reference: None,
            preference: 1.0,
        };
        (0..n).map(pair).collect()
    }

    /// log π(y | x) of both, scored by themselves.
    fn scored(model: &CausalLm, pair: &ResponsePair) -> [f64; 2] {
        let tokens = model.log_probs(&pair.responses).unwrap();
        [sum(&tokens[0]), sum(&tokens[1])]
    }

    #[test]
    fn pairs_are_scored_when_they_are_first_needed_and_kept() {
        let (model, mut pairs) = (model(), pairs(12));
        pairs[3].reference = Some([-1.0, -2.0]);
        let sequences: Vec<Sequence> =
            pairs.iter().flat_map(|pair| pair.responses.clone()).collect();
        let together = model.log_probs(&sequences).unwrap();
        let log_probs = ReferenceLogProbs::new(&model, &pairs);
        let known = || log_probs.known.iter().filter(|pair| pair.get().is_some()).count();
        assert_eq!((log_probs.of(3).unwrap(), known()), ([-1.0, -2.0], 1));
        for (index, then_known) in [(7, 2), (0, 3), (7, 3)] {
            let found = log_probs.of(index).unwrap();
            assert_eq!((found, known()), (scored(&model, &pairs[index]), then_known));
            for (found, tokens) in found.iter().zip(&together[2 * index..]) {
                assert!((found - sum(tokens)).abs() < 1e-4, "{found} is not that of all at once");
            }
        }
    }

    /// What DPO tells of its steps, and log π of a pair under the policy that it leads to.
    fn trained(reference: &CausalLm, pairs: Vec<ResponsePair>) -> (Vec<FitMetrics>, [f64; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let config = OfflineConfig {
            steps: STEPS,
            examples_per_step: EXAMPLES,
            checkpoint_every: STEPS,
            optimizer: OptimizerConfig::new(1e-2),
            lora: None,
        };
        let stored = Stored::Compared(PairLoss::Dpo(0.5), pairs);
        let trainer = OfflineTrainer {
            config: &config,
            stored: &stored,
            reference,
            seed: SEED,
            checkpoints: dir.path().to_path_buf(),
        };
        let mut steps = Vec::new();
        let mut observe = |step: &FitMetrics| {
            steps.push(step.clone());
            Ok(())
        };
        let policy = trainer.run(&mut observe, &AtomicBool::new(false)).unwrap();
        (steps, scored(&policy, &self::pairs(1)[0]))
    }

    #[test]
    fn a_run_asks_for_the_pairs_of_its_steps_alone_and_learns_the_same() {
        let (model, mut pairs) = (model(), pairs(60));
        let batches = Batches::new(SEED, pairs.len(), EXAMPLES);
        let needed: BTreeSet<usize> = (0..STEPS).flat_map(|step| batches.indices(step)).collect();
        assert_eq!(needed.len(), STEPS * EXAMPLES);
        // No model could read what no step needs.
        let others = pairs.iter_mut().enumerate().filter(|(index, _)| !needed.contains(index));
        others.for_each(|(_, pair)| pair.responses[0].tokens.push(VOCABULARY));
        let found = trained(&model, pairs.clone());
        for (index, pair) in pairs.iter_mut().enumerate() {
            let known = if needed.contains(&index) { scored(&model, pair) } else { [0.0; 2] };
            pair.reference = Some(known);
        }
        assert_eq!(found, trained(&model, pairs));
        assert_ne!(found.1, scored(&model, &self::pairs(1)[0]), "the policy has moved");
    }
}
