//! Training as PyTorch does it, saved and resumed, with any number of threads.

use crate::common;

use common::{numbers, oracle};
use lm::{AdamW, DType, Decoder, Device, LogProbs, Memory, Sequence, Training};
use serde::Deserialize;
use std::collections::HashMap;

#[derive(Deserialize)]
struct Trajectory {
    beta: f64,
    lr: f64,
    batch: usize,
    form: String,
    steps: Vec<Step>,
    final_chosen_logp: Vec<f64>,
    final_rejected_logp: Vec<f64>,
    final_param_norms: HashMap<String, f64>,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: f64,
    margins: f64,
    logps_chosen: f64,
    logps_rejected: f64,
}

fn llama(budget: usize, memory: Memory) -> Training {
    let decoder = Decoder::load(&oracle("llama"), &Device::Cpu).unwrap();
    Training::new(decoder, AdamW::default(), Some(1.0), memory, budget).unwrap()
}

/// Chosen and rejected sequences, and the reference's log-probabilities of them.
fn pairs(form: &str) -> (Vec<[Sequence; 2]>, Vec<(f64, f64)>) {
    let numbers = numbers("llama");
    let of = |side: &str| &numbers["pairs"][form][side];
    let both = of("chosen").iter().zip(of("rejected"));
    both.map(|(c, r)| ([c.sequence(), r.sequence()], (c.logp, r.logp))).unzip()
}

/// One DPO step on some pairs, with the derivatives worked out here: loss, mean margin, mean log-probabilities, norm.
fn dpo(training: &mut Training, pairs: &[[Sequence; 2]], reference: &[(f64, f64)], beta: f64, lr: f64) -> [f64; 5] {
    let batch: Vec<&Sequence> = pairs.iter().flatten().collect();
    let logps = training.forward(&batch, false).unwrap();
    let n = pairs.len() as f64;
    let [mut loss, mut margins, mut chosen, mut rejected] = [0.0; 4];
    let mut cotangents = Vec::new();
    for (logps, reference) in logps.chunks(2).zip(reference) {
        let margin = beta * ((logps[0].response - reference.0) - (logps[1].response - reference.1));
        loss += (-margin).exp().ln_1p() / n;
        margins += margin / n;
        chosen += logps[0].response / n;
        rejected += logps[1].response / n;
        let slope = -beta / (1.0 + margin.exp()) / n;
        cotangents.push(LogProbs { response: slope, prompt: 0.0 });
        cotangents.push(LogProbs { response: -slope, prompt: 0.0 });
    }
    training.backward(&cotangents).unwrap();
    let norm = training.step(lr).unwrap();
    [loss, margins, chosen, rejected, norm]
}

#[test]
fn dpo_follows_pytorch() {
    let text = std::fs::read_to_string(oracle("train-llama-dpo.json")).unwrap();
    let trajectory: Trajectory = serde_json::from_str(&text).unwrap();
    let (pairs, _) = pairs(&trajectory.form);
    let mut training = llama(300, Memory::Boundaries);
    let all: Vec<&Sequence> = pairs.iter().flatten().collect();
    let reference: Vec<(f64, f64)> = training
        .decoder()
        .score(&all, false, 4096)
        .unwrap()
        .chunks(2)
        .map(|both| (both[0].response, both[1].response))
        .collect();
    for (i, want) in trajectory.steps.iter().enumerate() {
        let rows = i * trajectory.batch..(i + 1) * trajectory.batch;
        let got = dpo(&mut training, &pairs[rows.clone()], &reference[rows], trajectory.beta, trajectory.lr);
        let [loss, margins, chosen, rejected, norm] = got;
        assert!((loss / want.loss - 1.0).abs() < 5e-4, "step {i}: loss {loss}, want {}", want.loss);
        assert!((norm / want.grad_norm - 1.0).abs() < 5e-4, "step {i}: norm {norm}, want {}", want.grad_norm);
        assert!((margins - want.margins).abs() < 3e-4, "step {i}: margins {margins}, want {}", want.margins);
        assert!((chosen - want.logps_chosen).abs() < 1e-3, "step {i}: {chosen}, want {}", want.logps_chosen);
        assert!((rejected - want.logps_rejected).abs() < 1e-3, "step {i}: {rejected}, want {}", want.logps_rejected);
    }
    let last = training.decoder().score(&all, false, 4096).unwrap();
    let want = trajectory.final_chosen_logp.iter().zip(&trajectory.final_rejected_logp).flat_map(|(c, r)| [c, r]);
    for (got, want) in last.iter().zip(want) {
        assert!((got.response - want).abs() < 5e-3, "{} {want}", got.response);
    }
    let folder = tempfile::tempdir().unwrap();
    training.decoder().save(folder.path()).unwrap();
    let saved = candle_core::safetensors::load(folder.path().join("model.safetensors"), &Device::Cpu).unwrap();
    assert_eq!(saved.len(), trajectory.final_param_norms.len());
    for (name, want) in &trajectory.final_param_norms {
        let norm = saved[name].sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        assert!((f64::from(norm) / want - 1.0).abs() < 1e-5, "{name}: {norm}, want {want}");
    }
}

/// All bytes of a training after some steps.
fn bytes(training: &Training) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    training.save_state(folder.path()).unwrap();
    std::fs::read(folder.path().join("training_state.safetensors")).unwrap()
}

