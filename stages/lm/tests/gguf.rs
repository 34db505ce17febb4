//! A quantised file gives the numbers of the folder that it was made from.

use std::path::Path;

use harness::{gguf, mutations, oracle};
use lm::{AdamW, Decoder, DecoderConfig, Device, Dtype, Memory, SavedDtype, Sequence, Text, Training, export};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// One token and several, prompts in common and not, one prompt twice in a row and again later.
fn sequences() -> Vec<Sequence> {
    let texts: [(&[u32], usize); 6] = [
        (&[5, 9, 33, 7], 3),
        (&[5, 9, 33, 8], 3),
        (&[5, 9, 33, 8, 21, 40], 3),
        (&[5, 9, 33, 11, 2], 3),
        (&[17, 3], 1),
        (&[5, 9, 33, 7], 3),
    ];
    texts.iter().map(|&(ids, start)| Sequence::new(ids.to_vec(), start)).collect()
}

fn scores(decoder: &Decoder, budget: usize) -> Vec<f64> {
    let sequences = sequences();
    let all: Vec<&Sequence> = sequences.iter().collect();
    decoder.score(&all, false, budget).unwrap().iter().map(|scores| scores.response).collect()
}

fn check(got: &[f64], wanted: &[f64], within: f64, what: &str) {
    for (got, wanted) in got.iter().zip(wanted) {
        assert!((got - wanted).abs() < within, "{what}: {got} {wanted}");
    }
}

const FAMILIES: [&str; 3] = ["llama", "qwen2", "qwen3"];

#[test]
fn unquantised_files_give_the_folders_numbers() {
    for name in FAMILIES {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("model.gguf");
        gguf::write(&oracle(name), name, &file);
        let folder = Decoder::load(&oracle(name), &Device::Cpu).unwrap();
        let model = Decoder::load(&file, &Device::Cpu).unwrap();
        check(&scores(&model, 4096), &scores(&folder, 4096), 1e-5, name);
        check(&scores(&model, 4), &scores(&folder, 4096), 1e-4, name);
        let (token, logp) = model.likeliest(&[5, 9, 33]).unwrap();
        let with = |token: u32| Sequence::new(vec![5, 9, 33, token], 3);
        let all: Vec<Sequence> = (0..folder.config().vocab_size as u32).map(with).collect();
        let all = folder.score(&all.iter().collect::<Vec<_>>(), false, 4096).unwrap();
        let best = all.iter().enumerate().max_by(|one, other| one.1.response.total_cmp(&other.1.response)).unwrap();
        assert_eq!(best.0, token as usize);
        check(&[logp], &[best.1.response], 1e-4, name);
        let (own, of_folder) = (model.config(), folder.config());
        assert_eq!((own.max_positions, own.tied), (of_folder.max_positions, of_folder.tied));
        assert_eq!(DecoderConfig::from_folder(&file).unwrap().layers, of_folder.layers);
    }
}

#[test]
fn a_file_of_eight_bits_gives_what_its_rounded_weights_give() {
    for name in FAMILIES {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("model.gguf");
        gguf::write_q8(&oracle(name), name, &file);
        let folder = place.path().join("rounded");
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(oracle(name).join("config.json"), folder.join("config.json")).unwrap();
        let weights = candle_core::safetensors::load(oracle(name).join("model.safetensors"), &Device::Cpu).unwrap();
        let rounded = weights.iter().map(|(name, tensor)| (name.clone(), gguf::rounded(tensor))).collect();
        candle_core::safetensors::save(&rounded, folder.join("model.safetensors")).unwrap();
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let load = |path: &Path| Decoder::load_in(path, &Device::Cpu, dtype).unwrap();
            check(&scores(&load(&file), 4096), &scores(&load(&folder), 4096), 1e-5, name);
        }
    }
}

