//! Adapters in PEFT's folders: `adapter_config.json` and `adapter_model.safetensors` beside a tokenizer.

use crate::model::few_bits::Held;
use crate::model::lora::{Lora, TARGETS, is_beside};
use crate::model::shapes::{HEAD, SCORE};
use crate::model::tensor_file;
use crate::model::weights::Holding;
use crate::model::written::rounded;
use crate::{DType, Decoder, DecoderConfig, Error, Result};
use candle_core::Tensor;
use models::ADAPTER_CONFIG;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

const WEIGHTS: &str = "adapter_model.safetensors";

fn read_config(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(Error::at(path))
}

/// The form that a configuration states, without its targets. A setting that would change the numbers is refused.
fn read_form(path: &Path) -> Result<Lora> {
    let config = read_config(path)?;
    let get = |key: &str| config.get(key).filter(|value| !value.is_null());
    let wrong = |key: &str, value: &Value, wanted: &str| {
        Error::file(path, format!("`{key}` is {value}; this is not computed here, wanted {wanted}"))
    };
    match get("peft_type") {
        Some(Value::String(kind)) if kind == "LORA" => (),
        other => return Err(wrong("peft_type", other.unwrap_or(&Value::Null), "\"LORA\"")),
    }
    for key in ["fan_in_fan_out", "use_dora", "lora_bias", "use_qalora"] {
        if let Some(value) = get(key).filter(|value| **value != json!(false)) {
            return Err(wrong(key, value, "false"));
        }
    }
    for key in ["rank_pattern", "alpha_pattern"] {
        if let Some(value) = get(key).filter(|value| **value != json!({})) {
            return Err(wrong(key, value, "none: one rank and alpha for all"));
        }
    }
    for key in ["layer_replication", "trainable_token_indices", "target_parameters"] {
        if let Some(value) = get(key).filter(|value| **value != json!([])) {
            return Err(wrong(key, value, "null"));
        }
    }
    if let Some(value) = get("bias").filter(|value| **value != json!("none")) {
        return Err(wrong("bias", value, "\"none\""));
    }
    let rank = get("r").and_then(Value::as_u64).filter(|rank| *rank > 0);
    let rank = rank.ok_or_else(|| wrong("r", get("r").unwrap_or(&Value::Null), "a whole number above 0"))? as usize;
    let alpha = get("lora_alpha").and_then(Value::as_f64).filter(|alpha| *alpha > 0.0);
    let alpha = alpha.ok_or_else(|| wrong("lora_alpha", get("lora_alpha").unwrap_or(&Value::Null), "above 0"))?;
    let rslora = get("use_rslora") == Some(&json!(true));
    let dropout = get("lora_dropout").unwrap_or(&json!(0.0)).clone();
    let share = dropout.as_f64().filter(|share| (0.0..1.0).contains(share));
    let share = share.ok_or_else(|| wrong("lora_dropout", &dropout, "0 up to, but without, 1"))?;
    Ok(Lora { rank, alpha, rslora, dropout: share, targets: Vec::new() })
}

