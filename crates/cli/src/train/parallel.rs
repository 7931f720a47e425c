//! Many small pieces of work on the CPU, whatever device the models are on.

use std::convert::Infallible;

use anyhow::Result;
use infalign_backend::{DeviceName, KNOWN, in_order};

/// What `work` makes of each item, in their order, several at a time. All errors are handed on, so that the first in order can be told.
pub(super) fn each<I: Send, T: Send>(
    items: impl IntoIterator<Item = I>,
    work: impl Fn(I) -> Result<T> + Sync,
) -> Vec<Result<T>> {
    let cpu = KNOWN[0].parse::<DeviceName>();
    let cpu = cpu.and_then(|name| infalign_backend::device(Some(&name)));
    let Ok(cpu) = cpu else { return items.into_iter().map(work).collect() };
    let items: Vec<I> = items.into_iter().collect();
    let Ok(made) = in_order(&cpu, items, |item| Ok::<_, Infallible>(work(item)));
    made
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn order_is_kept_of_what_is_made_and_of_errors() {
        let made =
            each(0..1000, |item| if item % 400 == 150 { bail!("{item}") } else { Ok(2 * item) });
        assert_eq!(made.len(), 1000);
        assert_eq!([0, 3, 999].map(|index: usize| *made[index].as_ref().unwrap()), [0, 6, 1998]);
        let errors = made.iter().filter_map(|made| made.as_ref().err()).map(ToString::to_string);
        assert_eq!(errors.collect::<Vec<_>>(), ["150", "550", "950"]);
    }
}
