//! Products of matrices whose numbers are rounded to bf16 first: products are exact in f32 and are summed in f32.
//!
//! Both operands are packed into tiles of 16 x 16 words, a word being two numbers that follow one another along the
//! inner dimension, the form that the matrix units of x86 processors read. Where there are none (AMX-BF16), vectors of
//! AVX512-BF16 take the same tiles, and where these are missing too, plain code.

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::ops::matrix::{Into, Matrix, MatrixMut};
use rayon::prelude::*;
use std::sync::OnceLock;

// m rows of a, n columns of b, k the inner dimension; a tile covers 16 of m or n and 32 of k.

/// Rows and columns of words in a tile.
const SIDE: usize = 16;
/// Numbers along the inner dimension that a tile covers.
const DEPTH: usize = 2 * SIDE;
/// Words of a tile.
const TILE: usize = SIDE * SIDE;
/// Rows and columns of the output that are computed at once: two tiles each way.
const BLOCK: usize = 2 * SIDE;
/// Rows of the output that one task computes.
const TASK_ROWS: usize = 128;
/// Tiles along the inner dimension between two visits to the output, so that a panel of b stays in the first cache.
const RUN: usize = 16;

/// Unit that multiplies tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// The matrix unit.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// Vectors of bf16 pairs.
    #[cfg(target_arch = "x86_64")]
    Vectors,
    /// Plain code.
    Plain,
}

/// The best that this machine has.
fn unit() -> Unit {
    static UNIT: OnceLock<Unit> = OnceLock::new();
    *UNIT.get_or_init(|| units()[0])
}

/// True where this machine multiplies numbers in bf16 faster than in f32, as far as its instructions show.
pub(crate) fn is_fast() -> bool {
    unit() != Unit::Plain
}

/// All that this machine has, the best first.
fn units() -> Vec<Unit> {
    let mut units = Vec::new();
    #[cfg(target_arch = "x86_64")]
    if x86::has_vectors() {
        if x86::has_amx() {
            units.push(Unit::Amx);
        }
        units.push(Unit::Vectors);
    }
    units.push(Unit::Plain);
    units
}

/// out = a b, or out += a b, of numbers rounded to bf16. Every output is summed by one task in one order, so that the
/// bytes do not depend on the number of threads; they may differ between processors.
pub(crate) fn multiply(a: Matrix<f32>, b: Matrix<f32>, out: MatrixMut<f32>, into: Into) {
    multiply_on(unit(), a, b, out, into);
}

fn multiply_on(unit: Unit, a: Matrix<f32>, b: Matrix<f32>, out: MatrixMut<f32>, into: Into) {
    assert_eq!((a.rows, a.cols, b.cols), (out.rows, b.rows, out.cols), "shapes of a matrix product");
    let (m, n, k) = (a.rows, b.cols, a.cols);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if into == Into::Fresh {
            out.data.chunks_mut(out.stride).for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    let tiles = k.div_ceil(DEPTH);
    let a = Side { data: a.data, outer_stride: a.row_stride, inner_stride: a.col_stride, outers: m, inners: k };
    let b = Side { data: b.data, outer_stride: b.col_stride, inner_stride: b.row_stride, outers: n, inners: k };
    // Panels of 16 columns of b, an even number of them.
    let panels = n.div_ceil(BLOCK) * 2;
    let panel = tiles * TILE;
    let mut packed_b = aligned(panels * panel);
    packed_b
        .words_mut()
        .par_chunks_mut(panel)
        .enumerate()
        .for_each(|(i, into)| b.pack(unit, i * SIDE, 0..tiles, Layout::Inner, into));
    let packed_b = packed_b.words();
    let rows = TASK_ROWS.min(m.div_ceil(rayon::current_num_threads()).next_multiple_of(BLOCK));
    let used = (m - 1) * out.stride + n;
    let stride = out.stride;
    out.data[..used].par_chunks_mut(rows * stride).enumerate().for_each_init(
        || aligned(rows * RUN * SIDE),
        |packed_a, (task, out)| {
            let _tiles = unit.start();
            let first = task * rows;
            let count = rows.min(m - first);
            for start in (0..tiles).step_by(RUN) {
                let run = RUN.min(tiles - start);
                let fresh = start == 0 && into == Into::Fresh;
                let words = packed_a.words_mut();
                for i in 0..count.div_ceil(BLOCK) * 2 {
                    a.pack(
                        unit,
                        first + i * SIDE,
                        start..start + run,
                        Layout::Outer,
                        &mut words[i * run * TILE..][..run * TILE],
                    );
                }
                for column in (0..n).step_by(BLOCK) {
                    let b = &packed_b[column / SIDE * panel + start * TILE..][..panel + run * TILE];
                    for row in (0..count).step_by(BLOCK) {
                        let a = &packed_a.words()[row / SIDE * run * TILE..][..2 * run * TILE];
                        let block = Block { a, b, panel, run };
                        let (rows, cols) = (BLOCK.min(count - row), BLOCK.min(n - column));
                        let out = &mut out[row * stride + column..];
                        if rows == BLOCK && cols == BLOCK {
                            unit.add(&block, out, stride, fresh);
                        } else {
                            let mut edge = [0.0; BLOCK * BLOCK];
                            unit.add(&block, &mut edge, BLOCK, true);
                            for (out, edge) in out.chunks_mut(stride).zip(edge.chunks(BLOCK)).take(rows) {
                                for (out, &x) in out[..cols].iter_mut().zip(edge) {
                                    *out = if fresh { x } else { *out + x };
                                }
                            }
                        }
                    }
                }
            }
        },
    );
}

/// Words of which the first stands at the beginning of a cache line.
struct Aligned {
    words: Vec<u32>,
    range: std::ops::Range<usize>,
}

fn aligned(count: usize) -> Aligned {
    const LINE: usize = 64;
    let words = vec![0_u32; count + LINE / size_of::<u32>()];
    let start = words.as_ptr().align_offset(LINE);
    Aligned { words, range: start..start + count }
}

impl Aligned {
    fn words(&self) -> &[u32] {
        &self.words[self.range.clone()]
    }
    fn words_mut(&mut self) -> &mut [u32] {
        &mut self.words[self.range.clone()]
    }
}

/// One operand: its outer dimension is that of the output.
#[derive(Clone, Copy)]
struct Side<'a> {
    data: &'a [f32],
    outer_stride: usize,
    inner_stride: usize,
    outers: usize,
    inners: usize,
}