/// Checks the form of an adapter and the header of its weights: their rank, and that their modules are among the
/// targets.
pub(crate) fn check_adapter(folder: &Path) -> Result<()> {
    let (config, path) = (folder.join(ADAPTER_CONFIG), folder.join(WEIGHTS));
    let rank = read_form(&config)?.rank;
    // PEFT takes a list as ends of names; other values are patterns.
    let targets: Option<Vec<String>> =
        read_config(&config)?.remove("target_modules").and_then(|targets| serde_json::from_value(targets).ok());
    for (name, shape) in tensor_file::stored_shapes(&path)? {
        let sides = [(".lora_A.", 0), (".lora_B.", 1)];
        let Some((module, side)) = sides.iter().find_map(|(mark, side)| Some((name.split_once(mark)?.0, *side))) else {
            continue;
        };
        if shape.get(side) != Some(&rank) {
            let text = format!("tensor {name} is {shape:?}, and `r` in {ADAPTER_CONFIG} is {rank}");
            return Err(Error::file(&path, text));
        }
        let is_target = |target: &String| {
            module.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if let Some(targets) = targets.as_ref().filter(|targets| !targets.iter().any(is_target)) {
            let text =
                format!("tensor {name} is of none of `target_modules` in {ADAPTER_CONFIG}: {}", targets.join(", "));
            return Err(Error::file(&path, text));
        }
    }
    Ok(())
}

/// The adapter of a folder: its form, without targets, and its tensors by name.
pub(crate) struct StoredAdapter {
    path: PathBuf,
    form: Lora,
    /// `modules_to_save` of the configuration.
    listed: Vec<String>,
    tensors: BTreeMap<String, Tensor>,
}

impl StoredAdapter {
    /// Reads the adapter of a folder.
    ///
    /// Errors name the file.
    pub fn read(folder: &Path) -> Result<StoredAdapter> {
        check_adapter(folder)?;
        let config = folder.join(ADAPTER_CONFIG);
        let form = read_form(&config)?;
        let listed = match read_config(&config)?.remove("modules_to_save") {
            None | Some(Value::Null) => Vec::new(),
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|_| Error::file(&config, format!("`modules_to_save` is {value}; wanted a list of names")))?,
        };
        let path = folder.join(WEIGHTS);
        let tensors = tensor_file::read_all(&path)?.into_iter().collect();
        Ok(StoredAdapter { path, form, listed, tensors })
    }

    /// The whole modules in here, PEFT's `modules_to_save`: names in this file and in model files.
    fn modules(&self) -> impl Iterator<Item = (&String, String)> {
        let whole = |name: &&String| !name.contains(".lora_");
        self.tensors.keys().filter(whole).map(|name| {
            let inner = name.strip_prefix("base_model.model.").unwrap_or(name);
            (name, inner.replace(".modules_to_save.", "."))
        })
    }

    /// Puts the whole modules in the place of the base's tensors. A head or a table that is saved is no longer tied.
    ///
    /// Errors name the tensor: one that the base does not have, or has in another shape.
    pub fn replace_modules(
        &self,
        config: &mut DecoderConfig,
        tensors: &mut HashMap<String, Held>,
        holding: Holding,
    ) -> Result<()> {
        let stored = |module: &&String| self.modules().any(|(_, name)| name.split('.').any(|part| part == **module));
        if let Some(module) = self.listed.iter().find(|module| !stored(module)) {
            let text = format!("`modules_to_save` of {ADAPTER_CONFIG} names `{module}`, and no tensor of it is here");
            return Err(Error::file(&self.path, text));
        }
        for (stored, name) in self.modules() {
            let table = format!("{}embed_tokens.weight", config.body());
            if config.tied && [table.as_str(), HEAD].contains(&name.as_str()) {
                config.tied = false;
                if let Some(Held::Numbers(table)) = tensors.get(&table) {
                    tensors.insert(HEAD.to_owned(), Held::Numbers(table.clone()));
                }
            }
            let tensor = &self.tensors[stored];
            let Some(old) = tensors.get_mut(&name) else {
                return Err(Error::file(&self.path, format!("tensor {stored} has no place in the base model")));
            };
            if tensor.dims() != old.dims() {
                let (got, wanted) = (tensor.dims(), old.dims());
                return Err(Error::file(&self.path, format!("tensor {stored} is {got:?}; the base wants {wanted:?}")));
            }
            *old = Held::Numbers(tensor.to_dtype(holding.dtype)?.to_device(holding.device)?);
        }
        Ok(())
    }
}

impl Decoder {
    /// Puts a stored adapter beside the linear layers.
    ///
    /// Errors name the file and the tensor: missing, of another shape, or one that there is no place for.
    pub(crate) fn take_adapter(&mut self, adapter: StoredAdapter) -> Result<()> {
        // A reward model's head is trained and saved with the adapter.
        self.saved_modules = adapter.modules().map(|(_, name)| name).filter(|name| name != SCORE).collect();
        let modules: Vec<String> = adapter.modules().map(|(stored, _)| stored.clone()).collect();
        let StoredAdapter { path, form, tensors: mut stored, .. } = adapter;
        modules.iter().for_each(|name| _ = stored.remove(name));
        let has = |target: &&&str| stored.keys().any(|name| name.split('.').any(|part| part == **target));
        let targets = TARGETS.iter().filter(has).map(|name| (*name).to_owned()).collect();
        let lora = Lora { targets, ..form };
        self.place_adapter(&lora, |name, shape| {
            let tensor = stored.remove(name).ok_or_else(|| Error::file(&path, format!("tensor {name} is missing")))?;
            if tensor.dims() != [shape.0, shape.1] {
                let got = tensor.dims();
                return Err(Error::file(&path, format!("tensor {name} is {got:?}; the base and `r` want {shape:?}")));
            }
            Ok(tensor)
        })?;
        match stored.keys().next() {
            Some(name) => Err(Error::file(&path, format!("tensor {name} has no place in the base model"))),
            None if lora.targets.is_empty() => Err(Error::file(&path, "no adapter of any linear layer in here")),
            None => Ok(()),
        }
    }

