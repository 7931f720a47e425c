//! The linear maps of which the core is made: weights are laid out for multiplying, not as checkpoints store them.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use infalign_backend::kernels::{project, project_onto};

use crate::lora::Adapter;

/// A linear map; the weight is `[inputs, outputs]`, the transpose of what most checkpoints store.
#[derive(Module, Debug)]
pub(crate) struct Projection {
    pub(crate) weight: Param<Tensor<2>>,
    pub(crate) bias: Option<Param<Tensor<1>>>,
    pub(crate) adapter: Option<Adapter>,
}

impl Projection {
    /// x: `[rows, inputs]` → `[rows, outputs]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let update = self.adapter.as_ref().map(|adapter| adapter.forward(x.clone()));
        let y = project(x, self.weight.val());
        let y = match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        };
        match update {
            Some(update) => y + update,
            None => y,
        }
    }

    /// onto + the map of x, onto: `[rows, outputs]`.
    pub(crate) fn forward_onto(&self, x: Tensor<2>, onto: Tensor<2>) -> Tensor<2> {
        match self.plain_weight() {
            Some(weight) => project_onto(x, weight, onto),
            None => onto + self.forward(x),
        }
    }

    /// The weight, where it is all there is.
    pub(crate) fn plain_weight(&self) -> Option<Tensor<2>> {
        (self.bias.is_none() && self.adapter.is_none()).then(|| self.weight.val())
    }
}
