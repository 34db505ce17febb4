//! Times of kernels and of whole models on a GPU, with random weights that are made there: `examples/gpu_bench`.

use super::{Launch, Operand, fresh, graph, multiply, upload};
use crate::model::forest::{self, Want};
use crate::ops::angles::RopeTable;
use crate::ops::rounded::Products::Exact;
use crate::ops::targets::Target;
use crate::ops::tiles::{Saved, Shape, tiles};
use crate::ops::{adamw, attention, attention_backward, head, linear, norm, rope, swiglu};
use crate::{
    AdamW, DType, Decoder, DecoderConfig, Device, Error, GenerateRequest, LogProbs, Memory, Result, SamplingRules,
    Sequence, Text, Training, gpu_memory,
};
use candle_core::Tensor;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags_enum::CU_EVENT_DEFAULT;
use serde_json::{Value, json};
use std::time::Instant;

/// A measurement: a name, the milliseconds of one repetition, and the amount of a unit in it.
#[derive(Debug)]
pub struct Figure {
    /// The part, and its sizes.
    pub name: String,
    /// The median.
    pub milliseconds: f64,
    /// In `unit`, of one time.
    pub amount: f64,
    /// `TFLOP`, `GB` or `tokens`.
    pub unit: &'static str,
}

/// A model by name: `0.5b` and `1.5b` are Qwen2's, `7b` is Llama's.
fn config(shape: &str) -> Result<DecoderConfig> {
    let of = |family: &str, vocab: usize, hidden: usize, inner: usize, layers: usize, heads: usize, kv_heads: usize| {
        json!({
            "model_type": family, "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": inner,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "max_position_embeddings": 32768, "rope_theta": 1e6, "rms_norm_eps": 1e-6, "hidden_act": "silu",
            "tie_word_embeddings": family == "qwen2", "eos_token_id": 1, "use_sliding_window": false
        })
    };
    let json = match shape {
        "0.5b" => of("qwen2", 151_936, 896, 4864, 24, 14, 2),
        "1.5b" => of("qwen2", 151_936, 1536, 8960, 28, 12, 2),
        "7b" => of("llama", 32_000, 4096, 11008, 32, 32, 32),
        _ => return Err(Error::input(format!("no shape `{shape}`; there are 0.5b, 1.5b and 7b"))),
    };
    let Value::Object(json) = json else { unreachable!() };
    DecoderConfig::from_json(json)
}

