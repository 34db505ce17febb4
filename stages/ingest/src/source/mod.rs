//! Files of other tools, row by row. A row that cannot be read is handed on with its line and its reason; only what
//! makes the rest of a file unreadable is an error.

mod around;
mod bytes;
mod cells;
mod csv;
mod decisions;
mod json;
mod lines;
mod parquet;
mod shape;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kit::{Error, Result};
use serde_json::{Map, Value};

use crate::bad_row::BadRow;
use crate::column::Column;

pub use bytes::Position;
pub use shape::Encoding;
pub use values::{json_text, read_value};

/// Rows from which a file's layout is found.
const HEAD_ROWS: usize = 50;
/// And no more bytes than this.
const HEAD_BYTES: u64 = 4 << 20;

/// Endings of the names of data files.
const ENDINGS: [&str; 6] = [".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv"];

/// A row of a file: its columns by name.
pub type Fields = Map<String, Value>;

/// A row of a file, and where it stands.
pub struct SourceRow {
    /// Its line in a text file or its row in a Parquet file, from 1.
    pub line: u64,
    /// About how many bytes of the file it takes.
    pub bytes: u64,
    /// Length of the text in bytes: that of the file where it is not packed.
    pub length: u64,
    /// Its columns.
    pub fields: Result<Fields, BadRow>,
}

/// The rows of a file.
pub type SourceRows = Box<dyn Iterator<Item = Result<SourceRow>>>;

/// A file to be read.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Name in the pipeline file; a part of a folder has its own name added.
    pub name: String,
    /// Path of the file.
    pub path: PathBuf,
    /// The encoding of its text.
    pub encoding: Encoding,
    /// True where it is packed.
    pub packed: bool,
    /// Its size.
    pub bytes: u64,
}

impl SourceFile {
    /// The files that a path of the pipeline file names: itself, or those in a folder.
    ///
    /// # Errors
    /// When it is not there, or it is not clear what it is written in.
    pub fn find(name: &str) -> Result<Vec<SourceFile>> {
        let path = Path::new(name);
        let part = |path: &Path| {
            let bytes = path.metadata().map_err(Error::io(path))?.len();
            let (encoding, packed) = shape::encoding(path)?;
            Ok(SourceFile { name: path.display().to_string(), path: path.to_owned(), encoding, packed, bytes })
        };
        if path.metadata().map_err(Error::io(path))?.is_dir() {
            return parts_of(path)?.iter().map(|path| part(path)).collect();
        }
        Ok(vec![SourceFile { name: name.to_owned(), ..part(path)? }])
    }

    /// All rows, with these columns.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn rows(&self, columns: BTreeMap<String, Column>) -> Result<SourceRows> {
        self.open(Some(columns))
    }

    /// The first rows that can be read, with all their columns, and the first that cannot. Where there is none, but
    /// names of columns are known, one row of nulls.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn head(&self) -> Result<(Vec<Fields>, Option<BadRow>)> {
        let (mut rows, mut bad, mut length) = (Vec::new(), None, 0);
        for row in self.open(None)? {
            let row = row?;
            length += row.length;
            match row.fields {
                Ok(fields) => rows.push(fields),
                Err(why) => _ = bad.get_or_insert(why),
            }
            if rows.len() == HEAD_ROWS || (length > HEAD_BYTES && !rows.is_empty()) || length > 64 * HEAD_BYTES {
                break;
            }
        }
        if rows.is_empty() {
            let names = match self.encoding {
                Encoding::Parquet => kit::columns_of(&self.path)?.into_iter().map(|(name, _)| name).collect(),
                Encoding::Csv { delimiter } => csv::header(&self.path, delimiter)?,
                Encoding::JsonLines | Encoding::Json(_) | Encoding::Decisions => Vec::new(),
            };
            rows.extend((!names.is_empty()).then(|| names.into_iter().map(|name| (name, Value::Null)).collect()));
        }
        Ok((rows, bad))
    }

    /// Number of its rows, and whether that is exact: Parquet states it, short files are counted, and for long ones it
    /// is estimated from the length of the first rows.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn count_rows(&self) -> Result<(u64, bool)> {
        if self.encoding == Encoding::Parquet {
            return Ok((kit::count_rows(&self.path)?, true));
        }
        let (mut rows, mut bytes, mut length) = (0, 0, 0);
        for row in self.open(Some(BTreeMap::new()))? {
            let row = row?;
            rows += 1;
            bytes += row.bytes;
            length += row.length;
            // Of a packed file enough is read that the share of it is known.
            if length > HEAD_BYTES * if self.packed { 8 } else { 1 } && bytes > 0 {
                return Ok((rows * self.bytes / bytes, false));
            }
        }
        Ok((rows, true))
    }

    fn open(&self, columns: Option<BTreeMap<String, Column>>) -> Result<SourceRows> {
        let wanted: Option<BTreeSet<String>> = columns.as_ref().map(|columns| columns.keys().cloned().collect());
        let (rows, position): (SourceRows, Position) = match self.encoding {
            Encoding::JsonLines => {
                let rows = json::Lines::open(&self.path, wanted)?;
                let position = rows.position();
                (Box::new(rows), position)
            }
            Encoding::Json(around) => {
                let rows = json::Elements::open(&self.path, around, wanted)?;
                let position = rows.position.clone();
                (Box::new(rows), position)
            }
            Encoding::Csv { delimiter } => {
                let rows = csv::Records::open(&self.path, delimiter, columns)?;
                let position = rows.position();
                (Box::new(rows), position)
            }
            Encoding::Decisions => {
                return Ok(Box::new(decisions::rows(&self.path, &wanted)?.into_iter().map(Ok)));
            }
            Encoding::Parquet => return Ok(Box::new(parquet::Rows::open(&self.path, wanted, self.bytes)?)),
        };
        if !self.packed {
            return Ok(rows);
        }
        let mut before = 0;
        Ok(Box::new(rows.map(move |row| {
            let bytes = position.get() - std::mem::replace(&mut before, position.get());
            row.map(|row| SourceRow { bytes, ..row })
        })))
    }
}

/// The files in a folder that are read as one: its Parquet files, or the text files of one kind.
fn parts_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut kinds, mut arrow): (BTreeMap<&str, Vec<PathBuf>>, bool) = (BTreeMap::new(), false);
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        arrow |= name.ends_with(".arrow") || name == "dataset_dict.json";
        let kind = ENDINGS.iter().find(|kind| shape::unpacked(&name).ends_with(*kind) && !name.starts_with('.'));
        if let Some(kind) = kind.filter(|_| path.is_file()) {
            kinds.entry(kind).or_default().push(path);
        }
    }
    let words = || kinds.keys().map(|kind| format!("`*{kind}`")).collect::<Vec<_>>().join(" and ");
    let mut parts = match (kinds.get(".parquet"), kinds.len()) {
        // Descriptions in JSON or CSV stand beside the Parquet files of many data sets.
        (Some(parts), _) => parts.clone(),
        (None, _) if arrow => {
            let text =
                "a folder of `save_to_disk`, whose rows are Arrow files; write each split by `to_parquet` or `to_json`";
            return Err(Error::data(format!("{}: {text}", folder.display())));
        }
        (None, 1) => kinds.into_values().next().expect("there is one"),
        (None, 0) => {
            let text = format!("{}: no file in this folder ends in {}", folder.display(), ENDINGS.join(", "));
            return Err(Error::Pipeline(text));
        }
        (None, _) => {
            let text = format!("{}: {} are in this folder; write which you mean", folder.display(), words());
            return Err(Error::Pipeline(text));
        }
    };
    parts.sort();
    Ok(parts)
}
