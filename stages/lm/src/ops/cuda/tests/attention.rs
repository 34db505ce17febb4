//! Attention by GPU kernels against that of the CPU: over forests that fork, and over caches.

use super::{agrees, numbers};
use crate::model::forest;
use crate::ops::cuda::balance::ByKeys;
use crate::ops::cuda::emulator::{calls, emulated};
use crate::ops::tiles::{PlanOf, Saved, Shape, Tile, Tiles, tiles};
use crate::ops::{Kernel, attention, attention_backward, check, kernel_for};
use crate::{DType, Device, Sequence};
use candle_core::Tensor;
use std::cell::Cell;

/// Sequences with a long trunk, some of which fork again, and one of its own.
fn trees(trunk: u32, branches: u32, length: u32) -> forest::Forest {
    let mut owned = vec![vec![7; 5]];
    for i in 0..branches {
        let fork = (0..9).map(|j| 100 + i / 2 + j);
        owned
            .push((0..trunk).map(|j| j % 50).chain(fork).chain((0..length + i).map(|j| 60 + i * 3 + j % 30)).collect());
    }
    packed(&owned.into_iter().map(sequence).collect::<Vec<_>>())
}

fn sequence(ids: Vec<u32>) -> Sequence {
    let start = ids.len();
    Sequence::new(ids, start)
}

fn packed(owned: &[Sequence]) -> forest::Forest {
    let all: Vec<&Sequence> = owned.iter().collect();
    let mut forests = forest::forests(&all, forest::Want::States, 1000, 100_000).unwrap();
    assert_eq!(forests.len(), 1);
    forests.remove(0)
}

fn agrees_with_cpu(shape: Shape, forest: &forest::Forest) {
    let tiles = tiles(forest);
    let rows = forest.ids.len();
    agrees(0.03, &[numbers(1, &[rows, shape.width()]), numbers(2, &[rows, shape.query_width()])], |t| {
        let (out, lse) = attention::forward(&t[0], &tiles, &shape, true)?;
        let lse = lse.unwrap();
        let saved = Saved { qkv: &t[0], out: &out, lse: &lse };
        let d = attention_backward::backward(&saved, &t[1], forest, &tiles, &shape)?;
        Ok(vec![out, lse, d])
    });
}

#[test]
fn over_forests() {
    for window in [None, Some(1), Some(30), Some(100)] {
        agrees_with_cpu(
            Shape { heads: 3, kv_heads: 1, head_dim: 16, window, scale: 0.3, cap: None },
            &trees(90, 4, 20),
        );
    }
    agrees_with_cpu(Shape { heads: 2, kv_heads: 2, head_dim: 2, window: None, scale: 0.3, cap: None }, &trees(3, 2, 4));
}

#[test]
fn of_wide_heads() {
    for (heads, kv_heads, head_dim) in [(4, 2, 64), (2, 1, 80), (1, 1, 128)] {
        agrees_with_cpu(Shape { heads, kv_heads, head_dim, window: None, scale: 0.3, cap: None }, &trees(40, 2, 50));
    }
    agrees_with_cpu(
        Shape { heads: 8, kv_heads: 1, head_dim: 96, window: None, scale: 0.3, cap: None },
        &trees(5, 1, 20),
    );
}

/// Heads of up to 256 columns and bounded scores, by kernels alone. A tile has more rows than a block of wide heads in
/// f32, and one has fewer.
#[test]
fn of_gemma() {
    for (head_dim, cap) in [(256, None), (176, Some(2.0)), (64, Some(0.5))] {
        let shape = Shape { heads: 2, kv_heads: 1, head_dim, window: Some(40), scale: 0.3, cap };
        agrees_with_cpu(shape, &trees(40, 2, 20));
        calls();
        let Some(called) = emulated(|| {
            let forest = trees(4, 2, 2);
            let (tiles, rows) = (tiles(&forest), forest.ids.len());
            let both = [shape.width(), shape.query_width()].map(|width| check::numbers(1, &[rows, width]));
            let [qkv, g] = both.map(|t| t.to_dtype(DType::F32).unwrap());
            let (out, lse) = attention::forward(&qkv, &tiles, &shape, true).unwrap();
            let saved = Saved { qkv: &qkv, out: &out, lse: &lse.unwrap() };
            attention_backward::backward(&saved, &g, &forest, &tiles, &shape).unwrap();
            calls()
        }) else {
            return;
        };
        let width = if head_dim > 128 { 256 } else { head_dim };
        let wide = |name: &str| format!("{name}_f32_{width}");
        let want = [wide("attention"), "attention_delta_f32".into(), wide("attention_dq"), wide("attention_dkv")];
        assert_eq!(called, want);
    }
}

