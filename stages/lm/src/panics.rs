//! Panics of libraries, as values.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, PoisonError};

/// Runs something that may panic in a library; `None` where it did. The panic prints nothing.
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    caught(work).ok()
}

/// The same, with the text of the panic. Within such work it may be called again.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Mutex<()> = Mutex::new(());
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    let result = if QUIET.get() {
        catch_unwind(AssertUnwindSafe(work))
    } else {
        let _one_at_a_time = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
        let hook = take_hook();
        set_hook(Box::new(|_| ()));
        QUIET.set(true);
        let result = catch_unwind(AssertUnwindSafe(work));
        QUIET.set(false);
        set_hook(hook);
        result
    };
    result.map_err(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or("a panic without a text", |text| text).to_owned(),
    })
}
