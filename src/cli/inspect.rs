//! `inspect`: a look into a table.

use std::path::Path;

use clap::Args;
use clap::ValueEnum;
use serde_json::json;

use crate::error::{Error, Result};
use crate::look::inspect::{
    Filter, Rows, Target, all, compact, pretty, resolve_noting, schema_table, stats_table, table,
};
use crate::progress::aligned;
use crate::store::Records;
use crate::streams::print;
use crate::streams::say;
use crate::units::size;

#[derive(Debug, Args)]
pub struct Inspect {
    /// `stage.port` or `stage` of a pipeline's latest run, or a path: a Parquet file or a folder of them
    pub table: String,
    /// View of the table
    #[arg(value_enum, default_value_t = View::Head)]
    pub view: View,
    /// The pipeline whose latest run is meant, if it is not the one that ran last
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// The run's number [default: the latest]
    #[arg(long, value_name = "N")]
    pub run: Option<u64>,
    /// Rows to show [default: 5, or 20 where a row fits a line]
    #[arg(short = 'n', long)]
    pub rows: Option<usize>,
    /// Only rows with this value in this column; several must all hold
    #[arg(long, value_name = "COLUMN=VALUE")]
    pub r#where: Vec<String>,
    /// Every column with all of its digits, one row under the other
    #[arg(long, conflicts_with = "json")]
    pub wide: bool,
    /// Rows as JSON lines
    #[arg(long)]
    pub json: bool,
}

/// Rows shown by default: of a table with a line each, and of rows one under the other.
const NARROW: usize = 20;
const WIDE: usize = 5;

/// The views of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Its columns
    Schema,
    /// Its first rows
    Head,
    /// A summary of each column
    Stats,
    /// Rows from all over it
    Sample,
}

/// Shows a table.
pub fn inspect(work: &Path, args: Inspect) -> Result<()> {
    let (target, note) = resolve_noting(&args.table, &[], args.pipeline.as_deref(), args.run, &Records::new(work))?;
    note.into_iter().for_each(|note| say(&format!("note: {note}")));
    if !args.r#where.is_empty() && (args.view == View::Schema || !matches!(target, Target::Table(_))) {
        let what = if let Target::Table(_) = target { "`schema` shows columns" } else { "this is no table" };
        return Err(Error::Usage(format!("--where chooses rows, and {what}")));
    }
    let path = match target {
        Target::Table(path) => path,
        Target::Model(path) => return print(&model(&path)?),
        Target::Page(path) => return print(&std::fs::read_to_string(&path).map_err(kit::Error::io(&path))?),
    };
    let rows = Rows::open(&path)?;
    let filters: Vec<Filter> = args.r#where.iter().map(|text| Filter::parse(text, &rows)).collect::<Result<_>>()?;
    match args.view {
        View::Schema if args.json => {
            let columns: Vec<_> =
                rows.columns.iter().map(|(name, kind)| json!({"name": name, "type": kind.to_string()})).collect();
            let schema =
                json!({"rows": rows.count, "parts": rows.parts.len(), "bytes": rows.bytes()?, "columns": columns});
            print(&format!("{schema}\n"))
        }
        View::Schema => {
            let (parts, bytes) = (rows.parts.len(), size(rows.bytes()?));
            print(&format!("{} rows in {parts} files, {bytes}\n{}", rows.count, schema_table(&rows)))
        }
        View::Stats => print(&stats_table(&rows, &filters, args.json)?),
        View::Head => show(&rows, &filters, &args, args.rows, 1),
        View::Sample => {
            let mut passing = rows.count;
            if !filters.is_empty() {
                passing = 0;
                rows.each(all(&filters), |_| {
                    passing += 1;
                    true
                })?;
            }
            let step = passing.div_ceil(args.rows.unwrap_or(WIDE).max(1) as u64).max(1);
            show(&rows, &filters, &args, Some(args.rows.unwrap_or(WIDE)), step)
        }
    }
}

/// Shows every `step`th row, `wanted` at most: as a table where the rows are narrow or the table is known, else one
/// under the other.
fn show(rows: &Rows, filters: &[Filter], args: &Inspect, wanted: Option<usize>, step: u64) -> Result<()> {
    let (mut passed, mut picked) = (0, Vec::new());
    let most = wanted.unwrap_or(NARROW);
    rows.each(all(filters), |row| {
        if passed % step == 0 {
            picked.push(row);
        }
        passed += 1;
        picked.len() < most
    })?;
    if args.json {
        picked.truncate(wanted.unwrap_or(WIDE));
        return print(&picked.iter().map(|row| format!("{}\n", rows.object(row))).collect::<String>());
    }
    let narrow = if args.wide { None } else { table(rows, &picked) };
    let cut = if args.wide || narrow.is_some() { None } else { compact(rows, &picked) };
    let hint = if cut.is_some() { "; --wide shows every column with all of its digits" } else { "" };
    let mut text = narrow.or(cut).unwrap_or_else(|| {
        picked.truncate(wanted.unwrap_or(WIDE));
        picked.iter().map(|row| pretty(rows, row) + "\n").collect()
    });
    let of = if filters.is_empty() { "" } else { " that pass" };
    text.push_str(&format!("{} rows{of}, of {} in the table{hint}\n", picked.len(), rows.count));
    print(&text)
}

/// The files of a model folder.
fn model(path: &Path) -> Result<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(path).map_err(kit::Error::io(path))? {
        let entry = entry.map_err(kit::Error::io(path))?;
        let bytes = entry.metadata().map_err(kit::Error::io(path))?.len();
        lines.push(vec![entry.file_name().to_string_lossy().into_owned(), size(bytes)]);
    }
    lines.sort();
    Ok(format!("a model folder\n{}", aligned(&lines, &[1])))
}
