//! The context of a running stage: its inputs, its folder, its seed, the device, and the listener to its events.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::commit::sync_folder;
use crate::contract::event::{Event, Events};
use crate::contract::port::Table;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::seed::Seed;
use crate::table::columns::ColumnWriter;
use crate::table::parts::rows_of;
use crate::table::read::{BatchReader, RowReader};
use crate::table::row::{Cell, Row};
use crate::table::rows::Reject;
use crate::table::write::TableWriter;

/// The folder of records within a stage's folder.
pub(crate) const SCRATCH: &str = ".work";

/// A flag that a signal raises; stages look at it between pieces of work.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks for a stop.
    pub fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// True once a stop was requested.
    pub fn raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// An error once a stop was requested.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn check(&self) -> Result<()> {
        if self.raised() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// One source of an input: a table or model folder on disk.
#[derive(Debug, Clone)]
pub struct Source {
    /// The folder, or a single Parquet file.
    pub path: PathBuf,
    /// The table it holds.
    pub table: Table,
    /// Digest of its content.
    pub digest: Digest,
    /// Its name in the pipeline file.
    pub name: String,
}

/// The surroundings of a running stage.
pub struct Context<'a> {
    /// The seed of the run.
    pub seed: Seed,
    /// `cpu` or `cuda:N`.
    pub device: &'a str,
    /// The folder that becomes the store entry: one folder per output port.
    pub folder: &'a Path,
    /// The sources of each input that is not idle, by its key.
    pub inputs: BTreeMap<&'static str, Vec<Source>>,
    /// Listener to the events.
    pub events: &'a dyn Events,
    /// Raised by a signal.
    pub interrupt: Interrupt,
}