/// The layout of a tile's rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Indices of the outer dimension; pairs along the inner one stand side by side. For a.
    Outer,
    /// Pairs along the inner dimension; indices of the outer one stand side by side. For b.
    Inner,
}

impl Side<'_> {
    /// Packs 16 outer indices from `outer` on over some tiles of the inner dimension; 0 beyond the edges.
    fn pack(&self, unit: Unit, outer: usize, tiles: std::ops::Range<usize>, layout: Layout, into: &mut [u32]) {
        for (tile, into) in tiles.zip(into.chunks_exact_mut(TILE)) {
            let inner = tile * DEPTH;
            let (outers, inners) = (SIDE.min(self.outers.saturating_sub(outer)), DEPTH.min(self.inners - inner));
            #[cfg(target_arch = "x86_64")]
            if unit != Unit::Plain
                && outers == SIDE
                && inners == DEPTH
                && (self.inner_stride == 1 || self.outer_stride == 1)
            {
                let data = &self.data[outer * self.outer_stride + inner * self.inner_stride..];
                let last = (SIDE - 1) * self.outer_stride + (DEPTH - 1) * self.inner_stride;
                assert!(last < data.len(), "a tile within its matrix");
                // SAFETY: the unit was found on this processor; the tile lies within the data.
                unsafe {
                    if self.inner_stride == 1 {
                        x86::pack_rows(data.as_ptr(), self.outer_stride, layout == Layout::Inner, into);
                    } else {
                        x86::pack_columns(data.as_ptr(), self.inner_stride, layout == Layout::Outer, into);
                    }
                }
                continue;
            }
            let number = |i: usize, j: usize| {
                if i < outers && j < inners {
                    u32::from(round(self.data[(outer + i) * self.outer_stride + (inner + j) * self.inner_stride]))
                } else {
                    0
                }
            };
            for i in 0..SIDE {
                for pair in 0..SIDE {
                    let at = if layout == Layout::Outer { i * SIDE + pair } else { pair * SIDE + i };
                    into[at] = number(i, 2 * pair) | number(i, 2 * pair + 1) << 16;
                }
            }
        }
    }
}

/// The upper half of a number after rounding to nearest, ties to even.
fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Two panels of a and two of b, over a run of tiles.
struct Block<'a> {
    /// Two panels, one after the other.
    a: &'a [u32],
    /// Two panels, `panel` words apart.
    b: &'a [u32],
    panel: usize,
    run: usize,
}

impl Unit {
    /// Makes the calling thread's matrix unit ready, until what this gives is dropped.
    fn start(self) -> Option<Ready> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Unit::Amx => {
                // SAFETY: the unit was found, and the kernel permits its use.
                unsafe { x86::configure() };
                Some(Ready)
            }
            _ => None,
        }
    }

    /// Adds the product of a block to 32 x 32 numbers, or puts it there.
    fn add(self, block: &Block, out: &mut [f32], stride: usize, fresh: bool) {
        assert!(block.a.len() == 2 * block.run * TILE && block.b.len() == block.panel + block.run * TILE);
        assert!(out.len() >= (BLOCK - 1) * stride + BLOCK);
        match self {
            // SAFETY: the units were found on this processor, the lengths are those that were asserted, and `start`
            // came before in this thread.
            #[cfg(target_arch = "x86_64")]
            Unit::Amx => unsafe { x86::add_tiles(block, out.as_mut_ptr(), stride, fresh) },
            #[cfg(target_arch = "x86_64")]
            Unit::Vectors => unsafe { x86::add_vectors(block, out.as_mut_ptr(), stride, fresh) },
            Unit::Plain => add_plain(block, out, stride, fresh),
        }
    }
}

