//! What training by CTRL holds in memory at its fullest, told before it begins.

use burn::module::Module;
use infalign_backend::kernels::rows_at_once;
use infalign_decode::Sampling;
use infalign_model::{CausalLm, LanguageModel, TOKENS_PER_PASS, TransformerConfig};

use crate::passes::per_pass;
use crate::{CtrlConfig, TrainError};

const F32: u64 = size_of::<f32>() as u64;

/// Bytes that a device holds at least, about: sizes that follow from the settings, without what allocators and libraries add, and without
/// reward models and the value model of PPO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeed {
    /// Weights of the policy and of the reference; those that an adapter leaves alone, once.
    pub weights: u64,
    /// Gradients of the passes that run or wait to be added up, at most two a thread on the CPU, and the sum of all.
    pub gradients: u64,
    /// The optimiser's two means of every trained weight.
    pub optimizer: u64,
    /// Keys and values of the responses that are generated together.
    pub cache: u64,
    /// What the passes that run beside each other, one a thread on the CPU, keep from forward to backward.
    pub activations: u64,
    /// The output layer of a pass, policy's and reference's: of a GPU a block of rows each, of the CPU nothing worth counting. What a loss
    /// with exact KL, capped logits or an adapted output matrix takes besides is not counted.
    pub logits: u64,
}

impl MemoryNeed {
    /// The need of a CTRL run.
    ///
    /// - batch: responses generated together.
    /// - prompt: tokens of the longest prompt.
    ///
    /// # Errors
    /// [`TrainError`] for an adapter that fits no module.
    pub fn of_ctrl(
        config: &CtrlConfig,
        reference: &CausalLm,
        sampling: &Sampling,
        batch: usize,
        prompt: usize,
    ) -> Result<Self, TrainError> {
        let base = reference.without_adapter().net().num_params() as u64;
        let adapted = match &config.lora {
            Some(lora) => reference.clone().with_new_adapter(lora.clone(), &mut || 0.0)?,
            None => reference.clone(),
        };
        let trained = match adapted.adapter() {
            Some(_) => adapted.net().num_params() as u64 - base,
            None => base,
        };
        let longest = prompt + sampling.max_tokens;
        let responses = config.prompts_per_step.saturating_mul(config.samples_per_prompt);
        let on_cpu = infalign_backend::is_cpu(&reference.device());
        let passes = responses.div_ceil(per_pass(longest)).max(1);
        let threads = rayon::current_num_threads();
        let (running, begun) = if on_cpu { at_once(threads, passes) } else { (1, 1) };
        let tokens = running * TOKENS_PER_PASS.max(longest);
        let tokens = tokens.min(responses.saturating_mul(longest));
        let model = reference.config();
        Ok(Self {
            weights: (base + trained) * F32,
            gradients: (begun as u64 + 1) * trained * F32,
            optimizer: 2 * trained * F32,
            cache: (batch as u64).saturating_mul(reference.cache_bytes(longest) as u64),
            activations: tokens as u64 * activations(model, longest, on_cpu) * F32,
            logits: if on_cpu { 0 } else { logits(tokens, model.vocab_size) },
        })
    }

    /// Bytes without which nothing goes: a step may take less at a time than is counted here, but has to hold the gradients of a pass beside
    /// their sum, which are as large as the optimiser's two means.
    pub fn least(&self) -> u64 {
        (self.weights + self.optimizer).saturating_add(self.optimizer.max(self.cache))
    }

    /// Bytes at the fullest moment: rollouts and gradients take turns.
    pub fn total(&self) -> u64 {
        let step = self.gradients + self.activations + self.logits;
        (self.weights + self.optimizer).saturating_add(step.max(self.cache))
    }
}

/// How many passes run beside each other on the CPU, and how many of them are begun and not added up yet: as many as threads go round for, then
/// those that are left.
fn at_once(threads: usize, passes: usize) -> (usize, usize) {
    let left = passes % threads;
    (threads.min(passes), (2 * threads).min(passes - left).max(left))
}

/// Bytes of two blocks of logits on a GPU whose buffers hold any, for so many rows.
fn logits(rows: usize, vocabulary: usize) -> u64 {
    2 * (rows_at_once(rows, vocabulary, u64::MAX) * vocabulary) as u64 * F32
}

