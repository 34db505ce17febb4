//! A checked pipeline written out again: every value as it was used, defaults included.

use serde_json::{Map, Value, json};

use crate::pipeline::graph::Graph;

/// The pipeline as YAML without variables; running it again, in the same environment, asks for the same results.
pub fn yaml(graph: &Graph) -> String {
    let mut stages = serde_yaml::Mapping::new();
    for node in &graph.nodes {
        let mut stage = Map::new();
        stage.insert("kind".to_owned(), node.kind.into());
        if node.seed != graph.seed && node.stage.draws() {
            stage.insert("seed".to_owned(), json!(node.seed));
        }
        stage.extend(node.settings.as_object().cloned().unwrap_or_default());
        stages.insert(node.name.as_str().into(), plain(escaped(Value::Object(stage))));
    }
    let mut top = serde_yaml::Mapping::new();
    top.insert("name".into(), graph.name.as_str().into());
    if let Some(seed) = graph.seed {
        top.insert("seed".into(), plain(json!(seed)));
    }
    top.insert("stages".into(), stages.into());
    serde_yaml::to_string(&top).expect("plain values can be written as YAML")
}

fn plain(value: Value) -> serde_yaml::Value {
    serde_yaml::to_value(value).expect("plain values can be written as YAML")
}

/// Text that looks like a reference is kept as the text it is; what came from the environment is a reference again.
fn escaped(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(kit::redact(&text.replace("${", "$${"))),
        Value::Number(number) if kit::redact(&number.to_string()) != number.to_string() => {
            kit::redact(&number.to_string()).into()
        }
        Value::Array(items) => Value::Array(items.into_iter().map(escaped).collect()),
        Value::Object(map) => Value::Object(map.into_iter().map(|(key, value)| (key, escaped(value))).collect()),
        other => other,
    }
}
