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

/// What a share of all is told in: whole parts, this many to 1, and what is left of a part in as many again. Sums of such numbers are exact, so that
/// small shares keep their digits behind a large one.
const PARTS: f32 = 8_388_608.0;

/// The whole parts of a share, and what is left.
#[cube]
fn parts(share: f32) -> (i32, i32) {
    let scaled = share * f32::new(PARTS);
    let whole = i32::cast_from(scaled);
    let rest = i32::cast_from((scaled - f32::cast_from(whole)) * f32::new(PARTS));
    (whole, rest)
}

/// How far a number lies beyond a sum of shares.
#[cube]
fn beyond(whole: i32, rest: i32, whole_sum: i32, rest_sum: i32) -> f32 {
    let carried = rest_sum / 8_388_608i32;
    let left = rest_sum % 8_388_608i32;
    let ahead = f32::cast_from(whole - whole_sum - carried);
    (ahead + f32::cast_from(rest - left) / f32::new(PARTS)) / f32::new(PARTS)
}

/// How far into the share of a unit the uniform number falls; less than 0 where it falls into that of another.
#[cube]
fn reach(share: f32, uniform: f32, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    let mut wholes = Shared::<[i32]>::new_slice(units);
    let mut rests = Shared::<[i32]>::new_slice(units);
    let (whole, rest) = parts(share);
    wholes[unit] = whole;
    rests[unit] = rest;
    sync_cube();
    let mut whole_before = 0i32;
    let mut rest_before = 0i32;
    let mut whole_all = 0i32;
    let mut rest_all = 0i32;
    for other in 0..units {
        if other == unit {
            whole_before = whole_all;
            rest_before = rest_all;
        }
        whole_all += wholes[other];
        rest_all += rests[other];
    }
    // The number is one of what the shares add up to, which is 1 but for rounding.
    let missing = beyond(8_388_608i32, 0i32, whole_all, rest_all);
    let (at, at_rest) = parts(uniform);
    let at_rest = at_rest - i32::cast_from(uniform * missing * f32::new(PARTS) * f32::new(PARTS));
    let ahead = beyond(at, at_rest, whole_before, rest_before);
    let mut found = ahead;
    if beyond(at, at_rest, whole_before + whole, rest_before + rest) >= 0.0f32 {
        found = f32::new(LEAST);
    }
    // Of 1 it is the last of those that have a share.
    let last = whole_before + whole == whole_all && rest_before + rest == rest_all;
    if beyond(at, at_rest, whole_all, rest_all) >= 0.0f32 && last && whole + rest > 0i32 {
        found = ahead;
    }
    found
}

/// The place among a unit's own, `from .. to`, at which the running sum of the weights passes the target; the last that adds to it where rounding
/// keeps it from that.
#[cube]
fn passed(logits: &[f32], from: usize, to: usize, target: f32, most: f32, coldness: f32) -> usize {
    let mut mass = 0.0f32;
    let mut last = from;
    let mut done = false;
    let mut at = from;
    while at < to && !done {
        let sum = mass + ((logits[at] - most) * coldness).exp();
        if sum > mass {
            mass = sum;
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
    let all = total(weights, &mut shared, units);

    let own = reach(weights / all, uniform, units);
    let none = start + width;
    let mut place = none;
    if temperature == 0.0f32 {
        place = first_greatest(logits, from, to, most, none);
    } else if all > 0.0f32 && own >= 0.0f32 {
        place = passed(logits, from, to, own * all, most, coldness);
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
