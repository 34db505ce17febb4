//! Weights in safetensors files, as Hugging Face folders hold them.

use crate::model::config::DecoderConfig;
use crate::model::few_bits::Held;
use crate::model::folder::refuse_pointer;
use crate::model::nf4::{self, Nf4};
use crate::model::shapes::{HEAD, is_linear, shapes};
use crate::model::tensor_file::{Stored, TensorFile, dtype_of, header, save};
use crate::{Bits, DType, Device, Error, Result};
use candle_core::Tensor;
use safetensors::tensor::Dtype;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// How a decoder holds its weights.
#[derive(Clone, Copy)]
pub(crate) struct Holding<'d> {
    /// The dtype of numbers.
    pub dtype: DType,
    pub device: &'d Device,
    /// Puts the weights of linear layers into few bits.
    pub bits: Option<Bits>,
}

/// Reads all tensors of a decoder from `model.safetensors` or from the shards that `model.safetensors.index.json`
/// names, one after the other. Where the folder holds no head, `config` becomes tied.
///
/// Errors name the file and the tensor: missing, of another shape or dtype, or one that this decoder has no place for.
pub(crate) fn load(folder: &Path, config: &mut DecoderConfig, holding: Holding) -> Result<HashMap<String, Held>> {
    let paths = check(folder, config)?;
    if let Some(bits) = holding.bits.filter(|_| config.nf4) {
        let text = format!("its weights are in four bits (NF4); `bits: {}` has no effect", bits.count());
        return Err(Error::file(folder, text));
    }
    let wanted: HashMap<String, Vec<usize>> = shapes(config).into_iter().collect();
    let mut files = paths.iter().map(|path| TensorFile::open(path)).collect::<Result<Vec<_>>>()?;
    let mut found = HashMap::new();
    let mut spare_head = None;
    for at in 0..files.len() {
        for stored in files[at].header.keys().cloned().collect::<Vec<_>>() {
            let name = current(config, &stored);
            if wanted.contains_key(&*name) {
                let held = match config.nf4 && files[at].header[&stored].dtype == Dtype::U8 {
                    true => nf4(&mut files, at, &stored, holding.device)?,
                    false => holding.held(&name, files[at].read(&stored)?).map_err(of_tensor(&paths[at], &name))?,
                };
                if held.dims() != wanted[&*name] {
                    let (got, of_config) = (held.dims(), &wanted[&*name]);
                    let text = format!(
                        "tensor {name} is {got:?} before it was put into few bits; config.json wants {of_config:?}"
                    );
                    return Err(Error::file(&paths[at], text));
                }
                found.insert(name.into_owned(), held);
            } else if name == HEAD && !config.reward {
                spare_head = Some((&paths[at], files[at].read(&stored)?));
            }
        }
    }
    // A tied head that is stored once more has to be the table.
    let table = format!("{}embed_tokens.weight", config.body());
    if let (Some((path, spare)), Some(Held::Numbers(table))) = (spare_head, found.get(&table)) {
        let spare = spare.to_dtype(holding.dtype)?.to_device(holding.device)?;
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

impl Holding<'_> {
    /// The whole dtype on the CPU, such as files are compared in.
    pub fn of(dtype: DType) -> Holding<'static> {
        Holding { dtype, device: &Device::Cpu, bits: None }
    }

    /// A tensor of a file as it is held.
    fn held(&self, name: &str, tensor: Tensor) -> Result<Held> {
        match self.bits {
            Some(bits) if is_linear(name) => Held::in_bits(&tensor, bits, self.device),
            _ => Ok(Held::Numbers(tensor.to_dtype(self.dtype)?.to_device(self.device)?)),
        }
    }
}

/// Puts a file and a tensor into an error about what is in it.
fn of_tensor<'e>(path: &'e Path, name: &'e str) -> impl Fn(Error) -> Error + 'e {
    move |error| match error {
        Error::Input(text) => Error::file(path, format!("tensor {name}: {text}")),
        other => other,
    }
}

