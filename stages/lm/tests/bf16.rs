//! Computing with products of numbers rounded to bf16: how far it may lie from f32, and that it is exact otherwise.

use crate::common;

use common::{MODELS, numbers, oracle, rows};
use lm::{AdamW, Decoder, Device, Dtype, LogProbs, Memory, SavedDtype, Sequence, Training};

fn load(folder: &std::path::Path, dtype: Dtype) -> Decoder {
    Decoder::load_in(folder, &Device::Cpu, dtype).unwrap()
}

/// The promise: per token of a sequence, log-probabilities lie within 0.01 of PyTorch's in f32, and their mean over
/// sequences within 0.002. (PyTorch's own bf16, which rounds activations too, is farther away.)
#[test]
fn log_probabilities_are_near_those_of_f32() {
    for model in MODELS {
        let decoder = load(&oracle(model), Dtype::Bf16);
        let numbers = numbers(model);
        let rows = rows(&numbers);
        let sequences: Vec<Sequence> = rows.iter().map(|row| row.sequence()).collect();
        let sequences: Vec<&Sequence> = sequences.iter().collect();
        let scores = decoder.score(&sequences, true, 2048).unwrap();
        let (mut worst, mut mean) = (0.0_f64, 0.0);
        for ((row, score), sequence) in rows.iter().zip(&scores).zip(&sequences) {
            let off = (score.response + score.prompt - row.logp - row.prompt_logp) / (sequence.ids.len() - 1) as f64;
            worst = worst.max(off.abs());
            mean += off / rows.len() as f64;
        }
        assert!(worst < 0.01 && mean.abs() < 0.002, "{model}: worst {worst}, mean {mean} per token");
        assert!(worst > 1e-6, "{model}: nothing was rounded");
    }
}

/// Losses of DPO, its gradient norms, and the bytes of the weights after some steps.
fn train(dtype: Dtype, budget: usize) -> (Vec<[f64; 2]>, Training) {
    let numbers = numbers("llama");
    let of = |side: &str| &numbers["pairs"]["text"][side];
    let sequences: Vec<[Sequence; 2]> =
        of("chosen").iter().zip(of("rejected")).map(|(c, r)| [c.sequence(), r.sequence()]).collect();
    let reference = load(&oracle("llama"), dtype);
    let mut training =
        Training::new(load(&oracle("llama"), dtype), AdamW::default(), Some(1.0), Memory::Keep, budget).unwrap();
    let mut steps = Vec::new();
    for pairs in sequences.chunks(4).take(4) {
        let batch: Vec<&Sequence> = pairs.iter().flatten().collect();
        let frozen = reference.score(&batch, false, 4096).unwrap();
        let logps = training.forward(&batch, false).unwrap();
        let mut loss = 0.0;
        let mut cotangents = Vec::new();
        for (policy, frozen) in logps.chunks(2).zip(frozen.chunks(2)) {
            let ratio = |side: usize| policy[side].response - frozen[side].response;
            let margin = 0.3 * (ratio(0) - ratio(1));
            loss += (-margin).exp().ln_1p() / pairs.len() as f64;
            let slope = -0.3 / (1.0 + margin.exp()) / pairs.len() as f64;
            cotangents.push(LogProbs { response: slope, prompt: 0.0 });
            cotangents.push(LogProbs { response: -slope, prompt: 0.0 });
        }
        training.backward(&cotangents).unwrap();
        steps.push([loss, training.step(1e-4).unwrap()]);
    }
    (steps, training)
}

/// The promise: a policy that equals its reference in the first step exactly, with a gradient norm within 1 % of that
/// in f32. Then weights part, and losses and norms stay within 5 %, at a learning rate that moves this small model far.
#[test]
fn training_follows_that_in_f32() {
    let (exact, _) = train(Dtype::F32, 512);
    let (rounded, _) = train(Dtype::Bf16, 512);
    assert!((rounded[0][0] - std::f64::consts::LN_2).abs() < 1e-4, "{rounded:?}");
    for (step, (got, want)) in rounded.iter().zip(&exact).enumerate() {
        for (got, want) in got.iter().zip(want) {
            let most = if step == 0 { 0.01 } else { 0.05 };
            assert!((got / want - 1.0).abs() < most, "{rounded:?}, in f32 {exact:?}");
        }
    }
    assert_ne!(rounded, exact, "nothing was rounded");
}

