//! Keys of `config.json`, and what is refused.

use crate::model::config::DecoderConfig;
use crate::model::family::Multipliers;
use crate::model::rope::Rope;
use crate::{DType, Result, RopeKind};
use serde_json::{Value, json};

fn parse(changes: Value) -> Result<DecoderConfig> {
    let mut json = json!({"model_type": "llama", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2});
    for (key, value) in changes.as_object().unwrap() {
        json[key] = value.clone();
    }
    DecoderConfig::from_json(json.as_object().unwrap().clone())
}

#[test]
fn old_and_new_style_say_the_same() {
    let old = parse(json!({"rope_theta": 5e5, "torch_dtype": "bfloat16", "rope_scaling": {"type": "llama3",
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}));
    let new = parse(json!({"dtype": "bfloat16", "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5,
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}));
    let (old, new) = (old.unwrap(), new.unwrap());
    assert_eq!(old.rope, new.rope);
    assert_eq!(old.rope.theta, 5e5);
    assert!(matches!(old.rope.kind, RopeKind::Llama3 { factor: 8.0, .. }));
    assert_eq!(parse(json!({"rope_scaling": null, "head_dim": null})).unwrap().head_dim, 16);
    assert_eq!(parse(json!({})).unwrap().rope, Rope { theta: 10_000.0, kind: RopeKind::Default, share: 1.0 });
}

#[test]
fn windows_by_family() {
    let windows = |changes| parse(changes).unwrap().windows;
    assert_eq!(windows(json!({"sliding_window": 8})), [None; 3], "llama has none");
    assert_eq!(windows(json!({"model_type": "mistral"})), [Some(4096); 3]);
    assert_eq!(windows(json!({"model_type": "mistral", "sliding_window": null})), [None; 3]);
    assert_eq!(windows(json!({"model_type": "qwen2", "sliding_window": 8, "max_window_layers": 1})), [None; 3]);
    let on = json!({"model_type": "qwen2", "sliding_window": 8, "max_window_layers": 1, "use_sliding_window": true});
    assert_eq!(windows(on), [None, Some(8), Some(8)]);
    let listed = json!({"model_type": "qwen3", "sliding_window": 8, "use_sliding_window": true,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]});
    assert_eq!(windows(listed), [Some(8), None, Some(8)]);
}

#[test]
fn rotation_and_windows_of_smollm3() {
    let smol = |changes: Value| {
        let mut form = json!({"model_type": "smollm3", "num_hidden_layers": 8});
        form.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        parse(form)
    };
    let config = smol(json!({})).unwrap();
    assert_eq!(config.rotated, [true, true, true, false, true, true, true, false]);
    assert_eq!((config.tied, config.rope.theta, config.max_positions), (true, 2e6, 32_768));
    assert_eq!(config.windows, [None; 8]);
    let config = smol(json!({"no_rope_layer_interval": 3, "use_sliding_window": true, "sliding_window": 9}));
    let windows = [None, None, Some(9), None, None, Some(9), None, None];
    assert_eq!(config.unwrap().windows, windows, "where nothing rotates");
    let config = smol(json!({"use_sliding_window": true})).unwrap();
    assert_eq!(config.windows, [None; 8], "an absent window is none");
    let config = smol(json!({"no_rope_layers": [0, 1, 1, 1, 1, 1, 1, 0, 1], "sliding_window": 9})).unwrap();
    assert_eq!(config.rotated, [false, true, true, true, true, true, true, false], "a longer list is cut");
    let refused = |changes| smol(changes).unwrap_err().to_string();
    assert!(refused(json!({"no_rope_layers": [1, 0]})).contains("`no_rope_layers` is [1,0]; wanted a list of 8"));
    assert!(refused(json!({"no_rope_layers": [1, 2, 1, 1, 1, 1, 1, 1]})).contains("`no_rope_layers` is 2"));
    assert!(refused(json!({"no_rope_layer_interval": 0})).contains("`no_rope_layer_interval` is 0"));
    assert!(parse(json!({"no_rope_layers": [0, 0, 0]})).unwrap().rotated.iter().all(|&rotated| rotated), "llama");
}

