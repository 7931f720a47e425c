//! Products together with each other, or with what follows them: on a GPU one operation, which is launched once, where nobody asks for gradients.

#[cfg(any(feature = "wgpu", feature = "cuda"))]
use burn::backend::Dispatch;
use burn::tensor::Tensor;

#[cfg(any(feature = "wgpu", feature = "cuda"))]
use super::cube::JointProducts;
use super::{gated_silu, project};

/// Whether there is one operation for these.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn are_joint(tensors: &[&Tensor<2>]) -> bool {
    tensors.iter().all(|tensor| !crate::is_cpu(&tensor.device()) && !tensor.is_autodiff())
}

/// Refuses factors that do not fit, which the operations would read beyond.
fn check(x: &Tensor<2>, weight: &Tensor<2>) {
    assert_eq!(x.dims()[1], weight.dims()[0], "as many inputs as the weight takes");
    assert_eq!(x.dtype(), weight.dtype(), "all are of one type");
}

/// x · weight + onto; f32 or bf16.
///
/// - x: `[rows, inputs]`.
/// - weight: `[inputs, outputs]`.
/// - onto: `[rows, outputs]`.
pub fn project_onto(x: Tensor<2>, weight: Tensor<2>, onto: Tensor<2>) -> Tensor<2> {
    check(&x, &weight);
    assert_eq!(onto.dims(), [x.dims()[0], weight.dims()[1]], "what is added to has their shape");
    assert_eq!(onto.dtype(), x.dtype(), "all are of one type");
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if are_joint(&[&x, &weight, &onto]) {
        let [x, weight, onto] = [x, weight, onto].map(Tensor::into_dispatch);
        return Tensor::from_dispatch(Dispatch::product_onto(x, weight, onto));
    }
    onto + project(x, weight)
}

/// silu(x · gate) · (x · up); f32 or bf16.
///
/// - x: `[rows, inputs]`.
/// - gate, up: `[inputs, outputs]`.
pub fn project_gated(x: Tensor<2>, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    check(&x, &gate);
    check(&x, &up);
    assert_eq!(gate.dims(), up.dims(), "what is gated has the shape of the gate");
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if are_joint(&[&x, &gate, &up]) {
        let [x, gate, up] = [x, gate, up].map(Tensor::into_dispatch);
        return Tensor::from_dispatch(Dispatch::gated_product(x, gate, up));
    }
    gated_silu(project(x.clone(), gate), project(x, up))
}

/// x · q, x · k and x · v; f32 or bf16.
///
/// - x: `[rows, inputs]`.
/// - weights: `[inputs, outputs]` each.
pub fn project_three(x: Tensor<2>, weights: [Tensor<2>; 3]) -> [Tensor<2>; 3] {
    weights.iter().for_each(|weight| check(&x, weight));
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if are_joint(&[&x, &weights[0], &weights[1], &weights[2]]) {
        let [q, k, v] = weights.map(Tensor::into_dispatch);
        let (q, k, v) = Dispatch::products(x.into_dispatch(), q, k, v);
        return [q, k, v].map(Tensor::from_dispatch);
    }
    weights.map(|weight| project(x.clone(), weight))
}
