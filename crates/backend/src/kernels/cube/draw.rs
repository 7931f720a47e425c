//! One token of each row of logits, where the logits lie.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};
use burn::tensor::DType;
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{LEAST, Rows, UNITS, cubes, greatest, room, size, total};

/// Drawing tokens, on GPUs alone.
#[backend_extension(Cube)]
pub(crate) trait Drawing: Backend {
    /// The tokens and their log-probabilities, `[rows, 2]`, and where nothing can be drawn a token beyond the last; `how` is `[rows, 2]` of a uniform number and the temperature.
    fn draw(logits: FloatTensor<Self>, how: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The place among a unit's own, `from .. to`, at which the running sum of the weights passes the target; the last with any weight where rounding
/// keeps it from that.
#[cube]
fn passed(
    logits: &[f32],
    from: usize,
    to: usize,
    before: f32,
    target: f32,
    most: f32,
    coldness: f32,
) -> usize {
    let mut mass = before;
    let mut last = from;
    let mut done = false;
    let mut at = from;
    while at < to && !done {
        let weight = ((logits[at] - most) * coldness).exp();
        if weight > 0.0f32 {
            mass += weight;
            last = at;
            done = mass > target;
        }
        at += 1;
    }
    last
}

/// The first of a unit's own places that has the greatest logit, or `none`.
#[cube]
fn first_greatest(logits: &[f32], from: usize, to: usize, most: f32, none: usize) -> usize {
    let mut found = none;
    let mut at = from;
    while at < to && found == none {
        if logits[at] == most {
            found = at;
        }
        at += 1;
    }
    found
}

/// A cube takes a row, and each of its units as many tokens beside each other.
#[cube(launch)]
fn drawn(
    logits: &[f32],
    how: &[f32],
    y: &mut [f32],
    rows: u32,
    width: u32,
    stride: u32,
    share: u32,
    #[comptime] units: usize,
) {
    let row = CUBE_POS;
    if row >= rows as usize {
        terminate!();
    }
    let (width, unit) = (width as usize, UNIT_POS as usize);
    let start = row * stride as usize;
    let (mut from, mut to) = (unit * share as usize, (unit + 1) * share as usize);
    if from > width {
        from = width;
    }
    if to > width {
        to = width;
    }
    let (from, to) = (start + from, start + to);
    let mut shared = Shared::<[f32]>::new_slice(units);

    let mut most = f32::new(LEAST);
    let mut at = from;
    while at < to {
        if logits[at] > most {
            most = logits[at];
        }
        at += 1;
    }
    let most = greatest(most, &mut shared, units);
    let (uniform, temperature) = (how[row * 2], how[row * 2 + 1]);
    let mut coldness = 1.0f32;
    if temperature > 0.0f32 {
        coldness = 1.0f32 / temperature;
    }
    let mut plain = 0.0f32;
    let mut weights = 0.0f32;
    let mut at = from;
    while at < to {
        plain += (logits[at] - most).exp();
        weights += ((logits[at] - most) * coldness).exp();
        at += 1;
    }
    let plain = total(plain, &mut shared, units);

    // The sums before each unit, and of all, are taken in one order: what is behind one unit is before the next to the bit.
    shared[unit] = weights;
    sync_cube();
    let mut before = 0.0f32;
    let mut all = 0.0f32;
    for other in 0..units {
        if other == unit {
            before = all;
        }
        all += shared[other];
    }
    sync_cube();
    let behind = before + weights;
    let target = uniform * all;
    let mut mine = before <= target && target < behind;
    if target >= all {
        mine = before < all && behind >= all;
    }
    let none = start + width;
    let mut place = none;
    if temperature == 0.0f32 {
        place = first_greatest(logits, from, to, most, none);
    } else if mine {
        place = passed(logits, from, to, before, target, most, coldness);
    }
    // The first place that a unit has found: places are whole numbers that f32 holds.
    let place = -greatest(-f32::cast_from((place - start) as u32), &mut shared, units);
    if UNIT_POS == 0 {
        let mut token = u32::cast_from(place) as usize;
        if token >= width {
            token = 0;
        }
        y[row * 2] = place;
        y[row * 2 + 1] = logits[start + token] - most - plain.ln();
    }
}

impl Drawing for CubeBackend {
    fn draw(logits: CubeTensor, how: CubeTensor) -> CubeTensor {
        assert_eq!(logits.dtype, DType::F32, "logits are of f32");
        let (logits, how) = (Rows::of(logits), into_contiguous(how));
        assert!(logits.width < 1 << 24, "f32 holds the number of every token");
        let y = room(&logits.tensor, [logits.count, 2], DType::F32);
        drawn::launch(
            &y.client,
            cubes(logits.count),
            CubeDim::new_1d(UNITS as u32),
            logits.arg(),
            how.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            size(logits.count),
            size(logits.width),
            size(logits.stride),
            size(logits.width.div_ceil(UNITS)),
            UNITS,
        );
        y
    }
}
