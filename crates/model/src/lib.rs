//! Decoder-only language models, read from and written to Hugging Face directories.
//!
#![doc = include_str!("../README.md")]
//!
//! # Types
//! [`CausalLm`] is a decoder of one of several families (see [`TransformerConfig`]) with its tokenizer-independent inference: [`CausalLm::load`] reads `config.json` and
//! safetensors, [`LanguageModel`] is what generation needs of it (next-token logits with a cache), and [`CausalLm::response_log_probs`] what
//! training needs. [`SequenceClassifier`] puts a scalar head on the same transformer, and [`ScorerModel`] one that gives the values of all tokens
//! that may follow.
//! [`LoraConfig`] describes adapters, which are read, trained, merged and written in PEFT's form. [`Tokenizer`] reads `tokenizer.json`.
//! [`TabularLm`] is a table in place of a transformer, so small that everything about it can be computed exactly.
//!
//! Devices are those of [`backend`], which the cargo features compile in: `flex` (the CPU, default), `wgpu`, `cuda`, `cuda-nvrtc`, `autotune`.

mod attention;
mod batch;
mod builder;
mod cache;
mod causal_lm;
mod checkpoint;
mod classifier;
mod config;
mod cpu;
mod error;
mod essence;
mod features;
mod feed_forward;
mod folder;
mod hub;
mod json_file;
mod language_model;
mod layout;
mod lora;
mod norm;
mod positions;
mod projection;
mod rope;
mod scorer;
mod tabular;
mod tensor_file;
mod tensors;
mod tokenizer;
mod tokenizer_config;
mod transformer;
mod transformer_session;
mod weights;
mod word_tokenizer;

pub use batch::{ResponseBatch, Sequence, TOKENS_PER_PASS, runs};
pub use causal_lm::{CausalLm, Compared};
pub use classifier::{ClassifierNet, SequenceClassifier};
pub use config::{Head, RopeScaling, TokenIds, TransformerConfig};
pub use cpu::CpuModel;
pub use error::ModelError;
pub use folder::{ModelFolder, moved_with_run};
pub use hub::HubModel;
pub use infalign_backend as backend;
pub use language_model::{LanguageModel, Prompts, Session};
pub use lora::{LoraConfig, Patterns, TargetModules};
pub use scorer::{PrefixValues, ScoredReward, ScorerHead, ScorerModel, ScorerNet, ScorerSpec};
pub use tabular::{PrefixTree, TabularLm, TabularProblem};
pub use tokenizer::Tokenizer;
pub use transformer::Transformer;
pub use word_tokenizer::write_word_tokenizer;
