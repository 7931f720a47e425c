//! Normalisation of the residual stream and of heads.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use infalign_backend::kernels::rms_norm;

/// RMSNorm, x / √(mean(x²) + ε) · (weight + offset); or, with a bias, LayerNorm: the same of x − mean(x), plus the bias.
#[derive(Module, Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Param<Tensor<1>>,
    /// Only LayerNorm has one (GPT-2, GPT-NeoX).
    pub(crate) bias: Option<Param<Tensor<1>>>,
    pub(crate) epsilon: f64,
    /// 1 for Gemma, which stores weights around 0.
    pub(crate) offset: f64,
}

impl Norm {
    /// x: `[rows, width]` → the same shape and type; computed in f32.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let Some(bias) = &self.bias else { return self.scaled(x) };
        let dtype = x.dtype();
        let x = x.cast(DType::F32);
        let mean = x.clone().mean_dim(1);
        let bias = bias.val().cast(DType::F32);
        (self.scaled(x - mean) + bias.unsqueeze()).cast(dtype)
    }

    fn scaled(&self, x: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.val();
        let weight = if self.offset == 0.0 {
            weight
        } else {
            weight.cast(DType::F32).add_scalar(self.offset)
        };
        rms_norm(x, weight, self.epsilon)
    }
}
