//! Values that options and recipes take.

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n: &usize| *n > 0);
    number.ok_or_else(|| "give a whole number, at least 1".to_owned())
}

pub(crate) fn above_nothing(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| *n > 0.0 && n.is_finite());
    number.ok_or_else(|| "give a number above 0".to_owned())
}

/// The first of a list that is in it before already.
pub(crate) fn twice<T: PartialEq>(list: &[T]) -> Option<&T> {
    (1..list.len()).find(|&i| list[..i].contains(&list[i])).map(|i| &list[i])
}
