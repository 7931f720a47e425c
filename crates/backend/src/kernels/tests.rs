//! Kernels against the same operations made of tensor operations, forwards and backwards.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use burn::tensor::{Device, Tensor, TensorData};

use super::{AdamWStep, Angles, AttentionShape, composed};

fn device() -> Device {
    Device::flex().autodiff()
}

/// Numbers between −1 and 1 that follow no pattern of the sizes.
fn numbers<const D: usize>(shape: [usize; D], seed: f64) -> Tensor<D> {
    let n = shape.iter().product::<usize>();
    let values: Vec<f32> =
        (0..n).map(|i| ((i as f64 * 12.9898 + seed).sin() * 43_758.545).fract() as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), &device()).require_grad()
}

fn near(name: &str, found: &TensorData, expected: &TensorData) {
    assert_eq!(found.shape(), expected.shape(), "{name}");
    let pairs = found.iter::<f32>().zip(expected.iter::<f32>());
    let worst = pairs.map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max);
    assert!(worst < 2e-5, "{name}: off by {worst}");
}

/// Compares results, and gradients of Σ weight · result with respect to all inputs.
fn compare<const N: usize>(
    name: &str,
    inputs: [Tensor<2>; N],
    kernel: impl Fn([Tensor<2>; N]) -> Tensor<2>,
    composed: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) {
    let (found, expected) = (kernel(inputs.clone()), composed(inputs.clone()));
    near(name, &found.clone().into_data(), &expected.clone().into_data());
    let weight = numbers(found.dims(), 0.5).detach();
    let gradients = |y: Tensor<2>| {
        let gradients = (y * weight.clone()).sum().backward();
        inputs.each_ref().map(|input| input.grad(&gradients).unwrap().into_data())
    };
    let (found, expected) = (gradients(found), gradients(expected));
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        near(&format!("{name}, gradient of input {i}"), found, expected);
    }
}

#[test]
fn norms() {
    for [rows, width] in [[1, 1], [3, 8], [130, 40]] {
        compare(
            "rms_norm",
            [numbers([rows, width], 1.0), numbers([1, width], 2.0)],
            |[x, weight]| super::rms_norm(x, weight.squeeze_dim(0), 1e-5),
            |[x, weight]| composed::rms_norm(x, weight.squeeze_dim(0), 1e-5),
        );
    }
}

#[test]
fn gates() {
    for [rows, width] in [[1, 1], [3, 7], [200, 100]] {
        compare(
            "gated_silu",
            [numbers([rows, width], 1.0).mul_scalar(9.0), numbers([rows, width], 2.0)]
                .map(|x| x.detach().require_grad()),
            |[gate, up]| super::gated_silu(gate, up),
            |[gate, up]| composed::gated_silu(gate, up),
        );
    }
}

#[test]
fn rotations() {
    for [batch, texts, time, heads, width, half] in
        [[2, 1, 5, 3, 8, 4], [3, 3, 70, 2, 10, 3], [1, 1, 1, 1, 2, 1]]
    {
        let of = |seed| numbers([texts * time, half], seed).detach().reshape([texts, time, half]);
        let angles = Angles { cos: of(1.0), sin: of(2.0) };
        compare(
            "rotate",
            [numbers([batch * time, heads * width], 3.0)],
            |[x]| super::rotate(x, &angles, width),
            |[x]| composed::rotate(x, &angles, width),
        );
    }
}

#[test]
fn attention() {
    for (batch, time, heads, kv_heads, width, window) in [
        (2, 37, 4, 2, 8, None),
        (1, 1, 1, 1, 3, None),
        (3, 64, 2, 2, 16, Some(5)),
        (2, 33, 3, 1, 5, Some(1)),
        (1, 50, 2, 2, 4, Some(100)),
    ] {
        let shape = AttentionShape { batch, heads, kv_heads, width, scale: 1.7, cap: None, window };
        compare(
            &format!("{shape:?}"),
            [(heads, 1.0), (kv_heads, 2.0), (kv_heads, 3.0)]
                .map(|(heads, seed)| numbers([batch * time, heads * width], seed)),
            |[q, k, v]| super::attend(q, k, v, shape),
            |[q, k, v]| composed::attend(q, k, v, shape),
        );
    }
}

