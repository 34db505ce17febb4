//! GGUF files: their form, and their tensors.

use crate::error::system_error;
use crate::model::config::DecoderConfig;
use crate::model::families::FAMILIES;
use crate::model::family::{Family, Multiplier, Norm, Norms, Window};
use crate::model::few_bits::Held;
use crate::model::folder::refuse_pointer;
use crate::model::ggml::Ggml;
use crate::model::shapes::{is_linear, shapes};
use crate::model::weights::Holding;
use crate::panics::quietly;
use crate::{Device, Error, Result};
use candle_core::Tensor;
use candle_core::quantized::gguf_file::{Content, Value};
use serde_json::{Map, json};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// Names of tensors in GGUF files and in model folders.
const NAMES: [(&str, &str); 15] = [
    ("blk.", "model.layers."),
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("attn_norm", "input_layernorm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Reads a file: its form, and its tensors by the names that they have in model folders. Weights of linear layers stay
/// as they are stored, others become numbers.
///
/// Errors name the file: damaged, of a form that is not computed here, or of few bits where others are wanted.
pub(crate) fn load(path: &Path, holding: Holding) -> Result<(DecoderConfig, HashMap<String, Held>)> {
    if let Some(bits) = holding.bits {
        let text = format!("its weights stay in the bits of the file; `bits: {}` has no effect", bits.count());
        return Err(Error::file(path, text));
    }
    let content = head(path)?;
    let (config, names) = fitting(path, &content)?;
    // The width of a head whose rotary halves stand beside each other in the rows of queries and keys, as in Llama's files.
    let interleaved = config.family.gguf.filter(|gguf| gguf.interleaved).map(|_| config.head_dim);
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let mut tensors = HashMap::new();
    for (stored, name) in names {
        let tensor = quietly(|| content.tensor(&mut file, stored, &Device::Cpu))
            .ok_or_else(|| Error::file(path, format!("tensor {stored} cannot be read; copy the file again")))?;
        let tensor = tensor.map_err(|error| unread(path, &error, format!("tensor {stored}: {error}")))?;
        let turned = interleaved.filter(|_| name.contains("q_proj") || name.contains("k_proj"));
        let held = if is_linear(&name) {
            let order = turned.map(|width| halves(tensor.shape().dims()[0], width));
            Held::Ggml(Ggml::of(&tensor, order.as_deref(), holding.device)?)
        } else {
            let numbers = tensor.dequantize(&Device::Cpu)?;
            // Files hold what is multiplied with.
            let numbers = match config.family.norm {
                Norm::RmsPlusOne if name.ends_with("norm.weight") => (numbers - 1.0)?,
                _ => numbers,
            };
            let numbers = match turned {
                Some(width) => {
                    let order: Vec<u32> = halves(numbers.dims()[0], width).into_iter().map(|row| row as u32).collect();
                    numbers.index_select(&Tensor::new(order, &Device::Cpu)?, 0)?
                }
                None => numbers,
            };
            Held::Numbers(numbers.to_dtype(holding.dtype)?.to_device(holding.device)?)
        };
        tensors.insert(name, held);
    }
    Ok((config, tensors))
}

/// For each of some rows its place in a file whose neighbours are a head's rotary halves.
fn halves(rows: usize, width: usize) -> Vec<usize> {
    let half = (width / 2).max(1);
    (0..rows).map(|row| row / width * width + row % half * 2 + row % width / half).collect()
}

/// The form of a file's model; only its head is read.
///
/// Errors: as [`load`].
pub(crate) fn config_of(path: &Path) -> Result<DecoderConfig> {
    form(path, &head(path)?)
}

/// Checks a file by its head: its form, and that it has what that needs.
pub(crate) fn check(path: &Path) -> Result<()> {
    fitting(path, &head(path)?).map(drop)
}

/// The form of a file's model and its tensors by both of their names, once they fit together.
fn fitting<'a>(path: &Path, content: &'a Content) -> Result<(DecoderConfig, Vec<(&'a str, String)>)> {
    let config = form(path, content)?;
    let mut wanted: HashMap<String, Vec<usize>> = shapes(&config).into_iter().collect();
    let whole = std::fs::metadata(path).map_err(Error::io(path))?.len();
    let mut names: Vec<(&str, String)> = content
        .tensor_infos
        .keys()
        .map(|stored| (stored.as_str(), folders_name(stored, config.family.norms)))
        .collect();
    names.sort();
    for (stored, name) in &names {
        let info = &content.tensor_infos[*stored];
        let got = info.shape.dims();
        match wanted.remove(name) {
            Some(shape) if shape == got => {
                let bytes =
                    (info.shape.elem_count() / info.ggml_dtype.block_size() * info.ggml_dtype.type_size()) as u64;
                if content.tensor_data_offset.saturating_add(info.offset).saturating_add(bytes) > whole {
                    let text = format!("ends before the last byte of tensor {stored}; copy the file again");
                    return Err(Error::file(path, text));
                }
            }
            Some(shape) => {
                return Err(Error::file(path, format!("tensor {stored} is {got:?}; its sizes want {shape:?}")));
            }
            None => {
                let text = format!("tensor {stored} has no place in this architecture; use the Hugging Face folder");
                return Err(Error::file(path, text));
            }
        }
    }
    match wanted.keys().min() {
        None => Ok((config, names)),
        Some(name) => Err(Error::file(path, format!("the tensor for {name} is missing ({} in all)", wanted.len()))),
    }
}

fn folders_name(name: &str, norms: Norms) -> String {
    if let Some(kind) = name.strip_prefix("output.") {
        return format!("lm_head.{kind}");
    }
    let before_mlp = norms.names()[2].unwrap_or("ffn_norm");
    let part = |part: &str| match part {
        "ffn_norm" => before_mlp.to_owned(),
        _ => NAMES.iter().find(|(own, _)| *own == part).map_or(part, |(_, folders)| folders).to_owned(),
    };
    match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, rest)) => {
            let (module, kind) = rest.split_once('.').unwrap_or((rest, ""));
            format!("model.layers.{layer}.{}.{kind}", part(module))
        }
        None => {
            let (module, kind) = name.split_once('.').unwrap_or((name, ""));
            format!("{}.{kind}", part(module))
        }
    }
}

