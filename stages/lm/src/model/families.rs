//! The families of decoders that are computed, each of which is one constant. The README of this crate says how one is
//! added.

use crate::model::family::{
    Activation, Bias, Defaults, Family, Gguf, MultiplierKey, MultiplierKeys, Norm, Rotation, Window,
};
use crate::{Error, Result};

/// All families. Of two with one architecture in GGUF files, the first whose windows fit is a file's.
pub(crate) const FAMILIES: [&Family; 6] = [&LLAMA, &QWEN2, &QWEN3, &MISTRAL, &SMOLLM3, &GRANITE];

/// Llama 1 to 3 and what shares its form.
const LLAMA: Family = Family {
    name: "llama",
    norm: Norm::Rms,
    activation: Activation::Silu,
    qkv_bias: Bias::Said("attention_bias"),
    output_bias: Bias::Said("attention_bias"),
    mlp_bias: Bias::Said("mlp_bias"),
    head_norm: false,
    window: Window::Never,
    rotation: Rotation::Every,
    multipliers: MultiplierKeys::NONE,
    defaults: Defaults { kv_heads: None, head_dim: None, max_positions: 2048, theta: 10_000.0, tied: false },
    gguf: Gguf { architecture: "llama", interleaved: true },
};

/// Qwen2 and Qwen2.5: Llama with biases on queries, keys and values, and a sliding window in later blocks.
const QWEN2: Family = Family {
    name: "qwen2",
    qkv_bias: Bias::Always,
    output_bias: Bias::Never,
    mlp_bias: Bias::Never,
    window: Window::Later,
    defaults: Defaults { kv_heads: Some(32), max_positions: 32_768, ..LLAMA.defaults },
    gguf: Gguf { architecture: "qwen2", interleaved: false },
    ..LLAMA
};

/// Qwen3: Qwen2 with a norm on queries and keys in place of the biases.
const QWEN3: Family = Family {
    name: "qwen3",
    qkv_bias: Bias::Said("attention_bias"),
    output_bias: Bias::Said("attention_bias"),
    head_norm: true,
    defaults: Defaults { head_dim: Some(128), ..QWEN2.defaults },
    gguf: Gguf { architecture: "qwen3", interleaved: false },
    ..QWEN2
};

/// Mistral: Llama with a sliding window and no biases.
const MISTRAL: Family = Family {
    name: "mistral",
    qkv_bias: Bias::Never,
    output_bias: Bias::Never,
    mlp_bias: Bias::Never,
    window: Window::Every,
    defaults: Defaults { kv_heads: Some(8), max_positions: 131_072, ..LLAMA.defaults },
    ..LLAMA
};

/// SmolLM3: Llama without rotary positions in some blocks, which may have windows.
const SMOLLM3: Family = Family {
    name: "smollm3",
    window: Window::Unrotated,
    rotation: Rotation::Listed,
    defaults: Defaults { kv_heads: Some(4), max_positions: 32_768, theta: 2e6, tied: true, ..LLAMA.defaults },
    gguf: Gguf { architecture: "smollm3", ..LLAMA.gguf },
    ..LLAMA
};

/// Granite 3: Llama with multipliers.
const GRANITE: Family = Family {
    name: "granite",
    multipliers: MultiplierKeys {
        embedding: Some(MultiplierKey { key: "embedding_multiplier", gguf: "embedding_scale" }),
        attention: Some(MultiplierKey { key: "attention_multiplier", gguf: "attention.scale" }),
        residual: Some(MultiplierKey { key: "residual_multiplier", gguf: "residual_scale" }),
        logits: Some(MultiplierKey { key: "logits_scaling", gguf: "logit_scale" }),
    },
    gguf: Gguf { architecture: "granite", ..LLAMA.gguf },
    ..LLAMA
};

/// The family of a `model_type`.
///
/// Errors: none of that name, or no name.
pub(crate) fn named(model_type: Option<&str>) -> Result<&'static Family> {
    let known = FAMILIES.into_iter().find(|family| Some(family.name) == model_type);
    known.ok_or_else(|| {
        let got = model_type.map_or("is missing".to_owned(), |name| format!("is \"{name}\""));
        let families = names();
        Error::input(format!(
            "`model_type` {got}; computed are {families}; a judge of another family is asked through an endpoint"
        ))
    })
}

/// Their names, to be read.
pub(crate) fn names() -> String {
    let (last, others) = FAMILIES.split_last().expect("there are families");
    let others: Vec<&str> = others.iter().map(|family| family.name).collect();
    format!("{} and {}", others.join(", "), last.name)
}
