//! Adapters in PEFT's folders: `adapter_config.json` and `adapter_model.safetensors` beside a tokenizer.

use crate::error::is_there;
use crate::model::few_bits::Held;
use crate::model::lora::{Lora, is_beside, tensor_names};
use crate::model::shapes::{HEAD, SCORE, is_linear, shapes};
use crate::model::tensor_file::{self, Stored, dtype_of};
use crate::model::weights::Holding;
use crate::model::written::rounded;
use crate::{DType, Decoder, DecoderConfig, Error, Result};
use candle_core::Tensor;
use models::ADAPTER_CONFIG;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

const WEIGHTS: &str = "adapter_model.safetensors";

/// Keys of forms that are not computed here.
const NOT_COMPUTED: [&str; 9] = [
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
];

/// Ways of PEFT to begin an adapter that leave the base's weights as they are, beside true and false.
const PLAIN_BEGINNINGS: [&str; 3] = ["gaussian", "eva", "orthogonal"];
const BEGINNINGS: &str = "one that leaves the base's weights as they are; save it anew with PEFT's \
                          `path_initial_model_for_weight_conversion`, or merged";

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
    for key in NOT_COMPUTED {
        if let Some(value) = get(key).filter(|value| **value != json!([])) {
            return Err(wrong(key, value, "null"));
        }
    }
    if let Some(value) = get("bias").filter(|value| **value != json!("none")) {
        return Err(wrong("bias", value, "\"none\""));
    }
    // The others change the base's weights, again whenever PEFT reads such a folder.
    let fresh = get("init_lora_weights").filter(|value| !value.is_boolean());
    if let Some(value) = fresh.filter(|value| !PLAIN_BEGINNINGS.iter().any(|plain| *value == plain)) {
        return Err(wrong("init_lora_weights", value, BEGINNINGS));
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

/// Checks an adapter against the form of its base: its configuration and the header of its weights, of which every tensor
/// has to have its place. `reward` is true for one with the head of a reward model.
///
/// Errors name the file and the tensor: missing, of another shape, or one that there is no place for.
pub(crate) fn check_adapter(folder: &Path, base: &DecoderConfig, reward: bool) -> Result<()> {
    let (config, path) = (folder.join(ADAPTER_CONFIG), folder.join(WEIGHTS));
    let rank = read_form(&config)?.rank;
    let keys = read_config(&config)?;
    // PEFT takes a list as ends of names; other values are patterns.
    let targets: Option<Vec<String>> =
        keys.get("target_modules").and_then(|targets| serde_json::from_value(targets.clone()).ok());
    let is_target = |module: &str, target: &String| {
        module.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let (layers, whole) = (layers(base), modules(base, reward));
    let sides = layers.iter().flat_map(|(module, [rows, inputs])| {
        let [a, b] = tensor_names(module);
        [(a, vec![rank, *inputs]), (b, vec![*rows, rank])]
    });
    let beside: BTreeMap<String, Vec<usize>> = sides.collect();
    if !is_there(&path)? {
        return Err(Error::file(&path, "is not there; PEFT writes it of adapter_model.bin: `save_pretrained(TO)`"));
    }
    let header = tensor_file::header(&path)?;
    for (name, Stored { dtype, shape, .. }) in &header {
        dtype_of(&path, name, *dtype)?;
        let sides = [(".lora_A.", 0), (".lora_B.", 1)];
        let part = sides.iter().find_map(|(mark, side)| Some((name.split_once(mark)?.0, *side)));
        if part.is_some_and(|(_, side)| shape.get(side) != Some(&rank)) {
            let text = format!("tensor {name} is {shape:?}, and `r` in {ADAPTER_CONFIG} is {rank}");
            return Err(Error::file(&path, text));
        }
        if let (Some((module, _)), Some(targets)) = (part, &targets)
            && !targets.iter().any(|target| is_target(module, target))
        {
            let text =
                format!("tensor {name} is of none of `target_modules` in {ADAPTER_CONFIG}: {}", targets.join(", "));
            return Err(Error::file(&path, text));
        }
        let (wanted, none) = match is_whole(name) {
            true => (whole.get(&module_of(name)), "has no place in the base model"),
            false => (beside.get(name), NO_LAYER),
        };
        match wanted {
            Some(wanted) if wanted == shape => (),
            Some(wanted) => {
                return Err(Error::file(&path, format!("tensor {name} is {shape:?}; the base wants {wanted:?}")));
            }
            None => return Err(Error::file(&path, format!("tensor {name} {none}"))),
        }
    }
    if header.keys().all(|name| is_whole(name)) {
        return Err(Error::file(&path, "no adapter of any linear layer in here"));
    }
    // Patterns and such keys leave layers out.
    let is_set = |key: &&str| keys.get(*key).is_some_and(|value| !value.is_null());
    let named = targets.as_ref().filter(|_| !["layers_to_transform", "exclude_modules"].iter().any(is_set));
    for module in layers.keys() {
        let is_named = named.is_some_and(|targets| targets.iter().any(|target| is_target(module, target)));
        let both = tensor_names(module);
        let there = both.iter().filter(|name| header.contains_key(*name)).count();
        if let Some(name) = both.iter().find(|name| (is_named || there > 0) && !header.contains_key(*name)) {
            return Err(Error::file(&path, format!("tensor {name} is missing")));
        }
    }
    let holds = |name: &String, module: &String| format!(".{}", module_of(name)).contains(&format!(".{module}."));
    let stored = |module: &&String| header.keys().any(|name| is_whole(name) && holds(name, module));
    match listed_modules(&config)?.iter().find(|module| !stored(module)) {
        None => Ok(()),
        Some(module) => {
            let text = format!("`modules_to_save` of {ADAPTER_CONFIG} names `{module}`, and no tensor of it is here");
            Err(Error::file(&path, text))
        }
    }
}

/// What is wrong with a tensor of an adapter that has no place.
const NO_LAYER: &str = "is beside no linear layer of the base's blocks: name the base that it was trained over, or, where it \
                        adapts a head or a table, merge it with PEFT (`merge_and_unload`)";

/// The linear layers of a base by their names in model files, with their outputs and inputs.
fn layers(base: &DecoderConfig) -> BTreeMap<String, [usize; 2]> {
    let linear = shapes(base).into_iter().filter(|(name, _)| is_linear(name));
    linear.map(|(name, shape)| (name.trim_end_matches(".weight").to_owned(), [shape[0], shape[1]])).collect()
}

/// The tensors of a model that an adapter may hold whole, by their names in model files, with their shapes.
fn modules(base: &DecoderConfig, reward: bool) -> BTreeMap<String, Vec<usize>> {
    let mut all: BTreeMap<String, Vec<usize>> = shapes(base).into_iter().collect();
    match reward {
        true => all.insert(SCORE.to_owned(), vec![1, base.hidden_size]),
        false => all.insert(HEAD.to_owned(), vec![base.vocab_size, base.hidden_size]),
    };
    all
}

/// True for a tensor of a whole module, PEFT's `modules_to_save`.
fn is_whole(name: &str) -> bool {
    // Beside an adapter of a head or a table stands what it adapts.
    !name.contains(".lora_") && !name.contains(".base_layer.")
}

/// The name in model files of a tensor of a whole module.
fn module_of(name: &str) -> String {
    name.strip_prefix("base_model.model.").unwrap_or(name).replace(".modules_to_save.", ".")
}

/// `modules_to_save` of a configuration.
fn listed_modules(config: &Path) -> Result<Vec<String>> {
    match read_config(config)?.remove("modules_to_save") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|_| Error::file(config, format!("`modules_to_save` is {value}; wanted a list of names"))),
    }
}

