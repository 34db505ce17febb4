//! JSON Lines, and files that are one JSON list.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use kit::{Error, Result};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::lines::{BOM, LONGEST, LineReader, invalid_utf8, too_long};
use super::{Fields, SourceRow};
use crate::bad_row::BadRow;

/// The names of the columns to keep; none for all.
pub type Wanted = Option<BTreeSet<String>>;

/// The rows of a JSON Lines file; blank lines are no rows.
pub struct Lines {
    lines: LineReader,
    buffer: Vec<u8>,
    wanted: Wanted,
}

impl Lines {
    pub fn open(path: &Path, wanted: Wanted) -> Result<Lines> {
        Ok(Lines { lines: LineReader::open(path)?, buffer: Vec::new(), wanted })
    }
}

impl Iterator for Lines {
    type Item = Result<SourceRow>;

    fn next(&mut self) -> Option<Result<SourceRow>> {
        loop {
            let line = match self.lines.next(std::mem::take(&mut self.buffer)) {
                Ok(line) => line?,
                Err(error) => return Some(Err(error)),
            };
            let text = line.text.trim_ascii();
            let fields = if line.too_long {
                Err(too_long(line.bytes))
            } else if text.is_empty() {
                self.buffer = line.text;
                continue;
            } else {
                parse(text, &self.wanted)
            };
            self.buffer = line.text;
            return Some(Ok(SourceRow { line: line.number, bytes: line.bytes, fields }));
        }
    }
}

fn parse(text: &[u8], wanted: &Wanted) -> Result<Fields, BadRow> {
    if let Some(bad) = invalid_utf8(text) {
        return Err(bad);
    }
    let text = std::str::from_utf8(text).expect("checked above");
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let fields = RowSeed(wanted).deserialize(&mut deserializer).and_then(|fields| deserializer.end().map(|()| fields));
    fields.map_err(|error| {
        // The line within the row says nothing here; the column does.
        let full = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let what = full.strip_suffix(&place).unwrap_or(&full);
        if error.is_data() && !text.starts_with('{') {
            BadRow::new("not_an_object", what)
        } else {
            BadRow::new("bad_json", format!("{what}, at byte {} of {}", error.column(), text.len()))
        }
    })
}

/// Reads an object and skips the values that nobody asks for.
struct RowSeed<'a>(&'a Wanted);

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with columns")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::new();
        while let Some(name) = map.next_key::<String>()? {
            if self.0.as_ref().is_some_and(|wanted| !wanted.contains(&name)) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value: Value = map.next_value()?;
            if fields.contains_key(&name) {
                return Err(serde::de::Error::custom(format!("column `{name}` stands twice in the row")));
            }
            fields.insert(name, value);
        }
        Ok(fields)
    }
}

/// The rows of a file that is one JSON list of objects. It is cut into its elements byte by byte, so that a bad one
/// costs itself and not the file, and memory holds one at a time.
pub struct List {
    path: PathBuf,
    reader: BufReader<File>,
    wanted: Wanted,
    line: u64,
    bytes: u64,
    begun: bool,
    done: bool,
}

impl List {
    pub fn open(path: &Path, wanted: Wanted) -> Result<List> {
        let file = File::open(path).map_err(Error::io(path))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        if reader.fill_buf().map_err(Error::io(path))?.starts_with(BOM) {
            reader.consume(BOM.len());
        }
        Ok(List { path: path.to_owned(), reader, wanted, line: 1, bytes: 0, begun: false, done: false })
    }

    fn peek(&mut self) -> Result<Option<u8>> {
        Ok(self.reader.fill_buf().map_err(Error::io(&self.path))?.first().copied())
    }

    fn take(&mut self, byte: u8) {
        self.reader.consume(1);
        self.bytes += 1;
        self.line += u64::from(byte == b'\n');
    }

    /// The next byte that is not white space; it is not taken.
    fn skip_space(&mut self) -> Result<Option<u8>> {
        while let Some(byte) = self.peek()? {
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.take(byte);
        }
        Ok(None)
    }

    fn read(&mut self) -> Result<Option<SourceRow>> {
        if self.done {
            return Ok(None);
        }
        if !self.begun {
            self.begun = true;
            if self.skip_space()? == Some(b'[') {
                self.take(b'[');
            }
            if self.skip_space()? == Some(b']') {
                return self.end();
            }
        }
        self.skip_space()?;
        let (line, start) = (self.line, self.bytes);
        let mut element = Vec::new();
        let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
        let fields = loop {
            let Some(byte) = self.peek()? else {
                self.done = true;
                break Err(BadRow::new("bad_json", "the file ends inside the list"));
            };
            if !quoted && depth == 0 && matches!(byte, b',' | b']') {
                let length = self.bytes - start;
                break if length > LONGEST as u64 {
                    Err(too_long(length))
                } else {
                    parse(element.trim_ascii(), &self.wanted)
                };
            }
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b'{' | b'[' if !quoted => depth += 1,
                b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.take(byte);
            if element.len() <= LONGEST {
                element.push(byte);
            }
        };
        let row = SourceRow { line, bytes: self.bytes - start, fields };
        match self.peek()? {
            Some(b',') => self.take(b','),
            Some(_) => _ = self.end()?,
            None => {}
        }
        Ok(Some(row))
    }

    /// Behind the last element.
    fn end(&mut self) -> Result<Option<SourceRow>> {
        self.done = true;
        self.take(b']');
        match self.skip_space()? {
            None => Ok(None),
            Some(byte) => Err(Error::data(format!(
                "{}: line {}: `{}` after the end of the list; wanted JSON Lines or one list",
                self.path.display(),
                self.line,
                byte.escape_ascii()
            ))),
        }
    }
}

impl Iterator for List {
    type Item = Result<SourceRow>;

    fn next(&mut self) -> Option<Result<SourceRow>> {
        self.read().transpose()
    }
}