#[test]
fn projections() {
    // The largest by several threads.
    for [rows, inputs, outputs] in [[1, 1, 1], [5, 8, 33], [150, 300, 200]] {
        compare(
            "project",
            [numbers([rows, inputs], 1.0), numbers([inputs, outputs], 2.0)],
            |[x, weight]| super::project(x, weight),
            |[x, weight]| x.matmul(weight),
        );
        compare(
            "project turned and narrowed tensors",
            [numbers([inputs + 2, rows], 1.0), numbers([outputs, inputs], 2.0)],
            |[x, weight]| super::project(x.narrow(0, 1, inputs).transpose(), weight.transpose()),
            |[x, weight]| x.narrow(0, 1, inputs).transpose().matmul(weight.transpose()),
        );
    }
}

#[test]
fn gradients_that_nobody_wants_are_not_made() {
    let targets = [2, 0, 1];
    let (x, frozen) = (numbers([3, 4], 1.0), numbers([4, 5], 2.0).detach());
    let y = super::log_probs(x.clone(), frozen.clone(), &targets).sum()
        + super::project(x.clone(), frozen.clone()).sum();
    let expected = composed::log_probs(x.clone(), frozen.clone(), &targets).sum()
        + x.clone().matmul(frozen.clone()).sum();
    let [found, expected] = [y, expected].map(|y| x.grad(&y.backward()).unwrap().into_data());
    near("of a frozen weight's input", &found, &expected);
}

#[test]
fn log_probabilities() {
    // 40,000 columns leave room for some fifty rows at a time.
    for [rows, width, vocabulary] in [[1, 1, 1], [5, 8, 33], [150, 4, 40_000]] {
        let targets: Vec<u32> = (0..rows).map(|row| (row * 7919 % vocabulary) as u32).collect();
        compare(
            "log_probs",
            [numbers([rows, width], 1.0), numbers([width, vocabulary], 2.0)],
            |[hidden, weight]| super::log_probs(hidden, weight, &targets),
            |[hidden, weight]| composed::log_probs(hidden, weight, &targets),
        );
    }
}

#[test]
fn known_log_probabilities_stay_as_they_are_and_have_the_gradients_of_others() {
    let targets = [2, 0, 1];
    let inputs = [numbers([3, 4], 1.0), numbers([4, 5], 2.0)];
    let weight = numbers([3, 1], 0.5).detach();
    let gradients = |y: Tensor<2>| {
        let gradients = (y * weight.clone()).sum().backward();
        inputs.each_ref().map(|input| input.grad(&gradients).unwrap().into_data())
    };
    let [hidden, matrix] = inputs.clone();
    let expected = gradients(super::log_probs(hidden.clone(), matrix.clone(), &targets));
    // Without gradients, and not what they are.
    let known = numbers([3, 1], 3.0).inner();
    let found = super::known_log_probs(hidden, matrix, &targets, known.clone());
    found.clone().into_data().assert_eq(&known.into_data(), true);
    for (found, expected) in gradients(found).iter().zip(&expected) {
        found.assert_eq(expected, true);
    }
}

#[test]
fn comparisons() {
    for [rows, width, vocabulary] in [[1, 1, 1], [5, 8, 33], [150, 4, 40_000]] {
        let targets: Vec<u32> = (0..rows).map(|row| (row * 7919 % vocabulary) as u32).collect();
        let side = |seed: f64| {
            (numbers([rows, width], seed), numbers([width, vocabulary], seed + 1.0).mul_scalar(3.0))
        };
        let (ours, theirs) = (side(1.0), side(5.0));
        let found = super::compare(ours.clone(), theirs.clone(), &targets);
        let own = super::log_probs(ours.0.clone(), ours.1.clone(), &targets).into_data();
        found.clone().narrow(1, 3, 1).into_data().assert_eq(&own, true);
        let log_probs = |(hidden, weight): (Tensor<2>, Tensor<2>)| {
            burn::tensor::activation::log_softmax(hidden.matmul(weight), 1)
        };
        let expected = composed::compare(log_probs(ours), log_probs(theirs), &targets);
        near("compare", &found.into_data(), &expected.into_data());
    }
}

