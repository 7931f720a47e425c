//! A language model of one's own: what it may leave to the trait, and configurations that are made in code.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use infalign_model::{
    CausalLm, LanguageModel, ModelError, Prompts, Sequence, Session, TransformerConfig,
};

fn llama(hidden: usize, heads: usize) -> Result<CausalLm, ModelError> {
    let config = TransformerConfig::llama(8, hidden, 12, 1, heads, 8);
    let mut state = 1_u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 16) as f32 / 32_768.0 - 1.0) * 20.0
    };
    CausalLm::random(config, &mut number, &infalign_backend::device(None).unwrap())
}

/// A model with nothing but what every model must have.
struct Plain(CausalLm);

impl LanguageModel for Plain {
    fn vocabulary(&self) -> usize {
        self.0.vocabulary()
    }
    fn context(&self) -> usize {
        self.0.context()
    }
    fn read(&self, prompts: &[&[u32]]) -> Result<Prompts, ModelError> {
        self.0.read(prompts)
    }
    fn session(&self) -> Box<dyn Session + '_> {
        self.0.session()
    }
}

#[test]
fn a_model_scores_by_its_sessions_where_it_does_not_say_how() {
    let model = Plain(llama(8, 2).unwrap());
    let sequence =
        |tokens: &[u32], prompt_length| Sequence { tokens: tokens.into(), prompt_length };
    let sequences = [sequence(&[1, 5, 2, 7, 3], 2), sequence(&[4, 4], 1), sequence(&[6, 0, 1], 3)];
    let expected = model.0.log_probs(&sequences).unwrap();
    let found = model.log_probs(&sequences).unwrap();
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1, 0]);
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 1e-5, "{found} against {expected}");
    }
    assert_eq!((model.rows_are_independent(), model.cache_bytes(8)), (false, 0));
    let refused = |tokens: &[u32], prompt_length| {
        model.log_probs(&[sequence(tokens, prompt_length)]).unwrap_err().to_string()
    };
    for (message, needle) in [
        (refused(&[1, 2], 0), "sequence 0 of the batch is empty"),
        (refused(&[1; 9], 1), "9 tokens does not fit the model's context of 8"),
        (refused(&[1, 8], 1), "token id 8"),
    ] {
        assert!(message.contains(needle), "{message}");
    }
}

#[test]
fn prompts_have_the_logits_that_they_were_given() {
    let prompts = Prompts::new(2, vec![1.0, 2.0, 3.0, 4.0], ());
    assert_eq!([prompts.logits(0), prompts.logits(1)], [[1.0, 2.0], [3.0, 4.0]]);
    for without in [Prompts::new(2, Vec::new(), ()), Prompts::new(0, Vec::new(), ())] {
        assert!(without.logits(0).is_empty());
    }
}

#[test]
fn sizes_that_do_not_go_together_are_refused() {
    for (hidden, heads, told) in [
        (8, 0, "the configuration: `num_attention_heads` is 0"),
        (6, 2, "the configuration: `head_dim` is 3"),
        (8, 16, "the configuration: `head_dim` is 0"),
        (0, 2, "the configuration: `hidden_size` is 0"),
    ] {
        let message = llama(hidden, heads).err().unwrap().to_string();
        assert!(message.contains(told), "{message}");
    }
    let mut config = TransformerConfig::llama(8, 8, 8, 1, 0, 8);
    config.head_dim = None;
    assert_eq!(config.head_width(), 0);
    assert!(config.check(Path::new("mine")).unwrap_err().to_string().starts_with("mine: "));
}
