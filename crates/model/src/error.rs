//! The errors of this crate.

use std::path::PathBuf;

/// Why a model, a tokenizer or a batch was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Weights that the device cannot hold as bf16.
    #[error(
        "the device does not compute with bf16; keep the weights in f32, or take another device"
    )]
    NoBf16,
    /// A name that is no folder, and no model of the hub's local cache.
    #[error(
        "the model {model} is neither a folder here nor in the hub's cache {cache}; check its name, or fetch it with `{command}`"
    )]
    NotInCache {
        /// The name.
        model: String,
        /// The cache.
        cache: PathBuf,
        /// What fetches it.
        command: String,
    },
    /// The cache holds the model, but not this revision.
    #[error("the hub's cache has no revision {wanted}, only: {present}; `{command}` fetches it")]
    NoRevision {
        /// The file in the cache that would tell the revision's commit.
        wanted: PathBuf,
        /// The revisions that are there.
        present: String,
        /// What fetches it.
        command: String,
    },
    /// The cache holds a part of the model.
    #[error(
        "{missing} is missing: the download is not complete, or the model has no safetensors; `{command}` fetches what there is"
    )]
    Partial {
        /// The first file that is missing.
        missing: PathBuf,
        /// What completes it.
        command: String,
    },
    /// A JSON file is malformed.
    #[error("{path} is not valid: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// `config.json` asks for something that this crate does not compute.
    #[error("{path}: `{key}` is {value}, which is not supported; {hint}")]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The offending key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is supported.
        hint: String,
    },
    /// An adapter cannot be used, or not on this model.
    #[error("adapter {name}: {reason}")]
    Adapter {
        /// Its folder, or what stands for it.
        name: String,
        /// The offending key or tensor with its value, and what has to be there.
        reason: String,
    },
    /// Heads of a prefix scorer that are none, or do not fit its trunk.
    #[error("prefix scorer: {reason}")]
    Heads {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Weights in the format of PyTorch, whose files are programs.
    #[error(
        "{path}: only safetensors are read; write them, as by `python -c \"from {class} as M; M.from_pretrained('FOLDER').save_pretrained('NEW')\"` (…ForSequenceClassification for a reward model), and copy the tokenizer's files"
    )]
    Pickled {
        /// The file.
        path: PathBuf,
        /// From which package the class is imported that reads it.
        class: &'static str,
    },
    /// A safetensors file is truncated or malformed.
    #[error("{path} is not a valid safetensors file: {reason}")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor that the configuration needs is not in the checkpoint.
    #[error("{path} holds no tensor `{name}`, which the configuration calls for")]
    MissingTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor that the configuration has no place for, so that what it computes would be something else.
    #[error(
        "{path} holds the tensor {name}, which config.json has no place for: it describes another model than these weights are of"
    )]
    SurplusTensor {
        /// The folder.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// Logits that are no distribution.
    #[error(
        "the model's logits after {tokens} tokens are no finite numbers, one for each token of its vocabulary: its weights are damaged, or too large for f32"
    )]
    Logits {
        /// How many tokens it had read.
        tokens: usize,
    },
    /// A tensor contradicts the configuration.
    #[error(
        "{path}: tensor `{name}` has shape {found:?}, but the configuration calls for {expected:?}"
    )]
    Shape {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape needed.
        expected: Vec<usize>,
    },
    /// A tensor has a type that is not f32, f16 or bf16, or holds NaN or infinities.
    #[error("{path}: tensor `{name}` {reason}")]
    Values {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong with its values.
        reason: String,
    },
    /// The tokenizer cannot be used.
    #[error("tokenizer {path}: {reason}")]
    Tokenizer {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A sequence does not fit the model.
    #[error("a sequence of {length} tokens does not fit the model's context of {limit}")]
    TooLong {
        /// Tokens needed.
        length: usize,
        /// `max_position_embeddings`.
        limit: usize,
    },
    /// A batch of more numbers than the device's kernels can tell apart.
    #[error(
        "{rows} responses at a time are more than the device's kernels take, which count in 32 bits: generate at most {most} together"
    )]
    Batch {
        /// Rows of the batch.
        rows: usize,
        /// As many as it may have.
        most: usize,
    },
    /// Prompts that another model has read.
    #[error(
        "these prompts were read by a model of another kind: have them read by the model that continues them"
    )]
    OtherPrompts,
    /// A sequence without tokens to predict from.
    #[error(
        "sequence {index} of the batch is empty: a model needs at least one token before the first that it predicts"
    )]
    Empty {
        /// Index in the batch.
        index: usize,
    },
    /// A token id outside the vocabulary.
    #[error(
        "token id {id} is outside the model's vocabulary of {vocabulary}: does the tokenizer belong to this model?"
    )]
    Token {
        /// The id.
        id: u32,
        /// The vocabulary's size.
        vocabulary: usize,
    },
    /// Two models whose distributions are to be compared, but are not over as many tokens.
    #[error(
        "the models have {ours} and {theirs} logits for a token, so that there is no KL of one from the other: take the surplus out by resize_token_embeddings of transformers"
    )]
    Vocabularies {
        /// `vocab_size` of the one.
        ours: usize,
        /// That of the other.
        theirs: usize,
    },
    /// A tabular model is malformed.
    #[error("tabular model {name}: {reason}")]
    Table {
        /// The file, or what stands for it.
        name: String,
        /// The offending key and value, and what has to be there.
        reason: String,
    },
    /// A tabular model has no place for a token.
    #[error("a tabular model cannot read `{token}` after the prefix `{prefix}`: {reason}")]
    Unreadable {
        /// The token.
        token: char,
        /// The response so far.
        prefix: String,
        /// Why.
        reason: &'static str,
    },
    /// A failure of a model from outside this crate.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl ModelError {
    /// The error of a [`LanguageModel`](crate::LanguageModel) of one's own, from whatever made it fail.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }

    pub(crate) fn read(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { action: "read", path: path.into(), source }
    }

    pub(crate) fn write(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { action: "write", path: path.into(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn the_failure_of_another_model_is_told_as_it_is() {
        let source = std::io::ErrorKind::Other.into();
        let cause = ModelError::Io { action: "read", path: "weights".into(), source };
        let message = cause.to_string();
        let error = ModelError::other(cause);
        assert_eq!(error.to_string(), message);
        assert!(error.source().unwrap().is::<std::io::Error>());
        assert!(matches!(error, ModelError::Other(own) if own.is::<ModelError>()));
    }
}
