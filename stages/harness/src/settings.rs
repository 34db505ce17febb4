//! Settings of stages.

use serde_json::Value;

/// The object `settings`, with the keys of `more` added or put in place of its own.
///
/// # Panics
///
/// Where either is no object.
pub fn with(mut settings: Value, more: &Value) -> Value {
    let more = more.as_object().expect("settings are an object");
    settings.as_object_mut().expect("settings are an object").extend(more.clone());
    settings
}
