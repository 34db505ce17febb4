//! Model folders: written and read again, in shards, in half precision, and damaged.

use crate::common;

use candle_core::{DType, safetensors};
use common::{MODELS, numbers, oracle, rows};
use lm::{Decoder, DecoderConfig, Device, Error, Sequence};
use std::collections::HashMap;
use std::path::Path;

fn sequences(model: &str) -> Vec<Sequence> {
    let numbers = numbers(model);
    rows(&numbers).iter().take(3).map(|row| row.sequence()).collect()
}

fn scores(decoder: &Decoder, sequences: &[Sequence]) -> Vec<f64> {
    let sequences: Vec<&Sequence> = sequences.iter().collect();
    decoder.score(&sequences, false, 4096).unwrap().iter().map(|s| s.response).collect()
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_saved_model_is_the_same_model() {
    for model in MODELS {
        let decoder = Decoder::load(&oracle(model), &Device::Cpu).unwrap();
        let folder = tempfile::tempdir().unwrap();
        decoder.save(folder.path()).unwrap();
        for file in ["config.json", "generation_config.json"] {
            assert_eq!(json(&folder.path().join(file)), json(&oracle(model).join(file)), "{model}: {file}");
        }
        let (was, is) = (oracle(model).join("model.safetensors"), folder.path().join("model.safetensors"));
        let (was, is) = (safetensors::load(was, &Device::Cpu).unwrap(), safetensors::load(is, &Device::Cpu).unwrap());
        assert_eq!(was.len(), is.len(), "{model}: a tied head is not written");
        for (name, tensor) in &was {
            let flat = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(is[name].dims(), tensor.dims(), "{model}: {name}");
            assert_eq!(flat(&is[name]), flat(tensor), "{model}: {name}");
        }
    }
}

/// As models that embed texts are stored: bodies alone, whose names begin with nothing.
#[test]
fn a_body_of_bare_names_is_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(oracle("llama").join("config.json"), folder.path().join("config.json")).unwrap();
    let tensors = safetensors::load(oracle("llama").join("model.safetensors"), &Device::Cpu).unwrap();
    let bare = tensors.into_iter().map(|(name, tensor)| (name.trim_start_matches("model.").to_owned(), tensor));
    safetensors::save(&bare.collect::<HashMap<_, _>>(), folder.path().join("model.safetensors")).unwrap();
    let load = |folder: &Path| Decoder::load(folder, &Device::Cpu).unwrap();
    let sequences = sequences("llama");
    assert_eq!(scores(&load(folder.path()), &sequences), scores(&load(&oracle("llama")), &sequences));
}

#[test]
fn shards_and_half_precision_are_read() {
    let sequences = sequences("llama3");
    let want = scores(&Decoder::load(&oracle("llama3"), &Device::Cpu).unwrap(), &sequences);
    let tensors = safetensors::load(oracle("llama3").join("model.safetensors"), &Device::Cpu).unwrap();
    for (dtype, name, tolerance) in
        [(DType::F32, "float32", 1e-9), (DType::BF16, "bfloat16", 3.0), (DType::F16, "float16", 0.3)]
    {
        let folder = tempfile::tempdir().unwrap();
        let mut config = json(&oracle("llama3").join("config.json"));
        config.as_object_mut().unwrap().remove("dtype");
        config["torch_dtype"] = name.into();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let mut map = serde_json::Map::new();
        let mut shards = [HashMap::new(), HashMap::new()];
        for (i, (tensor, value)) in tensors.iter().enumerate() {
            shards[i % 2].insert(tensor.clone(), value.to_dtype(dtype).unwrap());
            map.insert(tensor.clone(), format!("model-{}-of-2.safetensors", i % 2).into());
        }
        for (i, shard) in shards.iter().enumerate() {
            safetensors::save(shard, folder.path().join(format!("model-{i}-of-2.safetensors"))).unwrap();
        }
        let index = serde_json::json!({"metadata": {}, "weight_map": map});
        std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        let decoder = Decoder::load(folder.path(), &Device::Cpu).unwrap();
        for (got, want) in scores(&decoder, &sequences).iter().zip(&want) {
            assert!((got - want).abs() < tolerance, "{name}: {got}, want {want}");
        }
        // The file has the dtype of the weights, and config.json names it in its own style.
        let again = tempfile::tempdir().unwrap();
        decoder.save(again.path()).unwrap();
        assert_eq!(json(&again.path().join("config.json"))["torch_dtype"], "float32");
        assert!(json(&again.path().join("config.json")).get("dtype").is_none());
        std::fs::remove_file(folder.path().join("model-1-of-2.safetensors")).unwrap();
        let error = Decoder::load(folder.path(), &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("model-1-of-2.safetensors"), "{error}");
    }
}

