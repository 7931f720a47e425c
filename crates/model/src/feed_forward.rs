//! The feed-forward branch of a block, gated or not.

use burn::module::Module;
use burn::tensor::{
    Tensor,
    activation::{gelu, silu},
};

use infalign_backend::kernels::{gated_silu, project_gated};

use crate::projection::Projection;

/// Gated, down(act(gate(x)) · up(x)); without a gate, down(act(up(x))).
#[derive(Module, Debug)]
pub(crate) struct FeedForward {
    /// None for GPT-2 and GPT-NeoX.
    pub(crate) gate_proj: Option<Projection>,
    pub(crate) up_proj: Projection,
    pub(crate) down_proj: Projection,
    #[module(skip)]
    pub(crate) activation: Activation,
}

impl FeedForward {
    /// What `down_proj` takes: x `[rows, hidden]` → `[rows, inner]`.
    pub(crate) fn inner(&self, x: Tensor<2>) -> Tensor<2> {
        let Some(gate) = &self.gate_proj else {
            return self.activation.apply(self.up_proj.forward(x));
        };
        if self.activation != Activation::Silu {
            return self.activation.apply(gate.forward(x.clone())) * self.up_proj.forward(x);
        }
        match (gate.plain_weight(), self.up_proj.plain_weight()) {
            (Some(gate), Some(up)) => project_gated(x, gate, up),
            _ => gated_silu(gate.forward(x.clone()), self.up_proj.forward(x)),
        }
    }
}

/// What bends the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x · sigmoid(x).
    Silu,
    /// x · Φ(x) for the normal distribution function Φ.
    Gelu,
    /// ½x·(1 + tanh(√(2/π)·(x + 0.044715x³))), which is near to GELU.
    GeluTanh,
}

impl Activation {
    /// The activation that Hugging Face calls `name`, if it is known.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "silu" => Some(Self::Silu),
            "gelu" => Some(Self::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Some(Self::GeluTanh),
            _ => None,
        }
    }

    fn apply(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Silu => silu(x),
            Self::Gelu => gelu(x),
            Self::GeluTanh => {
                let inner = x.clone() + x.clone().powi_scalar(3).mul_scalar(0.044715);
                let root = (2.0 / std::f64::consts::PI).sqrt();
                x.mul_scalar(0.5) * inner.mul_scalar(root).tanh().add_scalar(1.0)
            }
        }
    }
}
