//! Lines of a text file, of any length, in bounded memory.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use kit::{Error, Result};

use super::bytes::{BOM, Position, Text, failed, open};
use crate::bad_row::BadRow;

/// The longest line that is read.
pub const LONGEST: usize = 64 << 20;
/// Bytes that are read in search of the end of a line that is too long: a file without line ends is no text of lines.
pub const FURTHER: u64 = 192 << 20;

/// A line and its number, from 1.
pub struct Line {
    pub number: u64,
    /// With its line end; empty where it is too long to be read.
    pub text: Vec<u8>,
    /// Its length, with what was passed over before it.
    pub bytes: u64,
    /// True where it is longer than [`LONGEST`].
    pub too_long: bool,
}

/// Reads lines one after another.
pub struct LineReader {
    path: PathBuf,
    reader: Text,
    number: u64,
    /// True where the last line was too long, and the rest of it is still to be skipped.
    inside: bool,
    /// Position in the file.
    pub position: Position,
}

impl LineReader {
    pub fn open(path: &Path) -> Result<LineReader> {
        let (reader, position) = open(path)?;
        Ok(LineReader { path: path.to_owned(), reader, number: 0, inside: false, position })
    }

    /// The next line into a buffer that is used again.
    pub fn next(&mut self, mut buffer: Vec<u8>) -> Result<Option<Line>> {
        let passed = if std::mem::take(&mut self.inside) { self.pass_over()? } else { 0 };
        buffer.clear();
        let bytes = self.read(&mut buffer, LONGEST)?;
        if bytes == 0 {
            return Ok(None);
        }
        self.inside = bytes == LONGEST && buffer.last() != Some(&b'\n');
        let (too_long, bytes) = (self.inside, bytes as u64 + passed);
        if too_long {
            buffer = Vec::new();
        }
        self.number += 1;
        // Files that were put together have the marks of all their parts.
        if buffer.starts_with(BOM) {
            buffer.drain(..BOM.len());
        }
        Ok(Some(Line { number: self.number, text: buffer, bytes, too_long }))
    }

    fn read(&mut self, buffer: &mut Vec<u8>, longest: usize) -> Result<usize> {
        self.reader.by_ref().take(longest as u64).read_until(b'\n', buffer).map_err(failed(&self.path))
    }

    /// Goes on to the end of the line; gives the bytes that were skipped.
    fn pass_over(&mut self) -> Result<u64> {
        let (mut buffer, mut passed) = (Vec::new(), 0);
        while passed < FURTHER {
            buffer.clear();
            match self.read(&mut buffer, 1 << 20)? {
                0 => return Ok(passed),
                more => passed += more as u64,
            }
            if buffer.last() == Some(&b'\n') {
                return Ok(passed);
            }
        }
        Err(without_end(&self.path, self.number))
    }
}

/// The refusal of a line that is too long.
pub fn too_long() -> BadRow {
    BadRow::new("line_too_long", format!("more than {LONGEST} bytes, wanted at most so many"))
}

/// The refusal of a file in which a row does not end.
pub fn without_end(path: &Path, line: u64) -> Error {
    let most = LONGEST as u64 + FURTHER;
    Error::data(format!(
        "{}:{line}: line_too_long: no end of this row within {most} bytes, wanted rows of at most {LONGEST}; the file is \
         damaged, or no text",
        path.display()
    ))
}

/// The refusal of bytes that are not text.
pub fn invalid_utf8(bytes: &[u8]) -> Option<BadRow> {
    let error = std::str::from_utf8(bytes).err()?;
    Some(BadRow::new("invalid_utf8", format!("byte {} of the row is not UTF-8", error.valid_up_to() + 1)))
}
