//! Two runs side by side: the settings that decided their results, their labels, and their figures.

mod figures;
mod labels;
mod stages;

pub use figures::{Figures, figures};
pub use labels::{Labels, labels};
pub use stages::{Stages, stages};

use std::collections::BTreeMap;
use std::path::PathBuf;

use kit::{Result, Table};

use crate::store::{Manifest, RunRecord, Store};

/// A run with what is left of its results.
pub struct Side<'a> {
    pub store: &'a Store,
    /// The run.
    pub record: &'a RunRecord,
    /// The manifests of its entries that are there.
    manifests: BTreeMap<&'a String, Manifest>,
}

/// A table that may be in a run.
pub enum Found {
    /// It is there.
    There {
        /// The entry that holds it.
        entry: String,
        /// The folder of the table.
        path: PathBuf,
    },
    /// The run made it or used it, and `gc` has removed it since.
    Removed,
    /// The run has no such table.
    Never,
}

impl<'a> Side<'a> {
    /// A run of a store.
    ///
    /// # Errors
    /// When the system cannot read a manifest.
    pub fn of(store: &'a Store, record: &'a RunRecord) -> Result<Side<'a>> {
        let entries = record.stages.values().filter_map(|stage| stage.entry.as_ref());
        let manifest = |entry: &'a String| Some(store.manifest(entry).transpose()?.map(|manifest| (entry, manifest)));
        let manifests = entries.filter_map(manifest).collect::<Result<_>>()?;
        Ok(Side { store, record, manifests })
    }

    /// The ports of some tables: `stage.port`, in the order of the pipeline. Of results that are gone the ports are
    /// known by name alone.
    pub fn ports(&self, wanted: &[Table]) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for stage in &self.record.order {
            let Some(record) = self.record.stages.get(stage) else { continue };
            let manifest = record.entry.as_ref().and_then(|entry| self.manifests.get(entry));
            let table = |port: &String| manifest.and_then(|manifest| Some(manifest.ports.get(port)?.table));
            let is_wanted = |port: &&String| table(port).is_some_and(|table| wanted.contains(&table));
            all.extend(record.ports.iter().filter(is_wanted).map(|port| (stage.clone(), port.clone())));
        }
        all
    }

    /// A port of the run.
    pub fn find(&self, stage: &str, port: &str) -> Found {
        let Some(record) = self.record.stages.get(stage) else { return Found::Never };
        let Some(entry) = record.entry.as_ref().filter(|_| record.ports.iter().any(|known| known == port)) else {
            return Found::Never;
        };
        match self.manifests.get(entry) {
            Some(_) => Found::There { entry: entry.clone(), path: self.store.entry(entry).join(port) },
            None => Found::Removed,
        }
    }

    /// The stages whose results `gc` has removed.
    pub fn removed(&self) -> Vec<&str> {
        let gone = |stage: &&String| {
            let record = self.record.stages.get(*stage);
            let entry = record.filter(|record| !record.ports.is_empty()).and_then(|record| record.entry.as_ref());
            entry.is_some_and(|entry| !self.manifests.contains_key(entry))
        };
        self.record.order.iter().filter(gone).map(String::as_str).collect()
    }
}

/// The ports of both runs, those of the first run first.
fn of_both(sides: [&Side<'_>; 2], wanted: &[Table]) -> Vec<(String, String)> {
    let mut all = sides[0].ports(wanted);
    for port in sides[1].ports(wanted) {
        if !all.contains(&port) {
            all.push(port);
        }
    }
    all
}

/// `stage.port`, or the stage alone where both have one name.
fn name(stage: &str, port: &str) -> String {
    if stage == port { stage.to_owned() } else { format!("{stage}.{port}") }
}
