//! Weights in safetensors files, as Hugging Face folders hold them.

use crate::device::quietly;
use crate::model::config::DecoderConfig;
use crate::model::folder::refuse_pointer;
use crate::model::shapes::{HEAD, shapes};
use crate::model::written::Written;
use crate::{DType, Device, Error, Result};
use candle_core::Tensor;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Deserialize;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Reads all tensors of a decoder from `model.safetensors` or from the shards that `model.safetensors.index.json`
/// names, as `dtype` on `device`. Where the folder holds no head, `config` becomes tied.
///
/// Errors name the file and the tensor: missing, of another shape or dtype, or one that this decoder has no place for.
pub(crate) fn load(
    folder: &Path,
    config: &mut DecoderConfig,
    dtype: DType,
    device: &Device,
) -> Result<HashMap<String, Tensor>> {
    let files = check(folder, config)?;
    let wanted: HashMap<String, Vec<usize>> = shapes(config).into_iter().collect();
    let mut found = HashMap::new();
    let mut spare_head = None;
    for path in &files {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        for (stored, view) in parse(path, &bytes)?.iter() {
            let name = current(config, stored);
            if wanted.contains_key(&*name) {
                let tensor = read(path, stored, &view)?;
                found.insert(name.into_owned(), tensor.to_dtype(dtype)?.to_device(device)?);
            } else if name == HEAD && !config.reward {
                spare_head = Some((path, read(path, stored, &view)?));
            }
        }
    }
    // A tied head that is stored once more has to be the table.
    let table = format!("{}embed_tokens.weight", config.body());
    if let (Some((path, spare)), Some(table)) = (spare_head, found.get(&table)) {
        let spare = spare.to_dtype(dtype)?.to_device(device)?;
        let same =
            spare.dims() == table.dims() && spare.ne(table)?.to_dtype(DType::U32)?.max_all()?.to_scalar::<u32>()? == 0;
        if !same {
            return Err(Error::file(
                path,
                format!(
                    "tensor {HEAD} differs from the embedding table, and config.json has `tie_word_embeddings: \
                     true`: say false there to use it, or take the tensor out"
                ),
            ));
        }
    }
    Ok(found)
}

/// The name that a stored tensor has today. Behind a part for images, decoders had other ones; models that embed texts
/// leave what bodies begin with out.
fn current<'a>(config: &DecoderConfig, stored: &'a str) -> Cow<'a, str> {
    if !config.wrapped {
        let bare = ["embed_tokens.", "layers.", "norm."].iter().any(|part| stored.starts_with(part));
        return if bare { Cow::Owned(format!("{}{stored}", config.body())) } else { Cow::Borrowed(stored) };
    }
    match stored.strip_prefix("language_model.") {
        Some(HEAD) => Cow::Borrowed(HEAD),
        Some(rest) => Cow::Owned(format!("{}{}", config.body(), rest.trim_start_matches("model."))),
        None if OTHERS.iter().any(|other| stored.starts_with(&other["model.".len()..])) => {
            Cow::Owned(format!("model.{stored}"))
        }
        None => Cow::Borrowed(stored),
    }
}

/// The name that a tensor has in files, as transformers writes it: the old one behind a part for images.
pub(crate) fn filed(config: &DecoderConfig, name: &str) -> String {
    match name.strip_prefix(config.body()) {
        _ if !config.wrapped => name.to_owned(),
        Some(rest) => format!("language_model.model.{rest}"),
        None if name == HEAD => format!("language_model.{HEAD}"),
        None => name.trim_start_matches("model.").to_owned(),
    }
}

/// First parts of the names of tensors that are kept and not computed.
const OTHERS: [&str; 2] = ["model.vision_tower.", "model.multi_modal_projector."];

fn is_other(config: &DecoderConfig, name: &str) -> bool {
    config.wrapped && OTHERS.iter().any(|other| name.starts_with(other))
}

/// The tensors of a folder that stand beside the decoder, as they are stored.
pub(crate) fn others(folder: &Path, config: &DecoderConfig) -> Result<Vec<(String, Tensor)>> {
    let (_, files) = files(folder)?;
    let mut all = Vec::new();
    for path in files {
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        for (stored, view) in parse(&path, &bytes)?.iter() {
            let name = current(config, stored);
            if is_other(config, &name) {
                all.push((name.into_owned(), read(&path, stored, &view)?));
            }
        }
    }
    Ok(all)
}

