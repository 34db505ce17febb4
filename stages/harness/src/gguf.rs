//! GGUF files made from model folders, as llama.cpp's converter does.

use std::path::Path;

use candle_core::quantized::gguf_file::{Value, write as write_gguf};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

/// The families whose converter puts the rotary halves of a head beside each other.
const INTERLEAVED: [&str; 3] = ["llama", "smollm3", "granite"];

/// Writes a folder's weights, unquantised.
pub fn write(folder: &Path, family: &str, to: &Path) {
    write_as(folder, family, GgmlDType::F32, to);
}

/// Writes a folder's weights with its matrices in blocks of eight bits.
pub fn write_q8(folder: &Path, family: &str, to: &Path) {
    write_as(folder, family, GgmlDType::Q8_0, to);
}

/// Writes a folder's weights in the mix of six and four bits that llama.cpp calls Q4_K_M. Rows have to be of multiples of
/// 256 numbers.
pub fn write_q4_k_m(folder: &Path, family: &str, to: &Path) {
    let layers = config_of(folder)["num_hidden_layers"].as_u64().unwrap() as usize;
    write_all(folder, family, &|name| in_q4_k_m(name, layers), &[], to);
}

/// The values of a tensor of a folder after a round trip through that mix.
pub fn rounded_in_q4_k_m(name: &str, tensor: &Tensor, layers: usize) -> Tensor {
    let tensor = tensor.to_dtype(candle_core::DType::F32).unwrap();
    match tensor.rank() {
        2 => QTensor::quantize(&tensor, in_q4_k_m(name, layers)).unwrap().dequantize(&Device::Cpu).unwrap(),
        _ => tensor,
    }
}

/// The type of a matrix: six bits for the head (here the table, which serves as such) and, of some blocks, for values and
/// the last matrix of the feed-forward part.
fn in_q4_k_m(name: &str, layers: usize) -> GgmlDType {
    let block = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    let more = |at: usize| at < layers / 8 || at >= 7 * layers / 8 || (at - layers / 8) % 3 == 2;
    let often = name.contains("v_proj") || name.contains("down_proj");
    let six = block.is_none_or(|at| often && more(at));
    if six { GgmlDType::Q6K } else { GgmlDType::Q4K }
}

/// Writes a folder's weights in blocks of eight bits, with some sizes that are not theirs.
pub fn write_wrong(folder: &Path, family: &str, sizes: &[(&str, u32)], to: &Path) {
    write_all(folder, family, &|_| GgmlDType::Q8_0, sizes, to);
}

fn write_as(folder: &Path, family: &str, matrices: GgmlDType, to: &Path) {
    write_all(folder, family, &|_| matrices, &[], to);
}

/// The values of a matrix after a round trip through blocks of eight bits.
pub fn rounded(tensor: &Tensor) -> Tensor {
    let tensor = tensor.to_dtype(candle_core::DType::F32).unwrap();
    match tensor.rank() {
        2 => QTensor::quantize(&tensor, GgmlDType::Q8_0).unwrap().dequantize(&Device::Cpu).unwrap(),
        _ => tensor,
    }
}

fn config_of(folder: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
}