#[test]
fn logits_stand_in_even_blocks_of_at_least_a_thousand_rows_where_buffers_hold_them() {
    const MIB: u64 = 1 << 20;
    for (rows, vocabulary, buffer, block) in [
        (0, 32_768, 128 * MIB, 1),
        (1_024, 32_768, 128 * MIB, 1_024),
        (1_033, 32_768, 128 * MIB, 517),
        (5_000, 1_000, 128 * MIB, 5_000),
        (1_024, 262_144, 2_048 * MIB, 1_024),
        (2_100, 262_144, 2_048 * MIB, 700),
        (1_024, 262_144, 1_024 * MIB, 512),
        (130, 262_144, 128 * MIB, 65),
        (2, 1 << 26, 128 * MIB, 1),
    ] {
        let found = super::rows_at_once(rows, vocabulary, buffer);
        assert_eq!(found, block, "{rows} rows of {vocabulary}, buffers of {buffer}");
    }
}

/// A step of AdamW made of tensor operations.
fn composed_adamw(
    weight: Tensor<2>,
    grad: Tensor<2>,
    [mean, mean_square]: [Tensor<2>; 2],
    step: AdamWStep,
) -> (Tensor<2>, [Tensor<2>; 2]) {
    let AdamWStep { beta_1, beta_2, epsilon, weight_decay, learning_rate, time } = step;
    let mean = mean.mul_scalar(beta_1) + grad.clone().mul_scalar(1.0 - beta_1);
    let mean_square = mean_square.mul_scalar(beta_2) + grad.square().mul_scalar(1.0 - beta_2);
    let root = mean_square.clone().div_scalar(1.0 - beta_2.powi(time)).sqrt();
    let direction = mean.clone().div_scalar(1.0 - beta_1.powi(time)) / root.add_scalar(epsilon);
    let kept = weight.mul_scalar(1.0 - learning_rate * weight_decay);
    (kept - direction.mul_scalar(learning_rate), [mean, mean_square])
}

#[test]
fn steps_of_the_optimiser() {
    let given = |seed: f64| numbers([150, 300], seed).inner();
    let step = AdamWStep {
        beta_1: 0.9,
        beta_2: 0.99,
        epsilon: 1e-8,
        weight_decay: 0.1,
        learning_rate: 0.01,
        time: 3,
    };
    let means = [given(3.0), given(4.0).square()];
    let kept = means.clone();
    // A gradient whose rows do not follow each other in memory.
    let grad = numbers([300, 150], 2.0).inner().transpose();
    let (weight, found) = super::adamw(given(1.0), grad.clone(), means.clone(), step);
    let (expected_weight, expected) = composed_adamw(given(1.0), grad, means, step);
    near("weight", &weight.into_data(), &expected_weight.into_data());
    for (found, expected) in found.into_iter().zip(expected) {
        near("mean", &found.into_data(), &expected.into_data());
    }
    near("what somebody else holds", &kept[0].to_data(), &given(3.0).into_data());
}

#[test]
fn sums_of_squares() {
    let x = numbers([150, 300], 1.0).inner();
    let expected: f64 = x.to_data().iter::<f64>().map(|x| x * x).sum();
    for x in [x.clone(), x.transpose()] {
        let found = super::square_sum(x).into_scalar::<f64>();
        assert!((found / expected - 1.0).abs() < 1e-5, "{found} for {expected}");
    }
}

#[test]
fn without_gradients_they_compute_the_same() {
    let x = numbers([9, 8], 1.0);
    let (weight, plain) = (numbers([1, 8], 2.0).squeeze_dim(0), x.clone().inner());
    let tracked = super::rms_norm(x, Tensor::clone(&weight), 1e-5).inner().into_data();
    let untracked = super::rms_norm(plain, weight.inner(), 1e-5).into_data();
    tracked.assert_eq(&untracked, true);
}