#[test]
fn a_folder_written_from_a_file_is_the_folder_that_the_file_was_made_from() {
    for name in FAMILIES {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("model.gguf");
        gguf::write(&oracle(name), name, &file);
        let to = place.path().join("folder");
        std::fs::create_dir(&to).unwrap();
        let error = export(&file, &to, None).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
        for part in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
            std::fs::copy(oracle(name).join(part), place.path().join(part)).unwrap();
        }
        export(&file, &to, None).unwrap();
        let weights = |folder: &Path| candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu);
        let (got, wanted) = (weights(&to).unwrap(), weights(&oracle(name)).unwrap());
        assert_eq!(got.len(), wanted.len());
        for (tensor, wanted) in wanted {
            let numbers = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(numbers(&got[&tensor]), numbers(&wanted), "{name}: {tensor}");
        }
        let (got, wanted) =
            (DecoderConfig::from_folder(&to).unwrap(), DecoderConfig::from_folder(&oracle(name)).unwrap());
        assert_eq!((got.rms_norm_eps, got.rope, got.windows), (wanted.rms_norm_eps, wanted.rope, wanted.windows));
        assert_eq!(Text::load(&to).unwrap().eos_ids(), Text::load(&oracle(name)).unwrap().eos_ids());
        Training::new(Decoder::load(&to, &Device::Cpu).unwrap(), AdamW::default(), None, Memory::Keep, 64).unwrap();

        let refused = export(&file, &to, Some(SavedDtype::AsLoaded)).unwrap_err().to_string();
        assert!(refused.contains("name `f32` or `bf16`"), "{refused}");
        export(&file, &to, Some(SavedDtype::Bf16)).unwrap();
        assert!(weights(&to).unwrap().values().all(|tensor| tensor.dtype() == candle_core::DType::BF16));
    }
}

#[test]
fn the_weights_of_a_file_are_frozen() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("model.gguf");
    gguf::write(&oracle("llama"), "llama", &file);
    let load = || Decoder::load(&file, &Device::Cpu).unwrap();
    let refused = Training::new(load(), AdamW::default(), None, Memory::Keep, 64).unwrap_err().to_string();
    assert!(refused.contains("weights in few bits are frozen: train an adapter beside them"), "{refused}");
    assert!(load().save(place.path()).is_err());
}

#[test]
fn a_window_makes_a_mistral_of_a_llama_and_is_refused_where_the_family_has_none() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("model.gguf");
    gguf::write_wrong(&oracle("mistral"), "llama", &[("attention.sliding_window", 24)], &file);
    let config = DecoderConfig::from_folder(&file).unwrap();
    assert_eq!((config.family.name, config.windows), ("mistral", vec![Some(24); 3]));
    gguf::write_wrong(&oracle("mistral"), "granite", &[("attention.sliding_window", 24)], &file);
    let refused = DecoderConfig::from_folder(&file).unwrap_err().to_string();
    assert!(refused.contains("`granite.attention.sliding_window` is 24; this family has no windows"), "{refused}");
}

#[test]
fn an_architecture_that_is_not_computed_is_refused_with_what_is() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("model.gguf");
    gguf::write(&oracle("llama"), "phi3", &file);
    let refused = DecoderConfig::from_folder(&file).unwrap_err().to_string();
    assert!(
        refused.contains("`phi3` is not computed; computed are gemma, gemma2, gemma3, granite, llama"),
        "{refused}"
    );
    assert!(refused.contains("through an endpoint"), "{refused}");
}

#[test]
fn a_file_that_is_none_or_says_wrong_sizes_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("model.gguf");
    let refused = |what: &str| {
        let error = Decoder::load(&file, &Device::Cpu).err().unwrap_or_else(|| panic!("{what} is taken"));
        assert!(error.is_data() && error.to_string().contains("model.gguf"), "{error}");
        error.to_string()
    };
    std::fs::write(&file, b"GGUF\x03 but not whole").unwrap();
    refused("a beginning");
    std::fs::write(&file, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n").unwrap();
    assert!(refused("a pointer").contains("a Git LFS pointer"));
    for (key, size) in [
        ("block_count", 0),
        ("block_count", 1),
        ("block_count", 9),
        ("block_count", u32::MAX),
        ("embedding_length", 0),
        ("embedding_length", u32::MAX),
        ("feed_forward_length", u32::MAX),
        ("attention.head_count", 0),
        ("attention.head_count", 3),
        ("attention.head_count", u32::MAX),
        ("attention.head_count_kv", 0),
        ("attention.head_count_kv", u32::MAX),
        ("attention.key_length", 0),
        ("attention.key_length", u32::MAX),
        ("rope.dimension_count", 1),
    ] {
        gguf::write_wrong(&oracle("llama"), "llama", &[(key, size)], &file);
        let text = refused(&format!("{key} {size}"));
        assert!(!text.contains("bug"), "{key} {size}: {text}");
    }
    // A length that no file could hold, in its head.
    gguf::write_q8(&oracle("llama"), "llama", &file);
    let whole = std::fs::read(&file).unwrap();
    for at in (8..400).step_by(4) {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&[0xff; 4]);
        std::fs::write(&file, bytes).unwrap();
        if let Err(error) = Decoder::load(&file, &Device::Cpu) {
            assert!(error.is_data(), "byte {at}: {error}");
        }
    }
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    refused("half a file");
}

