//! The tables that a run left.

use std::path::{Component, Path, PathBuf};

use kit::{Result, Table};
use serde_json::Value;

use super::view::grouped;
use crate::inspect::Rows;
use crate::store::{RunRecord, Store};

/// A port of a stage of the run.
pub struct Found {
    /// The stage.
    pub stage: String,
    /// The port.
    pub port: String,
    /// What it holds.
    pub table: Table,
    /// The folder.
    pub path: PathBuf,
    /// Rows in it.
    pub rows: u64,
}

impl Found {
    /// `stage.port`, or the stage alone where both have one name.
    pub fn name(&self) -> String {
        if self.stage == self.port { self.stage.clone() } else { format!("{}.{}", self.stage, self.port) }
    }

    /// The first rows with these columns.
    ///
    /// # Errors
    /// When a part is gone or torn.
    pub fn first(&self, columns: &[&str], limit: usize) -> Result<Vec<Vec<Value>>> {
        Rows::open(&self.path)?.first(columns, limit)
    }

    /// How many rows a figure rests on, and of how many.
    pub fn read_note(&self, read: usize, what: &str) -> String {
        match self.rows > read as u64 {
            true => format!("the first {} of {} {what}", grouped(read as u64), grouped(self.rows)),
            false => format!("{} {what}", grouped(self.rows)),
        }
    }
}

/// All ports of the stages of a run, in the order of the pipeline.
pub fn found(store: &Store, record: &RunRecord) -> Vec<Found> {
    let mut all = Vec::new();
    for stage in &record.order {
        let entry = record.stages.get(stage).filter(|record| !record.ports.is_empty());
        let Some(entry) = entry.and_then(|record| record.entry.as_ref()) else { continue };
        let Some(manifest) = store.manifest(entry) else { continue };
        for (port, files) in manifest.ports {
            all.push(Found {
                stage: stage.clone(),
                path: store.entry(entry).join(&port),
                port,
                table: files.table,
                rows: files.rows,
            });
        }
    }
    all
}

/// The way from a folder to a path, for links that go on working when the work folder moves.
pub fn relative(from: &Path, to: &Path) -> String {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (from, to) = (whole(from), whole(to));
    let (from, to): (Vec<Component<'_>>, Vec<Component<'_>>) = (from.components().collect(), to.components().collect());
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..".to_owned(), from.len() - shared);
    let down = to[shared..].iter().map(|part| encoded(&part.as_os_str().to_string_lossy()));
    up.chain(down).collect::<Vec<_>>().join("/")
}

/// A file name as part of a link.
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
