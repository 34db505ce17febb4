//! Rows of JSON: one a line, or one after another in a list or without.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use kit::{Error, Result};

use super::SourceRow;
use super::around::Around;
use super::bytes::{Position, Text, failed, open};
use super::lines::{FURTHER, LONGEST, LineReader, too_long, without_end};
use crate::bad_row::BadRow;

pub use super::values::{Wanted, parse};

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

    pub fn position(&self) -> Position {
        self.lines.position.clone()
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
                Err(too_long())
            } else if text.is_empty() {
                self.buffer = line.text;
                continue;
            } else {
                parse(text, &self.wanted)
            };
            self.buffer = line.text;
            return Some(Ok(SourceRow { line: line.number, bytes: line.bytes, length: line.bytes, fields }));
        }
    }
}

/// The rows of a file that is one JSON list of objects, or objects one after another. It is cut into its elements byte
/// by byte, so that a bad one costs itself and not the file, and memory holds one at a time.
pub struct Elements {
    path: PathBuf,
    reader: Text,
    /// Position in the file.
    pub position: Position,
    around: Around,
    wanted: Wanted,
    line: u64,
    bytes: u64,
    begun: bool,
    done: bool,
}

impl Elements {
    pub fn open(path: &Path, around: Around, wanted: Wanted) -> Result<Elements> {
        let (reader, position) = open(path)?;
        let path = path.to_owned();
        Ok(Elements { path, reader, position, around, wanted, line: 1, bytes: 0, begun: false, done: false })
    }

    fn peek(&mut self) -> Result<Option<u8>> {
        Ok(self.reader.fill_buf().map_err(failed(&self.path))?.first().copied())
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

    /// Goes on to behind the `[` of the next list of objects among the values of the object around; true where there is
    /// one.
    fn next_list(&mut self) -> Result<bool> {
        let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
        while let Some(byte) = self.peek()? {
            self.take(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b'[' if !quoted && depth <= 1 && self.skip_space()? == Some(b'{') => return Ok(true),
                b'{' | b'[' if !quoted => depth += 1,
                b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        Ok(false)
    }

    fn read(&mut self) -> Result<Option<SourceRow>> {
        if self.done {
            return Ok(None);
        }
        if !std::mem::replace(&mut self.begun, true) {
            if self.around == Around::Key {
                self.next_list()?;
            } else if self.around == Around::List && self.skip_space()? == Some(b'[') {
                self.take(b'[');
            }
            if self.around != Around::Nothing && self.skip_space()? == Some(b']') {
                return self.end();
            }
        }
        if self.skip_space()?.is_none() && self.around == Around::Nothing {
            return Ok(None);
        }
        let (line, start) = (self.line, self.bytes);
        let mut element = Vec::new();
        let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
        let parsed = |element: &[u8], length: u64, wanted: &Wanted| match length > LONGEST as u64 {
            true => Err(too_long()),
            false => parse(element.trim_ascii(), wanted),
        };
        let fields = loop {
            let Some(byte) = self.peek()? else {
                self.done = true;
                let inside = if self.around == Around::Nothing { "an object" } else { "the list" };
                break Err(BadRow::new("bad_json", format!("the file ends inside {inside}")));
            };
            if !quoted && depth == 0 && self.around != Around::Nothing && matches!(byte, b',' | b']') {
                break parsed(&element, self.bytes - start, &self.wanted);
            }
            let before = depth;
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
            } else if self.bytes - start > LONGEST as u64 + FURTHER {
                return Err(without_end(&self.path, line));
            }
            if self.around == Around::Nothing && depth == 0 && (before == 1 || byte == b'\n') {
                break parsed(&element, self.bytes - start, &self.wanted);
            }
        };
        let bytes = self.bytes - start;
        let row = SourceRow { line, bytes, length: bytes, fields };
        if self.around != Around::Nothing {
            match self.peek()? {
                Some(b',') => self.take(b','),
                Some(_) => _ = self.end()?,
                None => {}
            }
        }
        Ok(Some(row))
    }

    /// Behind the last element.
    fn end(&mut self) -> Result<Option<SourceRow>> {
        self.done = true;
        self.take(b']');
        if self.around == Around::Key {
            return match self.next_list()? {
                false => Ok(None),
                true => Err(Error::data(format!(
                    "{}: line {}: a second list of objects in one file; write each into a file of its own",
                    self.path.display(),
                    self.line
                ))),
            };
        }
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

impl Iterator for Elements {
    type Item = Result<SourceRow>;

    fn next(&mut self) -> Option<Result<SourceRow>> {
        self.read().transpose()
    }
}
