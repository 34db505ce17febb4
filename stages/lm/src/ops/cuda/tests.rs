//! The GPU kernels in f32 and bf16 against those of the CPU in f32: emulated, or on the device that
//! `HALFTONE_TEST_DEVICE` names. Widths that packs of 8 fit and do not fit, and more rows than a block takes.
//! `ops::check` runs the cases of each operation too.

mod attention;

use crate::ops::angles::{HeadNorm, HeadNormGradients, RopeTable, SavedHeadNorm};
use crate::ops::cuda::emulator::{Checks, calls, emulated, in_parts};
use crate::ops::rounded::Products::Exact;
use crate::ops::targets::Target;
use crate::ops::tiles::Shape;
use crate::ops::{Kernel, adamw, check, embed, geglu, head, kernel_for, linear, norm, rope, swiglu, whole_norm};
use crate::{DType, Device, Result};
use candle_core::Tensor;
use rayon::prelude::*;

/// Numbers that are the same in f32 and bf16.
pub(crate) fn numbers(seed: u64, shape: &[usize]) -> Tensor {
    check::numbers(seed, shape).to_dtype(DType::BF16).unwrap()
}

/// A buffer for the gradient of a parameter, f32 in any case, not 0.
fn buffer(like: &Tensor) -> Result<Tensor> {
    Ok(like.to_dtype(DType::F32)?.ones_like()?)
}

/// Checks that kernels give what the CPU gives: in f32 within 1e-4, in bf16 within `rounding`, each of the largest
/// number of a result or 1.
pub(crate) fn agrees(rounding: f64, inputs: &[Tensor], run: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>) {
    let on = |device: &Device, dtype| -> Vec<Tensor> {
        inputs.iter().map(|t| t.to_device(device).unwrap().to_dtype(dtype).unwrap()).collect()
    };
    let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let want: Vec<_> = run(&on(&Device::Cpu, DType::F32)).unwrap().iter().map(wide).collect();
    let kernels = |device: &Device, dtype| {
        let inputs = on(device, dtype);
        assert_eq!(kernel_for(&[&inputs[0]]), Kernel::Cuda);
        run(&inputs).unwrap()
    };
    let real = check::test_device();
    for (dtype, tolerance) in [(DType::F32, 1e-4), (DType::BF16, rounding)] {
        let emulated = emulated(|| kernels(&Device::Cpu, dtype));
        let real = real.map(|device| kernels(device, dtype));
        for (place, got) in [("emulated", emulated), ("on the device", real)] {
            for (i, (got, want)) in got.iter().flatten().map(wide).zip(&want).enumerate() {
                assert_eq!(got.len(), want.len());
                let largest = want.iter().fold(1f64, |most, x| most.max(x.abs()));
                for (at, (got, want)) in got.iter().zip(want).enumerate() {
                    let off = (got - want).abs() / largest;
                    assert!(off < tolerance, "{dtype:?} {place}, output {i}, number {at}: {got}, {want} on the CPU");
                }
            }
        }
    }
}

#[test]
fn norms() {
    for (rows, width) in [(1, 1), (5, 19), (300, 24), (3, 1100)] {
        agrees(0.02, &[numbers(1, &[rows, width]), numbers(2, &[width]), numbers(3, &[rows, width])], |t| {
            let (y, r) = norm::forward(&t[0], &t[1], 1e-2)?;
            let again = norm::again(&t[0], &t[1], &r)?;
            let dw = buffer(&t[1])?;
            let dx = norm::backward(&t[0], &t[1], &r, &t[2], None, Some(&dw))?;
            let onto = norm::backward(&t[0], &t[1], &r, &t[2], Some(t[2].copy()?), None)?;
            // Weights in f32, whatever the rows are in.
            let wide = t[1].to_dtype(DType::F32)?;
            let wide_y = norm::forward(&t[0], &wide, 1e-2)?.0;
            let wide_again = norm::again(&t[0], &wide, &r)?;
            let wide_dx = norm::backward(&t[0], &wide, &r, &t[2], None, None)?;
            Ok(vec![y, r, again, dx, dw, onto, wide_y, wide_again, wide_dx])
        });
    }
}

#[test]
fn gated_activations() {
    for (rows, width) in [(3, 5), (4, 264), (2, 2056)] {
        agrees(0.02, &[numbers(1, &[rows, 2 * width]), numbers(2, &[rows, width])], |t| {
            let (again, d) = swiglu::backward(&t[0], &t[1])?;
            let (gelu_again, gelu_d) = geglu::backward(&t[0], &t[1])?;
            Ok(vec![swiglu::forward(&t[0])?, again, d, geglu::forward(&t[0])?, gelu_again, gelu_d])
        });
    }
}

