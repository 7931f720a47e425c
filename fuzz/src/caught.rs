//! Panics that the library itself catches.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs a target whose library code catches panics of a dependency. libFuzzer counts every panic as a finding; here only one that
/// comes out of `body` is.
///
/// # Panics
/// When `body` does, in its words.
pub fn with_caught_panics(body: impl FnOnce()) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        set_hook(Box::new(|panic| LAST.with(|last| *last.borrow_mut() = panic.to_string())));
    });
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        drop(take_hook());
        panic!("{}", LAST.take());
    }
}
