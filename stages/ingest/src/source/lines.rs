//! Lines of a text file, of any length, in bounded memory.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use kit::Result;

use super::bytes::{BOM, Position, Text, failed, open};
use crate::bad_row::BadRow;

/// The longest line that is read.
pub const LONGEST: usize = 64 << 20;

/// A line and its number, from 1.
pub struct Line {
    pub number: u64,
    /// With its line end; empty where it is too long to be read.
    pub text: Vec<u8>,
    /// Its length.
    pub bytes: u64,
    /// Whether it is longer than [`LONGEST`].
    pub too_long: bool,
}

/// Reads lines one after another.
pub struct LineReader {
    path: PathBuf,
    reader: Text,
    number: u64,
    /// How much of the file was read.
    pub position: Position,
}

impl LineReader {
    pub fn open(path: &Path) -> Result<LineReader> {
        let (reader, position) = open(path)?;
        Ok(LineReader { path: path.to_owned(), reader, number: 0, position })
    }

    /// The next line into a buffer that is used again.
    pub fn next(&mut self, mut buffer: Vec<u8>) -> Result<Option<Line>> {
        buffer.clear();
        let mut read = |buffer: &mut Vec<u8>, longest: usize| {
            self.reader.by_ref().take(longest as u64).read_until(b'\n', buffer).map_err(failed(&self.path))
        };
        let mut bytes = read(&mut buffer, LONGEST)?;
        if bytes == 0 {
            return Ok(None);
        }
        let too_long = bytes == LONGEST && buffer.last() != Some(&b'\n');
        while too_long && buffer.last() != Some(&b'\n') {
            buffer.clear();
            match read(&mut buffer, 1 << 20)? {
                0 => break,
                more => bytes += more,
            }
        }
        if too_long {
            buffer = Vec::new();
        }
        self.number += 1;
        // Files that were put together have the marks of all their parts.
        if buffer.starts_with(BOM) {
            buffer.drain(..BOM.len());
        }
        Ok(Some(Line { number: self.number, text: buffer, bytes: bytes as u64, too_long }))
    }
}

/// The refusal of a line that is too long.
pub fn too_long(bytes: u64) -> BadRow {
    BadRow::new("line_too_long", format!("{bytes} bytes, wanted at most {LONGEST}"))
}

/// The refusal of bytes that are not text.
pub fn invalid_utf8(bytes: &[u8]) -> Option<BadRow> {
    let error = std::str::from_utf8(bytes).err()?;
    Some(BadRow::new("invalid_utf8", format!("byte {} of the row is not UTF-8", error.valid_up_to() + 1)))
}