/// Numbers that the blocks keep for each token of texts of a length. Of capped scores those of all blocks are kept; of others a GPU holds those of
/// a block at a time, and the CPU none.
fn activations(config: &TransformerConfig, length: usize, on_cpu: bool) -> u64 {
    let blocks = config.num_hidden_layers;
    let kv = config.kv_heads() * config.head_width();
    let block = 8 * config.hidden_size + 4 * kv + 4 * config.intermediate_size;
    let of_scores = match config.attn_logit_softcapping {
        Some(_) => blocks,
        None => usize::from(!on_cpu),
    };
    let scores = 2 * config.num_attention_heads * length;
    (blocks * block + of_scores * scores) as u64
}

#[cfg(test)]
mod tests {
    use infalign_model::Head;
    use rayon::ThreadPoolBuilder;

    use super::*;

    fn need(config: serde_json::Value, batch: usize) -> MemoryNeed {
        let dir = tempfile::tempdir().unwrap();
        let model = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 10, "max_position_embeddings": 64, "tie_word_embeddings": true,
        });
        std::fs::write(dir.path().join("config.json"), model.to_string()).unwrap();
        let model = TransformerConfig::read(dir.path(), Head::CausalLm).unwrap();
        let cpu = infalign_backend::device(Some(&"cpu".parse().unwrap())).unwrap();
        let model = CausalLm::random(model, &mut || 0.5, &cpu).unwrap();
        let config = serde_json::from_value(config).unwrap();
        let sampling = Sampling { max_tokens: 12, ..Sampling::default() };
        MemoryNeed::of_ctrl(&config, &model, &sampling, batch, 4).unwrap()
    }

    fn settings() -> serde_json::Value {
        serde_json::json!({
            "steps": 1, "prompts_per_step": 3, "samples_per_prompt": 2, "beta": 0.1,
            "optimizer": { "learning_rate": 1e-3 },
        })
    }

    #[test]
    fn sizes_are_those_counted_by_hand() {
        // Embedding 80; queries, keys, values and outputs 4 · 64; gate, up and down 3 · 128; three norms of 8.
        let parameters = 80 + 256 + 384 + 24;
        let need = need(settings(), 5);
        assert_eq!(need.weights, 4 * 2 * parameters);
        assert_eq!((need.gradients, need.optimizer), (4 * 2 * parameters, 4 * 2 * parameters));
        // Two numbers of 8 for each of 16 tokens of 5 responses.
        assert_eq!(need.cache, 4 * 2 * 8 * 16 * 5);
        assert_eq!(need.logits, 0);
        let step = need.gradients + need.activations;
        assert_eq!(need.total(), need.weights + need.optimizer + step);
    }

    #[test]
    fn of_the_cpu_as_many_passes_are_counted_as_are_begun_beside_each_other() {
        let of = |threads: usize, prompts: usize| {
            let mut config = settings();
            config["prompts_per_step"] = prompts.into();
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| need(config, 5))
        };
        // 256 responses of 16 tokens a pass, and of each token 64 + 32 + 64 numbers.
        for (threads, prompts, begun, tokens) in
            [(1, 600, 2, 4_096), (3, 600, 3, 3 * 4_096), (8, 600, 5, 1_200 * 16), (8, 3, 1, 6 * 16)]
        {
            let need = of(threads, prompts);
            assert_eq!(need.gradients, 4 * (begun + 1) * 744, "{threads} threads");
            assert_eq!(need.activations, 4 * tokens * 160, "{threads} threads");
            assert_eq!(need.least(), of(1, prompts).least(), "fewer threads would do");
        }
    }

    #[test]
    fn scores_count_where_they_are_held() {
        let mut model = TransformerConfig::llama(10, 8, 16, 3, 2, 64);
        let scores = 2 * 2 * 50;
        assert_eq!(activations(&model, 50, true), 3 * 160);
        assert_eq!(activations(&model, 50, false), 3 * 160 + scores);
        model.attn_logit_softcapping = Some(30.0);
        assert_eq!(activations(&model, 50, true), 3 * (160 + scores));
    }

    #[test]
    fn of_a_large_vocabulary_a_thousand_rows_of_logits_are_counted() {
        assert_eq!(logits(10, 500), 4 * 2 * 10 * 500);
        assert_eq!(logits(4_096, 32_768), 2 << 27);
        assert_eq!(logits(4_096, 262_144), 2 << 30);
    }

    #[test]
    fn of_an_adapter_only_its_own_weights_are_counted_twice() {
        let mut config = settings();
        config["lora"] =
            serde_json::json!({ "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"] });
        let need = need(config, 5);
        let trained = 2 * (8 + 8);
        assert_eq!((need.gradients, need.optimizer), (4 * 2 * trained, 4 * 2 * trained));
        assert_eq!(need.weights, 4 * (744 + trained));
    }
}