/// Checks the headers of a folder's files against what a decoder needs, and gives the files. Where the folder holds no
/// head, `config` becomes tied. No weights are read.
///
/// Errors: as [`load`].
pub(crate) fn check(folder: &Path, config: &mut DecoderConfig) -> Result<Vec<PathBuf>> {
    let (listing, files) = files(folder)?;
    let mut wanted: HashMap<String, Vec<usize>> = shapes(config).into_iter().collect();
    let all = wanted.clone();
    for path in &files {
        for (stored, Stored { dtype, shape, .. }) in header(path)? {
            let name = current(config, &stored).into_owned();
            match all.get(&name) {
                Some(of_config) if *of_config == shape => {
                    dtype_of(path, &name, dtype)?;
                    wanted.remove(&name);
                }
                Some(of_config) => {
                    let text = format!("tensor {name} is {shape:?}; config.json wants {of_config:?}");
                    return Err(Error::file(path, text));
                }
                // A head beside a tied table, and constants that old versions wrote.
                None if name == HEAD || name.ends_with("rotary_emb.inv_freq") => (),
                None if is_other(config, &name) => drop(dtype_of(path, &name, dtype)?),
                None => return Err(Error::file(path, format!("tensor {name} has no place in this architecture"))),
            }
        }
    }
    if !config.tied && wanted.remove(HEAD).is_some() {
        config.tied = true;
    }
    match wanted.keys().min() {
        None => Ok(files),
        Some(name) => Err(Error::file(listing, format!("tensor {name} is missing ({} in all)", wanted.len()))),
    }
}

/// A tensor in the header of a file.
#[derive(Deserialize)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// The tensors that a file lists, after it was seen that it is as long as they say.
fn header(path: &Path) -> Result<BTreeMap<String, Stored>> {
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
    let end = header.values().map(|stored| stored.data_offsets.1).max().unwrap_or(0);
    match (whole - 8 - length).cmp(&end) {
        std::cmp::Ordering::Less => {
            Err(cut(&format!("it has {whole} bytes, its header speaks of {}", end.saturating_add(8 + length))))
        }
        std::cmp::Ordering::Greater => Err(cut("there are bytes behind its last tensor")),
        std::cmp::Ordering::Equal => Ok(header),
    }
}

/// The file that lists the tensors, and the files that hold them.
fn files(folder: &Path) -> Result<(PathBuf, Vec<PathBuf>)> {
    let (single, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
    // A file that the system cannot look at is not a file that is missing.
    if single.try_exists().map_err(Error::io(&single))? {
        return Ok((single.clone(), vec![single]));
    }
    if !index.try_exists().map_err(Error::io(&index))? {
        return Err(Error::file(folder, "no model.safetensors and no model.safetensors.index.json here"));
    }
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    refuse_pointer(&index)?;
    let text = std::fs::read_to_string(&index).map_err(Error::io(&index))?;
    let Index { weight_map } = serde_json::from_str(&text).map_err(Error::at(&index))?;
    let mut names: Vec<&String> = weight_map.values().collect();
    names.sort();
    names.dedup();
    if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        return Err(Error::file(&index, format!("`weight_map` names `{name}`; wanted a file beside it")));
    }
    let files: Vec<PathBuf> = names.into_iter().map(|name| folder.join(name)).collect();
    if let Some(absent) = files.iter().find(|path| !path.is_file()) {
        let text = format!("names the shard `{}`, which is not there; copy it again", absent.display());
        return Err(Error::file(&index, text));
    }
    Ok((index, files))
}

/// The dtype that a folder's embedding table is stored in, from the headers of its files.
pub(crate) fn stored_dtype(folder: &Path) -> Result<DType> {
    let (listing, files) = files(folder)?;
    for path in &files {
        if let Some((name, stored)) = header(path)?.iter().find(|(name, _)| name.ends_with("embed_tokens.weight")) {
            return dtype_of(path, name, stored.dtype);
        }
    }
    Err(Error::file(listing, "the tensor of embeddings (embed_tokens.weight) is missing"))
}

/// Checks that a file is whole, from its header.
pub(crate) fn check_file(path: &Path) -> Result<()> {
    header(path).map(drop)
}

/// The shapes of a file's tensors, from its header; the file is as long as they say.
pub(crate) fn stored_shapes(path: &Path) -> Result<BTreeMap<String, Vec<usize>>> {
    Ok(header(path)?.into_iter().map(|(name, stored)| (name, stored.shape)).collect())
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

fn dtype_of(path: &Path, name: &str, stored: Dtype) -> Result<DType> {
    Ok(match stored {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F64 => DType::F64,
        Dtype::I64 => DType::I64,
        other => return Err(Error::file(path, format!("tensor {name} is {other:?}; wanted F32, F16, BF16 or F64"))),
    })
}

/// Writes the tensors of a model, under the names that files have for them.
pub(crate) fn save_model(path: &Path, config: &DecoderConfig, tensors: &[(&str, Tensor)]) -> Result<()> {
    let names: Vec<String> = tensors.iter().map(|(name, _)| filed(config, name)).collect();
    let named = names.iter().zip(tensors).map(|(name, (_, tensor))| (name.as_str(), tensor.clone()));
    save(path, &named.collect::<Vec<_>>())
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
