//! Calls libraries that may panic where data is damaged in a way that they do not expect.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is caught, and told in other words.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// `None` if the call has panicked, of which nothing is printed.
pub fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            if !IS_GUARDED.get() {
                print(panicked);
            }
        }));
    });
    let before = IS_GUARDED.replace(true);
    let called = panic::catch_unwind(AssertUnwindSafe(call));
    IS_GUARDED.set(before);
    called.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_no_result() {
        assert_eq!(guarded(|| 1), Some(1));
        let inner = guarded(|| {
            assert_eq!(guarded(|| panic!("damaged")), None::<()>);
            assert!(IS_GUARDED.get(), "within another call");
        });
        assert_eq!(inner, Some(()));
        assert!(!IS_GUARDED.get());
    }
}
