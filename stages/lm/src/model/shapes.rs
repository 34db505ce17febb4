//! The tensors of a decoder: their names in model files and their shapes.

use crate::model::config::DecoderConfig;
use crate::model::family::HeadNorms;

/// The tensor of a language model's head in model files.
pub(crate) const HEAD: &str = "lm_head.weight";

/// The tensor of a reward model's head in model files.
pub(crate) const SCORE: &str = "score.weight";

/// The tensors of a decoder by their names in model files, with their shapes. A tied head is absent.
pub(crate) fn shapes(config: &DecoderConfig) -> Vec<(String, Vec<usize>)> {
    let DecoderConfig { hidden_size: hidden, intermediate_size: inner, head_dim, .. } = *config;
    let (queries, keys) = (config.heads * head_dim, config.kv_heads * head_dim);
    let [before, after, before_mlp, after_mlp] = config.family.norms.names();
    let body = config.body();
    let mut all = vec![(format!("{body}embed_tokens.weight"), vec![config.vocab_size, hidden])];
    for layer in 0..config.layers {
        let mut add = |name: &str, shape: Vec<usize>| all.push((format!("{body}layers.{layer}.{name}"), shape));
        let norm = |name: &str| format!("{name}.weight");
        before.iter().for_each(|name| add(&norm(name), vec![hidden]));
        let qkv = [("q", queries), ("k", keys), ("v", keys)];
        let fused = [("qkv", queries + 2 * keys)];
        for &(name, rows) in if config.family.fused { &fused[..] } else { &qkv[..] } {
            add(&format!("self_attn.{name}_proj.weight"), vec![rows, hidden]);
            if config.qkv_bias {
                add(&format!("self_attn.{name}_proj.bias"), vec![rows]);
            }
        }
        let widths = match config.head_norm {
            HeadNorms::None => None,
            HeadNorms::Each => Some([head_dim, head_dim]),
            HeadNorms::Whole => Some([queries, keys]),
        };
        if let Some([queries, keys]) = widths {
            add("self_attn.q_norm.weight", vec![queries]);
            add("self_attn.k_norm.weight", vec![keys]);
        }
        add("self_attn.o_proj.weight", vec![hidden, queries]);
        if config.output_bias {
            add("self_attn.o_proj.bias", vec![hidden]);
        }
        after.iter().chain(&before_mlp).for_each(|name| add(&norm(name), vec![hidden]));
        let apart = [("gate", inner, hidden), ("up", inner, hidden), ("down", hidden, inner)];
        let fused = [("gate_up", 2 * inner, hidden), ("down", hidden, inner)];
        for &(name, rows, cols) in if config.family.fused { &fused[..] } else { &apart[..] } {
            add(&format!("mlp.{name}_proj.weight"), vec![rows, cols]);
            if config.mlp_bias {
                add(&format!("mlp.{name}_proj.bias"), vec![rows]);
            }
        }
        after_mlp.iter().for_each(|name| add(&norm(name), vec![hidden]));
    }
    all.push((format!("{body}norm.weight"), vec![hidden]));
    if !config.tied {
        all.push((HEAD.to_owned(), vec![config.vocab_size, hidden]));
    }
    if config.reward {
        all.push((SCORE.to_owned(), vec![1, hidden]));
    }
    all
}

/// True for the weight of a linear layer.
pub(crate) fn is_linear(name: &str) -> bool {
    name.ends_with("_proj.weight")
}

impl DecoderConfig {
    /// Numbers in all weights, a tied head counted once.
    pub fn parameter_count(&self) -> usize {
        shapes(self).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}
