//! The head of a prefix scorer, with tensors.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData, activation::gelu};

use super::ScorerSpec;
use crate::ModelError;
use crate::checkpoint::{Checkpoint, param};
use crate::tensors::numbers;

const INNER: &str = "inner.weight";
const INNER_BIAS: &str = "inner.bias";
const SHARED: &str = "shared.weight";
const TOKENS: &str = "tokens.weight";

/// From the state of a prefix to the values of its children, in standard deviations of the reward from its mean.
#[derive(Module, Debug)]
pub struct ScorerHead {
    /// A, `[hidden, width]`.
    inner: Param<Tensor<2>>,
    /// b, `[width]`.
    inner_bias: Param<Tensor<1>>,
    /// c of every head, `[features, heads]`, with features = hidden + width + 1.
    shared: Param<Tensor<2>>,
    /// e of every token and head, `[vocabulary, heads * features]`.
    tokens: Param<Tensor<2>>,
}

impl ScorerHead {
    /// A head whose every value is 0: the hidden layer is random, what reads it is not.
    pub(super) fn random(
        spec: &ScorerSpec,
        normal: &mut dyn FnMut() -> f32,
        device: &Device,
    ) -> Self {
        let [hidden, width] = [spec.hidden, spec.width];
        let deviation = 1.0 / (hidden as f32).sqrt();
        let inner: Vec<f32> = (0..hidden * width).map(|_| deviation * normal()).collect();
        let [features, heads] = [hidden + width + 1, spec.heads.len()];
        let inner = Tensor::from_data(TensorData::new(inner, [hidden, width]), device);
        Self {
            inner: param(INNER, inner),
            inner_bias: param(INNER_BIAS, Tensor::zeros([width], device)),
            shared: param(SHARED, Tensor::zeros([features, heads], device)),
            tokens: param(TOKENS, Tensor::zeros([spec.vocabulary, heads * features], device)),
        }
    }

    pub(super) fn from_checkpoint(
        spec: &ScorerSpec,
        checkpoint: &mut Checkpoint,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let [hidden, width, heads] = [spec.hidden, spec.width, spec.heads.len()];
        let features = hidden + width + 1;
        let mut take = |name: &str, shape| checkpoint.take::<2>(name, shape, device);
        let inner = param(INNER, take(INNER, [hidden, width])?);
        let shared = param(SHARED, take(SHARED, [features, heads])?);
        let tokens = param(TOKENS, take(TOKENS, [spec.vocabulary, heads * features])?);
        let inner_bias = param(INNER_BIAS, checkpoint.take(INNER_BIAS, [width], device)?);
        Ok(Self { inner, inner_bias, shared, tokens })
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint::empty();
        checkpoint.put(INNER, self.inner.val());
        checkpoint.put(INNER_BIAS, self.inner_bias.val());
        checkpoint.put(SHARED, self.shared.val());
        checkpoint.put(TOKENS, self.tokens.val());
        checkpoint
    }

    /// The device of the weights, without autodiff.
    pub fn device(&self) -> Device {
        self.inner.val().device().without_autodiff()
    }

    /// f of states `[rows, hidden]`: `[rows, features]`.
    fn features(&self, states: Tensor<2>) -> Tensor<2> {
        let [rows, _] = states.dims();
        let inner =
            gelu(states.clone().matmul(self.inner.val()) + self.inner_bias.val().unsqueeze());
        let one = Tensor::ones([rows, 1], &states.device());
        Tensor::cat(vec![states, inner, one], 1)
    }

    /// The values of states with a token each: `[rows, heads]`.
    ///
    /// - `states`: `[rows, hidden]`; `tokens`: `[rows]`.
    pub fn values(&self, states: Tensor<2>, tokens: &[u32]) -> Tensor<2> {
        let features = self.features(states);
        let [rows, width] = features.dims();
        let [_, heads] = self.shared.dims();
        let ids: Vec<i32> = tokens.iter().map(|&id| id as i32).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [rows]), &features.device());
        let own = self.tokens.val().select(0, ids).reshape([rows, heads, width]);
        let by_token = own * features.clone().reshape([rows, 1, width]);
        features.matmul(self.shared.val()) + by_token.sum_dim(2).reshape([rows, heads])
    }

    /// The values of states with every token, for one head: `[rows, vocabulary]`.
    ///
    /// - `states`: `[rows, hidden]`.
    pub fn children(&self, states: Tensor<2>, head: usize) -> Tensor<2> {
        let features = self.features(states);
        let [_, width] = features.dims();
        let own = self.tokens.val().narrow(1, head * width, width).transpose();
        let shared = self.shared.val().narrow(1, head, 1);
        features.clone().matmul(own) + features.matmul(shared)
    }

    /// The weights of the hidden layer `[hidden, width]`, its bias, `[features, heads]` and `[vocabulary, heads * features]`, row-major.
    pub(super) fn numbers(&self) -> [Vec<f32>; 4] {
        [
            numbers(self.inner.val()),
            numbers(self.inner_bias.val()),
            numbers(self.shared.val()),
            numbers(self.tokens.val()),
        ]
    }
}
