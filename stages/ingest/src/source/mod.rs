//! Files of other tools, row by row. A row that cannot be read is handed on with its line and its reason; only what
//! makes the rest of a file unreadable is an error.

mod csv;
mod decisions;
mod json;
mod lines;
mod parquet;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use kit::{Error, Result};
use serde_json::{Map, Value};

use crate::bad_row::BadRow;
use crate::layout::Layout;

/// Rows from which a file's layout is found.
const HEAD_ROWS: usize = 50;
/// And no more bytes than this.
const HEAD_BYTES: u64 = 4 << 20;

/// What the names of data files end in.
const ENDINGS: [&str; 6] = [".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv"];

/// A row of a file: its columns by name.
pub type Fields = Map<String, Value>;

/// A row of a file, and where it stands.
pub struct SourceRow {
    /// Its line in a text file or its row in a Parquet file, from 1.
    pub line: u64,
    /// About how many bytes of the file it takes.
    pub bytes: u64,
    /// Its columns.
    pub fields: Result<Fields, BadRow>,
}

/// The rows of a file.
pub type SourceRows = Box<dyn Iterator<Item = Result<SourceRow>>>;

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// One JSON object a line.
    JsonLines,
    /// One JSON list of objects.
    JsonList,
    /// One JSON object of decisions, as JPO's evaluation writes it.
    Decisions,
    /// Fields between delimiters; the first line has their names.
    Csv {
        /// The byte between fields.
        delimiter: u8,
    },
    /// Parquet.
    Parquet,
}

/// A file to be read.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// How the pipeline file names it; a part of a folder has its own name added.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// What it is written in.
    pub encoding: Encoding,
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
        let metadata = path.metadata().map_err(Error::io(path))?;
        if !metadata.is_dir() {
            return Ok(vec![SourceFile {
                name: name.to_owned(),
                path: path.to_owned(),
                encoding: encoding(path)?,
                bytes: metadata.len(),
            }]);
        }
        let part = |part: PathBuf| {
            let bytes = part.metadata().map_err(Error::io(&part))?.len();
            Ok(SourceFile { name: part.display().to_string(), encoding: encoding(&part)?, path: part, bytes })
        };
        parts_of(path)?.into_iter().map(part).collect()
    }

    /// All rows, with the columns that the layout names.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn rows(&self, layout: &Layout) -> Result<SourceRows> {
        let mut wanted: BTreeSet<String> = layout.columns.values().cloned().collect();
        // A label that only later rows have must not be overlooked.
        wanted.extend(layout.late().map(str::to_owned));
        self.open(Some(wanted), Some(layout))
    }

    /// The first rows that can be read, with all their columns, and the first that cannot. Where there is none, but
    /// names of columns are known, one row of nulls.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn head(&self) -> Result<(Vec<Fields>, Option<BadRow>)> {
        let (mut rows, mut bad, mut bytes) = (Vec::new(), None, 0);
        for row in self.open(None, None)? {
            let row = row?;
            bytes += row.bytes;
            match row.fields {
                Ok(fields) => rows.push(fields),
                Err(why) => _ = bad.get_or_insert(why),
            }
            if rows.len() == HEAD_ROWS || (bytes > HEAD_BYTES && !rows.is_empty()) || bytes > 64 * HEAD_BYTES {
                break;
            }
        }
        if rows.is_empty() {
            let names = match self.encoding {
                Encoding::Parquet => kit::columns_of(&self.path)?.into_iter().map(|(name, _)| name).collect(),
                Encoding::Csv { delimiter } => csv::header(&self.path, delimiter)?,
                Encoding::JsonLines | Encoding::JsonList | Encoding::Decisions => Vec::new(),
            };
            rows.extend((!names.is_empty()).then(|| names.into_iter().map(|name| (name, Value::Null)).collect()));
        }
        Ok((rows, bad))
    }

    /// How many rows it has, and whether that is exact: Parquet says so, short files are counted, and for long ones the
    /// length of the first rows tells about how many there are.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn count_rows(&self) -> Result<(u64, bool)> {
        if self.encoding == Encoding::Parquet {
            return Ok((kit::count_rows(&self.path)?, true));
        }
        let (mut rows, mut bytes) = (0, 0);
        for row in self.open(Some(BTreeSet::new()), None)? {
            rows += 1;
            bytes += row?.bytes;
            if bytes > HEAD_BYTES {
                return Ok((rows * self.bytes / bytes, false));
            }
        }
        Ok((rows, true))
    }

    fn open(&self, wanted: Option<BTreeSet<String>>, layout: Option<&Layout>) -> Result<SourceRows> {
        Ok(match self.encoding {
            Encoding::JsonLines => Box::new(json::Lines::open(&self.path, wanted)?),
            Encoding::JsonList => Box::new(json::List::open(&self.path, wanted)?),
            Encoding::Decisions => Box::new(decisions::rows(&self.path, &wanted)?.into_iter().map(Ok)),
            Encoding::Csv { delimiter } => Box::new(csv::Records::open(&self.path, delimiter, layout)?),
            Encoding::Parquet => Box::new(parquet::Rows::open(&self.path, wanted, self.bytes)?),
        })
    }
}

