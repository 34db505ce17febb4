//! Files as Parquet reads them, with what the system said where they could not be read: its own errors keep a text
//! alone.

use std::fs::File;
use std::io::{BufReader, Read, Result as IoResult};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};

/// The system's error when a file could not be read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<std::io::Error>>>);

impl Failure {
    /// It, once.
    pub(crate) fn take(&self) -> Option<std::io::Error> {
        self.0.lock().expect("no thread panics while it holds an error").take()
    }

    fn note<T>(&self, result: IoResult<T>) -> IoResult<T> {
        // An error that the system did not raise, such as an early end, is the file's fault.
        if let Err(Some(code)) = result.as_ref().map_err(std::io::Error::raw_os_error) {
            let error = std::io::Error::from_raw_os_error(code);
            *self.0.lock().expect("no thread panics while it holds an error") = Some(error);
        }
        result
    }
}

/// A file that notes its failures.
pub(crate) struct Watched {
    file: Arc<File>,
    failure: Failure,
    length: u64,
}

impl Watched {
    pub(crate) fn new(file: File, failure: Failure) -> Watched {
        let length = failure.note(file.metadata()).map_or(0, |metadata| metadata.len());
        Watched { file: Arc::new(file), failure, length }
    }
}

impl Length for Watched {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Watched {
    type T = BufReader<Section>;

    fn get_read(&self, start: u64) -> ParquetResult<BufReader<Section>> {
        Ok(BufReader::new(Section { file: self.file.clone(), failure: self.failure.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        // A damaged footer may ask for more than there is; no memory is taken for that.
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(ParquetError::EOF(format!("{length} bytes from {start} on, of {}", self.length)));
        }
        let mut bytes = vec![0; length];
        self.failure.note(self.file.read_exact_at(&mut bytes, start))?;
        Ok(bytes.into())
    }
}

/// A file from some place on.
pub(crate) struct Section {
    file: Arc<File>,
    failure: Failure,
    at: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        let read = self.failure.note(self.file.read_at(buffer, self.at))?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_file_that_cannot_be_read_is_not_a_damaged_file() {
        // Reading a folder is the one error of reading that needs no broken device.
        let folder = tempfile::tempdir().unwrap();
        let failure = Failure::default();
        let mut watched = Watched::new(File::open(folder.path()).unwrap(), failure.clone());
        watched.length = 100;
        assert!(watched.get_bytes(0, 8).is_err());
        assert!(matches!(failure.take(), Some(error) if error.raw_os_error().is_some()));
        assert!(watched.get_read(0).unwrap().read(&mut [0; 8]).is_err());
        assert!(failure.take().is_some() && failure.take().is_none());
        assert!(watched.get_bytes(90, 20).is_err());
        assert!(failure.take().is_none(), "more than there is, is the file's fault");
        // Through the reader of tables.
        std::fs::write(folder.path().join("part-00000.parquet"), "PAR1").unwrap();
        assert!(matches!(crate::table::parts::rows_of(folder.path()), Err(Error::Data(_))));
    }
}
