//! The allocator, and how long it keeps what is freed.

use std::ffi::c_int;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's option `purge_delay`, which its binding does not name.
const PURGE_DELAY: c_int = 15;
/// Milliseconds that freed memory is kept for the next allocation before the system gets it back.
const KEPT: i64 = 10_000;

/// Keeps freed memory for a while, unless `MIMALLOC_PURGE_DELAY` says otherwise. Every step of a training frees what the next one needs again, and the system clears all that it hands
/// out: that took a fifth of a step.
#[allow(unsafe_code, reason = "the allocator is a C library")]
pub(crate) fn keep() {
    // SAFETY: called before any other thread is started, as the function asks for; an option is a number.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEPT as _) };
}

#[cfg(test)]
mod tests {
    use super::PURGE_DELAY;

    #[test]
    #[allow(unsafe_code, reason = "the allocator is a C library")]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: reads a number.
        let option = |which| unsafe { libmimalloc_sys::mi_option_get(which) };
        // Its default in milliseconds, or what the environment says.
        let named = std::env::var("MIMALLOC_PURGE_DELAY").ok();
        let expected = named.and_then(|value| value.parse().ok()).unwrap_or(1_000);
        assert_eq!(option(PURGE_DELAY), expected);
        assert_ne!(option(PURGE_DELAY - 1), expected);
        assert_ne!(option(PURGE_DELAY + 1), expected);
    }
}