#[test]
fn same_bytes_for_any_number_of_threads() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let training = pool.install(|| train(Dtype::Bf16, 300).1);
        training.save_state(folder.path()).unwrap();
        std::fs::read(folder.path().join("training_state.safetensors")).unwrap()
    };
    let one = run(1);
    for threads in [2, 4] {
        assert!(one == run(threads), "{threads} threads");
    }
}

/// Weights are trained in f32, whatever products are computed in, and written so; bf16 leaves the smallest updates out.
#[test]
fn what_is_saved_is_what_was_trained() {
    let (_, training) = train(Dtype::Bf16, 512);
    let base = oracle("llama");
    let save = |dtype: SavedDtype| {
        let folder = tempfile::tempdir().unwrap();
        let kept = training.save(folder.path(), dtype, &base).unwrap();
        let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
        (folder, kept, config)
    };
    let numbers = numbers("llama");
    let sequence = numbers["pairs"]["text"]["chosen"][0].sequence();
    let score = |decoder: &Decoder| decoder.score(&[&sequence], false, 512).unwrap()[0].response;

    let (folder, kept, config) = save(SavedDtype::F32);
    assert!(kept.is_none() && config.contains("\"dtype\": \"float32\""), "{config}");
    assert_eq!(score(&load(folder.path(), Dtype::Bf16)), score(training.decoder()), "to the last bit");

    let (folder, kept, config) = save(SavedDtype::Bf16);
    assert!(config.contains("\"dtype\": \"bfloat16\""), "{config}");
    let file = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert!(tensors.iter().all(|(_, tensor)| tensor.dtype() == safetensors::Dtype::BF16));
    let kept = kept.unwrap();
    assert!(kept.changed > 0 && kept.kept < kept.changed && kept.share() > 0.0, "{kept:?}");
    let (saved, trained) = (score(&load(folder.path(), Dtype::Bf16)), score(training.decoder()));
    // Matrices are rounded alike either way; norms and embeddings are rounded by saving only.
    assert!((saved / trained - 1.0).abs() < 2e-3, "{saved}, {trained}");
    // The base is stored in f32.
    assert!(save(SavedDtype::AsLoaded).1.is_none());
}

/// A learning rate of which bf16 leaves nothing: all of it is there in f32.
#[test]
fn small_updates_outlive_f32_alone() {
    let base = oracle("llama");
    let folder = tempfile::tempdir().unwrap();
    lm::export(&base, folder.path(), Some(SavedDtype::Bf16)).unwrap();
    let numbers = numbers("llama");
    let sequence = numbers["pairs"]["text"]["chosen"][0].sequence();
    let decoder = load(folder.path(), Dtype::Bf16);
    let before = decoder.score(&[&sequence], false, 512).unwrap()[0].response;
    let mut training = Training::new(decoder, AdamW::default(), None, Memory::Keep, 512).unwrap();
    for _ in 0..3 {
        training.forward(&[&sequence], false).unwrap();
        training.backward(&[LogProbs { response: -1.0, prompt: 0.0 }]).unwrap();
        training.step(1e-6).unwrap();
    }
    let gain = |dtype: SavedDtype| {
        let to = tempfile::tempdir().unwrap();
        let kept = training.save(to.path(), dtype, folder.path()).unwrap();
        // In f32 products: what is asked is what the files hold.
        (load(to.path(), Dtype::F32).score(&[&sequence], false, 512).unwrap()[0].response, kept)
    };
    let start = load(folder.path(), Dtype::F32).score(&[&sequence], false, 512).unwrap()[0].response;
    let (full, none) = gain(SavedDtype::F32);
    let (half, kept) = gain(SavedDtype::AsLoaded);
    assert!(before.is_finite() && none.is_none() && full > start, "{start} to {full}");
    assert!(half - start < 0.2 * (full - start), "{start} to {half} of {full}");
    assert!(kept.unwrap().share() < 0.2, "{kept:?}");
}