#[test]
fn multipliers_of_granite() {
    let granite = |key: &str, value: Value| parse(json!({"model_type": "granite", key: value}));
    let config = granite("attention_multiplier", json!(0.3)).unwrap();
    assert_eq!(config.multipliers, Multipliers { embedding: 1.0, attention: 0.3, residual: 1.0, logits: 1.0 });
    let config = granite("residual_multiplier", json!(0.5)).unwrap();
    assert_eq!((config.multipliers.attention, config.embedding_scale(DType::F32)), (1.0, 2.0), "absent is 1");
    assert_eq!(config.states_eps(), 4e-6);
    let refused = |key: &str, value: Value| granite(key, value).unwrap_err().to_string();
    assert!(refused("logits_scaling", json!(0)).contains("`logits_scaling` is 0; wanted a number from"));
    assert!(refused("attention_multiplier", json!(-1.0)).contains("`attention_multiplier` is -1"));
    assert!(refused("embedding_multiplier", json!("12")).contains("`embedding_multiplier` is \"12\""));
    let llama = parse(json!({"residual_multiplier": 0.5, "attention_multiplier": 0.3})).unwrap();
    assert_eq!(llama.multipliers, Multipliers { attention: 0.25, ..config_of_ones() }, "as in transformers");
}

fn config_of_ones() -> Multipliers {
    Multipliers { embedding: 1.0, attention: 1.0, residual: 1.0, logits: 1.0 }
}