/// The adapter of a folder: its form, without targets, and its tensors by name.
pub(crate) struct StoredAdapter {
    form: Lora,
    tensors: BTreeMap<String, Tensor>,
}

impl StoredAdapter {
    /// Reads the adapter of a folder over a base of some form.
    ///
    /// Errors: as [`check_adapter`].
    pub fn read(folder: &Path, base: &DecoderConfig, reward: bool) -> Result<StoredAdapter> {
        check_adapter(folder, base, reward)?;
        let form = read_form(&folder.join(ADAPTER_CONFIG))?;
        Ok(StoredAdapter { form, tensors: tensor_file::read_all(&folder.join(WEIGHTS))?.into_iter().collect() })
    }

    /// The whole modules in here: names in this file and in model files.
    fn modules(&self) -> impl Iterator<Item = (&String, String)> {
        self.tensors.keys().filter(|name| is_whole(name)).map(|name| (name, module_of(name)))
    }

    /// Puts the whole modules in the place of the base's tensors. A head or a table that is saved is no longer tied.
    pub fn replace_modules(
        &self,
        config: &mut DecoderConfig,
        tensors: &mut HashMap<String, Held>,
        holding: Holding,
    ) -> Result<()> {
        for (stored, name) in self.modules() {
            let table = format!("{}embed_tokens.weight", config.body());
            if config.tied && !config.reward && [table.as_str(), HEAD].contains(&name.as_str()) {
                config.tied = false;
                if let Some(Held::Numbers(table)) = tensors.get(&table) {
                    tensors.insert(HEAD.to_owned(), Held::Numbers(table.clone()));
                }
            }
            let tensor = self.tensors[stored].to_dtype(holding.dtype)?.to_device(holding.device)?;
            tensors.insert(name, Held::Numbers(tensor));
        }
        Ok(())
    }
}

impl Decoder {
    /// Puts a stored adapter beside the linear layers.
    pub(crate) fn take_adapter(&mut self, adapter: StoredAdapter) -> Result<()> {
        // A reward model's head is trained and saved with the adapter.
        self.saved_modules = adapter.modules().map(|(_, name)| name).filter(|name| name != SCORE).collect();
        let StoredAdapter { form, tensors } = adapter;
        let targets = self.named_targets(|module| tensors.contains_key(&tensor_names(module)[0]))?;
        let missing = |name: &str| Error::internal(format!("tensor {name} was not seen to be missing"));
        self.place_adapter(&Lora { targets, ..form }, |name, _| tensors.get(name).cloned().ok_or_else(|| missing(name)))
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

    #[test]
    fn names_are_those_of_peft() {
        let [a, b] = tensor_names("model.layers.3.self_attn.q_proj");
        assert_eq!(a, "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight");
        assert_eq!(b, "base_model.model.model.layers.3.self_attn.q_proj.lora_B.weight");
        assert!(is_beside(&a) && !is_beside("model.layers.3.self_attn.q_proj.weight"));
    }
}