/// The files in a folder that are read as one: its Parquet files, or the text files of one kind.
fn parts_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut kinds: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kind = ENDINGS.iter().find(|kind| name.ends_with(*kind) && !name.starts_with('.'));
        if let Some(kind) = kind.filter(|_| path.is_file()) {
            kinds.entry(kind).or_default().push(path);
        }
    }
    let words = || kinds.keys().map(|kind| format!("`*{kind}`")).collect::<Vec<_>>().join(" and ");
    let mut parts = match (kinds.get(".parquet"), kinds.len()) {
        // Descriptions in JSON or CSV stand beside the Parquet files of many data sets.
        (Some(parts), _) => parts.clone(),
        (None, 1) => kinds.into_values().next().expect("there is one"),
        (None, 0) => {
            let text = format!("{}: no file in this folder ends in {}", folder.display(), ENDINGS.join(", "));
            return Err(Error::data(text));
        }
        (None, _) => {
            let text = format!("{}: {} are in this folder; write which you mean", folder.display(), words());
            return Err(Error::data(text));
        }
    };
    parts.sort();
    Ok(parts)
}

/// By the name, and where that does not tell, by the first bytes.
fn encoding(path: &Path) -> Result<Encoding> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match extension.as_str() {
        "jsonl" | "ndjson" => return Ok(Encoding::JsonLines),
        "csv" => return Ok(Encoding::Csv { delimiter: b',' }),
        "tsv" => return Ok(Encoding::Csv { delimiter: b'\t' }),
        "parquet" => return Ok(Encoding::Parquet),
        _ => {}
    }
    let file = File::open(path).map_err(Error::io(path))?;
    let mut start = Vec::new();
    BufReader::new(file).take(1 << 16).read_to_end(&mut start).map_err(Error::io(path))?;
    if start.starts_with(b"PAR1") {
        return Ok(Encoding::Parquet);
    }
    if start.starts_with(&[0x1f, 0x8b]) {
        return Err(Error::data(format!("{}: packed with gzip; unpack it first: gunzip -k", path.display())));
    }
    let text = start.strip_prefix(lines::BOM).unwrap_or(&start);
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => Ok(Encoding::JsonList),
        Some(b'{') if decisions::is_begun(text) => Ok(Encoding::Decisions),
        Some(b'{') => Ok(Encoding::JsonLines),
        None if extension == "json" => Ok(Encoding::JsonLines),
        _ => Err(Error::data(format!(
            "{}: neither JSON Lines, a JSON list, CSV, TSV nor Parquet by its name and first bytes; rename it to end in \
             .jsonl, .json, .csv, .tsv or .parquet",
            path.display()
        ))),
    }
}