/// As in the configs of the hub, which leave out what their classes have as defaults.
#[test]
fn gemma_3_behind_images() {
    let hub = json!({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "eos_token_id": [1, 106], "torch_dtype": "bfloat16", "vision_config": {"model_type": "siglip_vision_model"},
        "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
        "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}});
    let config = DecoderConfig::from_json(hub.as_object().unwrap().clone()).unwrap();
    assert_eq!((config.vocab_size, config.heads, config.kv_heads, config.head_dim), (262_208, 8, 4, 256));
    assert_eq!((config.rope.theta, &config.rope.kind), (1e6, &RopeKind::Linear { factor: 8.0 }));
    let windowed = config.windowed_rope.as_ref().unwrap();
    assert_eq!((windowed.theta, &windowed.kind), (10_000.0, &RopeKind::Default));
    assert_eq!(config.windows[..7], [Some(1024), Some(1024), Some(1024), Some(1024), Some(1024), None, Some(1024)]);
    assert_eq!((config.multipliers.attention, config.embedding_scale(DType::F64)), (0.0625, 2560f64.sqrt()));
    assert_eq!(config.embedding_scale(DType::BF16), 50.5, "rounded");
    assert_eq!((config.eos_token_ids, config.wrapped), (vec![1, 106], true));
    let refused = DecoderConfig::from_json(json!({"model_type": "mistral3"}).as_object().unwrap().clone());
    assert!(refused.unwrap_err().to_string().contains("`text_config` is missing; a model of `mistral3`"));
}

#[test]
fn gemma_2_by_its_defaults() {
    let config = parse(json!({"model_type": "gemma2", "num_key_value_heads": 4})).unwrap();
    assert_eq!((config.attention_cap, config.logits_cap, config.tied), (Some(50.0), Some(30.0), true));
    assert_eq!(config.windows, [Some(4096), None, Some(4096)]);
    let config = parse(json!({"model_type": "gemma2", "attn_logit_softcapping": null})).unwrap();
    assert_eq!((config.attention_cap, config.logits_cap), (None, Some(30.0)));
    let config = parse(json!({"model_type": "gemma3_text"})).unwrap();
    assert_eq!((config.attention_cap, config.logits_cap), (None, None));
}

#[test]
fn absent_is_not_null() {
    let heads = |form: Value| {
        let mut json = json!({"vocab_size": 10, "hidden_size": 64, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 16});
        json.as_object_mut().unwrap().extend(form.as_object().unwrap().clone());
        DecoderConfig::from_json(json.as_object().unwrap().clone()).unwrap().kv_heads
    };
    assert_eq!(heads(json!({"model_type": "llama"})), 16);
    assert_eq!(heads(json!({"model_type": "mistral"})), 8);
    assert_eq!(heads(json!({"model_type": "mistral", "num_key_value_heads": null})), 16);
    assert_eq!(heads(json!({"model_type": "smollm3"})), 4);
    assert_eq!(heads(json!({"model_type": "granite"})), 16);
}

#[test]
fn ends_of_text_may_be_one_or_many() {
    assert_eq!(parse(json!({"eos_token_id": 7})).unwrap().eos_token_ids, [7]);
    assert_eq!(parse(json!({"eos_token_id": [7, 9]})).unwrap().eos_token_ids, [7, 9]);
    assert!(parse(json!({"eos_token_id": null, "pad_token_id": -1})).unwrap().pad_token_id.is_none());
}

#[test]
fn what_is_not_computed_is_refused() {
    let check = |changes, want: &str| {
        let error = parse(changes).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    };
    check(json!({"model_type": "gpt2"}), "`model_type` is \"gpt2\"; computed are llama, qwen2, ");
    check(json!({"model_type": "qwen3_moe"}), "a judge of another family is asked through an endpoint");
    check(json!({"model_type": null}), "`model_type` is missing; computed are llama");
    check(json!({"architectures": ["LlamaForSequenceClassification"]}), "`architectures`");
    check(json!({"hidden_act": "gelu"}), "`hidden_act` is \"gelu\"");
    check(json!({"rope_scaling": {"type": "su", "factor": 4.0}}), "in `rope_scaling`: `rope_type` is \"su\"");
    check(json!({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}), "`low_freq_factor` is missing");
    check(
        json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
        "`partial_rotary_factor` is 0.5; wanted 1: heads of this family",
    );
    let phi = |changes: Value| {
        let mut form = json!({"model_type": "phi3"});
        form.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        form
    };
    check(phi(json!({"partial_rotary_factor": 1.5})), "`partial_rotary_factor` is 1.5; wanted a share");
    let short = |n: usize| json!({"type": "longrope", "short_factor": vec![1.0; n], "long_factor": [1.0, 2.0]});
    check(phi(json!({"rope_scaling": short(8)})), "`long_factor` is \"2 entries\"; wanted a list of 8 numbers");
    check(phi(json!({"rope_scaling": short(7)})), "`short_factor` is \"7 entries\"");
    check(json!({"use_bidirectional_attention": true}), "`use_bidirectional_attention` is true");
    check(
        json!({"model_type": "olmo3", "rope_parameters": {"rope_type": "default"}}),
        "`rope_parameters` has `rope_type`; wanted `full_attention`",
    );
    check(json!({"model_type": "gemma2", "final_logit_softcapping": 0}), "`final_logit_softcapping` is 0");
    check(json!({"model_type": "gemma2", "hidden_activation": "silu"}), "`hidden_activation` is \"silu\"");
    let default = json!({"rope_type": "default", "rope_theta": 10000.0});
    let both = |old| json!({"rope_parameters": default, "rope_scaling": old});
    check(both(json!({"type": "yarn", "factor": 4.0})), "differ in");
    check(both(json!({"rope_type": "llama3"})), "differ in `rope_type`");
    check(both(json!({"factor": 8.0})), "differ in `factor`");
    assert!(parse(both(json!({"type": "default"}))).is_ok() && parse(both(json!(null))).is_ok());
    check(json!({"quantization_config": {"bits": 4}}), "quantization_config");
    check(json!({"num_key_value_heads": 3}), "4 query heads cannot share 3");
    check(json!({"num_hidden_layers": 0}), "`num_hidden_layers` is 0");
    check(json!({"vocab_size": null}), "`vocab_size` is missing");
    check(json!({"vocab_size": "many"}), "`vocab_size` is \"many\"");
    check(json!({"layer_types": ["full_attention"]}), "1 entries for 3 layers");
    check(json!({"layer_types": ["linear_attention", "x", "y"]}), "linear_attention");
}
