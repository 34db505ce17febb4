//! The bytes of text files: unpacked where they are packed, as UTF-8 where they are UTF-16, without a byte order mark.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use kit::{Error, Result};

/// The byte order mark that some editors put before the first line.
pub const BOM: &[u8] = b"\xef\xbb\xbf";
/// The first bytes of a gzip file.
pub const GZIP: &[u8] = b"\x1f\x8b";
/// The first bytes of a frame of Zstandard.
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// Bytes read at once. Small, so that the share of a packed file that was read is known.
const CHUNK: usize = 1 << 15;

/// The text of a file.
pub type Text = BufReader<Box<dyn Read>>;

/// Bytes of a file that were read, before they are unpacked.
pub type Position = Rc<Cell<u64>>;

/// True where a file is packed with Zstandard. Some tools put a frame of notes before the first one.
pub fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(ZSTD) || matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Opens the text of a file.
///
/// # Errors
/// When it cannot be read, or is not packed as its first bytes say.
pub fn open(path: &Path) -> Result<(Text, Position)> {
    let position = Position::default();
    let file = Counted { file: kit::open_file(path)?, position: position.clone() };
    let mut raw = BufReader::with_capacity(CHUNK, file);
    let start = raw.fill_buf().map_err(Error::io(path))?;
    let unpacked: Box<dyn Read> = if start.starts_with(GZIP) {
        Box::new(flate2::bufread::MultiGzDecoder::new(raw))
    } else if is_zstd(start) {
        Box::new(zstd::Decoder::with_buffer(raw).map_err(failed(path))?)
    } else {
        Box::new(raw)
    };
    let mut text = BufReader::with_capacity(1 << 20, unpacked);
    let start = text.fill_buf().map_err(failed(path))?;
    let (mark, little) = match start {
        [0xff, 0xfe, ..] => (2, Some(true)),
        [0xfe, 0xff, ..] => (2, Some(false)),
        start => (if start.starts_with(BOM) { BOM.len() } else { 0 }, None),
    };
    text.consume(mark);
    let text = match little {
        None => text,
        Some(little) => {
            let decoder: Box<dyn Read> = Box::new(Utf16 { bytes: text, little, ready: Vec::new(), at: 0 });
            BufReader::with_capacity(1 << 20, decoder)
        }
    };
    Ok((text, position))
}

/// The error of a failed read: the system's, or that of content that is not packed or encoded as it claims.
pub fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| match error.raw_os_error() {
        Some(_) => Error::Io { path, source: error },
        None => Error::data(format!("{}: damaged or cut off: {error}", path.display())),
    }
}

/// A file that counts what was read of it.
struct Counted {
    file: File,
    position: Position,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.position.set(self.position.get() + read as u64);
        Ok(read)
    }
}

/// UTF-16 as UTF-8.
struct Utf16<R> {
    bytes: R,
    little: bool,
    /// Decoded text, of which the bytes before `at` are handed out.
    ready: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Utf16<R> {
    /// The next unit; nothing at the end.
    fn unit(&mut self) -> io::Result<Option<u16>> {
        let mut pair = [0; 2];
        let mut read = 0;
        while read < 2 {
            match self.bytes.read(&mut pair[read..])? {
                0 if read == 0 => return Ok(None),
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "UTF-16 ends inside a character")),
                more => read += more,
            }
        }
        Ok(Some(if self.little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }))
    }

    fn fill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.at = 0;
        while self.ready.len() < CHUNK {
            let Some(first) = self.unit()? else { break };
            let second = if (0xd800..0xdc00).contains(&first) { self.unit()? } else { None };
            let character = char::decode_utf16([first].into_iter().chain(second)).next().expect("there is a unit");
            let character = character.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.ready.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.ready.len() {
            self.fill()?;
        }
        let length = buffer.len().min(self.ready.len() - self.at);
        buffer[..length].copy_from_slice(&self.ready[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut text = String::new();
        let (mut reader, position) = open(file.path())?;
        reader.read_to_string(&mut text).map_err(failed(file.path()))?;
        assert_eq!(position.get(), bytes.len() as u64);
        Ok(text)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut encoder, text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_packing_and_encoding_gives_the_text() {
        let text = "ä\n𝄞 {\"a\": 1}\n".repeat(9000);
        let units = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
        let little = [&[0xff, 0xfe], units(u16::to_le_bytes).as_slice()].concat();
        let big = [&[0xfe, 0xff], units(u16::to_be_bytes).as_slice()].concat();
        let marked = [BOM, text.as_bytes()].concat();
        // Members one after another, as `cat` puts them.
        let (half, rest) = text.as_bytes().split_at(text.len() / 2);
        for bytes in [text.as_bytes(), &marked, &little, &big] {
            assert_eq!(read(bytes).unwrap(), text);
            assert_eq!(read(&gzip(bytes)).unwrap(), text);
            assert_eq!(read(&zstd::encode_all(bytes, 1).unwrap()).unwrap(), text);
        }
        assert_eq!(read(&[gzip(half), gzip(rest)].concat()).unwrap(), text);
        let frames = [half, rest].map(|part| zstd::encode_all(part, 1).unwrap());
        assert_eq!(read(&frames.concat()).unwrap(), text);
        // A frame of notes before the others.
        let noted = [b"\x50\x2a\x4d\x18\x03\0\0\0abc".as_slice(), &frames.concat()].concat();
        assert_eq!(read(&noted).unwrap(), text);
        for empty in [&b""[..], b"\xef\xbb\xbf", b"\xff\xfe"] {
            assert_eq!(read(empty).unwrap(), "");
        }
    }

    #[test]
    fn what_is_cut_off_is_data_at_fault() {
        let text = "some text\n".repeat(1000);
        let zstd = zstd::encode_all(text.as_bytes(), 1).unwrap();
        for bytes in [&gzip(text.as_bytes())[..20], &zstd[..zstd.len() - 9], b"\xff\xfea\0b", b"\xff\xfe\0\xd8a\0"] {
            let error = read(bytes).unwrap_err();
            assert!(matches!(error, Error::Data(_)) && error.to_string().contains("damaged or cut off"), "{error}");
        }
    }
}