    /// Writes the adapter as PEFT reads it: `adapter_config.json` and `adapter_model.safetensors`. The base is named so
    /// that PEFT finds it from any folder: by its name and commit where it is one of the hub's cache, else by its whole
    /// path. An adapter that belongs to the base is written as a part of it.
    pub fn save_adapter(&self, to: &Path, base: &Path) -> Result<()> {
        let mut tensors = Vec::new();
        for parameter in self.parameters().into_iter().filter(|parameter| is_beside(&parameter.parts[0].0)) {
            tensors.extend(parameter.named()?);
        }
        self.write_adapter(to, base, tensors, None)
    }

    /// The same with trained tensors that are given, rounded to a dtype where one is named.
    pub(crate) fn write_adapter(
        &self,
        to: &Path,
        base: &Path,
        trained: Vec<(&str, Tensor)>,
        dtype: Option<DType>,
    ) -> Result<()> {
        let lora = self.adapter().ok_or_else(|| Error::internal("a decoder without adapter has none to save"))?;
        let joined = match &self.base_adapter {
            Some(base) => Some(self.joined_adapter(base, &trained.iter().cloned().collect())?),
            None => None,
        };
        let (lora, tensors) = match &joined {
            Some((lora, tensors)) => {
                (lora, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect())
            }
            None => (lora, trained),
        };
        let alpha = if lora.alpha.fract() == 0.0 { json!(lora.alpha as u64) } else { json!(lora.alpha) };
        let (base, revision) = match models::hub_name(base) {
            Some((name, commit)) => (name, Some(commit)),
            None => (base.canonicalize().map_err(Error::io(base))?.to_string_lossy().into_owned(), None),
        };
        let mut config = json!({
            "base_model_name_or_path": base,
            "revision": revision,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": alpha,
            "lora_dropout": lora.dropout,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": lora.rank,
            "target_modules": if self.config().wrapped { self.adapted(lora)? } else { lora.targets.clone() },
            "task_type": "CAUSAL_LM",
        });
        if self.score.is_some() {
            config["modules_to_save"] = json!(["score"]);
            config["task_type"] = json!("SEQ_CLS");
        }
        if lora.rslora {
            config["use_rslora"] = json!(true);
        }
        let path = to.join(ADAPTER_CONFIG);
        let text = serde_json::to_string_pretty(&config).map_err(Error::at(&path))? + "\n";
        std::fs::write(&path, text).map_err(Error::io(&path))?;
        let head = format!("base_model.model.{SCORE}");
        let filed =
            |(name, tensor): (&'_ str, Tensor)| (if name == SCORE { head.clone() } else { name.to_owned() }, tensor);
        let tensors: Vec<(String, Tensor)> = tensors.into_iter().map(filed).collect();
        let tensors: Vec<(&str, Tensor)> = tensors.iter().map(|(name, tensor)| (&**name, tensor.clone())).collect();
        let path = to.join(WEIGHTS);
        match dtype {
            Some(dtype) => tensor_file::save(&path, &rounded(&path, &tensors, dtype)?),
            None => tensor_file::save(&path, &tensors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lora::tensor_names;

    #[test]
    fn names_are_those_of_peft() {
        let [a, b] = tensor_names("model.layers.3.self_attn.q_proj");
        assert_eq!(a, "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight");
        assert_eq!(b, "base_model.model.model.layers.3.self_attn.q_proj.lora_B.weight");
        assert!(is_beside(&a) && !is_beside("model.layers.3.self_attn.q_proj.weight"));
    }
}
