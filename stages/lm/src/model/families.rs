//! The families of decoders that are computed, each of which is one constant. The README of this crate says how one is
//! added.

use crate::model::family::{
    Activation, Bias, CapKeys, Defaults, Family, Gguf, HeadNorms, Multiplier, MultiplierKey, MultiplierKeys, Norm,
    Norms, Rotation, Window, WindowedRope,
};
use crate::{Error, Result};

/// All families. Of two with one architecture in GGUF files, the first whose windows fit is a file's.
pub(crate) const FAMILIES: [&Family; 13] = [
    &LLAMA,
    &QWEN2,
    &QWEN3,
    &MISTRAL,
    &SMOLLM3,
    &GRANITE,
    &GEMMA,
    &GEMMA2,
    &GEMMA3,
    &OLMO2,
    &OLMO3,
    &PHI3,
    &MINISTRAL3,
];

/// Models with a decoder behind a part for images, whose keys stand in `text_config`: their `model_type`, and that of
/// the decoder where `text_config` names none.
pub(crate) const WRAPPERS: [(&str, &str); 2] = [("gemma3", "gemma3_text"), ("mistral3", "mistral")];

/// The form of Llama's files, whose rotary halves stand beside each other.
const LLAMA_FILES: Gguf = Gguf { architecture: "llama", interleaved: true };

/// Llama 1 to 3 and what shares its form.
const LLAMA: Family = Family {
    name: "llama",
    norm: Norm::Rms,
    norms: Norms::Before,
    activation: Activation::Silu,
    qkv_bias: Bias::Keyed("attention_bias"),
    output_bias: Bias::Keyed("attention_bias"),
    mlp_bias: Bias::Keyed("mlp_bias"),
    head_norm: HeadNorms::None,
    fused: false,
    window: Window::Never,
    rotation: Rotation::Every,
    windowed_rope: None,
    partial_rotation: false,
    query_scale: false,
    multipliers: MultiplierKeys::NONE,
    caps: CapKeys::NONE,
    defaults: Defaults {
        vocab: None,
        heads: None,
        kv_heads: None,
        head_dim: None,
        max_positions: 2048,
        eps: 1e-6,
        theta: 10_000.0,
        tied: false,
    },
    gguf: Some(LLAMA_FILES),
};

/// Qwen2 and Qwen2.5: Llama with biases on queries, keys and values, and a sliding window in later blocks.
const QWEN2: Family = Family {
    name: "qwen2",
    qkv_bias: Bias::Always,
    output_bias: Bias::Never,
    mlp_bias: Bias::Never,
    window: Window::Later,
    defaults: Defaults { kv_heads: Some(32), max_positions: 32_768, ..LLAMA.defaults },
    gguf: Some(Gguf { architecture: "qwen2", interleaved: false }),
    ..LLAMA
};

/// Qwen3: Qwen2 with a norm on queries and keys in place of the biases.
const QWEN3: Family = Family {
    name: "qwen3",
    qkv_bias: Bias::Keyed("attention_bias"),
    output_bias: Bias::Keyed("attention_bias"),
    head_norm: HeadNorms::Each,
    defaults: Defaults { head_dim: Some(128), ..QWEN2.defaults },
    gguf: Some(Gguf { architecture: "qwen3", interleaved: false }),
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
    gguf: Some(Gguf { architecture: "smollm3", ..LLAMA_FILES }),
    ..LLAMA
};

/// Granite 3: Llama with multipliers.
const GRANITE: Family = Family {
    name: "granite",
    multipliers: MultiplierKeys {
        embedding: Multiplier::Keyed(MultiplierKey { key: "embedding_multiplier", gguf: "embedding_scale" }),
        attention: Multiplier::Keyed(MultiplierKey { key: "attention_multiplier", gguf: "attention.scale" }),
        residual: Multiplier::Keyed(MultiplierKey { key: "residual_multiplier", gguf: "residual_scale" }),
        logits: Multiplier::Keyed(MultiplierKey { key: "logits_scaling", gguf: "logit_scale" }),
    },
    gguf: Some(Gguf { architecture: "granite", ..LLAMA_FILES }),
    ..LLAMA
};

