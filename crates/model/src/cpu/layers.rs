//! The layers of a block, on rows of numbers.

use burn::tensor::DType;
use pulp::{Arch, Simd, WithSimd};

use super::matrix::Matrix;
use crate::feed_forward::{Activation, FeedForward};
use crate::lora::Adapter;
use crate::norm::Norm;
use crate::projection::Projection;
use crate::tensors::numbers;
use infalign_backend::functions::{exp, sum, tanh};

/// One or more projections of the same input, one beside the other.
#[derive(Debug)]
pub(super) struct Linear {
    matrix: Matrix,
    /// `[outputs]`; empty without biases.
    bias: Vec<f32>,
    adapters: Vec<LowRank>,
}

/// An adapter: x ↦ (x·A)·B, added to the outputs from `first` on.
#[derive(Debug)]
struct LowRank {
    a: Matrix,
    b: Matrix,
    first: usize,
}

impl Linear {
    /// Takes the projections, so that no more than one is held twice at a time.
    ///
    /// - `fused`: an adapter of all of their outputs.
    pub(super) fn new(mut parts: Vec<Projection>, fused: Option<Adapter>) -> Self {
        let mut adapters: Vec<LowRank> =
            fused.into_iter().map(|adapter| LowRank::new(adapter, 0)).collect();
        let mut first = 0;
        for part in &mut parts {
            adapters.extend(part.adapter.take().map(|adapter| LowRank::new(adapter, first)));
            first += part.weight.dims()[1];
        }
        let biased = parts.iter().any(|part| part.bias.is_some());
        let bias = |part: &Projection| match &part.bias {
            Some(bias) => numbers(bias.val()),
            None => vec![0.0; part.weight.dims()[1]],
        };
        let bias = if biased { parts.iter().flat_map(bias).collect() } else { Vec::new() };
        let weights = parts.into_iter().map(|part| part.weight.into_value()).collect();
        Self { matrix: Matrix::pack(weights), bias, adapters }
    }

    pub(super) fn outputs(&self) -> usize {
        self.matrix.outputs()
    }

    /// x `[rows, inputs]` → out `[rows, outputs]`.
    pub(super) fn forward(&self, x: &[f32], out: &mut Vec<f32>) {
        out.resize(x.len() / self.matrix.inputs() * self.outputs(), 0.0);
        self.matrix.multiply(x, out);
        if !self.bias.is_empty() {
            out.chunks_mut(self.outputs()).for_each(|row| add(row, &self.bias));
        }
        self.adapters.iter().for_each(|adapter| adapter.update(x, out, self.outputs()));
    }
}

impl LowRank {
    fn new(adapter: Adapter, first: usize) -> Self {
        let [a, b] = adapter.factors().map(|factor| Matrix::pack(vec![factor]));
        Self { a, b, first }
    }

    /// Adds (x·A)·B to rows of `width`.
    fn update(&self, x: &[f32], out: &mut [f32], width: usize) {
        let rows = x.len() / self.a.inputs();
        let mut inner = vec![0.0; rows * self.a.outputs()];
        self.a.multiply(x, &mut inner);
        let mut update = vec![0.0; rows * self.b.outputs()];
        self.b.multiply(&inner, &mut update);
        for (out, update) in out.chunks_mut(width).zip(update.chunks(self.b.outputs())) {
            add(&mut out[self.first..], update);
        }
    }
}

/// x + y, into x.
#[inline(always)]
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// RMSNorm, or LayerNorm where there is a bias.
#[derive(Debug)]
pub(super) struct Scaling {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    epsilon: f32,
}

impl Scaling {
    pub(super) fn new(norm: Norm) -> Self {
        let weight = numbers(norm.weight.val().cast(DType::F32).add_scalar(norm.offset));
        let bias = norm.bias.as_ref().map(|bias| numbers(bias.val()));
        Self { weight, bias, epsilon: norm.epsilon as f32 }
    }

    /// Rows of `[width]`, in place.
    pub(super) fn forward(&self, x: &mut [f32]) {
        Arch::new().dispatch(Scale { scaling: self, x });
    }
}

struct Scale<'a> {
    scaling: &'a Scaling,
    x: &'a mut [f32],
}

impl WithSimd for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Scaling { weight, bias, epsilon } = self.scaling;
        let width = weight.len();
        for row in self.x.chunks_exact_mut(width) {
            if bias.is_some() {
                let mean = sum(row, |x| x) / width as f32;
                for x in row.iter_mut() {
                    *x -= mean;
                }
            }
            let square = sum(row, |x| x * x) / width as f32;
            let scale = 1.0 / (square + epsilon).sqrt();
            for (x, weight) in row.iter_mut().zip(weight) {
                *x *= scale * weight;
            }
            if let Some(bias) = bias {
                add(row, bias);
            }
        }
    }
}

/// The feed-forward branch.
#[derive(Debug)]
pub(super) struct Feed {
    /// The gate's columns, if there is one, and those of what it opens.
    inner: Linear,
    outer: Linear,
    gated: bool,
    activation: Activation,
}

impl Feed {
    pub(super) fn new(layer: FeedForward) -> Self {
        let gated = layer.gate_proj.is_some();
        let inner = Linear::new(layer.gate_proj.into_iter().chain([layer.up_proj]).collect(), None);
        let outer = Linear::new(vec![layer.down_proj], None);
        Self { inner, outer, gated, activation: layer.activation }
    }

    /// x `[rows, hidden]` → out `[rows, hidden]`.
    pub(super) fn forward(&self, x: &[f32], inner: &mut Vec<f32>, out: &mut Vec<f32>) {
        self.inner.forward(x, inner);
        let width = self.inner.outputs();
        Arch::new().dispatch(Bend { feed: self, rows: inner, width });
        if self.gated {
            keep_first_halves(inner, width);
        }
        self.outer.forward(inner, out);
    }
}

struct Bend<'a> {
    feed: &'a Feed,
    rows: &'a mut [f32],
    width: usize,
}

impl WithSimd for Bend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        if !self.feed.gated {
            return self.feed.activation.bend(self.rows);
        }
        for row in self.rows.chunks_exact_mut(self.width) {
            let (gate, up) = row.split_at_mut(self.width / 2);
            self.feed.activation.bend(gate);
            for (gate, up) in gate.iter_mut().zip(up) {
                *gate *= *up;
            }
        }
    }
}

/// Moves the first half of every row of `width` to where the last one's ended.
fn keep_first_halves(rows: &mut Vec<f32>, width: usize) {
    let count = rows.len() / width;
    for row in 1..count {
        rows.copy_within(row * width..row * width + width / 2, row * (width / 2));
    }
    rows.truncate(count * (width / 2));
}

impl Activation {
    #[inline(always)]
    fn bend(self, row: &mut [f32]) {
        match self {
            Self::Silu => {
                for x in row {
                    *x /= 1.0 + exp(-*x);
                }
            }
            Self::Gelu => {
                for x in row {
                    *x *= 0.5 * (1.0 + libm::erff(*x * std::f32::consts::FRAC_1_SQRT_2));
                }
            }
            Self::GeluTanh => {
                let root = (2.0 / std::f32::consts::PI).sqrt();
                for x in row {
                    *x *= 0.5 * (1.0 + tanh(root * 0.044_715_f32.mul_add(*x * *x * *x, *x)));
                }
            }
        }
    }
}
