//! The graph of a run that is over: its stages as they were configured, and what each of them read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kit::{InputPort, Kind, Table};

use crate::error::{Error, Result};
use crate::look::inspect::Rows;
use crate::pipeline::Pipeline;
use crate::pipeline::groups::parts_of;
use crate::store::{Manifest, Records, RunRecord, Store};

/// The stages of a run that have a result, each after those it read from.
pub struct Lineage {
    /// The stages.
    pub links: Vec<Link>,
}

/// A stage of a run.
pub struct Link {
    pub name: String,
    pub kind: String,
    /// The manifest of its result.
    pub manifest: Manifest,
    /// Folder of the result.
    pub folder: PathBuf,
    /// Tables that it read and that hold something else by now.
    pub changed: Vec<String>,
    /// The stages it read from.
    above: Vec<String>,
}

impl Link {
    /// Its tables, opened one after the other, by their ports.
    pub fn tables(&self) -> impl Iterator<Item = (String, kit::Result<Rows>)> + '_ {
        let tables =
            self.manifest.ports.iter().filter(|(_, files)| !matches!(files.table, Table::Model | Table::Pages));
        tables.map(|(port, _)| (port.clone(), Rows::open(&self.folder.join(port))))
    }
}

impl Lineage {
    /// Reads the record of a run and the pipeline as it was resolved then.
    ///
    /// # Errors
    /// When the resolved pipeline is gone or not readable by this version.
    pub fn of(store: &Store, records: &Records, record: &RunRecord, kinds: &'static [Kind]) -> Result<Lineage> {
        let file = records.run(&record.pipeline, record.run).join("resolved.yaml");
        let (pipeline, problems) =
            Pipeline::load(&file, &[]).map_err(|problems| Error::Problems { file: file.clone(), problems })?;
        if !problems.is_empty() {
            return Err(Error::Problems { file, problems });
        }
        let manifests: BTreeMap<&str, Manifest> = record
            .stages
            .iter()
            .filter_map(|(name, stage)| {
                let manifest = store.manifest(stage.entry.as_ref()?).transpose()?;
                Some(manifest.map(|manifest| (name.as_str(), manifest)))
            })
            .collect::<kit::Result<_>>()?;
        let mut links = Vec::new();
        for declared in &pipeline.stages {
            let Some(manifest) = manifests.get(declared.name.as_str()) else { continue };
            let kind = kinds.iter().find(|kind| kind.name == manifest.recipe.kind);
            let configured = kind.map(|kind| (kind.configure)(declared.config.clone()));
            let Some(Ok((stage, _))) = configured else {
                let why = configured.and_then(Result::err).map_or("unknown kind".to_owned(), |finding| finding.text);
                let text = format!(
                    "run {} of `{}`: stage `{}` cannot be read by this version: {why}",
                    record.run, record.pipeline, declared.name
                );
                return Err(Error::Pipeline(text));
            };
            let mut link = Link {
                name: declared.name.clone(),
                kind: manifest.recipe.kind.clone(),
                folder: store.entry(&manifest.recipe.entry()),
                manifest: manifest.clone(),
                changed: Vec::new(),
                above: Vec::new(),
            };
            for input in stage.inputs() {
                link.connect(&input, &manifests);
            }
            links.push(link);
        }
        Ok(Lineage { links: sorted(links) })
    }
}

impl Link {
    /// Finds which stages an input was read from, and whether they hold what was read. Idle inputs are in no recipe.
    fn connect(&mut self, input: &InputPort, manifests: &BTreeMap<&str, Manifest>) {
        let Some(digests) = self.manifest.recipe.inputs.get(input.key) else { return };
        for (text, known) in input.from.0.iter().zip(digests).filter(|(text, _)| !text.contains('/')) {
            let (name, port) = parts_of(text, |name| manifests.contains_key(name));
            let Some(above) = manifests.get(name) else { continue };
            let holds = |port: &&String| {
                let files = &above.ports[*port];
                files.table == known.table && files.digest() == known.digest
            };
            let port = port.map(str::to_owned).or_else(|| above.ports.keys().find(holds).cloned());
            let port = port.unwrap_or_else(|| known.table.name().to_owned());
            if above.ports.get(&port).is_none_or(|files| files.digest() != known.digest) {
                self.changed.push(format!("{name}.{port}"));
            }
            self.above.push(name.to_owned());
        }
    }
}

/// Each after those it read from, otherwise in the order of the file.
fn sorted(mut waiting: Vec<Link>) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    while !waiting.is_empty() {
        let ready = |link: &Link| link.above.iter().all(|name| links.iter().any(|done| done.name == *name));
        // A run has no circle: one of them is always ready.
        let next = waiting.iter().position(ready).unwrap_or(0);
        links.push(waiting.remove(next));
    }
    links
}
