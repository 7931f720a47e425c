//! Matrices packed for multiplication, with every sum in the order of its terms.

use burn::tensor::Tensor;
use pulp::{Arch, Simd, WithSimd};

/// Columns that are packed side by side.
const PANEL: usize = 32;
/// Vectors of columns and rows of x that the inner loop holds in registers.
const VECTORS: usize = 2;
const ROWS: usize = 8;

/// A matrix `[inputs, outputs]` as panels of [`PANEL`] outputs, each row-major `[inputs, PANEL]`; the last one is filled up with 0.
#[derive(Debug)]
pub(super) struct Matrix {
    inputs: usize,
    outputs: usize,
    panels: Vec<f32>,
}

impl Matrix {
    /// Packs matrices `[inputs, outputs]` that read the same inputs, one beside the other.
    pub(super) fn pack(parts: Vec<Tensor<2>>) -> Self {
        let inputs = parts[0].dims()[0];
        let outputs = parts.iter().map(|part| part.dims()[1]).sum();
        let mut matrix = Self::zeros(inputs, outputs);
        let mut first = 0;
        for part in parts {
            let width = part.dims()[1];
            for (index, value) in part.into_data().iter::<f32>().enumerate() {
                matrix.put(index / width, first + index % width, value);
            }
            first += width;
        }
        matrix
    }

    /// Packs the transpose of a matrix `[outputs, inputs]`.
    pub(super) fn pack_transposed(matrix: Tensor<2>) -> Self {
        let [outputs, inputs] = matrix.dims();
        let mut packed = Self::zeros(inputs, outputs);
        for (index, value) in matrix.into_data().iter::<f32>().enumerate() {
            packed.put(index % inputs, index / inputs, value);
        }
        packed
    }

    fn zeros(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, panels: vec![0.0; outputs.div_ceil(PANEL) * PANEL * inputs] }
    }

    fn put(&mut self, input: usize, output: usize, value: f32) {
        let (panel, column) = (output / PANEL, output % PANEL);
        self.panels[(panel * self.inputs + input) * PANEL + column] = value;
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Copies the weights of one output, `[inputs]`.
    pub(super) fn column(&self, output: usize, into: &mut [f32]) {
        let panel = &self.panels[output / PANEL * self.inputs * PANEL..];
        for (value, row) in into.iter_mut().zip(panel.chunks(PANEL)) {
            *value = row[output % PANEL];
        }
    }

    /// x `[rows, inputs]` → out `[rows, outputs]`, which is overwritten.
    ///
    /// Each sum begins at 0 and takes its terms in the order of the inputs, by fused multiplication and addition.
    pub(super) fn multiply(&self, x: &[f32], out: &mut [f32]) {
        Arch::new().dispatch(Multiply { matrix: self, x, out });
    }
}

struct Multiply<'a> {
    matrix: &'a Matrix,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Matrix { inputs, outputs, ref panels } = *self.matrix;
        if inputs == 0 {
            return self.out.fill(0.0);
        }
        let columns = VECTORS * S::F32_LANES;
        for (panel, weights) in panels.chunks(inputs * PANEL).enumerate() {
            for offset in (0..PANEL).step_by(columns) {
                let first = panel * PANEL + offset;
                if first >= outputs {
                    break;
                }
                let width = columns.min(outputs - first);
                let blocks = self.x.chunks(ROWS * inputs).zip(self.out.chunks_mut(ROWS * outputs));
                for (x, out) in blocks {
                    let target = Target { out, first, width, outputs };
                    // With few registers, half of the rows at a time.
                    if S::F32_LANES < 16 && x.len() > ROWS / 2 * inputs {
                        let (above, below) = x.split_at(ROWS / 2 * inputs);
                        let (upper, lower) = target.out.split_at_mut(ROWS / 2 * outputs);
                        block(
                            simd,
                            weights,
                            offset,
                            above,
                            inputs,
                            Target { out: upper, ..target },
                        );
                        let target = Target { out: lower, first, width, outputs };
                        block(simd, weights, offset, below, inputs, target);
                    } else {
                        block(simd, weights, offset, x, inputs, target);
                    }
                }
            }
        }
    }
}