/// A thread's matrix unit in use.
struct Ready;

impl Drop for Ready {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: it is made only where there is a matrix unit.
        unsafe {
            x86::release();
        }
    }
}

fn add_plain(block: &Block, out: &mut [f32], stride: usize, fresh: bool) {
    let (low, high) = (|word: u32| f32::from_bits(word << 16), |word: u32| f32::from_bits(word & 0xffff_0000));
    for i in 0..BLOCK {
        let row = &mut out[i * stride..][..BLOCK];
        for (half, row) in row.chunks_exact_mut(SIDE).enumerate() {
            let mut sums = [0f32; SIDE];
            if !fresh {
                sums.copy_from_slice(row);
            }
            for tile in 0..block.run {
                let a = &block.a[i / SIDE * block.run * TILE + tile * TILE + i % SIDE * SIDE..][..SIDE];
                let b = &block.b[half * block.panel + tile * TILE..][..TILE];
                for (&a, b) in a.iter().zip(b.chunks_exact(SIDE)) {
                    for (sum, &b) in sums.iter_mut().zip(b) {
                        *sum += low(a) * low(b);
                        *sum += high(a) * high(b);
                    }
                }
            }
            row.copy_from_slice(&sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers that differ from one another, some with nothing to round.
    fn numbers(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| if i % 7 == 0 { (i % 5) as f32 } else { (i as f32 * seed).sin() }).collect()
    }

    fn rounded(x: f32) -> f64 {
        f64::from(half::bf16::from_f32(x).to_f32())
    }

    /// The product of rounded numbers in f64.
    fn product(a: Matrix<f32>, b: Matrix<f32>, i: usize, j: usize) -> f64 {
        let at = |m: Matrix<f32>, i: usize, j: usize| rounded(m.data[i * m.row_stride + j * m.col_stride]);
        (0..a.cols).map(|k| at(a, i, k) * at(b, k, j)).sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Every unit of this machine, operands of either orientation, all sizes around those of tiles and blocks.
        #[test]
        fn all_units_sum_products_of_rounded_numbers(
            (m, n, k) in (1_usize..150, 1_usize..80, 1_usize..1100),
            (turn_a, turn_b, add, pad) in (any::<bool>(), any::<bool>(), any::<bool>(), 0_usize..3),
        ) {
            let (a, b) = (numbers(m.max(k) * (m.max(k) + pad), 0.37), numbers(n.max(k) * (n.max(k) + pad), 0.21));
            let a = if turn_a { Matrix::new(&a, k, m, m + pad).t() } else { Matrix::new(&a, m, k, k + pad) };
            let b = if turn_b { Matrix::new(&b, n, k, k + pad).t() } else { Matrix::new(&b, k, n, n + pad) };
            for unit in units() {
                let mut out = vec![0.5; m * (n + pad)];
                let into = if add { Into::Added } else { Into::Fresh };
                multiply_on(unit, a, b, MatrixMut::new(&mut out, m, n, n + pad), into);
                for (at, &got) in out.iter().enumerate() {
                    let (i, j) = (at / (n + pad), at % (n + pad));
                    let want = if j < n { product(a, b, i, j) + if add { 0.5 } else { 0.0 } } else { 0.5 };
                    prop_assert!((f64::from(got) - want).abs() < 1e-3 + 1e-5 * want.abs(), "{unit:?} [{i}, {j}]: {got}, want {want}");
                }
            }
        }
    }

    #[test]
    fn same_bytes_for_any_number_of_threads() {
        let (m, k, n) = (301, 517, 203);
        let (a, b) = (numbers(m * k, 0.37), numbers(n * k, 0.21));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut out = vec![0f32; m * n];
                let (a, b) = (Matrix::new(&a, m, k, k), Matrix::new(&b, n, k, k).t());
                multiply(a, b, MatrixMut::new(&mut out, m, n, n), Into::Fresh);
                out
            })
        };
        let one = run(1);
        for threads in [2, 3, 4] {
            assert!(one == run(threads), "{threads} threads");
        }
    }

    #[test]
    fn rounding_is_to_nearest_and_keeps_what_is_not_finite() {
        for x in [1.0, -1.003_906_3, 1.011_718_8, 3.1e38, f32::MAX, 1e-38, f32::INFINITY, f32::NEG_INFINITY, -0.0] {
            assert_eq!(round(x), half::bf16::from_f32(x).to_bits(), "{x}");
        }
        for unit in units() {
            let a = [f32::NAN, 1.0];
            let mut out = [0.0; 2];
            multiply_on(
                unit,
                Matrix::new(&a, 2, 1, 1),
                Matrix::new(&[2.0], 1, 1, 1),
                MatrixMut::new(&mut out, 2, 1, 1),
                Into::Fresh,
            );
            assert!(out[0].is_nan() && out[1] == 2.0, "{unit:?}: {out:?}");
        }
    }
}
