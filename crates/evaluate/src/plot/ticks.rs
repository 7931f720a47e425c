//! The numbers along an axis.

use std::ops::Range;

use plotters::coord::ranged1d::{BoldPoints, Ranged};
use plotters::coord::types::RangedCoordf64;

/// The most numbers along an axis.
pub(super) const MOST: usize = 6;

/// Powers of ten of the steps whose numbers are written without an exponent.
const PLAIN: Range<i32> = -5..7;

/// Where an axis has numbers, and how they are written: with the digits that tell them apart, and no more.
pub(super) struct Ticks {
    places: Vec<f64>,
    /// The power of ten of the step from one to the next.
    step: i32,
    /// That of the greatest one.
    greatest: i32,
}

impl Ticks {
    /// Of an axis from its lower to its upper end.
    pub(super) fn new((low, high): (f64, f64)) -> Self {
        let places = RangedCoordf64::from(low..high).key_points(BoldPoints(MOST));
        let greatest = places.iter().fold(0.0_f64, |most, place| most.max(place.abs()));
        let steps = places.windows(2).map(|pair| pair[1] - pair[0]);
        let step = steps.fold(f64::INFINITY, f64::min);
        // One number alone has three digits.
        let step = if step.is_finite() { step } else { greatest / 100.0 };
        Self { places, step: power(step), greatest: power(greatest) }
    }

    /// A number as the axis has it.
    pub(super) fn text(&self, place: f64) -> String {
        let zero = place.abs() < 1e-3 * 10.0_f64.powi(self.step);
        // Without the sign that rounding may have left it.
        let place = if zero { 0.0 } else { place };
        if PLAIN.contains(&self.step) {
            let decimals = self.step.min(0).unsigned_abs() as usize;
            format!("{place:.decimals$}")
        } else if zero {
            "0".to_owned()
        } else {
            let digits = (self.greatest - self.step).clamp(0, 9) as usize;
            format!("{place:.digits$e}")
        }
    }

    /// Characters of the longest one.
    pub(super) fn longest(&self) -> usize {
        self.places.iter().map(|place| self.text(*place).chars().count()).max().unwrap_or(0)
    }
}

/// The power of ten of a number's first digit; 0 where there is none.
fn power(number: f64) -> i32 {
    // A difference such as 0.3 - 0.2 is a little less than it should be.
    if number > 0.0 { (number.log10() + 1e-6).floor() as i32 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_they_need() {
        for (axis, place, expected) in [
            ((0.0, 5000.0), 4000.0, "4000"),
            ((0.0, 10_500.0), 10_000.0, "10000"),
            ((0.4, 1.02), 0.5, "0.5"),
            ((-0.006, 0.001), -0.004, "-0.004"),
            ((-0.006, 0.001), -1e-19, "0.000"),
            ((0.0, 5e-7), 3e-7, "3e-7"),
            ((-5e-7, 5e-7), 0.0, "0"),
            ((0.0, 5e9), 2e9, "2e9"),
        ] {
            assert_eq!(Ticks::new(axis).text(place), expected, "{axis:?}");
        }
    }

    #[test]
    fn the_longest_number_tells_the_room_that_is_needed() {
        assert_eq!(Ticks::new((0.0, 5000.0)).longest(), 4);
        assert_eq!(Ticks::new((-0.006, 0.001)).longest(), 6);
        assert_eq!(Ticks::new((0.0, 10_500.0)).longest(), 5);
    }
}