/// Gemma 1: norms with 1 + w, a gate by GELU, embeddings times the root of their width.
const GEMMA: Family = Family {
    name: "gemma",
    norm: Norm::RmsPlusOne,
    activation: Activation::GeluTanh("hidden_act"),
    mlp_bias: Bias::Never,
    multipliers: MultiplierKeys { embedding: Multiplier::RootOfWidth, ..MultiplierKeys::NONE },
    defaults: Defaults { kv_heads: Some(16), head_dim: Some(256), max_positions: 8192, tied: true, ..LLAMA.defaults },
    gguf: Some(Gguf { architecture: "gemma", interleaved: false }),
    ..LLAMA
};

/// Gemma 2: norms before and after each part of a block, a window in every second block, bounds of scores and logits.
const GEMMA2: Family = Family {
    name: "gemma2",
    norms: Norms::Both,
    activation: Activation::GeluTanh("hidden_activation"),
    window: Window::Alternating { period: 2, key: None },
    multipliers: MultiplierKeys {
        attention: Multiplier::InverseRoot("query_pre_attn_scalar", 256),
        ..GEMMA.multipliers
    },
    caps: CapKeys {
        attention: Some(("attn_logit_softcapping", Some(50.0))),
        logits: Some(("final_logit_softcapping", Some(30.0))),
    },
    defaults: Defaults { kv_heads: Some(4), ..GEMMA.defaults },
    gguf: Some(Gguf { architecture: "gemma2", interleaved: false }),
    ..GEMMA
};

/// Gemma 3: norms on queries and keys in place of the bounds; all but every sixth block have windows, and a rotation
/// of their own.
const GEMMA3: Family = Family {
    name: "gemma3_text",
    head_norm: HeadNorms::Each,
    window: Window::Alternating { period: 6, key: Some("sliding_window_pattern") },
    windowed_rope: Some(WindowedRope { key: Some("rope_local_base_freq"), theta: 10_000.0 }),
    caps: CapKeys { attention: None, logits: Some(("final_logit_softcapping", None)) },
    // Configs of the larger ones leave what the smallest of them has out.
    defaults: Defaults { vocab: Some(262_208), heads: Some(8), max_positions: 131_072, theta: 1e6, ..GEMMA2.defaults },
    gguf: Some(Gguf { architecture: "gemma3", interleaved: false }),
    ..GEMMA2
};

/// OLMo 2: norms after each part of a block and none before, and of all queries and all keys together.
const OLMO2: Family = Family {
    name: "olmo2",
    norms: Norms::After,
    mlp_bias: Bias::Never,
    head_norm: HeadNorms::Whole,
    defaults: Defaults { eps: 1e-5, ..LLAMA.defaults },
    gguf: Some(Gguf { architecture: "olmo2", interleaved: false }),
    ..LLAMA
};

/// OLMo 3: OLMo 2 with windows in all but every fourth block, which has a rotation of its own.
const OLMO3: Family = Family {
    name: "olmo3",
    window: Window::Alternating { period: 4, key: None },
    windowed_rope: Some(WindowedRope { key: None, theta: 500_000.0 }),
    defaults: Defaults { theta: 500_000.0, ..OLMO2.defaults },
    gguf: None,
    ..OLMO2
};

/// Phi 3 and 4: Llama with fused matrices, a rotation of a part of each head, and one window for all blocks.
const PHI3: Family = Family {
    name: "phi3",
    qkv_bias: Bias::Never,
    output_bias: Bias::Never,
    mlp_bias: Bias::Never,
    fused: true,
    window: Window::Keyed,
    partial_rotation: true,
    defaults: Defaults { max_positions: 4096, eps: 1e-5, ..LLAMA.defaults },
    gguf: None,
    ..LLAMA
};

/// Ministral 3: Mistral with queries that grow beyond the first context.
const MINISTRAL3: Family = Family {
    name: "ministral3",
    window: Window::Keyed,
    query_scale: true,
    defaults: Defaults { head_dim: Some(128), max_positions: 262_144, eps: 1e-5, theta: 1e6, ..MISTRAL.defaults },
    gguf: None,
    ..MISTRAL
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
