//! Dropout in adapters, in f64: against finite differences, and by the laws that schedules, budgets, sharing and
//! threads must not show.

use crate::model::lora::is_adapter;
use crate::train::gradient_tests::{
    adapted, assert_close, config, gradients, numbers, sequences, slopes_of, training, weighted,
};
use crate::{AdamW, Decoder, Device, Lora, Memory, Sequence, Training, ops};
use serde_json::{Value, json};

/// A model with an adapter in training with dropout, B as large as in the middle of it.
pub(super) fn dropping(form: Value, dropout: f64, memory: Memory, budget: usize) -> Training {
    let mut decoder = Decoder::init(config(form), 5, &Device::Cpu).unwrap();
    let lora = Lora { dropout, ..Lora::new(2, 3.0, &["all-linear".to_owned()]).unwrap() };
    decoder.add_adapter(&lora, 7).unwrap();
    let mut training = training(decoder.for_checks(), memory, budget);
    training.dropout_seed = 11;
    training
}

#[test]
fn adapters_with_dropout_against_finite_differences() {
    let gemma = json!({"model_type": "gemma2", "sliding_window": 3, "final_logit_softcapping": 0.9});
    for form in [json!({"model_type": "llama", "attention_bias": true}), gemma, json!({"model_type": "phi3"})] {
        let training = dropping(form, 0.4, Memory::Keep, 1000);
        slopes_of("dropout", training, is_adapter, |training| {
            let sequences = sequences();
            weighted(&training.forward(&sequences.iter().collect::<Vec<_>>(), true).unwrap())
        });
    }
}

#[test]
fn schedules_budgets_and_sharing_do_not_show_in_dropout() {
    let form = json!({"model_type": "qwen2"});
    let mut training = dropping(form.clone(), 0.4, Memory::Keep, 1000);
    let want = gradients(&mut training, &[0, 1, 2, 3, 4]);
    for budget in [1, 6, 12, 1000] {
        training.budget_tokens = budget;
        let mut first = None;
        for memory in [Memory::Keep, Memory::Boundaries, Memory::TwoPass] {
            training.memory = memory;
            training.discard().unwrap();
            let got = gradients(&mut training, &[0, 1, 2, 3, 4]);
            assert_close("dropout", &got, &want, 1e-10);
            assert!(*first.get_or_insert_with(|| got.clone()) == got, "schedules give the same bytes");
        }
        training.discard().unwrap();
        let plain = ops::plainly(|| gradients(&mut training, &[0, 1, 2, 3, 4]));
        assert_close("dropout, plain forms", &plain, &want, 1e-10);
    }
    training.discard().unwrap();
    for i in 0..5 {
        gradients(&mut training, &[i]);
    }
    assert_close("one by one", &numbers(&training), &want, 1e-10);
    let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    training.discard().unwrap();
    let one = gradients(&mut training, &[0, 1, 2, 3, 4]);
    training.discard().unwrap();
    assert!(threads.install(|| gradients(&mut training, &[0, 1, 2, 3, 4])) == one, "threads give the same bytes");
}

#[test]
fn dropout_is_there_in_training_alone_and_new_in_each_step() {
    let form = json!({"model_type": "qwen2"});
    let scores = |training: &mut Training| {
        let sequences = sequences();
        let all: Vec<&Sequence> = sequences.iter().collect();
        (training.forward(&all, true).unwrap(), training.decoder.score(&all, true, 1000).unwrap())
    };
    let without = scores(&mut training(adapted(form.clone()), Memory::Keep, 1000));
    assert!(scores(&mut dropping(form.clone(), 0.0, Memory::Keep, 1000)) == without, "0 leaves the bytes as they are");
    let mut dropped = dropping(form.clone(), 0.4, Memory::Keep, 1000);
    let (trained, evaluated) = scores(&mut dropped);
    assert!(evaluated == without.1, "an evaluation leaves nothing out");
    assert!(trained != without.0 && trained == scores(&mut dropped).0);
    let mut another = dropping(form.clone(), 0.4, Memory::Keep, 1000);
    another.dropout_seed = 12;
    assert!(scores(&mut another).0 != trained, "another seed, other masks");
    gradients(&mut dropped, &[0, 1]);
    dropped.step(0.0).unwrap();
    assert!(scores(&mut dropped).0 != trained, "another step, other masks");
    let frozen = dropping(form, 0.4, Memory::Keep, 1000).into_decoder().with_base_adapter(false).unwrap();
    let mut frozen = Training::of_some(frozen, AdamW::default(), None, Memory::Keep, 1000, |_| true).unwrap();
    assert!(scores(&mut frozen) == without, "a frozen adapter has no dropout");
}
