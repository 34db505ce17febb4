//! Another device computes what the CPU computes. `HALFTONE_TEST_DEVICE=cuda:0` names it; without it there is nothing
//! to compare, and the tests say so. `tests/gpu.sh` and `tests/gpu-carried.sh` run them where there is a GPU.

mod common;

use std::hash::{Hash, Hasher};

use common::{MODELS, numbers, oracle, rows};
use harness::{Requirement, missing};
use lm::{
    AdamW, Bits, Decoder, Device, Dtype, GenerateRequest, Generation, LogProbs, Memory, Precision, SamplingRules,
};
use lm::{Sequence, Text, Training};

fn device() -> Option<Device> {
    match std::env::var("HALFTONE_TEST_DEVICE") {
        Ok(name) => Some(lm::open_device(&name).unwrap()),
        Err(_) => {
            missing(Requirement::Device, "HALFTONE_TEST_DEVICE names no device");
            None
        }
    }
}

/// All models, or the one that `HALFTONE_TEST_MODEL` names: checkers of memory are slow.
fn models() -> Vec<&'static str> {
    let only = std::env::var("HALFTONE_TEST_MODEL").ok();
    MODELS.into_iter().filter(|model| only.as_ref().is_none_or(|only| only == model)).collect()
}

/// f32: within 1e-3 of PyTorch's sums of log-probabilities. bf16: within 0.05 a token in the worst sequence and 0.01 in
/// the mean, since weights and activations are rounded.
#[test]
fn log_probabilities() {
    let Some(device) = device() else { return };
    for model in models() {
        let numbers = numbers(model);
        let rows = rows(&numbers);
        let sequences: Vec<Sequence> = rows.iter().map(|row| row.sequence()).collect();
        let sequences: Vec<&Sequence> = sequences.iter().collect();
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let decoder = Decoder::load_in(&oracle(model), &device, dtype).unwrap();
            let scores = decoder.score(&sequences, true, 2048).unwrap();
            let (mut worst, mut worst_per_token, mut mean) = (0.0_f64, 0.0_f64, 0.0);
            for ((row, score), sequence) in rows.iter().zip(&scores).zip(&sequences) {
                worst = worst.max((score.response - row.logp).abs()).max((score.prompt - row.prompt_logp).abs());
                let tokens = (sequence.ids.len() - 1) as f64;
                let off = (score.response + score.prompt - row.logp - row.prompt_logp) / tokens;
                worst_per_token = worst_per_token.max(off.abs());
                mean += off / rows.len() as f64;
            }
            println!("{model} {dtype:?}: worst {worst:.2e}, a token {worst_per_token:.2e}, mean {mean:.2e}");
            match dtype {
                Dtype::F32 => assert!(worst < 1e-3, "{model}: off by {worst}"),
                Dtype::Bf16 => {
                    assert!(worst_per_token < 0.05 && mean.abs() < 0.01, "{model}: {worst_per_token} {mean}")
                }
            }
        }
    }
}

/// Weights in few bits give the log-probabilities that they give on the CPU, within 1e-3.
#[test]
fn few_bits() {
    let Some(device) = device() else { return };
    for model in models() {
        let numbers = numbers(model);
        let sequences: Vec<Sequence> = rows(&numbers).iter().step_by(9).map(|row| row.sequence()).collect();
        let sequences: Vec<&Sequence> = sequences.iter().collect();
        for bits in [Bits::Four, Bits::Eight] {
            let precision = Precision { dtype: Dtype::F32, bits: Some(bits) };
            let on = |device: &Device| {
                let decoder = Decoder::load_in(&oracle(model), device, precision).unwrap();
                decoder.score(&sequences, true, 2048).unwrap()
            };
            for (got, want) in on(&device).iter().zip(on(&Device::Cpu)) {
                let off = (got.response - want.response).abs().max((got.prompt - want.prompt).abs());
                assert!(off < 1e-3, "{model} {bits:?}: {got:?}, {want:?} on the CPU");
            }
        }
    }
}

