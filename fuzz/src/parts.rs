//! Inputs that stand for several files.

/// What stands between two parts: a line that no file needs, and that seeds can be written with.
const BETWEEN: &[u8] = b"\n---\n";

/// The first `N` parts of an input; those that are not there are empty, and the last holds all the rest.
#[must_use]
pub fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut rest = Some(input);
    let mut number = 0;
    [(); N].map(|()| {
        number += 1;
        let here = rest.take().unwrap_or_default();
        let end = here.windows(BETWEEN.len()).position(|window| window == BETWEEN);
        match end.filter(|_| number < N) {
            Some(end) => {
                rest = Some(&here[end + BETWEEN.len()..]);
                &here[..end]
            }
            None => here,
        }
    })
}
