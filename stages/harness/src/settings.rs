//! Settings of stages.

use kit::Kind;
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

/// All findings about settings as a pipeline file gives them, each as `key: text`.
///
/// # Panics
///
/// Where they are no settings of the kind.
pub fn findings(kind: &Kind, settings: &Value) -> Vec<String> {
    let (stage, _) = (kind.configure)(settings.clone()).unwrap_or_else(|finding| panic!("{finding:?}: {settings}"));
    stage.findings(settings).iter().map(|finding| format!("{}: {}", finding.path.join("."), finding.text)).collect()
}

/// The keys of the same.
///
/// # Panics
///
/// Where they are no settings of the kind.
pub fn keys_found(kind: &Kind, settings: &Value) -> Vec<String> {
    let key = |text: &String| text.split_once(": ").map(|(key, _)| key.to_owned()).unwrap_or_default();
    findings(kind, settings).iter().map(key).collect()
}