/// Keys that so many queries see that several blocks take them, whose sums are added.
#[test]
fn to_shared_keys() {
    let forest = trees(10, 12, 40);
    for window in [None, Some(45)] {
        let shape = Shape { heads: 12, kv_heads: 2, head_dim: 8, window, scale: 0.3, cap: None };
        assert!(ByKeys::new(&tiles(&forest), &shape, 2).slots() > 1);
        agrees_with_cpu(shape, &forest);
    }
}

/// What a GPU needs of tiles is made once, and not again by the next block of the same form.
#[test]
fn plans_are_made_once() {
    let forest = trees(20, 2, 4);
    let tiles = tiles(&forest);
    let made = Cell::new(0u32);
    let shape = Shape { heads: 2, kv_heads: 1, head_dim: 8, window: None, scale: 0.3, cap: None };
    let plan = |shape| {
        let make = || {
            made.set(made.get() + 1);
            Ok([Tensor::new(&[made.get()], &Device::Cpu)?])
        };
        let [tensor] = tiles.plans.once(PlanOf { name: "tiles", shape }, &Device::Cpu, make).unwrap();
        tensor.to_vec1::<u32>().unwrap()[0]
    };
    let windowed = Shape { window: Some(3), ..shape };
    let all = [None, Some(shape), Some(windowed), Some(shape), None].map(plan);
    assert_eq!((all, made.get()), ([1, 2, 3, 2, 1], 3));
}

/// More segments on a path than a kernel keeps in shared memory: each sequence leaves the one before it later.
#[test]
fn over_a_long_path() {
    let owned: Vec<Sequence> =
        (1..45).map(|i| sequence((0..2 * i).map(|j| j % 50).chain((0..3).map(|j| 60 + i + j)).collect())).collect();
    let forest = packed(&owned);
    assert!(tiles(&forest).iter().any(|tile| tile.keys.len() > 32));
    for window in [None, Some(9)] {
        agrees_with_cpu(Shape { heads: 2, kv_heads: 1, head_dim: 32, window, scale: 0.3, cap: None }, &forest);
    }
}

#[test]
fn over_a_cache() {
    let shape = Shape { heads: 4, kv_heads: 2, head_dim: 10, window: Some(70), scale: 0.3, cap: None };
    let span = |row, len, depth| forest::Span { row, len, depth };
    let tile = |row, depth, keys| Tile { queries: span(row, 1, depth), keys };
    let tiles = Tiles::new(vec![
        tile(0, 97, vec![span(2, 80, 0), span(100, 18, 80)]),
        tile(1, 80, vec![span(2, 80, 0), span(130, 1, 80)]),
        tile(2, 0, vec![span(0, 1, 0)]),
    ]);
    let keys = [140, shape.key_width()];
    agrees(0.02, &[numbers(1, &[3, shape.width()]), numbers(2, &keys), numbers(3, &keys)], |t| {
        Ok(vec![attention::forward_cached(&t[0], &t[1], &t[2], &tiles, &shape)?])
    });
}

/// Samples of two prompts behind one rubric: what they see in common is one part for all of them, also for more rows than
/// a block takes the queries of.
#[test]
fn over_a_shared_cache() {
    let span = |row, len, depth| forest::Span { row, len, depth };
    let (rubric, prompts) = (span(0, 300, 0), [span(300, 20, 300), span(320, 50, 300)]);
    let mut all = Vec::new();
    for row in 0..43 {
        let (prompt, len) = (prompts[usize::from(row > 39)], if row == 41 { 270 } else { 1 + row % 3 });
        let depth = prompt.depth + prompt.len;
        let keys = vec![rubric, prompt, span(400 + 3 * row, len, depth)];
        all.push(Tile { queries: span(row, 1, depth + len - 1), keys });
    }
    let tiles = Tiles::new(all);
    for window in [None, Some(60), Some(350)] {
        let shape = Shape { heads: 4, kv_heads: 2, head_dim: 10, window, scale: 0.3, cap: None };
        let keys = [800, shape.key_width()];
        agrees(0.02, &[numbers(1, &[43, shape.width()]), numbers(2, &keys), numbers(3, &keys)], |t| {
            calls();
            let out = attention::forward_cached(&t[0], &t[1], &t[2], &tiles, &shape)?;
            if kernel_for(&[&t[0]]) == Kernel::Cuda && t[0].dtype() == DType::BF16 && t[0].device().is_cpu() {
                assert_eq!(calls(), ["attention_parts_bf16_32", "attention_joined_bf16"]);
            }
            Ok(vec![out])
        });
    }
}
