//! `schema`, `kinds` and `completions`: what an editor, a reader or a shell wants to know.

use clap::CommandFactory;
use kit::Kind;
use serde_json::{Map, Value, json};

use crate::cli::{self, Cli, print};
use crate::error::{Error, Result};
use crate::kinds::KINDS;
use crate::problem::did_you_mean;
use crate::report::aligned;

/// Prints the schema of pipeline files, or of one kind's configuration.
pub fn schema(args: cli::Schema) -> Result<()> {
    let schema = match &args.kind {
        None => pipeline_schema(KINDS),
        Some(name) => {
            let kind = KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
                let near = did_you_mean(name, KINDS.iter().map(|kind| kind.name));
                Error::Usage(format!("there is no kind `{name}`{near}"))
            })?;
            (kind.schema)().to_value()
        }
    };
    print(&format!("{}\n", serde_json::to_string_pretty(&schema).expect("a schema can be written as JSON")))
}

/// Prints the kinds.
pub fn kinds() -> Result<()> {
    let rows: Vec<Vec<String>> = KINDS.iter().map(|kind| vec![kind.name.to_owned(), kind.about.to_owned()]).collect();
    print(&aligned(&rows, &[]))
}

/// Prints a shell's completions.
pub fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "halftone", &mut text);
    print(&String::from_utf8_lossy(&text))
}

/// The JSON Schema of pipeline files. Where a value is not text, `${vars.x}` may stand for it.
fn pipeline_schema(kinds: &[Kind]) -> Value {
    let mut definitions = Map::new();
    let mut stages = Vec::new();
    for kind in kinds {
        let mut schema = (kind.schema)().to_value();
        let Value::Object(map) = &mut schema else { continue };
        map.remove("$schema");
        if let Some(Value::Object(own)) = map.remove("$defs") {
            for (name, mut definition) in own {
                prepare(&mut definition, kind.name);
                definitions.insert(format!("{}.{name}", kind.name), definition);
            }
        }
        map.insert("title".to_owned(), kind.name.into());
        map.insert("description".to_owned(), kind.about.into());
        prepare(&mut schema, kind.name);
        // A kind with modes has one alternative per mode.
        let modes = ["oneOf", "anyOf"].into_iter().find(|key| schema.get(*key).is_some());
        match modes.and_then(|key| schema.get_mut(key)).and_then(Value::as_array_mut) {
            Some(modes) => modes.iter_mut().for_each(|mode| add_kind(mode, kind.name)),
            None => add_kind(&mut schema, kind.name),
        }
        definitions.insert(kind.name.to_owned(), schema);
        stages.push(json!({
            "if": {"properties": {"kind": {"const": kind.name}}, "required": ["kind"]},
            "then": {"$ref": format!("#/$defs/{}", kind.name)},
        }));
    }
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "halftone pipeline",
        "type": "object",
        "required": ["name", "stages"],
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "description": "Runs are filed under it."},
            "seed": {"description": "Decides everything that is drawn at random.", "anyOf": [{"type": "integer", "minimum": 0}, reference()]},
            "vars": {"type": "object", "description": "Values for `${vars.x}`."},
            "stages": {
                "type": "object",
                "description": "The stages by name. Inputs are `stage.port`, `stage`, a path with a `/`, or a list of these.",
                "minProperties": 1,
                "additionalProperties": {
                    "type": "object",
                    "required": ["kind"],
                    "properties": {"kind": {"enum": names}},
                    "allOf": stages,
                },
            },
        },
        "$defs": definitions,
    })
}

/// The keys `kind`, `seed` and `matrix`, which every stage has and no configuration knows.
fn add_kind(schema: &mut Value, kind: &str) {
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    schema["properties"]["kind"] = json!({"const": kind});
    let about = "The seed of this stage, in place of the pipeline's.";
    schema["properties"]["seed"] =
        json!({"description": about, "anyOf": [{"type": "integer", "minimum": 0}, reference()]});
    let about = "One stage for each combination: axes with their values, `${matrix.axis}` elsewhere in the stage.";
    let axis =
        json!({"anyOf": [{"type": "array", "minItems": 1}, {"type": "object", "minProperties": 1}, reference()]});
    let grid = json!({"type": "object", "minProperties": 1, "additionalProperties": axis});
    schema["properties"]["matrix"] =
        json!({"description": about, "anyOf": [grid, {"type": "array", "minItems": 1, "items": grid}]});
    match schema.get_mut("required").and_then(Value::as_array_mut) {
        Some(required) => required.insert(0, "kind".into()),
        None => schema["required"] = json!(["kind"]),
    }
}

fn reference() -> Value {
    json!({"type": "string", "pattern": "^\\$\\{.+\\}$"})
}

/// Points references at the kind's own definitions and lets `${..}` stand for properties that are not text.
fn prepare(schema: &mut Value, kind: &str) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref")
                && let Some(name) = target.strip_prefix("#/$defs/")
            {
                *target = format!("#/$defs/{kind}.{name}");
            }
            map.values_mut().for_each(|value| prepare(value, kind));
            if let Some(Value::Object(properties)) = map.get_mut("properties") {
                for property in properties.values_mut() {
                    let is_text = property.get("type").is_some_and(|kind| *kind == "string");
                    let is_tag = property.get("const").is_some();
                    if !is_text && !is_tag {
                        let plain = std::mem::take(property);
                        let description = plain.get("description").cloned();
                        *property = json!({"anyOf": [plain, reference()]});
                        if let Some(description) = description {
                            property["description"] = description;
                        }
                    }
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|value| prepare(value, kind)),
        _ => {}
    }
}
