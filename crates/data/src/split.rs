//! A part of the data held out, always the same part.

use sha2::{Digest, Sha256};

use crate::DataError;

/// Splits `items` into those to use and those held out; each part keeps the order.
///
/// An item is held out by the hash of its key alone (a prompt's id, say), so it stays on its side
/// when the file grows, is reordered, or is split by another program. The part held out has about
/// the size asked for, and exactly that only on average.
///
/// # Errors
/// [`DataError::Argument`] unless `holdout_fraction` lies in [0, 1].
pub fn split_by_hash<T>(
    items: Vec<T>,
    key: impl Fn(&T) -> &str,
    holdout_fraction: f64,
) -> Result<(Vec<T>, Vec<T>), DataError> {
    if !(0.0..=1.0).contains(&holdout_fraction) {
        return Err(DataError::Argument {
            name: "holdout_fraction",
            value: holdout_fraction.to_string(),
            range: "from 0 to 1",
        });
    }
    Ok(items.into_iter().partition(|item| position(key(item)) >= holdout_fraction))
}

/// The first 53 bits of the key's SHA-256 as a number in [0, 1): exact in f64, so 1 holds all out.
pub(crate) fn position(key: &str) -> f64 {
    let digest = Sha256::digest(key.as_bytes());
    let bits = digest[..8].iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("prompt {i}")).collect()
    }

    fn split(items: Vec<String>, holdout: f64) -> (Vec<String>, Vec<String>) {
        split_by_hash(items, String::as_str, holdout).unwrap()
    }

    #[test]
    fn about_the_fraction_asked_for_is_held_out_and_nothing_is_lost() {
        let (used, held_out) = split(names(10_000), 0.2);
        assert_eq!(used.len() + held_out.len(), 10_000);
        // Five standard deviations of a binomial count.
        assert!(held_out.len().abs_diff(2_000) < 200, "{}", held_out.len());
    }

    #[test]
    fn an_item_stays_on_its_side_when_others_come_or_the_order_changes() {
        let (_, few) = split(names(100), 0.3);
        let (_, many) = split(names(1_000), 0.3);
        assert_eq!(few, many[..few.len()]);
        let (_, mut reversed) = split(names(100).into_iter().rev().collect(), 0.3);
        reversed.reverse();
        assert_eq!(few, reversed);
    }

    #[test]
    fn a_smaller_part_lies_within_a_larger_one() {
        let (small, large) = (split(names(500), 0.1).1, split(names(500), 0.2).1);
        assert!(small.iter().all(|name| large.contains(name)));
    }

    #[test]
    fn none_and_all_can_be_held_out_and_nothing_beyond() {
        assert_eq!(split(names(50), 0.0), (names(50), Vec::new()));
        assert_eq!(split(names(50), 1.0), (Vec::new(), names(50)));
        for fraction in [-0.1, 1.1, f64::NAN] {
            let error = split_by_hash(names(1), String::as_str, fraction).unwrap_err();
            assert!(error.to_string().starts_with("holdout_fraction is "), "{error}");
        }
    }
}
