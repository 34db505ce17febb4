//! CSV and TSV, RFC 4180.
//!
//! The reader is our own because a quote that is never closed has to be an error of one row. The usual crates take
//! everything up to the next quote, or to the end of the file, for one field and say nothing.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use kit::{Error, Result};
use serde_json::Value;

use super::bytes::Position;
use super::lines::{LONGEST, Line, LineReader, invalid_utf8, too_long};
use super::{Fields, SourceRow};
use crate::bad_row::BadRow;
use crate::column::Column;

/// The names of the columns.
///
/// # Errors
/// When the first line is not a header.
pub fn header(path: &Path, delimiter: u8) -> Result<Vec<String>> {
    Ok(Records::open(path, delimiter, None)?.names)
}

/// The rows of a CSV file. Empty fields are nulls.
pub struct Records {
    lines: LineReader,
    /// Lines that were read for a record that turned out broken; they are read again.
    pending: VecDeque<Line>,
    delimiter: u8,
    names: Vec<String>,
    /// The columns, so that numbers are read as such.
    columns: Option<BTreeMap<String, Column>>,
}

/// A record, or why there is none.
struct Record {
    line: u64,
    bytes: u64,
    fields: Result<Vec<String>, BadRow>,
}

impl Records {
    pub fn open(path: &Path, delimiter: u8, columns: Option<BTreeMap<String, Column>>) -> Result<Records> {
        let lines = LineReader::open(path)?;
        let (names, pending) = (Vec::new(), VecDeque::new());
        let mut records = Records { lines, pending, delimiter, names, columns };
        let wrong = |what: String| Error::data(format!("{}: the header, line 1: {what}", path.display()));
        match records.record()? {
            Some(Record { fields: Ok(names), .. }) => records.names = names,
            // Nothing goes on without a header, so that the file need not be read further.
            Some(Record { fields: Err(bad), .. }) => return Err(wrong(bad.to_string())),
            None => {}
        }
        let mut sorted = records.names.clone();
        sorted.sort();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(wrong(format!("column `{}` stands twice", twice[0])));
        }
        Ok(records)
    }

    pub fn position(&self) -> Position {
        self.lines.position.clone()
    }

    fn line(&mut self) -> Result<Option<Line>> {
        match self.pending.pop_front() {
            Some(line) => Ok(Some(line)),
            None => self.lines.next(Vec::new()),
        }
    }

    fn record(&mut self) -> Result<Option<Record>> {
        let first = loop {
            match self.line()? {
                None => return Ok(None),
                Some(line) if !line.too_long && line.text.trim_ascii().is_empty() => {}
                Some(line) => break line,
            }
        };
        let (line, mut bytes) = (first.number, first.bytes);
        if first.too_long {
            return Ok(Some(Record { line, bytes, fields: Err(too_long()) }));
        }
        let mut parser = Parser::new(self.delimiter);
        let mut more = Vec::new();
        let mut text = &first.text;
        let bad = loop {
            match parser.line(text) {
                Ok(true) => {
                    let fields = parser.finish();
                    return Ok(Some(Record { line, bytes, fields }));
                }
                Ok(false) => {}
                Err(bad) => break bad,
            }
            match self.line()? {
                Some(next) if !next.too_long && bytes + next.bytes <= LONGEST as u64 => {
                    bytes += next.bytes;
                    more.push(next);
                    text = &more.last().expect("just pushed").text;
                }
                Some(next) => {
                    more.push(next);
                    break unclosed(line);
                }
                // A last line without a line end is complete unless a quote is open.
                None if parser.quoted => break unclosed(line),
                None => return Ok(Some(Record { line, bytes, fields: parser.finish() })),
            }
        };
        // Only the first line is lost; what follows may be whole rows.
        for line in more.into_iter().rev() {
            self.pending.push_front(line);
        }
        Ok(Some(Record { line, bytes: first.bytes, fields: Err(bad) }))
    }

    fn fields(&self, values: Vec<String>) -> Result<Fields, BadRow> {
        if values.len() != self.names.len() {
            let detail = format!("{} fields, wanted {} as in the header", values.len(), self.names.len());
            return Err(BadRow::new("wrong_width", detail));
        }
        let mut fields = Fields::new();
        for (name, text) in self.names.iter().zip(values) {
            let value = match &self.columns {
                None => Some(text_value(text)),
                Some(columns) => columns.get(name).map(|column| typed(*column, text)),
            };
            fields.extend(value.map(|value| (name.clone(), value)));
        }
        Ok(fields)
    }
}

