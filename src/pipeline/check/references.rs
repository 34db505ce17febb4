//! References to stages, files and models: what each input reads from.

use std::path::Path;

use kit::{InputPort, OutputPort, Table};
use serde_json::Value;

use super::{Checker, Configured};
use crate::hub::{self, Cache, ModelName};
use crate::pipeline::graph::{Edge, Origin};
use crate::pipeline::groups::{input_keys, parts_of};
use crate::pipeline::paths;
use crate::pipeline::problem::{Fault, did_you_mean};
use crate::pipeline::tables::lacking;

/// Most comparisons of names in the search for the nearest ones.
const MOST_COMPARED: usize = 100_000;

/// A reference to a stage, taken apart.
struct Reference<'t> {
    stage: usize,
    name: &'t str,
    port: Option<&'t str>,
}

impl Checker<'_> {
    pub(super) fn edges(&mut self, stage: usize, configured: &[Option<Configured>]) -> Vec<Edge> {
        let Some(reader) = &configured[stage] else {
            if let Some(wrong) = self.wrong.remove(&stage) {
                self.plain_references(stage, &wrong, configured);
            }
            return Vec::new();
        };
        reader.stage.inputs().into_iter().map(|input| self.edge(stage, input, configured)).collect()
    }

    /// Of a stage that cannot be read: whether the stages, ports and paths that its inputs name are there, but for
    /// those that were found wrong before.
    fn plain_references(&mut self, stage: usize, wrong: &[Vec<String>], configured: &[Option<Configured>]) {
        let declared = self.stages[stage].clone();
        let schema = declared.kind.as_deref().and_then(|kind| self.schemas.get(kind)).cloned().unwrap_or_default();
        let is_wrong = |path: &[String]| {
            let known = wrong.iter().filter(|known| !known.is_empty());
            known.into_iter().any(|known| path.starts_with(known) || known.starts_with(path))
        };
        for key in input_keys(&schema) {
            let texts = match declared.config.get(&key) {
                Some(Value::String(text)) => vec![(vec![key.clone()], text.clone())],
                Some(Value::Array(items)) => {
                    let text = |(index, item): (usize, &Value)| {
                        Some((vec![key.clone(), index.to_string()], item.as_str()?.to_owned()))
                    };
                    items.iter().enumerate().filter_map(text).collect()
                }
                _ => Vec::new(),
            };
            for (path, text) in texts.into_iter().filter(|(path, _)| !is_wrong(path)) {
                let wrong = if !names_path(&text) {
                    self.named_port(&text, configured).err()
                } else if Path::new(&text).exists() || self.is_model_name(&text) {
                    None
                } else {
                    Some(paths::absent(Path::new(&text), &self.pipeline.file))
                };
                wrong.into_iter().for_each(|wrong| self.report_value(&declared.key, &path, wrong));
            }
        }
    }

    /// Checks that a reference names a stage, and one of its ports where it names one.
    fn named_port(&self, text: &str, configured: &[Option<Configured>]) -> Result<(), String> {
        match self.writer(text)? {
            Some(Reference { stage, name, port: Some(port) }) => match &configured[stage] {
                Some(writer) => output_named(name, port, &writer.outputs).map(drop),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn edge(&mut self, stage: usize, input: InputPort, configured: &[Option<Configured>]) -> Edge {
        let declared = self.stages[stage].clone();
        let key: Vec<String> = input.key.split('.').map(str::to_owned).collect();
        let is_list = declared.config.pointer(&format!("/{}", key.join("/"))).is_some_and(Value::is_array);
        let mut accepts = input.accepts.clone();
        let mut sources: Vec<Origin> = Vec::new();
        for (index, text) in input.from.0.iter().enumerate() {
            let below: Vec<String> = key.iter().cloned().chain(is_list.then(|| index.to_string())).collect();
            let origin = if names_path(text) {
                self.named_origin(text, &accepts, &input)
            } else {
                self.port_origin(stage, text, &accepts, &input, configured).map_err(|text| (text, Fault::Pipeline))
            };
            match origin {
                Ok(Some(origin)) => {
                    accepts = vec![origin.table()];
                    sources.push(origin);
                }
                Ok(None) => {}
                Err((text, fault)) => {
                    self.report_value(&declared.key, &below, text);
                    self.problems.last_mut().expect("one was just reported").fault = fault;
                }
            }
        }
        if sources.len() > 1 && sources[0].table() == Table::Model {
            self.report_value(
                &declared.key,
                &key,
                format!("`{}` takes one model folder, got {}", input.key, sources.len()),
            );
        }
        let at = self.pipeline.document.of_value(&Checker::path(&declared.key, &key));
        Edge { key: input.key, idle: input.idle, sources, at }
    }

    /// True where a text can only mean a model of the hub.
    fn is_model_name(&self, text: &str) -> bool {
        let beside = paths::beside(Path::new(text), &self.pipeline.file);
        beside.is_none() && ModelName::read(text).is_ok_and(|name| name.is_some())
    }

    /// The stage that a reference names; nothing where it means no stage of a matrix, which has been said.
    fn writer<'t>(&self, text: &'t str) -> Result<Option<Reference<'t>>, String> {
        let (name, port) = parts_of(text, |name| self.by_name.contains_key(name));
        if let Some(&stage) = self.by_name.get(name) {
            return Ok(Some(Reference { stage, name, port }));
        }
        if text.contains('[') || self.matrices.contains(name) {
            return Ok(None);
        }
        let near = self.near.borrow_mut().entry(name.to_owned()).or_insert_with(|| self.near_stage(name)).clone();
        let hint = match Path::new(text).exists() {
            true => format!("; for the file or folder write `./{text}`"),
            false if near.is_empty() => "; a path contains a `/`".to_owned(),
            false => near,
        };
        Err(format!("there is no stage `{name}`{hint}"))
    }

    /// The nearest name. Where thousands of different names are wrong, only the first ones get one.
    fn near_stage(&self, name: &str) -> String {
        let compared = self.compared.get() + self.stages.len();
        self.compared.set(compared);
        let known = self.stages.iter().filter(|_| compared <= MOST_COMPARED);
        did_you_mean(name, known.map(|declared| declared.name.as_str()))
    }

    /// The port that a reference means; nothing where its stage has problems of its own.
    fn port_origin(
        &self,
        stage: usize,
        text: &str,
        accepts: &[Table],
        input: &InputPort,
        configured: &[Option<Configured>],
    ) -> Result<Option<Origin>, String> {
        let Some(Reference { stage: from, name, port }) = self.writer(text)? else { return Ok(None) };
        if from == stage {
            return Err("a stage cannot read from itself".to_owned());
        }
        let Some(writer) = &configured[from] else { return Ok(None) };
        let found = match port {
            Some(port) => output_named(name, port, &writer.outputs)?,
            None => plain_port(name, &writer.outputs, accepts)?,
        };
        if !accepts.contains(&found.table) {
            return Err(format!(
                "`{name}.{}` holds {}, `{}` wants {}",
                found.name,
                found.table,
                input.key,
                tables(accepts)
            ));
        }
        if input.idle.is_none()
            && let Some(column) = input.columns.iter().find(|column| found.without.contains(*column))
        {
            let fix = fix(input);
            return Err(format!("column `{column}` missing in input `{}`; `{name}` does not write it{fix}", input.key));
        }
        let differs = |(key, value): &&(&str, String)| found.settings.iter().any(|(of, is)| of == key && is != value);
        if input.idle.is_none()
            && let Some((key, value)) = input.shares.iter().find(differs)
        {
            let is = found.settings.iter().find(|(of, _)| of == key).map_or("", |(_, is)| is.as_str());
            return Err(format!(
                "`{name}` has `{key}: {is}` and this stage `{key}: {value}`; both have to have the same"
            ));
        }
        let set = |(key, value, _): &&(&str, String, String)| found.settings.contains(&(*key, value.clone()));
        if input.idle.is_none()
            && let Some((.., why)) = input.refuses.iter().find(set)
        {
            return Err(format!("`{name}.{}`: {why}", found.name));
        }
        Ok(Some(Origin::Port { stage: from, port: found.name.clone(), table: found.table }))
    }

    /// The path that a text means, or the model of that name: in the cache, or to be fetched.
    fn named_origin(
        &self,
        text: &str,
        accepts: &[Table],
        input: &InputPort,
    ) -> Result<Option<Origin>, (String, Fault)> {
        let path = Path::new(text);
        if !accepts.contains(&Table::Model) || path.exists() {
            return self.path_origin(path, accepts, input);
        }
        let wrong = |text: String| (text, Fault::Pipeline);
        let name = ModelName::read(text).map_err(wrong)?;
        let Some(name) = name.filter(|_| paths::beside(path, &self.pipeline.file).is_none()) else {
            return self.path_origin(path, accepts, input);
        };
        let cache = Cache::of_user();
        match cache.find(&name) {
            Some(snapshot) => self.path_origin(&snapshot, &[Table::Model], input),
            None if hub::offline() => Err(wrong(format!(
                "`{name}` is no folder here and not in the cache {}, and HF_HUB_OFFLINE forbids fetching it",
                cache.folder().display()
            ))),
            None => Ok(Some(Origin::Hub { name })),
        }
    }

    fn path_origin(
        &self,
        path: &Path,
        accepts: &[Table],
        input: &InputPort,
    ) -> Result<Option<Origin>, (String, Fault)> {
        let wrong = |text: String| Err((text, Fault::Pipeline));
        if !path.exists() {
            return wrong(paths::absent(path, &self.pipeline.file));
        }
        let origin = |table| Ok(Some(Origin::Path { path: path.to_owned(), table }));
        if accepts.contains(&Table::Model) && models::is_model(path) {
            models::base_of(path).map_err(|problem| {
                let error = kit::Error::of_base(problem);
                let fault = Fault::of(&error);
                (error.to_string(), if fault == Fault::System { fault } else { Fault::Pipeline })
            })?;
            return origin(Table::Model);
        }
        if accepts.contains(&Table::Model) && path.is_file() && path.extension().is_some_and(|kind| kind == "gguf") {
            if !input.gguf {
                return wrong(format!(
                    "`{}` is a GGUF file; `{}` needs a Hugging Face folder",
                    path.display(),
                    input.key
                ));
            }
            let folder = path.parent().filter(|folder| folder.join("tokenizer.json").is_file());
            return if folder.is_some() {
                origin(Table::Model)
            } else {
                wrong(format!("there is no tokenizer.json beside `{}`; put the model's there", path.display()))
            };
        }
        if accepts == [Table::Model] {
            return wrong(format!("`{}` is no model folder: it has no config.json", path.display()));
        }
        if models::is_model(path) {
            let scored = "; name a stage of the kind `reference`, which scores the rows with this model";
            return wrong(format!(
                "`{}` is a model folder, wanted {}{}",
                path.display(),
                tables(accepts),
                if accepts == [Table::Reference] { scored } else { "" }
            ));
        }
        let columns = kit::columns_of(path).map_err(|error| (error.to_string(), Fault::of(&error)))?;
        let Some(&table) =
            accepts.iter().find(|table| **table != Table::Model && lacking(**table, &columns).is_empty())
        else {
            let lacks = lacking(accepts[0], &columns);
            return wrong(format!(
                "`{}` does not hold {}: column `{}` missing",
                path.display(),
                tables(accepts),
                lacks.first().map_or("?", String::as_str)
            ));
        };
        let missing = |column: &&&str| input.idle.is_none() && !columns.iter().any(|(name, _)| name == **column);
        match input.columns.iter().find(missing) {
            Some(column) => wrong(format!(
                "column `{column}` missing in `{}`, input `{}` needs it{}",
                path.display(),
                input.key,
                fix(input)
            )),
            None => origin(table),
        }
    }
}

