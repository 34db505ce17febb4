//! Panics of libraries, as values.

/// Runs something that may panic in a library; `None` where it did. The panic prints nothing.
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    caught(work).ok()
}

/// The same, with the text of the panic.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = HOOK.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    result.map_err(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or("a panic without a text", |text| text).to_owned(),
    })
}