/// The median milliseconds of some work, by events of the device, after three times that do not count.
fn time(device: &Device, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let stream = device.as_cuda_device()?.cuda_stream();
    for _ in 0..3 {
        work()?;
    }
    let mut times = Vec::new();
    for _ in 0..9 {
        let began = stream.record_event(Some(CU_EVENT_DEFAULT)).w()?;
        work()?;
        let ended = stream.record_event(Some(CU_EVENT_DEFAULT)).w()?;
        times.push(f64::from(began.elapsed_ms(&ended).w()?));
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn random(device: &Device, rows: usize, width: usize) -> Result<Tensor> {
    Ok(Tensor::randn(0f32, 1.0, (rows, width), device)?.to_dtype(DType::BF16)?)
}

/// Sequences of `length` tokens whose first `shared` they have in common by groups, and whose completion starts at
/// `start`.
fn sequences(count: usize, length: usize, group: usize, shared: usize, start: usize) -> Vec<Sequence> {
    let id = |a: usize, b: usize| ((a * 7919 + b * 104_729 + a * b * 31) % 30_000 + 5) as u32;
    let ids = |i: usize| (0..length).map(|j| if j < shared { id(i / group, j) } else { id(1000 + i, j) }).collect();
    (0..count).map(|i| Sequence::new(ids(i), start)).collect()
}

/// Kernels at the sizes of a model, over 16,384 rows.
pub fn kernels(device: &Device, shape: &str, mut tell: impl FnMut(Figure)) -> Result<()> {
    const ROWS: usize = 16_384;
    let model = config(shape)?;
    let (hidden, inner, vocab) = (model.hidden_size, model.intermediate_size, model.vocab_size);
    let of = Shape::of(&model, 0);
    let mut figure = |name: String, milliseconds: f64, amount: f64, unit: &'static str| {
        tell(Figure { name, milliseconds, amount, unit });
    };

    for (name, k, n) in [
        ("qkv", hidden, of.width()),
        ("output", of.query_width(), hidden),
        ("gate_up", hidden, 2 * inner),
        ("down", inner, hidden),
    ] {
        let (x, w, dy) = (random(device, ROWS, k)?, random(device, n, k)?, random(device, ROWS, n)?);
        let flops = 2.0 * (ROWS * k * n) as f64 / 1e12;
        let ms = time(device, || linear::forward(&x, &w, None, None, Exact).map(drop))?;
        figure(format!("product {name} [{ROWS}, {k}] x {n}"), ms, flops, "TFLOP");
        let ms = time(device, || linear::backward(&w, &dy, Exact).map(drop))?;
        figure(format!("product {name}, by x"), ms, flops, "TFLOP");
        let gradient = Tensor::zeros((n, k), DType::F32, device)?;
        let ms = time(device, || linear::backward_weight(&x, &dy, &gradient, Exact))?;
        figure(format!("product {name}, by W"), ms, flops, "TFLOP");
        if name == "down" {
            let ms = time(device, || linear::forward(&x, &w, None, Some(&dy), Exact).map(drop))?;
            figure(format!("product {name} onto a residual"), ms, flops, "TFLOP");
        }
    }

    let (h, w) = (random(device, ROWS, hidden)?, random(device, vocab, hidden)?);
    let gradient = Tensor::zeros((vocab, hidden), DType::F32, device)?;
    for rows in [441, 1024, 2048, 4096] {
        let logits = fresh((rows, vocab), DType::F32, device)?;
        let dz = random(device, rows, vocab)?;
        let flops = 2.0 * (rows * hidden * vocab) as f64 / 1e12;
        let (states, table) = (Operand::new(&h)?, Operand::new(&w)?);
        let ms = time(device, || multiply(states, table.t(), Operand::new(&logits)?, rows, hidden, vocab, false))?;
        figure(format!("head: logits of {rows} rows"), ms, flops, "TFLOP");
        let ms = time(device, || {
            multiply(Operand::new(&dz)?.t(), states, Operand::new(&gradient)?, vocab, rows, hidden, true)
        })?;
        figure(format!("head: dW of {rows} rows"), ms, flops, "TFLOP");
        let dh = fresh((rows, hidden), DType::BF16, device)?;
        let ms = time(device, || multiply(Operand::new(&dz)?, table, Operand::new(&dh)?, rows, vocab, hidden, false))?;
        figure(format!("head: dh of {rows} rows"), ms, flops, "TFLOP");
    }
    let targets: Vec<Target> = (0..ROWS).map(|row| Target { row, token: (row * 7 % vocab) as u32 }).collect();
    let g = vec![-1.0; ROWS];
    let flops = 2.0 * (ROWS * hidden * vocab) as f64 / 1e12;
    let ms = time(device, || head::forward(&h, &w, &targets, head::Form::EXACT).map(drop))?;
    figure("head forward".into(), ms, flops, "TFLOP");
    let lse = head::forward(&h, &w, &targets, head::Form::EXACT)?.lse;
    let ms = time(device, || {
        head::backward(&h, &w, &targets, (&lse, Vec::new()), &g, Some(&gradient), head::Form::EXACT).map(drop)
    })?;
    figure("head backward, logits again".into(), ms, 3.0 * flops, "TFLOP");
    drop((h, w, gradient));

    for (name, length, group, shared) in [
        ("S=512", 512, 1, 0),
        ("S=2048", 2048, 1, 0),
        ("S=8192", 8192, 1, 0),
        ("8 of 512 on a trunk of 4096", 4608, 8, 4096),
        ("256 of 48 on a trunk of 1024", 1072, 256, 1024),
    ] {
        let count = if group == 1 { ROWS / length } else { group.max(16) };
        let owned = sequences(count, length, group, shared, length);
        let all: Vec<&Sequence> = owned.iter().collect();
        let forest = forest::forests(&all, Want::States, vocab, 1 << 20)?.remove(0);
        let (rows, tiles) = (forest.ids.len(), tiles(&forest));
        let context: f64 = forest.depths.iter().map(|&depth| f64::from(depth) + 1.0).sum();
        let flops = 4.0 * (of.heads * of.head_dim) as f64 * context / 1e12;
        let (qkv, g) = (random(device, rows, of.width())?, random(device, rows, of.query_width())?);
        let ms = time(device, || attention::forward(&qkv, &tiles, &of, true).map(drop))?;
        figure(format!("attention forward, {name}, D={}, {rows} rows", of.head_dim), ms, flops, "TFLOP");
        let (out, lse) = attention::forward(&qkv, &tiles, &of, true)?;
        let lse = lse.ok_or_else(|| Error::internal("attention gave no log-sum-exps"))?;
        let saved = Saved { qkv: &qkv, out: &out, lse: &lse };
        let ms = time(device, || attention_backward::backward(&saved, &g, &forest, &tiles, &of).map(drop))?;
        figure(format!("attention backward, {name}"), ms, 2.5 * flops, "TFLOP");
    }

    let gb = |numbers: usize| numbers as f64 * 2.0 / 1e9;
    let (x, weight, dy) = (random(device, ROWS, hidden)?, random(device, 1, hidden)?, random(device, ROWS, hidden)?);
    let weight = weight.flatten_all()?;
    let ms = time(device, || norm::forward(&x, &weight, 1e-6).map(drop))?;
    figure("norm forward".into(), ms, gb(2 * ROWS * hidden), "GB");
    let (_, rms) = norm::forward(&x, &weight, 1e-6)?;
    let dw = Tensor::zeros(hidden, DType::F32, device)?;
    let ms = time(device, || norm::backward(&x, &weight, &rms, &dy, None, Some(&dw)).map(drop))?;
    figure("norm backward".into(), ms, gb(3 * ROWS * hidden), "GB");
    let (gate_up, d) = (random(device, ROWS, 2 * inner)?, random(device, ROWS, inner)?);
    let ms = time(device, || swiglu::forward(&gate_up).map(drop))?;
    figure("swiglu forward".into(), ms, gb(3 * ROWS * inner), "GB");
    let ms = time(device, || swiglu::backward(&gate_up, &d).map(drop))?;
    figure("swiglu backward".into(), ms, gb(6 * ROWS * inner), "GB");
    drop((gate_up, d));
    let depths: Vec<u32> = (0..ROWS as u32).map(|row| row % 512).collect();
    let table = RopeTable::new(&model.rope, model.head_dim, false, 512, DType::BF16, device)?;
    let qkv = random(device, ROWS, of.width())?;
    let turned = (of.query_width() + of.key_width()) * ROWS;
    let ms = time(device, || rope::forward(qkv.clone(), &of, None, &table, &depths).map(drop))?;
    figure("rope".into(), ms, gb(2 * turned), "GB");
    let bias = weight.clone();
    let ms = time(device, || {
        let y = fresh((ROWS, hidden), DType::BF16, device)?;
        Launch::like("linear", "base_rows", &x)
            .optional(Some(&dy))?
            .optional(Some(&bias))?
            .tensor(&y)?
            .count(hidden)?
            .run((ROWS, 1), 128, 0)
    })?;
    figure("residual and bias before a product".into(), ms, gb(3 * ROWS * hidden), "GB");
    let ms = time(device, || linear::backward_bias(&dy, &dw))?;
    figure("bias gradient".into(), ms, gb(ROWS * hidden), "GB");

    let n = 100 << 20;
    let [master, gradient, mean, square] = [0, 1, 2, 3].map(|_| Tensor::zeros(n, DType::F32, device));
    let (master, gradient, mean, square) = (master?, gradient?, mean?, square?);
    let half = Tensor::zeros(n, DType::BF16, device)?;
    let step = adamw::Step { lr: 1e-6, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, clip: 1.0, t: 1 };
    let ms = time(device, || adamw::step(&master, &gradient, &mean, &square, Some(&half), &step))?;
    figure("adamw of 105 M weights".into(), ms, n as f64 * 34.0 / 1e9, "GB");
    let ms = time(device, || adamw::sums_of_squares(&[&gradient]).map(drop))?;
    figure("gradient norm of 105 M weights".into(), ms, n as f64 * 4.0 / 1e9, "GB");
    let numbers: Vec<u32> = (0..16).collect();
    let ms = time(device, || (0..1000).try_for_each(|_| upload(&numbers, device).map(drop)))?;
    figure("a thousand plans found again".into(), ms, 1.0, "times");
    let (a, b) = (random(device, 16, 64)?, random(device, 16, 64)?);
    let ms = time(device, || (0..1000).try_for_each(|_| linear::forward(&a, &b, None, None, Exact).map(drop)))?;
    figure("a thousand small products".into(), ms, 1.0, "times");
    let ms = time(device, || (0..1000).try_for_each(|_| swiglu::forward(&a).map(drop)))?;
    figure("a thousand small kernels".into(), ms, 1.0, "times");
    Ok(())
}

/// Whole steps of training over 16,384 tokens: forward, backward and the optimizer.
pub fn training(device: &Device, shape: &str, mut tell: impl FnMut(Figure)) -> Result<()> {
    let config = config(shape)?;
    for (name, memory, group, start) in [
        ("kept, all rows scored", Memory::Keep, 1, 1),
        ("kept, half of the rows scored", Memory::Keep, 1, 256),
        ("kept, pairs with a common prompt", Memory::Keep, 2, 256),
        ("blocks recomputed, all rows scored", Memory::Boundaries, 1, 1),
    ] {
        let decoder = Decoder::random(config.clone(), device, DType::BF16)?;
        let mut training = Training::new(decoder, AdamW::default(), Some(1.0), memory, 1 << 20)?;
        let owned = sequences(32, 512, group, if group == 1 { 0 } else { 256 }, start);
        let batch: Vec<&Sequence> = owned.iter().collect();
        let slopes: Vec<LogProbs> =
            (0..32).map(|i| LogProbs { response: if i % 2 == 0 { -0.01 } else { 0.01 }, prompt: 0.0 }).collect();
        let (free, all) = gpu_memory(device)?.ok_or_else(|| Error::internal("no GPU"))?;
        let ms = time(device, || {
            training.forward(&batch, false)?;
            training.backward(&slopes)?;
            training.step(1e-6).map(drop)
        })?;
        let forest = training.decoder().forests(&batch, Want::Scores { prompt_part: false }, 1 << 20)?.remove(0);
        let flops = flops(training.decoder().config(), &forest);
        let rows = forest.ids.len();
        tell(Figure {
            name: format!(
                "step {shape}, {name}, {rows} rows, {:.1} GB before of {:.0}",
                (all - free) as f64 / 1e9,
                all as f64 / 1e9
            ),
            milliseconds: ms,
            amount: 3.0 * flops,
            unit: "TFLOP",
        });
        tell(Figure { name: format!("step {shape}, {name}"), milliseconds: ms, amount: 32.0 * 512.0, unit: "tokens" });
    }
    Ok(())
}

/// 10^12 operations of a forward: two for each weight and row, those of attention, and the head's for scored rows.
fn flops(config: &DecoderConfig, forest: &forest::Forest) -> f64 {
    let table = (config.vocab_size * config.hidden_size) as f64;
    let blocks = config.parameter_count() as f64 - if config.tied { table } else { 2.0 * table };
    let context: f64 = forest.depths.iter().map(|&depth| f64::from(depth) + 1.0).sum();
    let attention = 4.0 * (config.layers * config.heads * config.head_dim) as f64 * context;
    (2.0 * blocks * forest.ids.len() as f64 + attention + 2.0 * table * forest.scored_rows.len() as f64) / 1e12
}

/// Log-probabilities of two last tokens of sequences, as a judge asks for them.
pub fn prefill(device: &Device, shape: &str, mut tell: impl FnMut(Figure)) -> Result<()> {
    let decoder = Decoder::random(config(shape)?, device, DType::BF16)?;
    for budget in [4096, 16_384] {
        let owned = sequences(32, 1024, 1, 0, 1022);
        let all: Vec<&Sequence> = owned.iter().collect();
        let ms = time(device, || decoder.score(&all, false, budget).map(drop))?;
        let forests = decoder.forests(&all, Want::Scores { prompt_part: false }, budget)?;
        let flops = forests.iter().map(|forest| flops(decoder.config(), forest)).sum();
        let name = format!("prefill {shape}, S=1024, {budget} tokens at once");
        tell(Figure { name, milliseconds: ms, amount: flops, unit: "TFLOP" });
    }
    Ok(())
}

/// Responses of 128 tokens to 64 prompts of 128, 64 to one prompt, and 8 to one of 512.
pub fn decode(device: &Device, shape: &str, text: &Text, mut tell: impl FnMut(Figure)) -> Result<()> {
    let decoder = Decoder::random(config(shape)?, device, DType::BF16)?;
    let rules = SamplingRules { temperature: 1.0, top_p: None, top_k: None, max_tokens: 128, stop: Vec::new() };
    for (prompts, samples, length) in [(64, 1, 128), (1, 64, 128), (1, 8, 512)] {
        let owned = sequences(prompts, length, 1, 0, length);
        let seeds: Vec<u64> = (0..samples).collect();
        let requests: Vec<_> =
            owned.iter().map(|sequence| GenerateRequest { ids: &sequence.ids, seeds: seeds.clone() }).collect();
        let (mut best, mut tokens) = (f64::INFINITY, 0);
        for _ in 0..3 {
            let began = Instant::now();
            let all = decoder.generate(text, &requests, &rules, 65_536)?;
            best = best.min(began.elapsed().as_secs_f64() * 1e3);
            tokens = all.iter().flatten().map(|response| response.ids.len()).sum();
        }
        let how = if graph::is_there(device) { "" } else { ", kernel by kernel" };
        let name = format!("decode {shape}, {prompts} prompts of {length}, {samples} responses each{how}");
        tell(Figure { name, milliseconds: best, amount: tokens as f64, unit: "tokens" });
    }
    Ok(())
}