fn write_all(folder: &Path, family: &str, matrices: &dyn Fn(&str) -> GgmlDType, sizes: &[(&str, u32)], to: &Path) {
    let config = config_of(folder);
    let size = |key: &str| config[key].as_u64().unwrap() as u32;
    let heads = size("num_attention_heads");
    let head_dim = config["head_dim"].as_u64().map_or(size("hidden_size") / heads, |dim| dim as u32);
    let ropes = &config["rope_parameters"];
    let theta = [&config["rope_theta"], &ropes["rope_theta"], &ropes["full_attention"]["rope_theta"]];
    let theta = theta.iter().find_map(|theta| theta.as_f64()).unwrap() as f32;
    let architecture = family.trim_end_matches("_text");
    let gemma = family.starts_with("gemma");
    let key = |name: &str| format!("{architecture}.{name}");
    let mut metadata = vec![
        ("general.architecture".to_owned(), Value::String(architecture.to_owned())),
        (key("attention.head_count"), Value::U32(heads)),
        (key("attention.head_count_kv"), Value::U32(size("num_key_value_heads"))),
        (key("attention.key_length"), Value::U32(head_dim)),
        (key("block_count"), Value::U32(size("num_hidden_layers"))),
        (key("embedding_length"), Value::U32(size("hidden_size"))),
        (key("feed_forward_length"), Value::U32(size("intermediate_size"))),
        (key("context_length"), Value::U32(size("max_position_embeddings"))),
        (key("rope.dimension_count"), Value::U32(head_dim)),
        (key("rope.freq_base"), Value::F32(theta)),
        (key("attention.layer_norm_rms_epsilon"), Value::F32(config["rms_norm_eps"].as_f64().unwrap() as f32)),
    ];
    for (own, name) in [
        ("embedding_multiplier", "embedding_scale"),
        ("attention_multiplier", "attention.scale"),
        ("residual_multiplier", "residual_scale"),
        ("logits_scaling", "logit_scale"),
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
    ] {
        metadata.extend(config[own].as_f64().map(|factor| (key(name), Value::F32(factor as f32))));
    }
    if gemma && let Some(window) = config["sliding_window"].as_u64() {
        metadata.push((key("attention.sliding_window"), Value::U32(window as u32)));
    }
    if let Some(theta) = ropes["sliding_attention"]["rope_theta"].as_f64() {
        metadata.push((key("rope.freq_base_swa"), Value::F32(theta as f32)));
    }
    if let Some(period) = config["_sliding_window_pattern"].as_u64() {
        metadata.push((key("attention.sliding_window_pattern"), Value::U32(period as u32)));
    }
    for (name, size) in sizes {
        metadata.retain(|(other, _)| *other != key(name));
        metadata.push((key(name), Value::U32(*size)));
    }
    let weights = candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap();
    let mut tensors: Vec<(String, QTensor)> = Vec::new();
    for (name, tensor) in weights {
        let mut tensor = tensor.to_dtype(candle_core::DType::F32).unwrap();
        let stored = if tensor.rank() == 2 { matrices(&name) } else { GgmlDType::F32 };
        if INTERLEAVED.contains(&family) && (name.contains("q_proj") || name.contains("k_proj")) {
            tensor = interleaved(&tensor, head_dim as usize);
        }
        if gemma && name.ends_with("norm.weight") {
            tensor = (tensor + 1.0).unwrap();
        }
        // The norm before the feed-forward part is named after that in all files.
        let name = match config["model_type"].as_str() {
            Some("gemma2" | "gemma3_text" | "olmo2") => name
                .replace("post_attention_layernorm", "post_attention_norm")
                .replace("pre_feedforward_layernorm", "ffn_norm")
                .replace("post_feedforward_layernorm", "post_ffw_norm"),
            _ => name,
        };
        tensors.push((renamed(&name), QTensor::quantize(&tensor, stored).unwrap()));
    }
    tensors.sort_by(|one, other| one.0.cmp(&other.0));
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    write_gguf(&mut std::fs::File::create(to).unwrap(), &metadata, &tensors).unwrap();
}

/// Rotary halves become neighbours.
fn interleaved(tensor: &Tensor, head_dim: usize) -> Tensor {
    let (rows, columns) = (tensor.dims()[0], tensor.elem_count() / tensor.dims()[0]);
    let split = tensor.reshape((rows / head_dim, 2, head_dim / 2, columns)).unwrap();
    split.transpose(1, 2).unwrap().contiguous().unwrap().reshape(tensor.dims()).unwrap()
}

fn renamed(name: &str) -> String {
    let mut name = name.replace("model.layers.", "blk.");
    for (from, to) in [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ] {
        name = name.replace(from, to);
    }
    name
}