#[test]
fn rows_of_tables() {
    let ids: Vec<u32> = (0..90).map(|i| (i * i) % 23).collect();
    for width in [3, 40, 300] {
        agrees(0.02, &[numbers(1, &[23, width]), numbers(2, &[90, width])], |t| {
            let gradient = buffer(&t[0])?;
            embed::backward(&t[1], &ids, &gradient)?;
            let table = t[0].narrow(1, 0, width - 1)?.contiguous()?;
            embed::put(&table, &[2, 0, 22], &t[1].narrow(0, 0, 3)?.contiguous()?, 1)?;
            let spread = embed::spread(&t[1].narrow(0, 0, 4)?.contiguous()?, &[5, 1, 2, 8], 9)?;
            Ok(vec![embed::forward(&t[0], &ids)?, gradient, table, spread])
        });
    }
}

#[test]
fn linear_layers() {
    let shapes: [&[usize]; 5] = [&[70, 12], &[20, 12], &[20], &[70, 20], &[20, 12]];
    let inputs: Vec<Tensor> = shapes.iter().enumerate().map(|(i, shape)| numbers(i as u64, shape)).collect();
    let layers = |t: &[Tensor]| {
        let y = linear::forward(&t[0], &t[1], Some(&t[2]), Some(&t[3]), Exact)?;
        let (bare, biased) = (
            linear::forward(&t[0], &t[1], None, None, Exact)?,
            linear::forward(&t[0], &t[1], Some(&t[2]), None, Exact)?,
        );
        let added = linear::add_columns(&t[0], &t[1].narrow(0, 0, 7)?.contiguous()?, t[3].copy()?, 5)?;
        let (dw, db) = (buffer(&t[1])?, buffer(&t[2])?);
        linear::backward_weight(&t[0], &t[3], &dw, Exact)?;
        linear::backward_bias(&t[3], &db)?;
        let (both_dw, both_db) = (buffer(&t[1])?, buffer(&t[2])?);
        linear::backward_weight_and_bias(&t[0], &t[3], &both_dw, &both_db, Exact)?;
        let residual = linear::forward(&t[0], &t[1], None, Some(&t[3]), Exact)?;
        Ok(vec![y, bare, biased, residual, added, linear::backward(&t[1], &t[3], Exact)?, dw, db, both_dw, both_db])
    };
    agrees(0.03, &inputs, layers);
    in_parts(|| agrees(0.03, &inputs, layers));
}

/// What is added to a product, and sums beside it, cost no kernel but the one that adds to a gradient.
#[test]
fn products_take_what_is_beside_them() {
    let shapes: [&[usize]; 5] = [&[64, 16], &[24, 16], &[24], &[64, 24], &[24, 16]];
    let t: Vec<Tensor> = shapes.iter().enumerate().map(|(i, shape)| numbers(i as u64, shape)).collect();
    let (dw, db) = (buffer(&t[4]).unwrap(), buffer(&t[2]).unwrap());
    let layers = || {
        emulated(|| {
            linear::forward(&t[0], &t[1], Some(&t[2]), Some(&t[3]), Exact).unwrap();
            linear::backward_weight_and_bias(&t[0], &t[3], &dw, &db, Exact).unwrap();
            calls()
        })
    };
    let Some(together) = layers() else { return };
    assert_eq!(together, ["product", "product", "add_partials"]);
    let parts = in_parts(layers).unwrap();
    assert_eq!(parts, ["base_rows_bf16", "product", "product", "column_sums_bf16", "add_partials"]);
}

