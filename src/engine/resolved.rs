//! A checked pipeline written out again: every value as it was used, defaults included.

use serde_json::{Value, json};

use crate::pipeline::graph::Graph;
use crate::pipeline::write;

/// The pipeline as YAML without variables; running it again, in the same environment, asks for the same results.
pub fn yaml(graph: &Graph) -> String {
    let mut out = String::new();
    write::entry(&mut out, 0, "name", &json!(graph.name));
    if let Some(seed) = graph.seed {
        write::entry(&mut out, 0, "seed", &json!(seed));
    }
    if let Some(remote) = &graph.remote {
        write::entry(&mut out, 0, "store", &escaped(json!({"remote": remote.to_string()})));
    }
    out.push_str("stages:\n");
    for node in &graph.nodes {
        out.push_str(&format!("  {}:\n", write::text(&node.name)));
        write::entry(&mut out, 2, "kind", &json!(node.kind));
        if node.seed != graph.seed && node.stage.draws() {
            write::entry(&mut out, 2, "seed", &json!(node.seed));
        }
        let mut settings = node.with_names(escaped(node.settings.clone()), |_, text| text.to_owned());
        // Written down, a key that nothing reads would be a finding.
        node.stage.idle_keys().iter().for_each(|idle| remove(&mut settings, &idle.path));
        let settings = settings.as_object().into_iter().flatten();
        settings.for_each(|(key, value)| write::entry(&mut out, 2, key, value));
    }
    out
}

/// Takes a key away, where it is there.
fn remove(value: &mut Value, path: &[String]) {
    let Some((last, above)) = path.split_last() else { return };
    let holder = above.iter().try_fold(value, |value, key| value.get_mut(key));
    if let Some(map) = holder.and_then(Value::as_object_mut) {
        map.remove(last);
    }
}

/// Text that looks like a reference is kept as the text it is; what came from the environment is a reference again.
fn escaped(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(kit::redact(&text.replace("${", "$${"))),
        Value::Array(items) => Value::Array(items.into_iter().map(escaped).collect()),
        Value::Object(map) => Value::Object(map.into_iter().map(|(key, value)| (key, escaped(value))).collect()),
        other => other,
    }
}