/// What bitsandbytes writes beside codes: the state, the scales and what they consist of.
const STATE: &str = "quant_state.bitsandbytes__nf4";
const SCALES: &str = "absmax";
const LEVELS: &str = "quant_map";
const NESTED: [&str; 2] = ["nested_absmax", "nested_quant_map"];

/// The weight that a tensor of bitsandbytes stands beside, and which one it is.
fn companion(name: &str) -> Option<(&str, &str)> {
    let (at, _) = name.match_indices(".weight.").next()?;
    let (weight, kind) = (&name[..at + ".weight".len()], &name[at + ".weight.".len()..]);
    [STATE, SCALES, LEVELS, NESTED[0], NESTED[1]].contains(&kind).then_some((weight, kind))
}

/// A matrix of bitsandbytes, whose parts may stand in several files.
fn nf4(files: &mut [TensorFile], at: usize, stored: &str, device: &Device) -> Result<Held> {
    let path = files[at].path.clone();
    let codes = files[at].read(stored)?;
    let mut part = |kind: &str| -> Result<Option<Tensor>> {
        let name = format!("{stored}.{kind}");
        let file = files.iter_mut().find(|file| file.header.contains_key(&name));
        file.map(|file| file.read(&name)).transpose()
    };
    let missing = |kind: &str| Error::file(&path, format!("tensor {stored}.{kind} is missing"));
    let state = part(STATE)?.ok_or_else(|| missing(STATE))?.flatten_all()?.to_vec1::<u8>()?;
    let scales = part(SCALES)?.ok_or_else(|| missing(SCALES))?;
    let levels = part(LEVELS)?.ok_or_else(|| missing(LEVELS))?;
    let nested = part(NESTED[0])?.zip(part(NESTED[1])?);
    let read = Nf4::read(&state, &nf4::Stored { codes, scales, levels, nested }, device);
    Ok(Held::Nf4(read.map_err(of_tensor(&path, stored))?))
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
        let mut file = TensorFile::open(&path)?;
        for stored in file.header.keys().cloned().collect::<Vec<_>>() {
            let name = current(config, &stored);
            if is_other(config, &name) {
                all.push((name.into_owned(), file.read(&stored)?));
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
                Some(of_config) if config.nf4 && dtype == Dtype::U8 && is_linear(&name) => {
                    let (codes, numbers) = (shape.iter().product::<usize>(), of_config.iter().product::<usize>());
                    if codes != numbers.div_ceil(2) {
                        let text =
                            format!("tensor {name} has {codes} bytes of two codes; config.json wants {of_config:?}");
                        return Err(Error::file(path, text));
                    }
                    wanted.remove(&name);
                }
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
                None if config.nf4 && companion(&name).is_some_and(|(weight, _)| all.contains_key(weight)) => (),
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

/// The file that lists the tensors, and the files that hold them.
fn files(folder: &Path) -> Result<(PathBuf, Vec<PathBuf>)> {
    let (single, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
    // A file that the system cannot look at is not a file that is missing.
    if single.try_exists().map_err(Error::io(&single))? {
        return Ok((single.clone(), vec![single]));
    }
    if !index.try_exists().map_err(Error::io(&index))? {
        let text = "no model.safetensors and no model.safetensors.index.json here; transformers writes them of other \
                    formats: `AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(TO)`";
        return Err(Error::file(folder, text));
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

/// Writes the tensors of a model, under the names that files have for them.
pub(crate) fn save_model(path: &Path, config: &DecoderConfig, tensors: &[(&str, Tensor)]) -> Result<()> {
    let names: Vec<String> = tensors.iter().map(|(name, _)| filed(config, name)).collect();
    let named = names.iter().zip(tensors).map(|(name, (_, tensor))| (name.as_str(), tensor.clone()));
    save(path, &named.collect::<Vec<_>>())
}