#[test]
fn a_number_of_another_type_is_not_taken_for_one_that_is_missing() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("model.gguf");
    gguf::write(&oracle("llama"), "llama", &file);
    let whole = std::fs::read(&file).unwrap();
    // Behind each key stand its type, four bytes, and its value. 4: u32, 5: i32, 6: f32.
    for (key, kind, value, told) in [
        ("llama.rope.freq_base", 6_u32, f32::INFINITY.to_bits(), Some("is inf, wanted a finite number")),
        ("llama.rope.freq_base", 6, f32::NAN.to_bits(), Some("is NaN, wanted a finite number")),
        ("llama.rope.freq_base", 5, u32::MAX, Some("is -1, wanted a whole number")),
        ("llama.rope.freq_base", 4, 10_000, None),
        ("llama.attention.head_count_kv", 6, 2_f32.to_bits(), Some("is 2, wanted a whole number")),
        ("llama.attention.head_count_kv", 5, u32::MAX, Some("is -1, wanted a whole number")),
        ("llama.attention.layer_norm_rms_epsilon", 6, f32::NAN.to_bits(), Some("wanted a finite number")),
    ] {
        let at = whole.windows(key.len()).position(|text| text == key.as_bytes()).unwrap() + key.len();
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&file, bytes).unwrap();
        let loaded = Decoder::load(&file, &Device::Cpu);
        match (loaded, told) {
            (Ok(_), None) => {}
            (Err(error), Some(told)) => {
                let text = error.to_string();
                assert!(error.is_data() && text.contains(&format!("`{key}` is ")) && text.contains(told), "{text}");
            }
            (loaded, told) => panic!("{key}, {value}: {told:?} {:?}", loaded.err()),
        }
    }
}

#[test]
fn whatever_its_head_says_a_file_is_computed_or_refused() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("model.gguf");
    let most: u64 = std::env::var("GGUF_SEEDS").map_or(40, |seeds| seeds.parse().unwrap());
    for name in FAMILIES {
        for write in [gguf::write, gguf::write_q8] {
            write(&oracle(name), name, &file);
            let whole = std::fs::read(&file).unwrap();
            // The names, sizes and kinds of all tensors stand at the beginning.
            let (head, weights) = whole.split_at(whole.len().min(4096));
            for seed in 0..most {
                let mutated = mutations::mutated(head, &mut StdRng::seed_from_u64(seed));
                std::fs::write(&file, [&mutated, weights].concat()).unwrap();
                let scored = Decoder::load(&file, &Device::Cpu).and_then(|model| {
                    let sequences = sequences();
                    model.score(&sequences.iter().collect::<Vec<_>>(), false, 64)
                });
                if let Err(error) = scored {
                    assert!(error.is_data(), "{name}, seed {seed}: {error}");
                }
            }
        }
    }
}

/// Puts each of some numbers in the place of each size of each tensor, and of what kind its numbers are.
#[test]
fn whatever_size_a_tensor_is_said_to_have_a_file_is_computed_or_refused() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("model.gguf");
    for name in FAMILIES {
        for write in [gguf::write, gguf::write_q8] {
            write(&oracle(name), name, &file);
            let whole = std::fs::read(&file).unwrap();
            for tensor in ["token_embd.weight", "output_norm.weight", "blk.0.attn_q.weight", "blk.1.ffn_down.weight"] {
                let at = whole.windows(tensor.len()).position(|text| text == tensor.as_bytes()).unwrap() + tensor.len();
                let count = u32::from_le_bytes(whole[at..at + 4].try_into().unwrap()) as usize;
                let kind = at + 4 + 8 * count;
                let sizes = (0..count).map(|size| (at + 4 + 8 * size, 8));
                for (place, width) in [(at, 4), (kind, 4), (kind + 4, 8)].into_iter().chain(sizes) {
                    let small = [0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 30, 32, 33, 40, 64, 96, 256];
                    for number in small.into_iter().chain([u64::from(u32::MAX), 1 << 40, u64::MAX]) {
                        let mut bytes = whole.clone();
                        bytes[place..place + width].copy_from_slice(&number.to_le_bytes()[..width]);
                        std::fs::write(&file, bytes).unwrap();
                        let scored = Decoder::load(&file, &Device::Cpu).and_then(|model| {
                            let sequences = sequences();
                            model.likeliest(&[5, 9, 33])?;
                            model.score(&sequences.iter().collect::<Vec<_>>(), false, 64)
                        });
                        if let Err(error) = scored {
                            assert!(error.is_data(), "{name}, {tensor}, byte {place}, {number}: {error}");
                        }
                    }
                }
            }
        }
    }
}