impl Context<'_> {
    /// The same for a rank of the job on a device of its own. Rank 0 alone is heard.
    pub fn of_rank<'b>(&'b self, rank: usize, device: &'b str) -> Context<'b> {
        static SILENT: fn(Event) = |_| ();
        Context {
            seed: self.seed,
            device,
            folder: self.folder,
            inputs: self.inputs.clone(),
            events: if rank == 0 { self.events } else { &SILENT },
            interrupt: self.interrupt.clone(),
        }
    }

    /// The sources of an input; none where it is not given or idle.
    pub fn sources(&self, key: &str) -> &[Source] {
        self.inputs.get(key).map_or(&[], Vec::as_slice)
    }

    /// The table of an input, once known: that of its first source.
    pub fn table_of(&self, key: &str) -> Option<Table> {
        self.sources(key).first().map(|source| source.table)
    }

    /// The rows of an input, over all its sources in order.
    ///
    /// # Errors
    /// When a source has no Parquet file.
    pub fn rows<R: Row>(&self, key: &str) -> Result<RowReader<R>> {
        let paths: Vec<&Path> = self.sources(key).iter().map(|source| source.path.as_path()).collect();
        RowReader::open(&paths)
    }

    /// The rows of some inputs in columns, over all their sources in order.
    ///
    /// # Errors
    /// When a source has no Parquet file.
    pub fn batches<R: Row>(&self, keys: &[&'static str]) -> Result<BatchReader> {
        let sources = keys.iter().flat_map(|key| self.sources(key));
        BatchReader::open::<R>(&sources.map(|source| source.path.as_path()).collect::<Vec<_>>())
    }

    /// The number of rows of some inputs, from the footers of their files.
    ///
    /// # Errors
    /// When a source is not Parquet.
    pub fn count_rows_of(&self, keys: &[&'static str]) -> Result<u64> {
        keys.iter().flat_map(|key| self.sources(key)).map(|source| rows_of(&source.path)).sum()
    }

    /// The model folder of an input.
    ///
    /// # Errors
    /// When the input is not given or is a list.
    pub fn model(&self, key: &str) -> Result<&Source> {
        match self.sources(key) {
            [one] => Ok(one),
            several => Err(Error::Pipeline(format!("`{key}` needs one model folder, got {}", several.len()))),
        }
    }

    /// The folder of an output port.
    pub fn port(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A folder for records that are not output: shard records, checkpoints. It is dropped when the stage is done.
    pub fn scratch(&self) -> PathBuf {
        self.folder.join(SCRATCH)
    }

    /// Moves a damaged file or folder of unfinished work out of the way and says so: beside the stage's folder, where
    /// people can look at it until `gc` removes it. `name` leads there from the stage's folder.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn set_aside(&self, name: &str, damage: &str) -> Result<()> {
        let from = self.folder.join(name);
        let mut text = format!("unfinished work is damaged: {name} {damage}");
        if from.exists() {
            let entry = self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let entry = entry.split('.').next().unwrap_or_default();
            let free = |number: u32| self.folder.with_file_name(format!("{entry}.damaged-{number}"));
            let to = (1..).map(free).find(|folder| !folder.exists()).expect("there are more numbers than folders");
            let to = to.join(name);
            let folder = to.parent().expect("it lies in a folder");
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
            std::fs::rename(&from, &to).map_err(Error::io(&from))?;
            sync_folder(folder)?;
            text.push_str(&format!("; moved to {}", to.display()));
        }
        self.warn(format!("{text}; computed again"));
        Ok(())
    }

    /// A writer for a whole table.
    ///
    /// # Errors
    /// When the port's folder cannot be made.
    pub fn writer<R: Row>(&self, port: &str) -> Result<TableWriter<R>> {
        TableWriter::create(&self.port(port))
    }

    /// A writer for a whole table from columns.
    ///
    /// # Errors
    /// When the port's folder cannot be made.
    pub fn column_writer<R: Row>(&self, port: &str) -> Result<ColumnWriter<R>> {
        ColumnWriter::create(&self.port(port))
    }

    /// Writes the table of rejects and reports their number by reason.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_rejects(&self, rejects: Vec<Reject>) -> Result<()> {
        let mut counts = BTreeMap::new();
        rejects.iter().for_each(|reject| *counts.entry(reject.reason.clone()).or_insert(0) += 1);
        let mut writer = self.writer("rejects")?;
        writer.extend(rejects)?;
        writer.finish()?;
        counts.into_iter().for_each(|(reason, rows)| self.emit(Event::RowsRejected { reason, rows }));
        Ok(())
    }

    /// Writes the table of rejects from verdicts on the rows of some inputs, numbered from 0 over all their sources:
    /// `rejected` gives the id, the reason and the detail of a row that is left out. Sources are looked up in the
    /// input, so that nothing is held. Tells the numbers by reason, and gives the number of rejected rows of each
    /// input.
    ///
    /// # Errors
    /// When an input cannot be read or the table not written.
    pub fn reject_rows<R: Row>(
        &self,
        keys: &[&'static str],
        mut rejected: impl FnMut(u32) -> Option<(String, &'static str, String)>,
    ) -> Result<Vec<u64>> {
        let mut writer = self.writer::<Reject>("rejects")?;
        let mut counts = BTreeMap::new();
        let mut by_input = Vec::new();
        let mut row = 0;
        for &key in keys {
            let before = counts.values().sum::<u64>();
            for batch in self.batches::<R>(&[key])?.only(&["source_file", "source_line"]) {
                let batch = batch?;
                let (files, lines) = (batch.column("source_file"), batch.column("source_line"));
                for at in 0..batch.batch.num_rows() {
                    if let Some((row_id, reason, detail)) = rejected(row) {
                        *counts.entry(reason).or_insert(0) += 1;
                        writer.push(Reject {
                            input: key.to_owned(),
                            row_id,
                            reason: reason.to_owned(),
                            detail,
                            source_file: <Option<String> as Cell>::get(files, at).flatten(),
                            source_line: <Option<u64> as Cell>::get(lines, at).flatten(),
                        })?;
                    }
                    row += 1;
                }
            }
            by_input.push(counts.values().sum::<u64>() - before);
        }
        writer.finish()?;
        counts
            .into_iter()
            .for_each(|(reason, rows)| self.emit(Event::RowsRejected { reason: reason.to_owned(), rows }));
        Ok(by_input)
    }

    /// Tells an event.
    pub fn emit(&self, event: Event) {
        self.events.emit(event);
    }

    /// Tells how far the work is.
    pub fn progress(&self, done: u64, total: u64, unit: &'static str, detail: String) {
        self.emit(Event::Progressed { done, total, unit, detail });
    }

    /// Tells something worth knowing.
    pub fn note(&self, text: impl Into<String>) {
        self.emit(Event::Noted { text: text.into() });
    }

    /// Tells something that probably is not what the user wants.
    pub fn warn(&self, text: impl Into<String>) {
        self.emit(Event::Warned { text: text.into() });
    }
}
