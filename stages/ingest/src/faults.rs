//! The rows at fault, as an error names them: a fault of many rows stands once, with its first rows.

use crate::bad_row::BadRow;
use crate::column::Column;
use crate::layout::Layout;

/// Most faults that an error names.
const KINDS: usize = 20;
/// Rows of a fault that are named.
const ROWS: usize = 3;

/// Rows at fault, by what is wrong with them.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

#[derive(Debug)]
struct Fault {
    reason: &'static str,
    /// The column of the file or the id that it is about, where there is one.
    about: Option<String>,
    rows: u64,
    named: Vec<String>,
}

impl Faults {
    /// Takes note of a row at some place.
    pub fn note(&mut self, place: String, why: &BadRow) {
        let about = about(&why.detail);
        let known = self.0.iter().position(|fault| fault.reason == why.reason && fault.about == about);
        let at = known.unwrap_or_else(|| {
            self.0.push(Fault { reason: why.reason, about, rows: 0, named: Vec::new() });
            self.0.len() - 1
        });
        let fault = &mut self.0[at];
        fault.rows += 1;
        if at < KINDS && fault.named.len() < ROWS {
            fault.named.push(format!("{place}: {why}"));
        }
    }

    /// The first row.
    pub fn first(&self) -> Option<&str> {
        self.0.first()?.named.first().map(String::as_str)
    }

    /// All of them, a line for each that is named and for what else there is.
    pub fn lines(&self, layout: &Layout) -> Vec<String> {
        let mut lines = Vec::new();
        for fault in self.0.iter().take(KINDS) {
            lines.extend(fault.named.iter().cloned());
            let more = fault.rows - fault.named.len() as u64;
            let about = fault.about.as_ref().map_or(String::new(), |about| format!(" {about}"));
            lines.extend((more > 0).then(|| format!("and {more} more: {}{about}", fault.reason)));
            let ours = fault.left_out(layout);
            if !ours.is_empty() {
                let ours: Vec<String> = ours.iter().map(|column| format!("{column}: null")).collect();
                lines.push(format!("if they are not needed, leave them out: `columns: {{{}}}`", ours.join(", ")));
            }
        }
        let more: u64 = self.0.iter().skip(KINDS).map(|fault| fault.rows).sum();
        lines.extend((more > 0).then(|| format!("and {more} more")));
        lines
    }
}

impl Fault {
    /// Our names of the columns that could be left out.
    fn left_out(&self, layout: &Layout) -> Vec<&'static str> {
        let known = layout.format.known();
        let needed = |column: &Column| known.needs.contains(column) || column.is_said() || column.all_or_none();
        let about = self.about.as_deref().unwrap_or_default();
        let of = |(column, theirs): (&Column, &String)| match (self.reason, about) {
            ("id_conflict", "prompt id") => column.name().contains("prompt_id"),
            ("id_conflict", "response id") => column.name().contains("response_id"),
            ("id_conflict", _) => false,
            _ => column.is_id() && about == format!("column `{theirs}`"),
        };
        let columns = layout.columns.places.iter().filter(|(column, theirs)| !needed(column) && of((column, theirs)));
        columns.map(|(column, _)| if known.row_id == Some(*column) { "id" } else { column.name() }).collect()
    }
}

/// The subject of a message: the column or the kind of id that it begins with.
fn about(detail: &str) -> Option<String> {
    let column = || {
        let (name, _) = detail.strip_prefix("column `")?.split_once('`')?;
        Some(format!("column `{}`", name.split('[').next().unwrap_or(name)))
    };
    let id = || ["prompt id", "response id"].iter().find(|id| detail.starts_with(**id)).map(|id| (*id).to_owned());
    column().or_else(id)
}