#[test]
fn damaged_folders_are_errors_that_name_the_file() {
    let whole = std::fs::read(oracle("llama").join("model.safetensors")).unwrap();
    let config = std::fs::read(oracle("llama").join("config.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let load = || Decoder::load(folder.path(), &Device::Cpu).map(|_| ()).unwrap_err();
    assert!(load().to_string().contains("config.json"));
    std::fs::write(folder.path().join("config.json"), &config).unwrap();
    assert!(load().to_string().contains("no model.safetensors"));
    let path = folder.path().join("model.safetensors");
    for bytes in [&whole[..0], &whole[..5], &whole[..100], &whole[..whole.len() - 4], &[255; 64], &config] {
        std::fs::write(&path, bytes).unwrap();
        let error = load();
        assert!(error.to_string().contains("model.safetensors: not a whole"), "{error}");
        assert!(error.is_data());
    }
    let change = |change: &dyn Fn(&mut HashMap<String, candle_core::Tensor>)| {
        let mut tensors = safetensors::load_buffer(&whole, &Device::Cpu).unwrap();
        change(&mut tensors);
        safetensors::save(&tensors, &path).unwrap();
        load().to_string()
    };
    let name = "model.layers.1.mlp.up_proj.weight";
    assert!(change(&|t| drop(t.remove(name))).contains(&format!("tensor {name} is missing (1 in all)")));
    let transposed = change(&|t| drop(t.insert(name.into(), t[name].t().unwrap().contiguous().unwrap())));
    assert!(transposed.contains(&format!("tensor {name} is [64, 160]; config.json wants [160, 64]")), "{transposed}");
    let bias =
        change(&|t| drop(t.insert("model.layers.1.self_attn.q_proj.bias".into(), t["model.norm.weight"].clone())));
    assert!(bias.contains("q_proj.bias has no place in this architecture"), "{bias}");
}

#[test]
fn a_second_head_beside_a_tied_one_has_to_be_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = json(&oracle("llama").join("config.json"));
    config["tie_word_embeddings"] = true.into();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let tensors = safetensors::load(oracle("llama").join("model.safetensors"), &Device::Cpu).unwrap();
    let load = |head: candle_core::Tensor| {
        let mut tensors = tensors.clone();
        tensors.insert("lm_head.weight".to_owned(), head);
        safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
        Decoder::load(folder.path(), &Device::Cpu).map(|_| ()).map_err(|error| error.to_string())
    };
    let table = &tensors["model.embed_tokens.weight"];
    assert_eq!(load(table.clone()), Ok(()));
    let error = load((table * 2.0).unwrap()).unwrap_err();
    assert!(error.contains("lm_head.weight differs") && error.contains("say false there"), "{error}");
}

#[test]
fn sizes_beyond_any_model_are_refused_before_anything_is_allocated() {
    for key in ["num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "num_attention_heads"] {
        let mut config = json(&oracle("llama").join("config.json"));
        config[key] = 100_000_000_000_u64.into();
        let config = config.as_object().unwrap().clone();
        let error = DecoderConfig::from_json(config).unwrap_err().to_string();
        assert!(error.contains(key) || error.contains("100000000000"), "{error}");
    }
}

#[test]
fn a_fresh_model_is_a_function_of_its_seed() {
    let config = DecoderConfig::from_folder(&oracle("qwen2")).unwrap();
    let sequences = sequences("qwen2");
    let fresh = |seed| Decoder::init(config.clone(), seed, &Device::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fresh(1).save(folder.path()).unwrap();
    let tensors = safetensors::load(folder.path().join("model.safetensors"), &Device::Cpu).unwrap();
    let numbers = |name: &str| tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(numbers("model.layers.0.self_attn.q_proj.bias").iter().all(|&x| x == 0.0));
    assert!(numbers("model.norm.weight").iter().all(|&x| x == 1.0));
    let embeddings = numbers("model.embed_tokens.weight");
    assert!(embeddings[..64].iter().all(|&x| x == 0.0), "the padding token");
    let deviation = (embeddings[64..].iter().map(|x| x * x).sum::<f32>() / (embeddings.len() - 64) as f32).sqrt();
    assert!((deviation / 0.02 - 1.0).abs() < 0.02, "{deviation}");
    assert_eq!(scores(&fresh(1), &sequences), scores(&fresh(1), &sequences));
    assert_ne!(scores(&fresh(1), &sequences), scores(&fresh(2), &sequences));
    // Every token of 640 about equally likely.
    let tokens = (sequences[0].ids.len() - sequences[0].start) as f64;
    assert!((scores(&fresh(1), &sequences)[0] / tokens + 640f64.ln()).abs() < 0.1);
    assert_eq!(fresh(1).config().parameter_count(), tensors.values().map(|t| t.elem_count()).sum::<usize>());
}

#[test]
fn states_of_shared_prefixes_are_those_of_each_alone() {
    let decoder = Decoder::load(&oracle("mistral"), &Device::Cpu).unwrap();
    let sequences = sequences("mistral");
    let mut ids: Vec<&[u32]> = sequences.iter().map(|s| &s.ids[..]).collect();
    ids.push(&sequences[0].ids[..sequences[0].start]);
    let together = decoder.states(&ids, 4096).unwrap();
    for (ids, states) in ids.iter().zip(together) {
        let alone = decoder.states(&[ids], 4096).unwrap().remove(0);
        assert_eq!(states.dims(), [ids.len(), 64]);
        let worst = (alone - states).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(worst.to_scalar::<f32>().unwrap() < 1e-4);
    }
}

#[test]
fn a_tokenizer_is_copied_with_its_template() {
    let folder = tempfile::tempdir().unwrap();
    lm::copy_tokenizer(&oracle("llama"), folder.path()).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]);
    let error = lm::copy_tokenizer(&folder.path().join("nowhere"), folder.path()).unwrap_err().to_string();
    assert!(error.contains("nowhere/tokenizer.json") && error.contains("is not there"), "{error}");
}

