//! Opening files that others name.

use std::fs::{File, FileType};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::error::{Error, Result};

/// Opens a file for reading. What has no end of its own (pipes, devices, sockets, and links to them) is refused.
///
/// # Errors
/// When it is not there, is no file, or cannot be read.
pub fn open_file(path: &Path) -> Result<File> {
    let kind = path.metadata().map_err(Error::io(path))?.file_type();
    if !kind.is_file() {
        return Err(Error::data(format!("{} is {}, wanted a file", path.display(), name_of(kind))));
    }
    File::open(path).map_err(Error::io(path))
}

/// The text of a small file, such as one that holds a key.
///
/// # Errors
/// As [`open_file`], and when it is no text or has more than `most` bytes.
pub fn read_small(path: &Path, most: u64) -> Result<String> {
    let mut text = String::new();
    open_file(path)?.take(most + 1).read_to_string(&mut text).map_err(|error| match error.kind() {
        // A text that is cut within a character is too long.
        ErrorKind::InvalidData => Error::data(format!("{} is no text in UTF-8, or too long for one", path.display())),
        _ => Error::io(path)(error),
    })?;
    match text.len() as u64 > most {
        true => Err(Error::data(format!("{} has more than {most} bytes", path.display()))),
        false => Ok(text),
    }
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink("/dev/zero", path("zero")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::fs::write(path("file"), "x").unwrap();
        let error = |name: &str| open_file(&path(name)).unwrap_err().to_string();
        for (name, kind) in [("zero", "a device"), ("pipe", "a pipe"), ("socket", "a socket"), ("", "a folder")] {
            assert!(error(name).ends_with(&format!("is {kind}, wanted a file")), "{}", error(name));
            assert!(crate::digest_file(&path(name)).is_err());
        }
        assert!(matches!(open_file(&path("none")), Err(Error::Io { .. })));
        open_file(&path("file")).unwrap();
        assert_eq!(read_small(&path("file"), 1).unwrap(), "x");
        assert!(read_small(&path("file"), 0).unwrap_err().to_string().ends_with("has more than 0 bytes"));
    }
}
