//! Kernels: results, and gradients of Σ weight · result with respect to all inputs.

use std::ops::Range;

use burn::tensor::{DType, Device, Tensor, TensorData, activation::log_softmax};
use infalign_backend::kernels::{
    AdamWStep, Angles, AttentionShape, adamw, attend, attend_cached, attend_within, compare, draw,
    gated_silu, known_log_probs, log_probs, project, project_gated, project_onto, project_three,
    rms_norm, rotate, rows_at_once, square_sum,
};

use super::{Candidate, candidates, cpu};

/// Numbers between −1 and 1 that follow no pattern of the sizes.
fn numbers<const D: usize>(shape: [usize; D], seed: f64, device: &Device) -> Tensor<D> {
    let n = shape.iter().product::<usize>();
    let values: Vec<f32> =
        (0..n).map(|i| ((i as f64 * 12.9898 + seed).sin() * 43_758.545).fract() as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// The result of a kernel on a device, then the gradients of its inputs.
fn outcome<const N: usize>(
    shapes: [[usize; 2]; N],
    kernel: &dyn Fn(&Device, [Tensor<2>; N]) -> Tensor<2>,
    device: &Device,
) -> Vec<Vec<f32>> {
    let device = device.clone().autodiff();
    let mut seed = 0.0;
    let inputs = shapes.map(|shape| {
        seed += 1.0;
        numbers(shape, seed, &device).require_grad()
    });
    let result = kernel(&device, inputs.clone());
    let weight = numbers(result.dims(), 0.5, &device);
    let gradients = (result.clone() * weight).sum().backward();
    let gradients = inputs.iter().map(|input| values(input.grad(&gradients).unwrap()));
    std::iter::once(values(result.inner())).chain(gradients).collect()
}

/// Compares a kernel on every device with the CPU.
fn everywhere<const N: usize>(
    name: &str,
    shapes: [[usize; 2]; N],
    kernel: impl Fn(&Device, [Tensor<2>; N]) -> Tensor<2>,
) {
    let expected = outcome(shapes, &kernel, &cpu());
    for candidate in candidates() {
        let found = outcome(shapes, &kernel, &candidate.device);
        for (k, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let what = if k == 0 { "result".into() } else { format!("gradient of input {k}") };
            candidate.near(&format!("{name}, {what}"), found, expected);
        }
    }
}

#[test]
fn norms_are_those_of_the_cpu() {
    for [rows, width] in [[3, 8], [130, 40], [5, 700]] {
        everywhere("rms_norm", [[rows, width], [1, width]], |_, [x, weight]| {
            rms_norm(x, weight.squeeze_dim(0), 1e-5)
        });
    }
}

#[test]
fn gates_are_those_of_the_cpu() {
    everywhere("gated_silu", [[40, 24], [40, 24]], |_, [gate, up]| {
        gated_silu(gate.mul_scalar(9.0), up)
    });
}

#[test]
fn projections_are_those_of_the_cpu() {
    // Few rows of sizes in fours are taken by a kernel of their own.
    for [rows, inputs, outputs] in
        [[1, 8, 3], [1, 8, 20], [17, 132, 40], [64, 4, 100], [130, 24, 40]]
    {
        everywhere("project", [[rows, inputs], [inputs, outputs]], |_, [x, weight]| {
            project(x, weight)
        });
        everywhere("project, transposed", [[rows, inputs], [outputs, inputs]], |_, [x, weight]| {
            project(x, weight.transpose())
        });
    }
}

#[test]
fn products_with_many_columns_are_those_of_the_cpu() {
    // By a kernel that not every device has, nor every size fits.
    for [rows, inputs, outputs] in [[64, 256, 4_100], [64, 260, 4_099]] {
        everywhere("wide project", [[rows, inputs], [inputs, outputs]], |_, [x, weight]| {
            project(x, weight)
        });
        everywhere("wide, transposed", [[rows, inputs], [outputs, inputs]], |_, [x, weight]| {
            project(x, weight.transpose())
        });
    }
}

/// Whole numbers from −1 to 1, which every type and every product holds as they are.
fn whole_numbers(shape: [usize; 2], device: &Device) -> Tensor<2> {
    numbers(shape, shape[1] as f64, device).mul_scalar(1.5).round()
}

/// A product of whole numbers in f32, its gradients, and the product in bf16 where the device computes with it.
fn whole_products([rows, inputs, outputs]: [usize; 3], device: &Device) -> Vec<Vec<f32>> {
    let device = device.clone().autodiff();
    let [x, weight] = [[rows, inputs], [inputs, outputs]]
        .map(|shape| whole_numbers(shape, &device).require_grad());
    let y = project(x.clone(), weight.clone());
    let slopes = whole_numbers([rows, outputs], &device);
    let gradients = (y.clone() * slopes).sum().backward();
    let [of_x, of_weight] = [&x, &weight].map(|factor| factor.grad(&gradients).unwrap());
    let bf16 = device.supports_dtype(DType::BF16).then(|| {
        let [x, weight] = [x, weight].map(|factor| factor.inner().cast(DType::BF16));
        project(x, weight)
    });
    [y.inner(), of_x, of_weight].into_iter().chain(bf16).map(values).collect()
}

#[test]
fn large_products_of_whole_numbers_are_exact() {
    // Multiples of a tile, and of nothing but what vectors need.
    for sizes in [[512, 256, 512], [604, 264, 648]] {
        let expected = whole_products(sizes, &cpu());
        assert_eq!(expected[3], expected[0], "bf16 holds them, too");
        for Candidate { name, device, .. } in candidates() {
            let found = whole_products(sizes, &device);
            if found.len() < expected.len() {
                println!("{name}: SKIPPED products in bf16: the device does not compute with it");
            }
            for (k, found) in found.iter().enumerate() {
                assert!(found == &expected[k], "{name}: {sizes:?}: product {k}");
            }
        }
    }
}

#[test]
fn joint_products_are_those_of_the_cpu() {
    // The last two are of sizes that are taken one after the other.
    for [rows, inputs, outputs] in
        [[1, 8, 20], [17, 132, 40], [64, 4, 100], [5, 8, 6], [600, 24, 512]]
    {
        for turned in [false, true] {
            let found = |device: &Device| {
                let x = numbers([rows, inputs], 1.0, device);
                let weight = |outputs: usize, seed| {
                    if turned {
                        numbers([outputs, inputs], seed, device).transpose()
                    } else {
                        numbers([inputs, outputs], seed, device)
                    }
                };
                let onto = numbers([rows, outputs], 2.0, device);
                let [k, v] = [3.0, 4.0].map(|seed| weight(outputs / 2 + 2, seed));
                let three = project_three(x.clone(), [weight(outputs, 5.0), k, v]);
                let gated = project_gated(x.clone(), weight(outputs, 6.0), weight(outputs, 7.0));
                let onto = project_onto(x, weight(outputs, 8.0), onto);
                [onto, gated].into_iter().chain(three).map(values).collect::<Vec<_>>()
            };
            let expected = found(&cpu());
            for candidate in candidates() {
                for (k, found) in found(&candidate.device).iter().enumerate() {
                    candidate.near(&format!("joint product {k}"), found, &expected[k]);
                }
            }
        }
    }
}

/// Whether a uniform number falls on a token of these logits, but for rounding.
fn falls_on(token: usize, logits: &[f32], [uniform, temperature]: [f32; 2]) -> bool {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    if temperature == 0.0 {
        return logits.iter().position(|&logit| logit == most) == Some(token);
    }
    let weight = |&logit: &f32| (f64::from(logit - most) / f64::from(temperature)).exp();
    let sum = |logits: &[f32]| logits.iter().map(weight).sum::<f64>();
    let at = f64::from(uniform) * sum(logits);
    let rounding = 1e-5 * sum(logits);
    sum(&logits[..token]) - rounding <= at && at <= sum(&logits[..=token]) + rounding
}

#[test]
fn draws_invert_the_distribution() {
    for candidate in candidates() {
        for width in [3, 700, 40_000] {
            let logits = numbers([6, width], 0.3, &candidate.device).mul_scalar(6.0);
            let how =
                [[0.0, 1.0], [0.4, 1.0], [0.999_999_9, 1.0], [0.5, 0.7], [0.3, 2.0], [0.9, 0.0]];
            let Some(drawn) = draw(&logits, &how) else {
                assert!(infalign_backend::is_cpu(&candidate.device), "only the CPU draws itself");
                continue;
            };
            let expected = values(log_softmax(logits.clone(), 1));
            let logits = values(logits);
            let (mut found, mut own) = (Vec::new(), Vec::new());
            for (row, (&(token, log_prob), &how)) in drawn.iter().zip(&how).enumerate() {
                let token = token as usize;
                let row = row * width..(row + 1) * width;
                assert!(falls_on(token, &logits[row.clone()], how), "{how:?}: token {token}");
                found.push(log_prob);
                own.push(expected[row][token]);
            }
            candidate.near("draws, log-probabilities", &found, &own);
        }
    }
}

#[test]
fn draws_of_logits_at_the_edge() {
    let row = [f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY];
    let of = |rows: &[[f32; 5]], how: &[[f32; 2]], device: &Device| {
        draw(&Tensor::from_data(TensorData::new(rows.concat(), [rows.len(), 5]), device), how)
    };
    for candidate in candidates() {
        let how = [[0.0, 1.0], [0.6, 1.0], [1.0, 1.0], [0.7, 0.0]];
        let Some(drawn) = of(&[row; 4], &how, &candidate.device) else { continue };
        let tokens: Vec<u32> = drawn.iter().map(|draw| draw.0).collect();
        assert_eq!(tokens, [1, 3, 3, 1], "{}: −∞ is never drawn, ties by number", candidate.name);
        assert!(drawn.iter().all(|draw| (draw.1 + 2.0_f32.ln()).abs() < 1e-5), "{drawn:?}");
        let lost = of(&[[f32::NAN, 1.0, 2.0, 0.0, 0.0]], &[[0.5, 1.0]], &candidate.device).unwrap();
        assert!(!lost[0].1.is_finite(), "{}: {lost:?} of what is no number", candidate.name);
    }
}

/// A token of nearly all probability, and behind it thousands of 2e-9 each: every uniform number that f32 has there is 29 tokens from the next.
#[test]
fn draws_reach_every_part_of_a_flat_tail() {
    let width = 20_000;
    let mut logits = vec![-20.0_f32; width];
    logits[0] = 0.0;
    let tail = (width - 1) as f64 * (-20.0_f64).exp();
    let tail = tail / (1.0 + tail);
    let step = 0.5_f64.powi(24);
    for candidate in candidates() {
        let mut tokens = Vec::new();
        for batch in 0..20 {
            let steps = batch * 30 + 1..batch * 30 + 31;
            let how: Vec<[f32; 2]> =
                steps.map(|steps| [(1.0 - f64::from(steps) * step) as f32, 1.0]).collect();
            let rows = TensorData::new(logits.repeat(how.len()), [how.len(), width]);
            let Some(drawn) = draw(&Tensor::from_data(rows, &candidate.device), &how) else {
                assert!(infalign_backend::is_cpu(&candidate.device), "only the CPU draws itself");
                break;
            };
            tokens.extend(drawn.into_iter().map(|draw| draw.0));
        }
        for (k, &token) in tokens.iter().enumerate() {
            let expected = width as f64 * (1.0 - (k + 1) as f64 * step / tail);
            let off = (f64::from(token) - expected).abs();
            assert!(off < 50.0, "{}: {token} of {expected}", candidate.name);
        }
        let drawn = tokens.len();
        tokens.sort_unstable();
        tokens.dedup();
        assert!(tokens.len() * 10 >= drawn * 9, "{}: {} tokens", candidate.name, tokens.len());
    }
}

#[test]
fn steps_of_the_optimiser_are_those_of_the_cpu() {
    let step = AdamWStep {
        beta_1: 0.9,
        beta_2: 0.99,
        epsilon: 1e-8,
        weight_decay: 0.01,
        learning_rate: 0.1,
        time: 3,
    };
    // Rows that do not fill what a device aligns them to. Tensors that somebody else holds must not be written on; others are.
    let stepped = |device: &Device, held: bool| {
        let given = || {
            let [weight, grad, mean, root] =
                [1.0, 2.0, 3.0, 4.0].map(|seed| numbers([400, 13], seed, device));
            [weight, grad, mean, root.square()]
        };
        let tensors = given();
        let kept = held.then(|| tensors.clone());
        let [weight, grad, mean, mean_square] = tensors;
        let sum = values(square_sum(grad.clone()));
        let (weight, [mean, mean_square]) = adamw(weight, grad, [mean, mean_square], step);
        for (kept, given) in kept.into_iter().flatten().zip(given()) {
            assert_eq!(values(kept), values(given));
        }
        [values(weight), values(mean), values(mean_square), sum]
    };
    let expected = stepped(&cpu(), false);
    for candidate in candidates() {
        for held in [false, true] {
            let found = stepped(&candidate.device, held);
            for (k, what) in ["weight", "mean", "mean square", "sum of squares"].iter().enumerate()
            {
                candidate.near(&format!("adamw, {what}"), &found[k], &expected[k]);
            }
        }
    }
}

fn angles(shape: [usize; 3], device: &Device) -> Angles {
    Angles { cos: numbers(shape, 1.0, device), sin: numbers(shape, 2.0, device) }
}

#[test]
fn rotations_are_those_of_the_cpu() {
    for [batch, texts, time, heads, width, half] in [[2, 1, 5, 3, 8, 4], [3, 3, 70, 2, 10, 3]] {
        everywhere("rotate", [[batch * time, heads * width]], |device, [x]| {
            rotate(x, &angles([texts, time, half], device), width)
        });
    }
}

#[test]
fn attention_is_that_of_the_cpu() {
    for (batch, time, heads, kv_heads, width, window) in [
        (2, 37, 4, 2, 8, None),
        (1, 1, 1, 1, 3, None),
        (3, 64, 2, 2, 16, Some(5)),
        (1, 300, 2, 1, 8, Some(280)),
    ] {
        let shape = AttentionShape { batch, heads, kv_heads, width, scale: 1.7, cap: None, window };
        let shapes = [heads, kv_heads, kv_heads].map(|heads| [batch * time, heads * width]);
        everywhere(&format!("{shape:?}"), shapes, |_, [q, k, v]| attend(q, k, v, shape));
    }
}

#[test]
fn attention_of_a_few_texts_at_a_time_is_that_of_all() {
    let (batch, time, heads, kv_heads, width) = (5, 33, 4, 2, 8);
    let (cap, window) = (None, None);
    let shape = AttentionShape { batch, heads, kv_heads, width, scale: 1.7, cap, window };
    let shapes = [heads, kv_heads, kv_heads].map(|heads| [batch * time, heads * width]);
    let of_a_text = (heads * time * time * size_of::<f32>()) as u64;
    // One at a time, and two, of which the last is alone.
    for bytes in [1, 2 * of_a_text] {
        everywhere(&format!("attention within {bytes} bytes"), shapes, |_, inputs| {
            attend_within(bytes, inputs, shape)
        });
    }
}

/// More than the units of a cube, twice.
const COLUMNS: usize = 300;

/// Of so many columns of a few texts, behind the first ones.
fn columns(angles: &Angles, texts: Range<usize>, columns: Range<usize>) -> Angles {
    let part = |x: &Tensor<3>| {
        let x = x.clone().narrow(0, texts.start, texts.len());
        x.narrow(1, columns.start, columns.len())
    };
    Angles { cos: part(&angles.cos), sin: part(&angles.sin) }
}

/// Attention of two texts, of which the second begins five columns later, over a cache that takes 290 columns at first and then one at a time.
///
/// - half: pairs of a head that are rotated, by angles of each token's own.
fn over_a_cache(device: &Device, shape: AttentionShape, half: usize) -> Vec<f32> {
    let AttentionShape { heads, kv_heads, width, .. } = shape;
    let tokens = numbers_of_heads(shape, device);
    let all = (half > 0).then(|| angles([2, COLUMNS, half], device));
    let room = || Tensor::zeros([2, kv_heads, COLUMNS + 4, width], device);
    let mut caches = [room(), room()];
    let starts = Tensor::from_data([0, 5], device);
    let mut results = Vec::new();
    let mut filled = 0;
    while filled < COLUMNS {
        let time = if filled == 0 { 290 } else { 1 };
        let new = tokens.each_ref().map(|x| {
            let columns = x.dims()[2];
            x.clone().narrow(1, filled, time).reshape([2 * time, columns])
        });
        let angles = all.as_ref().map(|all| columns(all, 0..2, filled..filled + time));
        let (held, mixed) =
            attend_cached(new, caches, angles.as_ref(), starts.clone(), filled, shape);
        caches = held;
        results.push(mixed.reshape([2, time, heads * width]));
        filled += time;
    }
    let all = Tensor::cat(results, 1);
    let text = |row: usize, first: usize| {
        values(all.clone().narrow(0, row, 1).narrow(1, first, COLUMNS - first))
    };
    [text(0, 0), text(1, 5)].concat()
}

/// Queries, keys and values of two texts: `[2, COLUMNS, heads · width]`.
fn numbers_of_heads(shape: AttentionShape, device: &Device) -> [Tensor<3>; 3] {
    let mut seed = 0.0;
    [shape.heads, shape.kv_heads, shape.kv_heads].map(|heads| {
        seed += 1.0;
        numbers([2, COLUMNS, heads * shape.width], seed, device)
    })
}

#[test]
fn attention_over_a_cache_is_that_over_the_text() {
    for (heads, kv_heads, width, half, window, cap) in [
        (4, 2, 8, 4, None, None),
        (1, 1, 3, 1, Some(5), None),
        (6, 2, 40, 10, None, Some(0.5)),
        (2, 2, 256, 0, Some(200), None),
        (2, 1, 260, 130, None, None),
    ] {
        let shape = AttentionShape { batch: 2, heads, kv_heads, width, scale: 0.7, cap, window };
        let all = (half > 0).then(|| angles([2, COLUMNS, half], &cpu()));
        let text = |row: usize, first: usize| {
            let of_text = |x: Tensor<3>| {
                let columns = x.dims()[2];
                let x = x.narrow(0, row, 1).narrow(1, first, COLUMNS - first);
                x.reshape([COLUMNS - first, columns])
            };
            let angles = all.as_ref().map(|all| columns(all, row..row + 1, first..COLUMNS));
            let rotated = |x: Tensor<2>| match &angles {
                Some(angles) => rotate(x, angles, width),
                None => x,
            };
            let [q, k, v] = numbers_of_heads(shape, &cpu()).map(of_text);
            values(attend(rotated(q), rotated(k), v, AttentionShape { batch: 1, ..shape }))
        };
        let expected = [text(0, 0), text(1, 5)].concat();
        for candidate in candidates() {
            let found = over_a_cache(&candidate.device, shape, half);
            candidate.near(&format!("{shape:?}, over a cache"), &found, &expected);
        }
    }
}

fn targets(rows: usize, vocabulary: usize) -> Vec<u32> {
    (0..rows).map(|row| (row * 7919 % vocabulary) as u32).collect()
}

/// Rows, width and vocabulary of logits that stand in two blocks on a GPU, one row apart.
const TWO_BLOCKS: [usize; 3] = [1_033, 2, 32_768];

#[test]
fn log_probabilities_are_those_of_the_cpu() {
    assert_eq!(rows_at_once(TWO_BLOCKS[0], TWO_BLOCKS[2], u64::MAX), 517);
    for [rows, width, vocabulary] in [[5, 8, 33], [150, 4, 4_000], TWO_BLOCKS] {
        let targets = targets(rows, vocabulary);
        everywhere("log_probs", [[rows, width], [width, vocabulary]], |_, [hidden, weight]| {
            log_probs(hidden, weight, &targets)
        });
    }
}

#[test]
fn known_log_probabilities_have_the_gradients_of_the_cpu() {
    let [rows, width, vocabulary] = [50, 8, 600];
    let targets = targets(rows, vocabulary);
    let shapes = [[rows, width], [width, vocabulary]];
    everywhere("known_log_probs", shapes, |device, [hidden, weight]| {
        known_log_probs(hidden, weight, &targets, numbers([rows, 1], 4.0, device).inner())
    });
}

#[test]
fn of_no_rows_there_are_no_log_probabilities() {
    for candidate in candidates() {
        let device = candidate.device.autodiff();
        let hidden = Tensor::<2>::zeros([0, 3], &device).require_grad();
        let weight = numbers([3, 5], 1.0, &device).require_grad();
        let gradients = log_probs(hidden.clone(), weight.clone(), &[]).sum().backward();
        assert_eq!(values(hidden.grad(&gradients).unwrap()), [0.0; 0]);
        assert_eq!(values(weight.grad(&gradients).unwrap()), [0.0; 15]);
    }
}

#[test]
fn comparisons_are_those_of_the_cpu() {
    for [rows, width, vocabulary] in [[50, 8, 600], TWO_BLOCKS] {
        let compared = |device: &Device| {
            let side = |seed| {
                let weight = numbers([width, vocabulary], seed + 1.0, device).mul_scalar(3.0);
                (numbers([rows, width], seed, device), weight)
            };
            let found = compare(side(1.0), side(5.0), &targets(rows, vocabulary));
            [0, 1, 2, 3].map(|column| values(found.clone().narrow(1, column, 1)))
        };
        let expected = compared(&cpu());
        for candidate in candidates() {
            let found = compared(&candidate.device);
            let names = ["their log-probability", "KL", "entropy", "log-probability"];
            for (k, what) in names.into_iter().enumerate() {
                candidate.near(&format!("{what}, {rows} rows"), &found[k], &expected[k]);
            }
        }
    }
}