/// The head of a file.
fn head(path: &Path) -> Result<Content> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    refuse_pointer(path)?;
    quietly(|| Content::read(&mut file))
        .ok_or_else(|| Error::file(path, "not a GGUF file"))?
        .map_err(|error| unread(path, &error, format!("not a GGUF file that is read here ({error})")))
}

/// The system's error where it could not read a file, else what is wrong with the file.
fn unread(path: &Path, error: &candle_core::Error, what: String) -> Error {
    system_error(error).map_or_else(|| Error::file(path, what), |source| Error::io(path)(source))
}

/// The family of a file: the first of its architecture, and with windows where the file has a window.
fn family_of(path: &Path, content: &Content) -> Result<&'static Family> {
    let named = content.metadata.get("general.architecture").and_then(|value| value.to_string().ok());
    let named = named.map_or("", String::as_str);
    let architecture = |family: &Family| family.gguf.map(|gguf| gguf.architecture);
    let of_name: Vec<&Family> = FAMILIES.into_iter().filter(|family| architecture(family) == Some(named)).collect();
    if of_name.is_empty() {
        let known: BTreeSet<&str> = FAMILIES.into_iter().filter_map(architecture).collect();
        let known = Vec::from_iter(known).join(", ");
        let what = format!(
            "the architecture `{named}` is not computed; computed are {known}; a judge of another one is asked through \
             an endpoint"
        );
        return Err(Error::file(path, what));
    }
    let key = format!("{named}.attention.sliding_window");
    let window = whole(path, content, &key)?.filter(|window| *window > 0);
    let fitting = of_name.into_iter().find(|family| window.is_none() || family.window != Window::Never);
    fitting.ok_or_else(|| Error::file(path, format!("`{key}` is {}; this family has no windows", window.unwrap_or(0))))
}

