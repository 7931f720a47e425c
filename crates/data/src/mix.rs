//! Several sources as one, interleaved by their weights.

use crate::DataError;

/// Interleaves `sources`, each with its weight: the next item is from the source for which
/// (items taken + ½) / weight is smallest, of equal ones the first.
///
/// So every beginning holds the sources about in proportion to their weights (Webster's method),
/// always in the same order. Each source keeps its order, none is repeated, and once one is used
/// up the others go on among themselves: the result holds every item once.
///
/// # Errors
/// [`DataError::Argument`] unless every weight is finite and above 0.
pub fn mix<T>(sources: Vec<(Vec<T>, f64)>) -> Result<Vec<T>, DataError> {
    if let Some((_, weight)) =
        sources.iter().find(|(_, weight)| !(weight.is_finite() && *weight > 0.0))
    {
        return Err(DataError::Argument {
            name: "The weight of a source",
            value: weight.to_string(),
            range: "finite and above 0",
        });
    }
    // Sorting the items by their moments is drawing them by the smallest: the sort is stable.
    let mut moments: Vec<(f64, T)> = Vec::new();
    for (items, weight) in sources {
        let due = |taken: usize| (taken as f64 + 0.5) / weight;
        moments.extend(items.into_iter().enumerate().map(|(taken, item)| (due(taken), item)));
    }
    moments.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    Ok(moments.into_iter().map(|(_, item)| item).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(lengths: &[usize], weights: &[f64]) -> Vec<(Vec<(usize, usize)>, f64)> {
        let items = |(source, n): (usize, &usize)| (0..*n).map(move |i| (source, i)).collect();
        lengths.iter().enumerate().map(items).zip(weights.iter().copied()).collect()
    }

    fn order(lengths: &[usize], weights: &[f64]) -> Vec<usize> {
        let mixed = mix(sources(lengths, weights)).unwrap();
        mixed.into_iter().map(|(source, _)| source).collect()
    }

    #[test]
    fn sources_take_turns_by_weight_and_the_rest_follows() {
        assert_eq!(order(&[3, 3], &[1.0, 1.0]), [0, 1, 0, 1, 0, 1]);
        assert_eq!(order(&[4, 2], &[2.0, 1.0]), [0, 1, 0, 0, 1, 0]);
        assert_eq!(order(&[1, 4], &[3.0, 1.0]), [0, 1, 1, 1, 1]);
        assert_eq!(order(&[0, 2], &[1.0, 1.0]), [1, 1]);
    }

    #[test]
    fn every_item_comes_once_and_in_its_order() {
        let mixed = mix(sources(&[30, 7, 12], &[0.7, 0.1, 0.2])).unwrap();
        assert_eq!(mixed.len(), 49);
        for (source, n) in [30, 7, 12].into_iter().enumerate() {
            let items: Vec<_> =
                mixed.iter().filter(|(s, _)| *s == source).map(|(_, i)| *i).collect();
            assert_eq!(items, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_beginning_keeps_the_proportions_within_one_item() {
        let weights = [0.55, 0.3, 0.15];
        let order = order(&[550, 300, 150], &weights);
        for n in 1..=order.len() {
            for (source, weight) in weights.iter().enumerate() {
                let taken = order[..n].iter().filter(|s| **s == source).count();
                assert!((taken as f64 - n as f64 * weight).abs() < 1.0, "{source} at {n}");
            }
        }
    }

    #[test]
    fn weights_have_to_be_above_zero() {
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = mix(sources(&[1, 1], &[1.0, weight])).unwrap_err().to_string();
            assert!(error.contains("finite and above 0"), "{error}");
        }
    }
}
