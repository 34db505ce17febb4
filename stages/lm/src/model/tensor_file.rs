//! One safetensors file: its header, its tensors one after the other, and writing one.

use crate::model::folder::refuse_pointer;
use crate::model::written::Written;
use crate::panics::quietly;
use crate::{DType, Device, Error, Result};
use candle_core::Tensor;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Deserialize;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// An open file. Its tensors are read one after the other: all of them together would double the memory.
pub(crate) struct TensorFile {
    pub path: PathBuf,
    pub header: BTreeMap<String, Stored>,
    file: File,
    /// Bytes before the first tensor.
    start: u64,
}

impl TensorFile {
    /// Opens a file and reads its header.
    ///
    /// Errors name the file: not whole, or with a header that contradicts itself.
    pub fn open(path: &Path) -> Result<TensorFile> {
        let header = header(path)?;
        let mut file = File::open(path).map_err(Error::io(path))?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(Error::io(path))?;
        let start = 8 + u64::from_le_bytes(length);
        Ok(TensorFile { path: path.to_owned(), header, file, start })
    }

    /// A tensor as it is stored, on the CPU.
    ///
    /// Errors name file and tensor: one that is not there, or of a dtype that weights never have.
    pub fn read(&mut self, name: &str) -> Result<Tensor> {
        let missing = || Error::file(&self.path, format!("tensor {name} is missing"));
        let Stored { dtype, shape, data_offsets: (start, end) } = self.header.get(name).ok_or_else(missing)?;
        let dtype = if *dtype == Dtype::U8 { DType::U8 } else { dtype_of(&self.path, name, *dtype)? };
        let place = SeekFrom::Start(self.start + start);
        let mut bytes = vec![0; (end - start) as usize];
        let read = self.file.seek(place).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(Error::io(&self.path))?;
        Ok(Tensor::from_raw_buffer(&bytes, dtype, shape, &Device::Cpu)?)
    }
}

/// A tensor in the header of a file.
#[derive(Deserialize)]
pub(crate) struct Stored {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// The tensors that a file lists, after it was seen that it is as long as they say.
pub(crate) fn header(path: &Path) -> Result<BTreeMap<String, Stored>> {
    refuse_pointer(path)?;
    let cut = |why: &str| Error::file(path, format!("not a whole safetensors file ({why}); copy it again"));
    let mut file = File::open(path).map_err(Error::io(path))?;
    let whole = file.metadata().map_err(Error::io(path))?.len();
    let mut length = [0; 8];
    if whole < 8 {
        return Err(cut("it ends before its header"));
    }
    file.read_exact(&mut length).map_err(Error::io(path))?;
    let length = u64::from_le_bytes(length);
    if length > whole - 8 {
        return Err(cut("it ends in its header"));
    }
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text).map_err(Error::io(path))?;
    let mut header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&text).map_err(|error| cut(&format!("its header is no JSON: {error}")))?;
    let texts =
        |notes: &serde_json::Value| notes.as_object().is_some_and(|it| it.values().all(serde_json::Value::is_string));
    if header.remove("__metadata__").is_some_and(|notes| !texts(&notes)) {
        return Err(cut("its `__metadata__` holds other things than texts"));
    }
    let stored = |(name, value)| -> Result<(String, Stored)> {
        let stored = Stored::deserialize(&value).map_err(|error| cut(&format!("tensor {name}: {error}")))?;
        Ok((name, stored))
    };
    let header: BTreeMap<String, Stored> = header.into_iter().map(stored).collect::<Result<_>>()?;
    let mut tensors: Vec<(&String, &Stored)> = header.iter().collect();
    tensors.sort_by_key(|(_, stored)| stored.data_offsets);
    let mut end = 0;
    for (name, Stored { dtype, shape, data_offsets }) in tensors {
        let numbers = shape.iter().try_fold(1_u64, |product, size| product.checked_mul(*size as u64));
        let bytes = numbers.and_then(|numbers| Some(numbers.checked_mul(dtype.bitsize() as u64)? / 8));
        if *data_offsets != (end, bytes.and_then(|bytes| end.checked_add(bytes)).unwrap_or(u64::MAX)) {
            let text = format!("tensor {name} of {shape:?} stands at {data_offsets:?}; wanted all bytes from {end} on");
            return Err(cut(&text));
        }
        end = data_offsets.1;
    }
    match (whole - 8 - length).cmp(&end) {
        std::cmp::Ordering::Less => {
            Err(cut(&format!("it has {whole} bytes, its header speaks of {}", end.saturating_add(8 + length))))
        }
        std::cmp::Ordering::Greater => Err(cut("there are bytes behind its last tensor")),
        std::cmp::Ordering::Equal => Ok(header),
    }
}

/// Checks that a file is whole, from its header.
pub(crate) fn check_file(path: &Path) -> Result<()> {
    header(path).map(drop)
}

/// Reads all tensors of one file as they are stored, onto the CPU.
pub(crate) fn read_all(path: &Path) -> Result<HashMap<String, Tensor>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    parse(path, &bytes)?.iter().map(|(name, view)| Ok((name.to_owned(), read(path, name, &view)?))).collect()
}

/// The tensors in the bytes of a file. A damaged file is an error whatever the library makes of it.
fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    quietly(|| SafeTensors::deserialize(bytes))
        .ok_or_else(|| Error::file(path, "not a safetensors file"))?
        .map_err(|error| Error::file(path, format!("not a whole safetensors file ({error}); copy it again")))
}

fn read(path: &Path, name: &str, view: &TensorView) -> Result<Tensor> {
    let stored = dtype_of(path, name, view.dtype())?;
    Ok(Tensor::from_raw_buffer(view.data(), stored, view.shape(), &Device::Cpu)?)
}

pub(crate) fn dtype_of(path: &Path, name: &str, stored: Dtype) -> Result<DType> {
    Ok(match stored {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F64 => DType::F64,
        Dtype::I64 => DType::I64,
        other => return Err(Error::file(path, format!("tensor {name} is {other:?}; wanted F32, F16, BF16 or F64"))),
    })
}

/// Writes tensors to one safetensors file, in the order and with the metadata that transformers uses.
///
/// The metadata stay one entry: safetensors writes a hash map, and two would stand in a different order each time.
///
/// One tensor after the other becomes bytes: all of them together would double the memory.
pub(crate) fn save(path: &Path, tensors: &[(&str, Tensor)]) -> Result<()> {
    let unread = RefCell::new(None);
    let views: Vec<(&str, Written)> = tensors
        .iter()
        .map(|(name, tensor)| Ok((*name, Written::new(tensor.clone(), &unread)?)))
        .collect::<Result<_>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(source) => Error::io(path)(source),
        other => Error::file(path, other),
    })?;
    if let Some(error) = unread.into_inner() {
        return Err(error);
    }
    // safetensors makes files private; weights are as readable as any file of the user's.
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(Error::io(path))?;
    Ok(())
}