#[test]
fn rotations() {
    let depths: Vec<u32> = (0..50).map(|i| (i * 7) % 40).collect();
    for (heads, kv_heads, head_dim) in [(4, 2, 6), (3, 1, 64), (2, 2, 128)] {
        let shape = Shape { heads, kv_heads, head_dim, window: None, scale: 0.3, cap: None };
        let angles = |f: fn(f32) -> f32| {
            let half = head_dim / 2;
            let angle = |i: usize| (i / half) as f32 * 0.5f32.powi((i % half) as i32 % 9);
            Tensor::from_vec((0..40 * half).map(|i| f(angle(i))).collect(), (40, half), &Device::Cpu).unwrap()
        };
        let (cos, sin) = (angles(f32::cos), angles(f32::sin));
        let rows = [50, shape.width()];
        let inputs = [numbers(1, &rows), numbers(2, &rows), numbers(3, &[head_dim]), numbers(4, &[head_dim])];
        agrees(0.02, &inputs, |t| {
            let device = t[0].device();
            let table = RopeTable { cos: cos.to_device(device)?, sin: sin.to_device(device)? };
            let norm = HeadNorm { query: &t[2], key: &t[3], eps: 1e-2 };
            let (dq, dk) = (buffer(&t[2])?, buffer(&t[3])?);
            let gradients = HeadNormGradients { query: Some(&dq), key: Some(&dk) };
            let saved = SavedHeadNorm { norm, before: &t[0], gradients };
            let (wide_query, wide_key) = (t[2].to_dtype(DType::F32)?, t[3].to_dtype(DType::F32)?);
            let wide = HeadNorm { query: &wide_query, key: &wide_key, eps: 1e-2 };
            let pairs = (head_dim / 4).max(1);
            let part = RopeTable {
                cos: table.cos.narrow(1, 0, pairs)?.contiguous()?,
                sin: table.sin.narrow(1, 0, pairs)?.contiguous()?,
            };
            Ok(vec![
                rope::forward(t[0].copy()?, &shape, Some(wide), &table, &depths)?,
                rope::forward(t[0].copy()?, &shape, None, &part, &depths)?,
                rope::backward(t[1].copy()?, &shape, None, &part, &depths)?,
                rope::forward(t[0].copy()?, &shape, None, &table, &depths)?,
                rope::backward(t[1].copy()?, &shape, None, &table, &depths)?,
                rope::forward(t[0].copy()?, &shape, Some(norm), &table, &depths)?,
                rope::backward(t[1].copy()?, &shape, Some(saved), &table, &depths)?,
                dq,
                dk,
            ])
        });
    }
}

/// Norms of all queries and of all keys, each way by one kernel, and two more for the gradients of weights with what adds
/// them up.
#[test]
fn norms_of_all_heads() {
    for (heads, kv_heads, head_dim) in [(4, 2, 6), (3, 1, 8), (5, 3, 72)] {
        let shape = Shape { heads, kv_heads, head_dim, window: None, scale: 0.3, cap: None };
        let rows = [40, shape.width()];
        let weights = [shape.query_width(), shape.key_width()];
        let inputs = [numbers(1, &rows), numbers(2, &rows), numbers(3, &weights[..1]), numbers(4, &weights[1..])];
        let run = |t: &[Tensor]| {
            let norm = HeadNorm { query: &t[2], key: &t[3], eps: 1e-2 };
            let (dq, dk) = (buffer(&t[2])?, buffer(&t[3])?);
            let gradients = HeadNormGradients { query: Some(&dq), key: Some(&dk) };
            let y = whole_norm::forward(&t[0], &shape, norm)?;
            let dx = whole_norm::backward(&t[1], &shape, SavedHeadNorm { norm, before: &t[0], gradients })?;
            let (wide_query, wide_key) = (t[2].to_dtype(DType::F32)?, t[3].to_dtype(DType::F32)?);
            let wide = HeadNorm { query: &wide_query, key: &wide_key, eps: 1e-2 };
            let frozen =
                SavedHeadNorm { norm: wide, before: &t[0], gradients: HeadNormGradients { query: None, key: None } };
            let wide_y = whole_norm::forward(&t[0], &shape, wide)?;
            Ok(vec![y, dx, dq, dk, wide_y, whole_norm::backward(&t[1], &shape, frozen)?])
        };
        agrees(0.02, &inputs, run);
        calls();
        let called = emulated(|| run(&inputs).map(|_| calls()).unwrap());
        let [forward, backward] = ["whole_norm_bf16", "whole_norm_backward_bf16"];
        let want = [forward, backward, "whole_norm_weight_bf16", "add_partials", "add_partials", forward, backward];
        assert!(called.is_none_or(|called| called == want));
    }
}

