//! The models and numbers of `tests/fixtures/oracles`, made with PyTorch and transformers.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::HashMap;

pub use harness::oracle;
use lm::Sequence;
use serde::Deserialize;

pub const MODELS: [&str; 5] = ["llama", "llama3", "qwen2", "qwen3", "mistral"];

#[derive(Deserialize)]
pub struct Scored {
    pub prompt_ids: Vec<u32>,
    pub completion_ids: Vec<u32>,
    pub logp: f64,
    pub prompt_logp: f64,
}

impl Scored {
    pub fn sequence(&self) -> Sequence {
        let start = self.prompt_ids.len();
        let ids = self.prompt_ids.iter().chain(&self.completion_ids).copied().collect();
        Sequence::new(ids, start)
    }
}

/// data set -> form -> side -> rows
pub type Numbers = HashMap<String, HashMap<String, HashMap<String, Vec<Scored>>>>;

pub fn numbers(model: &str) -> Numbers {
    let text = std::fs::read_to_string(oracle(format!("{model}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Every scored row of a model's numbers, in a fixed order.
pub fn rows(numbers: &Numbers) -> Vec<&Scored> {
    let mut all = Vec::new();
    for data in ["pairs", "joint"] {
        for form in ["text", "chat"] {
            for side in ["chosen", "rejected"] {
                all.extend(&numbers[data][form][side]);
            }
        }
    }
    all
}