/// Where a block of sums goes: `width` columns from `first` on, of rows of `outputs`.
struct Target<'a> {
    out: &'a mut [f32],
    first: usize,
    width: usize,
    outputs: usize,
}

/// At most [`ROWS`] rows of x times the columns of a panel from `offset` on.
#[inline(always)]
fn block<S: Simd>(
    simd: S,
    weights: &[f32],
    offset: usize,
    x: &[f32],
    inputs: usize,
    target: Target<'_>,
) {
    match x.len() / inputs {
        8 => rows::<S, 8>(simd, weights, offset, x, inputs, target),
        7 => rows::<S, 7>(simd, weights, offset, x, inputs, target),
        6 => rows::<S, 6>(simd, weights, offset, x, inputs, target),
        5 => rows::<S, 5>(simd, weights, offset, x, inputs, target),
        4 => rows::<S, 4>(simd, weights, offset, x, inputs, target),
        3 => rows::<S, 3>(simd, weights, offset, x, inputs, target),
        2 => rows::<S, 2>(simd, weights, offset, x, inputs, target),
        _ => rows::<S, 1>(simd, weights, offset, x, inputs, target),
    }
}

#[inline(always)]
fn rows<S: Simd, const N: usize>(
    simd: S,
    weights: &[f32],
    offset: usize,
    x: &[f32],
    inputs: usize,
    target: Target<'_>,
) {
    let columns = VECTORS * S::F32_LANES;
    let x: [&[f32]; N] = std::array::from_fn(|row| &x[row * inputs..(row + 1) * inputs]);
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; N];
    for (input, row) in weights.chunks_exact(PANEL).enumerate() {
        let (vectors, _) = S::as_simd_f32s(&row[offset..offset + columns]);
        let vectors = [vectors[0], vectors[1]];
        for (sums, x) in sums.iter_mut().zip(&x) {
            let factor = simd.splat_f32s(x[input]);
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = simd.mul_add_f32s(factor, vector, *sum);
            }
        }
    }
    let Target { out, first, width, outputs } = target;
    for (row, sums) in sums.iter().enumerate() {
        let mut buffer = [0.0; PANEL];
        let (vectors, _) = S::as_mut_simd_f32s(&mut buffer[..columns]);
        vectors.copy_from_slice(sums);
        out[row * outputs + first..][..width].copy_from_slice(&buffer[..width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    #[test]
    fn products_are_sums_in_order_whatever_the_batch() {
        let device = infalign_backend::device(None).unwrap();
        for (inputs, outputs) in [(1, 1), (7, 33), (64, 172), (256, 96)] {
            let number = |k: usize| ((k * 7919) % 1013) as f32 / 1013.0 - 0.5;
            let weights: Vec<f32> = (0..inputs * outputs).map(number).collect();
            let tensor =
                Tensor::from_data(TensorData::new(weights.clone(), [inputs, outputs]), &device);
            let matrix = Matrix::pack(vec![tensor.clone()]);
            let turned = Matrix::pack_transposed(tensor.transpose());
            for rows in [1, 3, 8, 9, 21] {
                let x: Vec<f32> = (0..rows * inputs).map(|k| number(3 * k + 1)).collect();
                let (mut out, mut again) =
                    (vec![f32::NAN; rows * outputs], vec![0.0; rows * outputs]);
                matrix.multiply(&x, &mut out);
                turned.multiply(&x, &mut again);
                assert_eq!(out, again);
                for (place, value) in out.iter().enumerate() {
                    let (row, column) = (place / outputs, place % outputs);
                    let terms =
                        (0..inputs).map(|k| (x[row * inputs + k], weights[k * outputs + column]));
                    let expected = terms.fold(0.0_f32, |sum, (a, b)| a.mul_add(b, sum));
                    assert_eq!(*value, expected, "{inputs}×{outputs}, row {row}, column {column}");
                }
            }
        }
    }
}