#[test]
fn heads_of_models() {
    let targets: Vec<Target> = (0..60).map(|i| Target { row: i / 3 * 2, token: (i * 17 % 300) as u32 }).collect();
    let g: Vec<f64> = (0..60).map(|i| (i as f64).sin()).collect();
    let device = &Device::Cpu;
    for cap in [None, Some(0.7)] {
        let form = head::Form { cap, ..head::Form::EXACT };
        for vocab in [300, 296] {
            agrees(0.02, &[numbers(1, &[40, 12]), numbers(2, &[300, 12])], |t| {
                let (h, weight) = (&t[0], t[1].narrow(0, 0, vocab)?.contiguous()?);
                let targets: Vec<Target> = targets.iter().map(|t| Target { token: t.token.min(295), ..*t }).collect();
                let scores = head::forward(h, &weight, &targets, form)?;
                let dw = buffer(&weight)?;
                let dh = head::backward(h, &weight, &targets, (&scores.lse, Vec::new()), &g, Some(&dw), form)?;
                let (kept_scores, kept) = head::forward_keeping(h, &weight, &targets, form)?;
                assert_eq!((kept_scores, kept.is_empty()), (scores.clone(), cap.is_some()));
                let kept_dw = buffer(&weight)?;
                let kept_dh = head::backward(h, &weight, &targets, (&scores.lse, kept), &g, Some(&kept_dw), form)?;
                if kernel_for(&[h]) == Kernel::Cuda {
                    for (kept, again) in [(&kept_dh, &dh), (&kept_dw, &dw)] {
                        let bits = |t: &Tensor| t.to_dtype(DType::F32).and_then(|t| t.flatten_all()?.to_vec1::<f32>());
                        assert_eq!(bits(kept)?, bits(again)?, "what is kept shows");
                    }
                }
                Ok(vec![Tensor::new(scores.logps, device)?, Tensor::new(scores.lse, device)?, dh, dw, kept_dh])
            });
        }
    }
}

#[test]
fn steps_and_squares() {
    let step = adamw::Step { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.05, clip: 0.5, t: 3 };
    let inputs: Vec<Tensor> = (0..4).map(|i| numbers(i, &[300, 7])).collect();
    agrees(1e-2, &inputs, |t| {
        let half = t[0].to_dtype(DType::BF16)?;
        let [w, g, m, v] = [0, 1, 2, 3].map(|i| t[i].to_dtype(DType::F32).unwrap().copy().unwrap());
        let v = v.abs()?;
        let squares = adamw::sums_of_squares(&[&g, &m, &v])?;
        adamw::step(&w, &g, &m, &v, Some(&half), &step)?;
        assert_eq!(
            half.to_dtype(DType::F32)?.to_vec2::<f32>()?,
            w.to_dtype(DType::BF16)?.to_dtype(DType::F32)?.to_vec2::<f32>()?
        );
        Ok(vec![w, g, m, v, Tensor::new(squares, &Device::Cpu)?])
    });
}

/// No kernel races, writes where another block writes or reads, or reads shared memory that it did not write; and each
/// of these would be found: without any one barrier that kernels need, there is a race.
#[test]
fn accesses_of_kernels_are_ordered() {
    if check::test_device().is_some() {
        return; // compute-sanitizer looks there
    }
    let Some(checks) = Checks::watched() else { return };
    let (text, _) = checks.run("EMULATOR_CUT", "");
    assert!(text.contains("all kernels ran, found 0"), "{text}");
    let (text, _) = checks.run("EMULATOR_FAULT", "overlap");
    assert!(text.contains("found: put_rows_bf16: two blocks write to one address"), "{text}");
    let needless =
        barriers().into_par_iter().filter(|barrier| !checks.run("EMULATOR_CUT", barrier).0.contains("found: "));
    let needless: Vec<String> = needless.collect();
    // Behind one of them block_max could be called again, which no kernel does.
    assert!(matches!(&needless[..], [one] if one.starts_with("common.cuh:")), "{needless:?}");
}

/// Where kernels have barriers, such as `attention.cu:44`.
fn barriers() -> Vec<String> {
    let folder = harness::root().join("stages/lm/kernels");
    let mut all = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().enumerate().filter(|(_, line)| line.contains("__syncthreads();"));
        all.extend(lines.map(|(i, _)| format!("{name}:{}", i + 1)));
    }
    assert!(all.len() > 10, "{all:?}");
    all
}

/// Its own tests need programs with the feature `cuda`: `tests/gpu-rehearsal.sh`.
#[test]
fn the_stand_in_for_a_driver_compiles() {
    if check::test_device().is_none() {
        Checks::stand_in();
    }
}

/// No kernel leaves its tensors or shared memory, moves packs at addresses that do not fit them, or does what C++ leaves
/// undefined; and a tensor that is too short would be found.
#[test]
fn kernels_stay_within_their_memory() {
    if check::test_device().is_some() {
        return;
    }
    let Some(checks) = Checks::sanitized() else { return };
    let (text, well) = checks.run("EMULATOR_FAULT", "");
    assert!(well && text.contains("all kernels ran"), "{text}");
    let (text, well) = checks.run("EMULATOR_FAULT", "short");
    assert!(!well && text.contains("heap-buffer-overflow"), "{text}");
}
