//! The forms of encoders, from their `config.json`.

use std::path::Path;

use candle_transformers::models::bert::{Config, HiddenAct, PositionEmbeddingType};
use serde_json::Value as Json;

use crate::model::config::LIMITS;
use crate::{Error, Result};

/// The form of BERT or its kin, with absolute positions.
///
/// Errors name the file and the key.
pub(crate) fn bert_config(config: &Json, file: &Path) -> Result<Config> {
    let number = |key: &str| {
        let number = config[key].as_u64().and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| Error::file(file, format!("`{key}` is {}, wanted a number", config[key])))
    };
    for (key, most) in LIMITS {
        if let Some(value) = config[key].as_u64().filter(|value| *value > most as u64) {
            return Err(Error::file(file, format!("`{key}` is {value}; at most {most} are computed here")));
        }
    }
    let position_kind = config["position_embedding_type"].as_str().unwrap_or("absolute");
    if position_kind != "absolute" {
        return Err(Error::file(
            file,
            format!("`position_embedding_type` {position_kind} is not known here, only absolute"),
        ));
    }
    let hidden_act = activation(config, "hidden_act", file)?;
    Ok(Config {
        vocab_size: number("vocab_size")?,
        hidden_size: number("hidden_size")?,
        num_hidden_layers: number("num_hidden_layers")?,
        num_attention_heads: number("num_attention_heads")?,
        intermediate_size: number("intermediate_size")?,
        hidden_act,
        max_position_embeddings: number("max_position_embeddings")?,
        type_vocab_size: number("type_vocab_size").unwrap_or(2),
        layer_norm_eps: config["layer_norm_eps"].as_f64().unwrap_or(1e-12),
        pad_token_id: number("pad_token_id").unwrap_or(0),
        position_embedding_type: PositionEmbeddingType::Absolute,
        model_type: Some("bert".to_owned()),
        ..Config::default()
    })
}

/// The activation that a key names; `gelu` where it is not there.
///
/// Errors name the file and the key.
pub(crate) fn activation(config: &Json, key: &str, file: &Path) -> Result<HiddenAct> {
    match config[key].as_str().unwrap_or("gelu") {
        "gelu" => Ok(HiddenAct::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(HiddenAct::GeluApproximate),
        "relu" => Ok(HiddenAct::Relu),
        other => Err(Error::file(file, format!("`{key}` {other} is not known here (gelu, gelu_new, relu)"))),
    }
}