#[test]
fn resumed_training_equals_unbroken_training() {
    let (pairs, reference) = pairs("text");
    let run = |training: &mut Training, steps: std::ops::Range<usize>| {
        for i in steps {
            dpo(training, &pairs[i * 2..i * 2 + 2], &reference[i * 2..i * 2 + 2], 0.3, 1e-3);
        }
    };
    let mut unbroken = llama(512, Memory::Keep);
    run(&mut unbroken, 0..2);
    let folder = tempfile::tempdir().unwrap();
    unbroken.save_state(folder.path()).unwrap();
    run(&mut unbroken, 2..4);
    let mut resumed = llama(512, Memory::Keep);
    run(&mut resumed, 4..5); // Must leave no trace.
    resumed.load_state(folder.path()).unwrap();
    assert_eq!(resumed.steps(), 2);
    run(&mut resumed, 2..4);
    assert!(bytes(&unbroken) == bytes(&resumed));
    // Gradients that wait for a step are not saved.
    let sequence = &pairs[0][0];
    resumed.forward(&[sequence], false).unwrap();
    resumed.backward(&[LogProbs { response: 1.0, prompt: 0.0 }]).unwrap();
    assert!(resumed.save_state(folder.path()).is_err());
    // A state of another model is refused, and changes nothing.
    let before = bytes(&unbroken);
    let other = Decoder::load(&oracle("qwen2"), &Device::Cpu).unwrap();
    let other = Training::new(other, AdamW::default(), None, Memory::Keep, 512).unwrap();
    other.save_state(folder.path()).unwrap();
    let error = unbroken.load_state(folder.path()).unwrap_err().to_string();
    assert!(error.contains("training_state.safetensors: tensor"), "{error}");
    assert!(bytes(&unbroken) == before);
}

#[test]
fn same_bytes_for_any_number_of_threads() {
    let (pairs, reference) = pairs("chat");
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut training = llama(700, Memory::Keep);
            for i in 0..2 {
                dpo(&mut training, &pairs[i * 8..i * 8 + 8], &reference[i * 8..i * 8 + 8], 0.3, 1e-3);
            }
            bytes(&training)
        })
    };
    let one = run(1);
    assert!(one == run(2), "2 threads");
    assert!(one == run(4), "4 threads");
}

/// Half-precision weights, as on a GPU: the optimizer works on full-precision masters, which are saved and restored.
#[test]
fn half_precision_trains_on_full_precision_masters() {
    let (pairs, reference) = pairs("text");
    let half = || {
        let decoder = Decoder::load_as(&oracle("llama"), &Device::Cpu, DType::BF16).unwrap();
        Training::new(decoder, AdamW::default(), Some(1.0), Memory::Boundaries, 512).unwrap()
    };
    let mut training = half();
    let mut exact = llama(512, Memory::Keep);
    for _ in 0..3 {
        let [loss, _, chosen, rejected, norm] = dpo(&mut training, &pairs[..2], &reference[..2], 0.3, 2e-5);
        let [_, _, want_chosen, want_rejected, want_norm] = dpo(&mut exact, &pairs[..2], &reference[..2], 0.3, 2e-5);
        assert!((chosen / want_chosen - 1.0).abs() < 0.02, "{chosen} {want_chosen}");
        assert!((rejected / want_rejected - 1.0).abs() < 0.02, "{rejected} {want_rejected}");
        assert!((norm / want_norm - 1.0).abs() < 0.5 && loss.is_finite(), "{norm} {want_norm}");
    }
    let folder = tempfile::tempdir().unwrap();
    training.save_state(folder.path()).unwrap();
    let state = candle_core::safetensors::load(folder.path().join("training_state.safetensors"), &Device::Cpu).unwrap();
    let (weight, master) = (&state["weight.model.norm.weight"], &state["master.model.norm.weight"]);
    assert_eq!((weight.dtype(), master.dtype()), (DType::BF16, DType::F32));
    let rounded = master.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
    let weight = weight.to_dtype(DType::F32).unwrap();
    assert_eq!(weight.to_vec1::<f32>().unwrap(), rounded.to_vec1::<f32>().unwrap());
    // Steps far below half precision's resolution are in the master.
    assert_ne!(master.to_vec1::<f32>().unwrap(), rounded.to_vec1::<f32>().unwrap());
    let mut resumed = half();
    resumed.load_state(folder.path()).unwrap();
    assert!(bytes(&resumed) == bytes(&training));
    training.decoder().save(folder.path()).unwrap();
    let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    assert!(config.contains("\"dtype\": \"bfloat16\""), "{config}");
}

/// The rule on `pad_token_id`: its input embedding is trained as any other where it stands in a text. (transformers
/// never trains it: `nn.Embedding(padding_idx)`.) Here nothing is padded, so that elsewhere it has no gradient.
#[test]
fn the_padding_token_is_trained_where_it_stands_in_a_text() {
    let decoder = Decoder::load(&oracle("mistral"), &Device::Cpu).unwrap();
    let pad = decoder.config().pad_token_id.unwrap();
    let mut training = Training::new(decoder, AdamW::default(), None, Memory::Keep, 64).unwrap();
    let mut of_pad = |ids: Vec<u32>| {
        let sequences = [Sequence::new(ids, 2), Sequence::new(vec![5, 6, 7], 1)];
        training.forward(&sequences.iter().collect::<Vec<_>>(), false).unwrap();
        training.backward(&[LogProbs { response: -1.0, prompt: 0.0 }; 2]).unwrap();
        let gradients = training.gradients().unwrap();
        let table = &gradients.iter().find(|(name, _)| name == "model.embed_tokens.weight").unwrap().1;
        let row = table.get(pad as usize).unwrap().abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        training.discard().unwrap();
        row
    };
    assert!(of_pad(vec![5, pad, 7, 9]) > 0.0);
    assert_eq!(of_pad(vec![5, 8, 7, 9, 11]), 0.0);
}