#[test]
fn an_exported_model_is_the_same_model_in_the_dtype_it_had() {
    let sequences = sequences("qwen2");
    for dtype in [DType::F32, DType::BF16] {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let decoder = Decoder::load_as(&oracle("qwen2"), &Device::Cpu, dtype).unwrap();
        decoder.save(from.path()).unwrap();
        lm::copy_tokenizer(&oracle("qwen2"), from.path()).unwrap();
        lm::export(from.path(), to.path(), None).unwrap();
        let names = |folder: &Path| {
            let mut names: Vec<_> =
                std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(to.path()), names(from.path()));
        for name in names(from.path()) {
            let read = |folder: &Path| std::fs::read(folder.join(&name)).unwrap();
            assert!(read(to.path()) == read(from.path()), "{name:?}");
        }
        let again = Decoder::load_as(to.path(), &Device::Cpu, dtype).unwrap();
        assert_eq!(scores(&again, &sequences), scores(&decoder, &sequences));
    }
}

/// A link to this fails when it is read, as a broken disk does.
const BROKEN: &str = "/proc/self/mem";

#[test]
#[cfg(target_os = "linux")]
fn what_the_system_cannot_read_is_its_error_and_not_the_models() {
    let from = oracle("llama");
    for name in ["tokenizer.json", "config.json", "chat_template.jinja", "model.safetensors", "tokenizer_config.json"] {
        // A disk that fails, and a name that cannot even be looked at.
        for target in [BROKEN, name] {
            let folder = tempfile::tempdir().unwrap();
            for entry in std::fs::read_dir(&from).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
            }
            let path = folder.path().join(name);
            let _ = std::fs::remove_file(&path);
            std::os::unix::fs::symlink(target, &path).unwrap();
            let error = lm::check_decoder(folder.path()).unwrap_err();
            let is_systems = matches!(&error, Error::Io { path: at, .. } if *at == path);
            assert!(is_systems, "{name} -> {target}: {error}");
            // Once it can be read again, it is.
            std::fs::remove_file(&path).unwrap();
            if from.join(name).exists() {
                std::fs::copy(from.join(name), &path).unwrap();
            }
            lm::check_decoder(folder.path()).unwrap();
        }
    }
}

#[test]
fn notes_in_a_header_that_are_no_texts_are_seen_before_a_run() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(oracle("llama")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    header["__metadata__"] = serde_json::json!({"format": 1});
    let header = header.to_string();
    let size = (header.len() as u64).to_le_bytes();
    std::fs::write(&path, [&size[..], header.as_bytes(), &bytes[8 + length..]].concat()).unwrap();
    let error = lm::check_decoder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("its `__metadata__` holds other things than texts"), "{error}");
}