/// The results of six steps of DPO: the gradient norm of each, then the log-probabilities of all sequences.
fn trained(model: &str, device: &Device, dtype: Dtype, memory: Memory) -> (Vec<f64>, Vec<f64>) {
    let numbers = numbers(model);
    let of = |side: &str| &numbers["pairs"]["text"][side];
    let sequences: Vec<[Sequence; 2]> =
        of("chosen").iter().zip(of("rejected")).map(|(c, r)| [c.sequence(), r.sequence()]).collect();
    let decoder = Decoder::load_in(&oracle(model), device, dtype).unwrap();
    let all: Vec<&Sequence> = sequences.iter().flatten().collect();
    // The reference computes as the policy does: rounding of long texts in bf16 would else move the margins.
    let reference = decoder.score(&all, false, 2048).unwrap();
    let mut training = Training::new(decoder, AdamW::default(), Some(1.0), memory, 512).unwrap();
    let mut norms = Vec::new();
    for (pairs, reference) in sequences.chunks(4).zip(reference.chunks(8)).take(6) {
        let batch: Vec<&Sequence> = pairs.iter().flatten().collect();
        let logps = training.forward(&batch, false).unwrap();
        let mut cotangents = Vec::new();
        for (logps, reference) in logps.chunks(2).zip(reference.chunks(2)) {
            let [chosen, rejected] = [0, 1].map(|i| logps[i].response - reference[i].response);
            let margin = 0.3 * (chosen - rejected);
            let slope = -0.3 / (1.0 + margin.exp()) / pairs.len() as f64;
            cotangents.push(LogProbs { response: slope, prompt: 0.0 });
            cotangents.push(LogProbs { response: -slope, prompt: 0.0 });
        }
        training.backward(&cotangents).unwrap();
        norms.push(training.step(2e-5).unwrap());
    }
    let scores = training.decoder().score(&all, false, 2048).unwrap();
    (norms, scores.iter().map(|score| score.response).collect())
}

/// f32: gradient norms within 0.1 %, log-probabilities after training within 5e-3. bf16: norms within 2 % at the same
/// weights and 15 % later (6 % on the processor, from the same kernels), log-probabilities within 2 %.
#[test]
fn training() {
    let Some(device) = device() else { return };
    for model in models() {
        let (norms, scores) = trained(model, &Device::Cpu, Dtype::F32, Memory::Keep);
        for memory in [Memory::Keep, Memory::Boundaries] {
            for (dtype, first_off, norm_off, score_off) in
                [(Dtype::F32, 1e-3, 1e-3, 5e-3), (Dtype::Bf16, 0.02, 0.15, f64::INFINITY)]
            {
                let (got_norms, got_scores) = trained(model, &device, dtype, memory);
                let off: Vec<f64> = got_norms.iter().zip(&norms).map(|(a, b)| (a / b - 1.0).abs()).collect();
                let worst_norm = off.iter().copied().fold(0.0, f64::max);
                let worst = got_scores.iter().zip(&scores).map(|(got, want)| (got - want).abs()).fold(0.0, f64::max);
                let relative =
                    got_scores.iter().zip(&scores).map(|(got, want)| (got / want - 1.0).abs()).fold(0.0, f64::max);
                println!("{model} {dtype:?} {memory:?}: norms {off:.4?}, scores {worst:.2e}, {relative:.2e}");
                assert!(off[0] < first_off && worst_norm < norm_off, "{model} {dtype:?} {memory:?}: norms");
                assert!(worst < score_off && relative < 0.02, "{model} {dtype:?} {memory:?}: scores");
            }
        }
    }
}

/// Training twice gives the same bits. The digest of them is printed, so that two processes can be compared.
#[test]
fn same_bytes() {
    let Some(device) = device() else { return };
    for model in models() {
        for memory in [Memory::Keep, Memory::Boundaries] {
            let bits = || -> Vec<u64> {
                let (norms, scores) = trained(model, &device, Dtype::Bf16, memory);
                norms.iter().chain(&scores).map(|x| x.to_bits()).collect()
            };
            let (first, second) = (bits(), bits());
            assert_eq!(first, second, "{model} {memory:?}");
            let mut hasher = std::hash::DefaultHasher::new();
            first.hash(&mut hasher);
            println!("digest {model} {memory:?} {:016x}", hasher.finish());
        }
    }
}