/// A whole number of a file's head; nothing where it is not there.
fn whole(path: &Path, content: &Content, key: &str) -> Result<Option<u64>> {
    let Some(value) = content.metadata.get(key) else { return Ok(None) };
    let number = match *value {
        Value::U8(number) => Some(number.into()),
        Value::U16(number) => Some(number.into()),
        Value::U32(number) => Some(number.into()),
        Value::U64(number) => Some(number),
        Value::I8(number) => number.try_into().ok(),
        Value::I16(number) => number.try_into().ok(),
        Value::I32(number) => number.try_into().ok(),
        Value::I64(number) => number.try_into().ok(),
        _ => None,
    };
    let wrong = || Error::file(path, format!("`{key}` is {}, wanted a whole number from 0 on", shown(value)));
    number.ok_or_else(wrong).map(Some)
}

/// A number of a file's head; nothing where it is not there.
fn number(path: &Path, content: &Content, key: &str) -> Result<Option<f64>> {
    let number = match content.metadata.get(key) {
        None => return Ok(None),
        // The shortest number that is this one in f32, as a `config.json` has it: 1e-5 and not 9.99999974e-6.
        Some(Value::F32(number)) => number.to_string().parse().unwrap_or(f64::from(*number)),
        Some(Value::F64(number)) => *number,
        Some(_) => whole(path, content, key)?.unwrap_or_default() as f64,
    };
    if number.is_finite() {
        return Ok(Some(number));
    }
    Err(Error::file(path, format!("`{key}` is {number}, wanted a finite number")))
}

/// A value for people: a number itself, of anything else its type.
fn shown(value: &Value) -> String {
    match value {
        Value::I8(number) => number.to_string(),
        Value::I16(number) => number.to_string(),
        Value::I32(number) => number.to_string(),
        Value::I64(number) => number.to_string(),
        Value::F32(number) => number.to_string(),
        Value::F64(number) => number.to_string(),
        other => format!("of the type {:?}", other.value_type()),
    }
}

