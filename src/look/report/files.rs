//! The tables that a run left.

use std::path::{Component, Path, PathBuf};

use kit::{Result, Table};
use serde_json::Value;

use super::FIGURES;
use super::view::{Grid, Part, grouped};
use crate::look::inspect::Rows;
use crate::store::{RunRecord, Store};

/// A port of a stage of the run.
pub struct Found {
    pub stage: String,
    pub port: String,
    /// The table it holds.
    pub table: Table,
    /// The folder.
    pub path: PathBuf,
    /// Rows in it.
    pub rows: u64,
    /// The step whose weights became the policy, where evaluations chose it.
    pub policy_step: Option<u64>,
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

    /// Number of rows that a figure rests on, and of all.
    pub fn read_note(&self, read: usize, what: &str) -> String {
        match self.rows > read as u64 {
            true => format!("the first {} of {} {what}", grouped(read as u64), grouped(self.rows)),
            false => format!("{} {what}", grouped(self.rows)),
        }
    }
}

/// A port of a stage, or of all stages of a matrix.
pub struct Group<'a> {
    /// As [`Found::name`], without the labels of the member.
    pub name: String,
    /// The tables, in the order of the pipeline.
    pub members: Vec<&'a Found>,
}

/// The tables of some sort that have rows, those of a matrix together.
pub fn groups<'a>(found: &'a [Found], tables: &[Table]) -> Vec<Group<'a>> {
    let mut groups: Vec<(&str, &str, Vec<&Found>)> = Vec::new();
    for table in found.iter().filter(|table| tables.contains(&table.table) && table.rows > 0) {
        let stage = table.stage.split('@').next().unwrap_or_default();
        match groups.iter_mut().find(|(of, port, _)| *of == stage && *port == table.port) {
            Some((.., members)) => members.push(table),
            None => groups.push((stage, &table.port, vec![table])),
        }
    }
    let group = |(stage, port, members): (&str, &str, Vec<&'a Found>)| {
        let name = if stage == port { stage.to_owned() } else { format!("{stage}.{port}") };
        Group { name, members }
    };
    groups.into_iter().map(group).collect()
}

/// A part for each group: of a matrix, a line of facts for each member and the first one in full. What is too much to
/// be shown is named.
///
/// # Errors
/// As `make`.
pub fn parts(groups: &[Group<'_>], make: impl Fn(&Found) -> Result<Part>) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for group in groups.iter().take(FIGURES) {
        let mut made = group.members.iter().map(|member| make(member)).collect::<Result<Vec<_>>>()?;
        if made.len() > 1 {
            let mut grid = Grid::new(&["stage", "what it has"]);
            for (member, part) in group.members.iter().zip(&made) {
                grid.push(vec![member.stage.as_str().into(), part.facts.as_str().into()]);
            }
            let title = format!("{} × {}", group.name, made.len());
            let facts = format!("the figures below are those of {}", group.members[0].stage);
            parts.push(Part { title, facts, table: Some(grid), ..Part::default() });
        }
        parts.push(made.swap_remove(0));
    }
    let more: Vec<&str> = groups.iter().skip(FIGURES).map(|group| group.name.as_str()).collect();
    if !more.is_empty() {
        let facts = format!("and {} more, which are not shown: {}", more.len(), more.join(", "));
        parts.push(Part { facts, ..Part::default() });
    }
    Ok(parts)
}

/// All ports of the stages of a run, in the order of the pipeline.
///
/// # Errors
/// When the system cannot read a manifest.
pub fn found(store: &Store, record: &RunRecord) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for stage in &record.order {
        let entry = record.stages.get(stage).filter(|record| !record.ports.is_empty());
        let Some(entry) = entry.and_then(|record| record.entry.as_ref()) else { continue };
        let Some(manifest) = store.manifest(entry)? else { continue };
        let policy_step = manifest.outcome.figures.get("step of `policy`").and_then(Value::as_u64);
        for (port, files) in manifest.ports {
            all.push(Found {
                policy_step,
                stage: stage.clone(),
                path: store.entry(entry).join(&port),
                port,
                table: files.table,
                rows: files.rows,
            });
        }
    }
    Ok(all)
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
