//! The JSON Schema of pipeline files, for editors and validators. It takes what the engine takes: `${..}` may stand for
//! any value, and `<<` may merge what a reference gives.

use kit::Kind;
use serde_json::{Map, Value, json};

/// Keys of a schema under which other schemas stand by name.
const BY_NAME: [&str; 2] = ["properties", "$defs"];
/// Keys under which a list of schemas stands for one value.
const ALTERNATIVES: [&str; 3] = ["anyOf", "oneOf", "allOf"];

/// The schema of pipeline files with stages of these kinds.
pub fn json_schema(kinds: &[Kind]) -> Value {
    let mut definitions = Map::new();
    let mut stages = Vec::new();
    for kind in kinds {
        let mut schema = (kind.schema)().to_value();
        let Value::Object(map) = &mut schema else { continue };
        map.remove("$schema");
        map.insert("title".to_owned(), kind.name.into());
        map.insert("description".to_owned(), kind.about.into());
        let own = map.remove("$defs");
        // A kind with modes has one alternative per mode.
        let modes = ALTERNATIVES.into_iter().find(|key| schema.get(*key).is_some());
        match modes.and_then(|key| schema.get_mut(key)).and_then(Value::as_array_mut) {
            Some(modes) => modes.iter_mut().for_each(|mode| add_kind(mode, kind.name)),
            None => add_kind(&mut schema, kind.name),
        }
        if let Some(Value::Object(own)) = own {
            for (name, mut definition) in own {
                prepare(&mut definition, kind.name);
                definitions.insert(format!("{}.{name}", kind.name), definition);
            }
        }
        prepare(&mut schema, kind.name);
        definitions.insert(kind.name.to_owned(), schema);
        stages.push(json!({
            "if": {"properties": {"kind": {"const": kind.name}}, "required": ["kind"]},
            "then": {"$ref": format!("#/$defs/{}", kind.name)},
        }));
    }
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    let stage = json!({
        "type": "object",
        "properties": {"kind": or_reference(json!({"enum": names}))},
        "anyOf": [{"required": ["kind"]}, {"required": ["<<"]}],
        "allOf": stages,
    });
    let about_stages = "The stages by name. Inputs are `stage.port`, `stage`, a path with a `/`, or a list of these. Paths start \
                 from the working folder.";
    let stages = json!({
        "type": "object", "minProperties": 1, "additionalProperties": or_reference(stage),
    });
    let about = "Decides everything that is drawn at random.";
    let base = "A pipeline file, as a path from the working folder. This file changes it: mappings are \
                merged key by key, lists and plain values replace, `null` takes a key away, and a mapping with another \
                `kind` replaces the base's. `name` is not inherited.";
    let about_store = "The store that is shared with others: results found there are fetched, new ones are pushed. It \
                       decides no result. Keys come from the environment.";
    let remote = json!({
        "type": "string",
        "pattern": "^((s3|gs|az)://[A-Za-z0-9._-]+(/.*)?|file:///.+)$",
        "description": "`s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or `file:///folder`.",
    });
    let store = json!({
        "description": about_store, "type": ["object", "null"], "required": ["remote"], "additionalProperties": false,
        "properties": {"remote": or_reference(remote)},
    });
    // Over a base a stage shows only what is changed.
    let changed = json!({
        "type": ["object", "null"],
        "properties": {"kind": {"anyOf": [{"enum": names}, reference()]}},
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "halftone pipeline",
        "type": "object",
        "required": ["name"],
        "additionalProperties": false,
        "if": {"required": ["base"]},
        "then": {"properties": {"stages": {"type": "object", "additionalProperties": changed}}},
        "else": {"required": ["stages"], "properties": {"stages": or_reference(stages)}},
        "properties": {
            "name": {"type": "string", "description": "Runs are filed under it."},
            "base": {"type": "string", "minLength": 1, "description": base},
            "seed": or_reference(json!({"description": about, "type": ["integer", "null"], "minimum": 0})),
            "store": or_reference(store),
            "vars": {"type": ["object", "null"], "description": "Values for `${vars.x}`."},
            "stages": {"description": about_stages},
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
    schema["properties"]["seed"] = json!({"description": about, "type": "integer", "minimum": 0});
    let about = "One stage for each combination: axes with their values, `${matrix.axis}` elsewhere in the stage.";
    let axis = json!({"anyOf": [{"type": "array", "minItems": 1}, {"type": "object", "minProperties": 1}]});
    let grid = json!({"type": "object", "minProperties": 1, "additionalProperties": axis});
    schema["properties"]["matrix"] =
        json!({"description": about, "anyOf": [grid, {"type": "array", "minItems": 1, "items": grid}]});
    match schema.get_mut("required").and_then(Value::as_array_mut) {
        Some(required) => required.insert(0, "kind".into()),
        None => schema["required"] = json!(["kind"]),
    }
}

/// Points references at the kind's own definitions, and lets `${..}` stand for every value below.
fn prepare(schema: &mut Value, kind: &str) {
    let Value::Object(map) = schema else { return };
    if let Some(Value::String(target)) = map.get_mut("$ref")
        && let Some(name) = target.strip_prefix("#/$defs/")
    {
        *target = format!("#/$defs/{kind}.{name}");
    }
    // With a reference for its tag, a value fits several alternatives.
    if let Some(alternatives) = map.remove("oneOf") {
        map.insert("anyOf".to_owned(), alternatives);
    }
    for key in ALTERNATIVES {
        let alternatives = map.get_mut(key).and_then(Value::as_array_mut);
        alternatives.into_iter().flatten().for_each(|schema| prepare(schema, kind));
    }
    for key in BY_NAME {
        let named = map.get_mut(key).and_then(Value::as_object_mut);
        named.into_iter().flat_map(|named| named.values_mut()).for_each(|schema| prepare_value(schema, kind));
    }
    for key in ["items", "additionalProperties"] {
        map.get_mut(key).into_iter().for_each(|schema| prepare_value(schema, kind));
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        let about = "Merges a mapping: `<<: *anchor`, or `<<: ${matrix.axis}`.";
        let merged = json!({"description": about, "anyOf": [{"type": "object"}, {"type": "array"}, reference()]});
        properties.insert("<<".to_owned(), merged);
        // A merged mapping may hold the required keys.
        if let Some(required) = map.remove("required") {
            let either = json!({"anyOf": [{"required": required}, {"required": ["<<"]}]});
            match map.get_mut("allOf").and_then(Value::as_array_mut) {
                Some(all) => all.push(either),
                None => _ = map.insert("allOf".to_owned(), json!([either])),
            }
        }
    }
}

/// As [`prepare`], of a schema that a value has to fit.
fn prepare_value(schema: &mut Value, kind: &str) {
    if !schema.is_object() {
        return;
    }
    prepare(schema, kind);
    *schema = or_reference(std::mem::take(schema));
}

/// A schema that takes `${..}` too; its description stays outside, where editors look for it.
fn or_reference(mut schema: Value) -> Value {
    let takes_text = schema.get("type").is_some_and(|kind| *kind == "string");
    if takes_text && !["const", "enum", "pattern"].iter().any(|key| schema.get(*key).is_some()) {
        return schema;
    }
    let description = schema.as_object_mut().and_then(|map| map.remove("description"));
    let mut either = json!({"anyOf": [schema, reference()]});
    if let Some(description) = description {
        either["description"] = description;
    }
    either
}

fn reference() -> Value {
    json!({"type": "string", "pattern": "\\$\\{.+\\}"})
}