impl Iterator for Records {
    type Item = Result<SourceRow>;

    fn next(&mut self) -> Option<Result<SourceRow>> {
        let record = match self.record() {
            Ok(record) => record?,
            Err(error) => return Some(Err(error)),
        };
        let fields = record.fields.and_then(|values| self.fields(values));
        Some(Ok(SourceRow { line: record.line, bytes: record.bytes, length: record.bytes, fields }))
    }
}

fn unclosed(line: u64) -> BadRow {
    BadRow::new("open_quote", format!("a quote opened at line {line} is not closed"))
}

fn text_value(text: String) -> Value {
    if text.is_empty() { Value::Null } else { Value::String(text) }
}

/// A field as what its column holds; text that is no number stays text, and is refused as such later.
fn typed(column: Column, text: String) -> Value {
    if !column.is_number() {
        return text_value(text);
    }
    let json = text.trim().to_lowercase();
    if json == "nan" {
        return Value::Null;
    }
    serde_json::from_str(&json).ok().filter(|value: &Value| !value.is_string()).unwrap_or_else(|| text_value(text))
}

/// Splits lines into the fields of one record.
struct Parser {
    delimiter: u8,
    /// The finished fields, one behind the other.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    state: State,
    /// True while a quote is open.
    quoted: bool,
    /// True where a line end ended the record.
    complete: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Plain,
    Quoted,
    /// Behind a quote inside a quoted field: its end, or the first half of a doubled quote.
    Quote,
}

impl Parser {
    fn new(delimiter: u8) -> Parser {
        Parser { delimiter, bytes: Vec::new(), ends: Vec::new(), state: State::Start, quoted: false, complete: false }
    }

    /// Takes a line; true where the record ends with it.
    fn line(&mut self, line: &[u8]) -> Result<bool, BadRow> {
        for (i, &byte) in line.iter().enumerate() {
            let ends = byte == b'\n' || (byte == b'\r' && matches!(line.get(i + 1), None | Some(b'\n')));
            self.state = match self.state {
                State::Quoted if byte == b'"' => State::Quote,
                State::Quoted => self.push(byte, State::Quoted),
                State::Quote if byte == b'"' => self.push(byte, State::Quoted),
                _ if ends => {
                    self.ends.push(self.bytes.len());
                    self.complete = true;
                    return Ok(true);
                }
                _ if byte == self.delimiter => {
                    self.ends.push(self.bytes.len());
                    State::Start
                }
                State::Quote => {
                    let detail = format!("`{}` behind a closing quote; wanted a delimiter", byte.escape_ascii());
                    return Err(BadRow::new("stray_quote", detail));
                }
                State::Start if byte == b'"' => State::Quoted,
                State::Start | State::Plain => self.push(byte, State::Plain),
            };
        }
        self.quoted = self.state == State::Quoted;
        Ok(false)
    }

    fn push(&mut self, byte: u8, state: State) -> State {
        self.bytes.push(byte);
        state
    }

    /// The fields; the end of the file ends a record too.
    fn finish(mut self) -> Result<Vec<String>, BadRow> {
        if !self.complete {
            self.ends.push(self.bytes.len());
        }
        if let Some(bad) = invalid_utf8(&self.bytes) {
            return Err(bad);
        }
        let text = String::from_utf8(self.bytes).expect("checked above");
        let mut start = 0;
        Ok(self.ends.iter().map(|&end| text[std::mem::replace(&mut start, end)..end].to_owned()).collect())
    }
}