/// Greedy tokens are those of the CPU, but where two tokens are equally likely there, within 1e-3 of their
/// log-probabilities. So are sampled ones from the same seeds, whether tokens are chosen on the device or (`top_p`) on
/// the host, but for one response where rounding may have tipped a choice. The digest of a device's tokens and
/// log-probabilities is printed, so that steps recorded as a graph can be compared with those that are not
/// (`HALFTONE_CUDA_GRAPHS=0`).
#[test]
fn generation() {
    let Some(device) = device() else { return };
    for (temperature, top_p, most) in [(0.0, None, 0), (0.8, None, 1), (0.8, Some(0.9), 1)] {
        generated(&device, temperature, top_p, most);
    }
}

fn generated(device: &Device, temperature: f64, top_p: Option<f64>, most: usize) {
    let rules = SamplingRules { temperature, top_p, top_k: None, max_tokens: 32, stop: Vec::new() };
    for model in models() {
        let numbers = numbers(model);
        let text = Text::load(&oracle(model)).unwrap();
        let prompts: Vec<&[u32]> =
            rows(&numbers).iter().step_by(9).map(|row| &row.prompt_ids[..]).filter(|ids| !ids.is_empty()).collect();
        let requests: Vec<_> = prompts.iter().map(|ids| GenerateRequest { ids, seeds: vec![1] }).collect();
        let on_cpu = Decoder::load(&oracle(model), &Device::Cpu).unwrap();
        let on = |decoder: &Decoder| decoder.generate(&text, &requests, &rules, 4096).unwrap();
        let got = on(&Decoder::load(&oracle(model), device).unwrap());
        let mut hasher = std::hash::DefaultHasher::new();
        got.iter().for_each(|samples| (&samples[0].ids, samples[0].logp.to_bits()).hash(&mut hasher));
        println!("digest {model} {temperature} {top_p:?} {:016x}", hasher.finish());
        let ids = |all: Vec<Vec<Generation>>| all.into_iter().map(|samples| samples[0].ids.clone()).collect::<Vec<_>>();
        let (got, want) = (ids(got), ids(on(&on_cpu)));
        let differ = |((prompt, got), want): &((&&[u32], &Vec<u32>), &Vec<u32>)| {
            got != want && !(temperature == 0.0 && nearly_tied(&on_cpu, prompt, got, want))
        };
        let other = prompts.iter().zip(&got).zip(&want).filter(differ).count();
        assert!(other <= most, "{model}, {temperature}, {top_p:?}: {other} of {} differ", want.len());
    }
}

/// True where two greedy responses part at tokens that are equally likely to the decoder, within 1e-3.
fn nearly_tied(decoder: &Decoder, prompt: &[u32], one: &[u32], other: &[u32]) -> bool {
    let Some(at) = one.iter().zip(other).position(|(a, b)| a != b) else { return false };
    let upto =
        |response: &[u32]| Sequence::new(prompt.iter().chain(&response[..=at]).copied().collect(), prompt.len() + at);
    let (one, other) = (upto(one), upto(other));
    let scores = decoder.score(&[&one, &other], false, 4096).unwrap();
    println!("responses part after {at} tokens: {} and {}", scores[0].response, scores[1].response);
    (scores[0].response - scores[1].response).abs() < 1e-3
}

/// A near-tie is one, and any other difference is not.
#[test]
fn near_ties_differ_from_errors() {
    let decoder = Decoder::load(&oracle("llama"), &Device::Cpu).unwrap();
    let numbers = numbers("llama");
    let row = rows(&numbers)[0];
    let mut other = row.completion_ids.clone();
    assert!(!nearly_tied(&decoder, &row.prompt_ids, &row.completion_ids, &other), "no difference");
    other[1] = (other[1] + 1) % 600;
    assert!(!nearly_tied(&decoder, &row.prompt_ids, &row.completion_ids, &other), "another token");
}
