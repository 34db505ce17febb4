//! The kind of a file, by its first bytes and, where they do not decide, by its name.

use std::io::Read;
use std::path::Path;

use kit::{Error, Result};

use super::around::{Around, begun};
use super::bytes::{GZIP, failed, is_zstd, open};
use super::decisions;

/// The encoding of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// One JSON object a line.
    JsonLines,
    /// JSON objects one after another, in a list or not; in a list that may stand under a key of an object.
    Json(Around),
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

/// Bytes of the text that are looked at.
const START: u64 = 1 << 16;

/// Endings of the names of packed files.
const PACKED: [&str; 4] = [".gz", ".gzip", ".zst", ".zstd"];

/// A file's name without the end that says how it is packed.
pub fn unpacked(name: &str) -> &str {
    PACKED.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// The encoding of a file; true where it is packed.
///
/// # Errors
/// When it cannot be read, or is something else, which is named with the remedy.
pub fn encoding(path: &Path) -> Result<(Encoding, bool)> {
    let wrong = |what: String| Error::data(format!("{}: {what}", path.display()));
    let mut raw = Vec::new();
    kit::open_file(path)?.take(START).read_to_end(&mut raw).map_err(Error::io(path))?;
    let packed = raw.starts_with(GZIP) || is_zstd(&raw);
    if let Some(what) = foreign(&raw) {
        return Err(wrong(what));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let extension = unpacked(&name).rsplit_once('.').map_or("", |(_, extension)| extension);
    if raw.starts_with(b"PAR1") || (extension == "parquet" && !packed) {
        return Ok((Encoding::Parquet, false));
    }
    let mut start = Vec::new();
    open(path)?.0.take(START).read_to_end(&mut start).map_err(failed(path))?;
    if packed && let Some(what) = foreign(&start) {
        return Err(wrong(format!("packed, and inside: {what}")));
    }
    if packed && (start.starts_with(GZIP) || is_zstd(&start)) {
        return Err(wrong("packed twice; unpack it once (gunzip, unzstd)".to_owned()));
    }
    if packed && start.starts_with(b"PAR1") {
        return Err(wrong("Parquet that is packed once more; unpack it first (gunzip, unzstd)".to_owned()));
    }
    let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
    let encoding = match (extension, first) {
        ("csv", _) => Encoding::Csv { delimiter: b',' },
        ("tsv", _) => Encoding::Csv { delimiter: b'\t' },
        (_, Some(b'[')) => Encoding::Json(Around::List),
        (_, Some(b'{')) if decisions::is_begun(&start) => Encoding::Decisions,
        (_, Some(b'{')) => begun(&start).map_err(wrong)?.map_or(Encoding::JsonLines, Encoding::Json),
        ("jsonl" | "ndjson" | "json", _) => Encoding::JsonLines,
        _ => {
            let text = "neither JSON Lines, a JSON list, CSV, TSV nor Parquet by its name and first bytes; rename it to \
                        end in .jsonl, .json, .csv, .tsv or .parquet";
            // The name is at fault, not the content.
            return Err(Error::Pipeline(format!("{}: {text}", path.display())));
        }
    };
    let of_lines = matches!(encoding, Encoding::JsonLines | Encoding::Csv { .. });
    if of_lines && start.contains(&b'\r') && !start.contains(&b'\n') {
        return Err(wrong("its lines end in CR alone; write them with LF: tr '\\r' '\\n'".to_owned()));
    }
    Ok((encoding, packed))
}

/// The kind of a file that is no data file, and the remedy.
fn foreign(start: &[u8]) -> Option<String> {
    let binaries: [(&[u8], &str); 12] = [
        (b"PARE", "an encrypted Parquet file; decrypt it first"),
        (b"ARROW1", "an Arrow file; write it as Parquet, such as by pyarrow.parquet.write_table"),
        (b"\xff\xff\xff\xff", "an Arrow stream, as `datasets` keeps it; write it by `to_parquet` or `to_json`"),
        (b"PK\x03\x04", "a zip archive (or .xlsx, .npz); unpack it, and write sheets as CSV"),
        (b"BZh", "packed with bzip2; unpack it first: bunzip2 -k"),
        (b"\xfd7zXZ", "packed with xz; unpack it first: unxz -k"),
        (b"\x04\x22\x4d\x18", "packed with lz4; unpack it first: unlz4"),
        (b"SQLite format 3", "an SQLite database; write the table as CSV"),
        (b"Obj\x01", "an Avro file; write it as Parquet"),
        (b"ORC", "an ORC file; write it as Parquet"),
        (b"\x80\x04\x95", "a Python pickle; write it as JSON Lines or Parquet"),
        (b"\x80\x05\x95", "a Python pickle; write it as JSON Lines or Parquet"),
    ];
    if let Some((_, what)) = binaries.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some((*what).to_owned());
    }
    if start.get(257..262) == Some(b"ustar") {
        return Some("a tar archive; unpack it first: tar -xf".to_owned());
    }
    let head = String::from_utf8_lossy(&start[..start.len().min(512)]).trim_start_matches('\u{feff}').to_lowercase();
    let head = head.trim_start();
    if let Some(pointer) = head.strip_prefix("version https://git-lfs.github.com/spec/") {
        let size = pointer.lines().find_map(|line| line.strip_prefix("size ")).unwrap_or("?");
        return Some(format!("a Git LFS pointer to a file of {size} bytes, not the file; fetch it: git lfs pull"));
    }
    if ["<!doctype html", "<html", "<head"].iter().any(|tag| head.starts_with(tag)) {
        return Some(
            "a web page; the download gave a page in place of the data (a login, a wrong address, or `blob` where \
             `resolve` or `raw` belongs in the address)"
                .to_owned(),
        );
    }
    if head.starts_with("<?xml") {
        return Some("XML; write it as JSON Lines".to_owned());
    }
    // Text in four bytes a letter, with the mark or without it.
    let wide = |zeros: [usize; 3]| {
        let mut letters = start.as_chunks::<4>().0.iter().take(16).peekable();
        letters.peek().is_some() && letters.all(|letter| zeros.iter().all(|at| letter[*at] == 0))
    };
    let marked = |mark: [u8; 4]| start.starts_with(&mark);
    for (name, mark, zeros) in
        [("utf-32le", [0xff, 0xfe, 0, 0], [1, 2, 3]), ("utf-32be", [0, 0, 0xfe, 0xff], [0, 1, 2])]
    {
        if marked(mark) || (wide(zeros) && start.iter().take(64).any(|byte| *byte != 0)) {
            return Some(format!("UTF-32; write it as UTF-8: iconv -f {name} -t utf-8"));
        }
    }
    // Text in two bytes a letter, without the mark that would say so.
    let every_second = |from: usize| start.len() > 3 && start[from..].iter().take(64).step_by(2).all(|byte| *byte == 0);
    if every_second(0) != every_second(1) {
        let name = if every_second(0) { "utf-16be" } else { "utf-16le" };
        return Some(format!("UTF-16 without a byte order mark; write it as UTF-8: iconv -f {name} -t utf-8"));
    }
    None
}
