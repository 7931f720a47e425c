//! The low-rank update of one linear module.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use infalign_backend::kernels::project;

use crate::checkpoint::param;

/// x ↦ (x·A)·B·scale, beside a module that stays as it is.
#[derive(Module, Debug)]
pub(crate) struct Adapter {
    /// `[inputs, rank]`, the transpose of what PEFT stores.
    pub(super) a: Param<Tensor<2>>,
    /// `[rank, outputs]`, the transpose of what PEFT stores; the outputs in the core's order.
    pub(super) b: Param<Tensor<2>>,
    /// α/rank, or α/√rank.
    scale: f64,
}

impl Adapter {
    /// The adapter of the module with the given path.
    pub(super) fn new(module: &str, a: Tensor<2>, b: Tensor<2>, scale: f64) -> Self {
        let [name_a, name_b] = tensor_names(module);
        Self { a: param(&name_a, a), b: param(&name_b, b), scale }
    }

    /// x: `[rows, inputs]` → `[rows, outputs]`. The product A·B is never made.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        project(project(x, self.a.val()).mul_scalar(self.scale), self.b.val())
    }

    /// A `[inputs, rank]` and, as f32, B·scale `[rank, outputs]`.
    pub(crate) fn factors(self) -> [Tensor<2>; 2] {
        [self.a.into_value(), self.b.into_value().cast(DType::F32).mul_scalar(self.scale)]
    }

    /// A·B·scale, what merging adds to the weight: `[inputs, outputs]`.
    pub(super) fn product(&self) -> Tensor<2> {
        self.a.val().matmul(self.b.val()).mul_scalar(self.scale)
    }
}

/// The names of A and B of a module.
pub(super) fn tensor_names(module: &str) -> [String; 2] {
    ["A", "B"].map(|matrix| format!("{module}.lora_{matrix}.weight"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::numbers;

    #[test]
    fn factors_of_weights_in_bf16_are_scaled_without_rounding() {
        let device = infalign_backend::device(Some(&"cpu".parse().unwrap())).unwrap();
        // The last of the seven bits of the mantissa; once and a half of it has one more.
        let number: f32 = 1.0 + 1.0 / 128.0;
        let matrix = Tensor::<2>::from_data([[number]], &device).cast(DType::BF16);
        let [_, b] = Adapter::new("q_proj", matrix.clone(), matrix, 1.5).factors();
        assert_eq!(numbers(b), [1.5 * number]);
    }
}