/// True where a text names a file, a folder or a model, rather than a stage.
fn names_path(text: &str) -> bool {
    text.contains('/') || text.starts_with(ModelName::PREFIX)
}

/// The port of a stage that a reference names.
fn output_named<'a>(stage: &str, port: &str, outputs: &'a [OutputPort]) -> Result<&'a OutputPort, String> {
    outputs.iter().find(|output| output.name == port).ok_or_else(|| {
        let near = did_you_mean(port, outputs.iter().map(|output| output.name.as_str()));
        let near = if near.is_empty() { format!("; it writes {}", ports(outputs)) } else { near };
        format!("`{stage}` has no output `{port}`{near}")
    })
}

/// The port that a stage's plain name means: the one named like an accepted table, else the only one that fits.
fn plain_port<'a>(stage: &str, outputs: &'a [OutputPort], accepts: &[Table]) -> Result<&'a OutputPort, String> {
    let named = accepts
        .iter()
        .find_map(|table| outputs.iter().find(|output| output.table == *table && output.name == table.name()));
    if let Some(output) = named {
        return Ok(output);
    }
    let fits = |output: &&OutputPort| accepts.contains(&output.table) && !output.aside;
    let fitting: Vec<&OutputPort> = outputs.iter().filter(fits).collect();
    match fitting[..] {
        [one] => Ok(one),
        [] => Err(format!("`{stage}` writes no {}; it writes {}", tables(accepts), ports(outputs))),
        _ => {
            let names: Vec<String> = fitting.iter().map(|output| format!("`{stage}.{}`", output.name)).collect();
            Err(format!("`{stage}` can mean {}; name one", names.join(" or ")))
        }
    }
}

/// The remedy for a missing column, where the stage knows one.
fn fix(input: &InputPort) -> String {
    input.fix.as_ref().map_or(String::new(), |fix| format!(": {fix}"))
}

fn tables(tables: &[Table]) -> String {
    tables.iter().map(|table| table.name()).collect::<Vec<_>>().join(" or ")
}

fn ports(outputs: &[OutputPort]) -> String {
    outputs.iter().map(|output| format!("`{}`", output.name)).collect::<Vec<_>>().join(", ")
}
