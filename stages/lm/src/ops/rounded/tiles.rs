//! Products of matrices whose numbers are rounded to bf16, by the matrix unit of x86 processors (AMX-BF16), or by
//! vectors where these are faster than in f32.
//!
//! Both operands are packed into tiles of 16 x 16 words, a word being two numbers that follow one another along the
//! inner dimension, the form that the unit reads.

use super::block::{BLOCK, Block, SIDE, TILE};
use super::{round, x86};
use crate::ops::matrix::{Into, Matrix, MatrixMut};
use rayon::prelude::*;
use std::sync::OnceLock;

// m rows of a, n columns of b, k the inner dimension; a tile covers 16 of m or n and 32 of k.

/// Numbers along the inner dimension that a tile covers.
const DEPTH: usize = 2 * SIDE;
/// Rows of the output that one task computes.
const TASK_ROWS: usize = 128;
/// Columns of b that are packed at once: a few megabytes, however wide a vocabulary is.
const COLUMNS: usize = if cfg!(test) { 2 * BLOCK } else { 2048 };
/// Tiles along the inner dimension between two visits to the output, so that a panel of b stays in the first cache.
const RUN: usize = 16;

/// The code that multiplies tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// The matrix unit.
    Amx,
    /// Vectors of bf16 pairs.
    Vectors,
    /// Plain code, which shows without a matrix unit that tiles are right.
    #[cfg(test)]
    Plain,
}

/// The unit by which this machine multiplies numbers in bf16 faster than in f32, where it has one.
pub(super) fn unit() -> Option<Unit> {
    static UNIT: OnceLock<Option<Unit>> = OnceLock::new();
    *UNIT.get_or_init(|| match x86::has_vectors() && x86::has_amx() {
        true => Some(Unit::Amx),
        false => x86::has_fast_vectors().then_some(Unit::Vectors),
    })
}

/// All that multiply tiles here, fast or not.
#[cfg(test)]
pub(super) fn units() -> Vec<Unit> {
    let vectors = x86::has_vectors();
    let found = [(Unit::Amx, vectors && x86::has_amx()), (Unit::Vectors, vectors), (Unit::Plain, true)];
    found.into_iter().filter_map(|(unit, is_here)| is_here.then_some(unit)).collect()
}

/// out = a b, or out += a b, of numbers rounded to bf16.
pub(super) fn multiply(unit: Unit, a: Matrix<f32>, b: Matrix<f32>, out: MatrixMut<f32>, into: Into) {
    if a.cols == 0 {
        if into == Into::Fresh && out.rows > 0 {
            out.data.chunks_mut(out.stride).take(out.rows).for_each(|row| row[..out.cols].fill(0.0));
        }
        return;
    }
    for first in (0..b.cols).step_by(COLUMNS) {
        let cols = COLUMNS.min(b.cols - first);
        let b = Matrix { data: &b.data[first * b.col_stride..], cols, ..b };
        let out = MatrixMut { data: &mut out.data[first..], rows: out.rows, cols, stride: out.stride };
        multiply_columns(unit, a, b, out, into);
    }
}

fn multiply_columns(unit: Unit, a: Matrix<f32>, b: Matrix<f32>, out: MatrixMut<f32>, into: Into) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    if m == 0 || n == 0 {
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
        .for_each(|(i, into)| b.pack(i * SIDE, 0..tiles, Layout::Inner, into));
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
    fn pack(&self, outer: usize, tiles: std::ops::Range<usize>, layout: Layout, into: &mut [u32]) {
        for (tile, into) in tiles.zip(into.chunks_exact_mut(TILE)) {
            let inner = tile * DEPTH;
            let (outers, inners) = (SIDE.min(self.outers.saturating_sub(outer)), DEPTH.min(self.inners - inner));
            if x86::has_vectors()
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

impl Unit {
    /// Makes the calling thread's matrix unit ready, until what this gives is dropped.
    fn start(self) -> Option<Ready> {
        match self {
            Unit::Amx => {
                // SAFETY: the unit was found, and the kernel permits its use.
                unsafe { x86::configure() };
                Some(Ready)
            }
            Unit::Vectors => None,
            #[cfg(test)]
            Unit::Plain => None,
        }
    }

    /// Adds the product of a block to 32 x 32 numbers, or puts it there.
    fn add(self, block: &Block, out: &mut [f32], stride: usize, fresh: bool) {
        assert!(block.a.len() == 2 * block.run * TILE && block.b.len() == block.panel + block.run * TILE);
        assert!(out.len() >= (BLOCK - 1) * stride + BLOCK);
        match self {
            // SAFETY: the unit was found on this processor, the lengths are those that were asserted, and `start`
            // came before in this thread.
            Unit::Amx => unsafe { x86::add_tiles(block, out.as_mut_ptr(), stride, fresh) },
            Unit::Vectors => unsafe { x86::add_vectors(block, out.as_mut_ptr(), stride, fresh) },
            #[cfg(test)]
            Unit::Plain => add_plain(block, out, stride, fresh),
        }
    }
}

/// A thread's matrix unit in use.
struct Ready;

impl Drop for Ready {
    fn drop(&mut self) {
        // SAFETY: it is made only where there is a matrix unit.
        unsafe {
            x86::release();
        }
    }
}

#[cfg(test)]
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