/// The configuration that its `config.json` would state.
fn form(path: &Path, content: &Content) -> Result<DecoderConfig> {
    let family = family_of(path, content)?;
    let architecture = family.gguf.map_or("", |gguf| gguf.architecture);
    let key = |key: &str| format!("{architecture}.{key}");
    let get = |name: &str| content.metadata.get(&key(name));
    let has = |tensor: &str| content.tensor_infos.contains_key(tensor);
    let scaling = get("rope.scaling.type").and_then(|value| value.to_string().ok()).filter(|kind| *kind != "none");
    if scaling.is_some() || has("rope_freqs.weight") {
        let text = "scaled rotary positions are not computed for GGUF; use the Hugging Face folder";
        return Err(Error::file(path, text));
    }
    let whole = |name: &str| whole(path, content, &key(name));
    let wanted = |name: &str| whole(name)?.ok_or_else(|| Error::file(path, format!("`{}` is missing", key(name))));
    let number = |name: &str| number(path, content, &key(name));
    let table = content.tensor_infos.get("token_embd.weight").map(|info| info.shape.dims().to_vec());
    let Some([vocabulary, _]) = table.as_deref() else {
        return Err(Error::file(path, "no tensor token_embd.weight of two dimensions"));
    };
    let (hidden, heads) = (wanted("embedding_length")?, wanted("attention.head_count")?);
    let width = whole("attention.key_length")?.or(whole("rope.dimension_count")?).unwrap_or(hidden / heads.max(1));
    let rotated = whole("rope.dimension_count")?.unwrap_or(width);
    let values = whole("attention.value_length")?.unwrap_or(width);
    if rotated != width || values != width {
        let text =
            format!("heads of {width} numbers, {rotated} of them rotated, with values of {values}: not computed here");
        return Err(Error::file(path, text));
    }
    let window = whole("attention.sliding_window")?.filter(|window| *window > 0);
    let mut json = Map::new();
    for (key, value) in [
        ("model_type", json!(family.name)),
        ("vocab_size", json!(vocabulary)),
        ("hidden_size", json!(hidden)),
        ("intermediate_size", json!(wanted("feed_forward_length")?)),
        ("num_hidden_layers", json!(wanted("block_count")?)),
        ("num_attention_heads", json!(heads)),
        ("num_key_value_heads", json!(whole("attention.head_count_kv")?.unwrap_or(heads))),
        ("head_dim", json!(width)),
        ("max_position_embeddings", json!(wanted("context_length")?)),
        ("rms_norm_eps", json!(number("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5))),
        ("rope_theta", json!(number("rope.freq_base")?.unwrap_or(10_000.0))),
        ("attention_bias", json!(has("blk.0.attn_q.bias"))),
        ("mlp_bias", json!(has("blk.0.ffn_up.bias"))),
        ("tie_word_embeddings", json!(!has("output.weight"))),
        ("sliding_window", json!(window)),
    ] {
        json.insert(key.to_owned(), value);
    }
    if window.is_some() {
        json.insert("use_sliding_window".to_owned(), json!(true));
        json.insert("max_window_layers".to_owned(), json!(0));
    }
    for (key, file) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
        // The same in files of all architectures.
        if let Some(id) = self::whole(path, content, &format!("tokenizer.ggml.{file}_token_id"))? {
            json.insert(key.to_owned(), json!(id));
        }
    }
    let period = whole("attention.sliding_window_pattern")?;
    if let (Window::Alternating { key: Some(key), .. }, Some(period)) = (family.window, period) {
        json.insert(key.to_owned(), json!(period));
    }
    // As llama.cpp has it: Gemma's largest models scale scores by the width of states for each head.
    if let Multiplier::InverseRoot(scale, _) = family.multipliers.attention {
        let largest = wanted("block_count")? == if family.name == "gemma2" { 46 } else { 62 };
        json.insert(scale.to_owned(), json!(if largest { hidden / heads.max(1) } else { width }));
    }
    for (cap, file) in
        [(family.caps.attention, "attn_logit_softcapping"), (family.caps.logits, "final_logit_softcapping")]
    {
        if let (Some((cap, _)), Some(value)) = (cap, number(file)?) {
            json.insert(cap.to_owned(), json!(value));
        }
    }
    if let (Some(key), Some(base)) = (family.windowed_rope.and_then(|rope| rope.key), number("rope.freq_base_swa")?) {
        json.insert(key.to_owned(), json!(base));
    }
    for (multiplier, neutral) in family.multipliers.with_neutral(width as usize) {
        json.insert(multiplier.key.to_owned(), json!(number(multiplier.gguf)?.unwrap_or(neutral)));
    }
    DecoderConfig::from_json(json).map_err(Error::at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_folders() {
        for (stored, name) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output.weight", "lm_head.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("blk.12.attn_q.bias", "model.layers.12.self_attn.q_proj.bias"),
            ("blk.0.attn_q_norm.weight", "model.layers.0.self_attn.q_norm.weight"),
            ("blk.3.ffn_down.weight", "model.layers.3.mlp.down_proj.weight"),
            ("blk.3.attn_output.weight", "model.layers.3.self_attn.o_proj.weight"),
            ("blk.3.ffn_gate_inp.weight", "model.layers.3.ffn_gate_inp.weight"),
            ("blk.3.ffn_norm.weight", "model.layers.3.post_attention_layernorm.weight"),
        ] {
            assert_eq!(folders_name(stored, Norms::Before), name);
        }
        for (stored, name) in [
            ("blk.0.post_attention_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
            ("blk.0.ffn_norm.weight", "model.layers.0.pre_feedforward_layernorm.weight"),
            ("blk.0.post_ffw_norm.weight", "model.layers.0.post_feedforward_layernorm.weight"),
        ] {
            assert_eq!(folders_name(stored, Norms::Both), name);
        }
    }
}
