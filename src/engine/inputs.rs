//! The inputs of a stage: where its sources lie, and the recipe of its result.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kit::{Digest, Result, Source, Table};
use serde_json::Value;

use crate::hub::ModelName;
use crate::pipeline::graph::{Graph, Origin};
use crate::store::{Digests, InputDigest, Manifest, Recipe, Store};

/// The sources of a stage's inputs, by key.
pub type Inputs = BTreeMap<&'static str, Vec<Source>>;

/// A result that has to exist first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The result of a stage.
    Stage(String),
    /// A model of the hub.
    Model(String),
}

/// The results of upstream stages, where they are there.
pub type Results<'r, 'm> = &'r dyn Fn(usize) -> Option<&'m Manifest>;

/// Finds the inputs of the stages of a pipeline.
pub struct Resolver<'a> {
    /// The pipeline.
    pub graph: &'a Graph,
    /// The results.
    pub store: &'a Store,
}

impl Resolver<'_> {
    /// The recipe of a stage's result. The results of upstream stages all exist.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn recipe(&self, stage: usize, results: Results<'_, '_>) -> Result<Recipe> {
        let node = &self.graph.nodes[stage];
        let mut settings = node.settings.clone();
        let inputs = node.stage.inputs();
        for key in inputs.iter().map(|input| input.key).chain(node.stage.execution_keys().iter().copied()) {
            remove_key(&mut settings, key);
        }
        let seed = node.stage.draws().then_some(node.seed).flatten();
        let settings = named(node.with_names(settings, |value, text| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{text} ({})", Digest::of(value.as_bytes()).short(16))
        }));
        let mut recipe = Recipe::new(node.kind, node.stage.version(), settings, seed);
        let digests = Digests::new(self.store.stats());
        for edge in node.inputs.iter().filter(|edge| edge.idle.is_none()) {
            let mut sources = Vec::new();
            for origin in &edge.sources {
                let digest = match origin {
                    Origin::Port { stage, port, .. } => {
                        let manifest = results(*stage).expect("upstream results are there");
                        manifest.ports.get(port).ok_or_else(|| missing_port(manifest, port))?.digest()
                    }
                    Origin::Path { path, table } => digests.input(path, *table)?,
                    Origin::Hub { name } => return Err(not_fetched(name)),
                };
                sources.push(InputDigest { table: origin.table(), digest });
            }
            recipe.inputs.insert(edge.key.to_owned(), sources);
        }
        for file in node.stage.files() {
            recipe.files.insert(kit::redact(&file.to_string_lossy()), digests.file(&file)?);
        }
        Ok(recipe)
    }

    /// The sources of each input that is read, for a context. The results of upstream stages all exist.
    pub fn sources(&self, stage: usize, recipe: &Recipe, results: Results<'_, '_>) -> Inputs {
        let node = &self.graph.nodes[stage];
        let read = node.inputs.iter().filter(|edge| edge.idle.is_none());
        read.map(|edge| {
            let sources = edge.sources.iter().zip(&recipe.inputs[edge.key]).map(|(origin, known)| {
                let (path, name) = self.place(origin, results).expect("a recipe is made of what is here");
                Source { path, table: origin.table(), digest: known.digest, name }
            });
            (edge.key, sources.collect())
        })
        .collect()
    }

    /// The sources of some inputs of a stage, whether or not its other inputs are there; or the stages, and the models
    /// of the hub, that have to be there first.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn some_sources(
        &self,
        stage: usize,
        keys: &[&str],
        results: Results<'_, '_>,
    ) -> Result<std::result::Result<Inputs, Vec<Missing>>> {
        let digests = Digests::new(self.store.stats());
        let (mut inputs, mut missing) = (Inputs::new(), Vec::new());
        for edge in self.graph.nodes[stage].inputs.iter().filter(|edge| keys.contains(&edge.key)) {
            let mut sources = Vec::new();
            for origin in &edge.sources {
                match self.source(origin, results, &digests)? {
                    Ok(source) => sources.push(source),
                    Err(lacks) => missing.push(lacks),
                }
            }
            inputs.insert(edge.key, sources);
        }
        Ok(if missing.is_empty() { Ok(inputs) } else { Err(missing) })
    }

    /// The tables of a stage's inputs that are whole so far.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn inputs_so_far(&self, stage: usize, results: Results<'_, '_>) -> Result<Inputs> {
        let digests = Digests::new(self.store.stats());
        let mut inputs = Inputs::new();
        for edge in self.graph.nodes[stage].inputs.iter().filter(|edge| edge.idle.is_none()) {
            let mut sources = Vec::new();
            for origin in edge.sources.iter().filter(|origin| origin.table() != Table::Model) {
                sources.extend(self.source(origin, results, &digests)?);
            }
            if sources.len() == edge.sources.len() {
                inputs.insert(edge.key, sources);
            }
        }
        Ok(inputs)
    }

    /// A source with its digest, or what has to be there first.
    fn source(
        &self,
        origin: &Origin,
        results: Results<'_, '_>,
        digests: &Digests<'_>,
    ) -> Result<std::result::Result<Source, Missing>> {
        let (path, name) = match self.place(origin, results) {
            Ok(place) => place,
            Err(missing) => return Ok(Err(missing)),
        };
        let digest = match origin {
            Origin::Port { stage, port, .. } => {
                let manifest = results(*stage).expect("its place is known");
                manifest.ports.get(port).ok_or_else(|| missing_port(manifest, port))?.digest()
            }
            _ => digests.input(&path, origin.table())?,
        };
        Ok(Ok(Source { path, table: origin.table(), digest, name }))
    }

    /// Where a source lies and its name in messages, or what has to be there first.
    fn place(&self, origin: &Origin, results: Results<'_, '_>) -> std::result::Result<(PathBuf, String), Missing> {
        match origin {
            Origin::Port { stage, port, .. } => {
                let name = &self.graph.nodes[*stage].name;
                let manifest = results(*stage).ok_or_else(|| Missing::Stage(name.clone()))?;
                Ok((self.store.entry(&manifest.recipe.entry()).join(port), format!("{name}.{port}")))
            }
            Origin::Path { path, .. } => Ok((path.clone(), path.display().to_string())),
            Origin::Hub { name } => Err(Missing::Model(name.to_string())),
        }
    }
}

fn missing_port(manifest: &Manifest, port: &str) -> kit::Error {
    kit::Error::internal(format!("entry {} has no port `{port}`", manifest.recipe.entry()))
}

fn not_fetched(name: &ModelName) -> kit::Error {
    kit::Error::internal(format!("the model `{name}` was not fetched before its stage was planned"))
}

/// Settings in which a text from the environment is named, with its digest: recipes are kept.
fn named(settings: Value) -> Value {
    match settings {
        Value::String(text) => {
            let redacted = kit::redact(&text);
            let digest = || Digest::of(text.as_bytes()).short(16);
            Value::String(if redacted == text { text } else { format!("{redacted} ({})", digest()) })
        }
        Value::Array(items) => items.into_iter().map(named).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, named(value))).collect(),
        other => other,
    }
}

/// Takes a key, dotted where it is nested, out of a configuration.
fn remove_key(settings: &mut Value, key: &str) {
    let (above, last) = key.rsplit_once('.').map_or(("", key), |(above, last)| (above, last));
    let pointer: String = above.split('.').filter(|key| !key.is_empty()).map(|key| format!("/{key}")).collect();
    if let Some(Value::Object(map)) = settings.pointer_mut(&pointer) {
        map.remove(last);
    }
}
