//! Products of matrices whose numbers are rounded to bf16 first: products are exact in f32 and are summed in f32.
//!
//! Where nothing here multiplies such numbers faster than those of f32, copies are rounded and multiplied in f32.

#[cfg(target_arch = "x86_64")]
mod block;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::ops::matrix::{self, By, Into, Matrix, MatrixMut};
use crate::ops::real::{Real, vectorised};
use rayon::prelude::*;

/// Numbers of the larger operand that are rounded at once: 4 MiB.
const BLOCK: usize = 1 << 20;
/// Numbers that one task rounds.
const STRETCH: usize = 1 << 14;

/// True where this machine has a unit that multiplies numbers in bf16 faster than in f32.
pub(crate) fn is_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    return tiles::unit().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The precision of the operands of a product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Products {
    /// Nothing.
    #[default]
    Exact,
    /// They are rounded to bf16, and their products are summed in f32. Numbers in f64 stay as they are.
    Rounded,
}

impl Products {
    /// out = a b, or out += a b, by all threads.
    pub fn multiply<T: Real>(self, a: Matrix<T>, b: Matrix<T>, out: MatrixMut<T>, into: Into) {
        match self {
            Products::Exact => matrix::multiply(a, b, out, into, By::All),
            Products::Rounded => multiply(a, b, out, into),
        }
    }

    /// a b [m, n], by all threads.
    pub fn product<T: Real>(self, a: Matrix<T>, b: Matrix<T>) -> Vec<T> {
        if self == Products::Exact {
            return matrix::product(a, b);
        }
        let (rows, cols) = (a.rows, b.cols);
        let mut out = T::zeros(rows * cols);
        multiply(a, b, MatrixMut::new(&mut out, rows, cols, cols), Into::Fresh);
        out
    }
}

/// out = a b, or out += a b, of numbers rounded to bf16. Every output is summed by one task in one order, so that the
/// bytes do not depend on the number of threads; they may differ between processors.
fn multiply<T: Real>(a: Matrix<T>, b: Matrix<T>, out: MatrixMut<T>, into: Into) {
    assert_eq!((a.rows, a.cols, b.cols), (out.rows, b.rows, out.cols), "shapes of a matrix product");
    #[cfg(target_arch = "x86_64")]
    if let (Some(unit), Some(left), Some(right)) = (tiles::unit(), T::singles(a.data), T::singles(b.data)) {
        let data = T::singles_mut(out.data).expect("one type of numbers");
        let of = |data, Matrix { rows, cols, row_stride, col_stride, .. }| Matrix {
            data,
            rows,
            cols,
            row_stride,
            col_stride,
        };
        let out = MatrixMut { data, rows: out.rows, cols: out.cols, stride: out.stride };
        return tiles::multiply(unit, of(left, a), of(right, b), out, into);
    }
    multiply_copies(a, b, out, into, BLOCK);
}

/// The same of rounded copies; that of the larger operand is made block by block.
fn multiply_copies<T: Real>(a: Matrix<T>, b: Matrix<T>, out: MatrixMut<T>, into: Into, block: usize) {
    if a.cols == 0 || a.rows == 0 || b.cols == 0 {
        return matrix::multiply(a, b, out, into, By::All);
    }
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let step = (block / a.cols).max(1);
    let MatrixMut { data, rows, cols, stride } = out;
    if rows > cols {
        let b = rounded(b, &mut right);
        for first in (0..rows).step_by(step) {
            let rows = step.min(rows - first);
            let a = Matrix { data: &a.data[first * a.row_stride..], rows, ..a };
            let out = MatrixMut { data: &mut data[first * stride..], rows, cols, stride };
            matrix::multiply(rounded(a, &mut left), b, out, into, By::All);
        }
    } else {
        let a = rounded(a, &mut left);
        for first in (0..cols).step_by(step) {
            let cols = step.min(cols - first);
            let b = Matrix { data: &b.data[first * b.col_stride..], cols, ..b };
            let out = MatrixMut { data: &mut data[first..], rows, cols, stride };
            matrix::multiply(a, rounded(b, &mut right), out, into, By::All);
        }
    }
}

/// A rounded copy in `room`, in the order in which the numbers lie in memory.
fn rounded<'r, T: Real>(matrix: Matrix<T>, room: &'r mut Vec<T>) -> Matrix<'r, T> {
    let Matrix { data, rows, cols, row_stride, col_stride } = matrix;
    let turned = col_stride > row_stride;
    let (lines, stride, length, step) =
        if turned { (cols, col_stride, rows, row_stride) } else { (rows, row_stride, cols, col_stride) };
    room.resize(lines * length, T::zero());
    let at_once = (STRETCH / length).max(1);
    room.par_chunks_mut(at_once * length).enumerate().for_each(|(task, into)| {
        for (line, into) in into.chunks_exact_mut(length).enumerate() {
            let from = &data[(task * at_once + line) * stride..];
            if step == 1 {
                round_row(&from[..length], into);
            } else {
                into.iter_mut().zip(from.iter().step_by(step)).for_each(|(into, from)| *into = from.rounded());
            }
        }
    });
    let (row_stride, col_stride) = if turned { (1, rows) } else { (cols, 1) };
    Matrix { data: room, rows, cols, row_stride, col_stride }
}

vectorised! {
    /// Numbers rounded to bf16 where they are of f32.
    fn round_row<T: Real>(from: &[T], into: &mut [T]) {
        for (into, from) in into.iter_mut().zip(from) {
            *into = from.rounded();
        }
    }
}

/// The upper half of a number after rounding to nearest, ties to even.
#[cfg(any(target_arch = "x86_64", test))]
fn round(x: f32) -> u16 {
    (x.rounded().to_bits() >> 16) as u16
}
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers that differ from one another, some with nothing to round.
    fn numbers(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| if i % 7 == 0 { (i % 5) as f32 } else { (i as f32 * seed).sin() }).collect()
    }

    /// A way to compute, in blocks so small that products have several.
    #[derive(Debug)]
    enum Way {
        Copies,
        #[cfg(target_arch = "x86_64")]
        Tiles(tiles::Unit),
    }

    /// All that this machine has.
    fn ways() -> Vec<Way> {
        #[cfg(target_arch = "x86_64")]
        return tiles::units().into_iter().map(Way::Tiles).chain([Way::Copies]).collect();
        #[cfg(not(target_arch = "x86_64"))]
        vec![Way::Copies]
    }

    impl Way {
        fn multiply(&self, a: Matrix<f32>, b: Matrix<f32>, out: MatrixMut<f32>, into: Into) {
            match self {
                Way::Copies => multiply_copies(a, b, out, into, 1000),
                #[cfg(target_arch = "x86_64")]
                Way::Tiles(unit) => tiles::multiply(*unit, a, b, out, into),
            }
        }
    }

    fn in_bf16(x: f32) -> f64 {
        f64::from(half::bf16::from_f32(x).to_f32())
    }

    /// The product of rounded numbers in f64.
    fn product(a: Matrix<f32>, b: Matrix<f32>, i: usize, j: usize) -> f64 {
        let at = |m: Matrix<f32>, i: usize, j: usize| in_bf16(m.data[i * m.row_stride + j * m.col_stride]);
        (0..a.cols).map(|k| at(a, i, k) * at(b, k, j)).sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Every way of this machine, operands of either orientation, all sizes around those of tiles and blocks.
        #[test]
        fn all_ways_sum_products_of_rounded_numbers(
            (m, n, k) in (1_usize..150, 1_usize..80, 1_usize..1100),
            (turn_a, turn_b, add, pad) in (any::<bool>(), any::<bool>(), any::<bool>(), 0_usize..3),
        ) {
            let (a, b) = (numbers(m.max(k) * (m.max(k) + pad), 0.37), numbers(n.max(k) * (n.max(k) + pad), 0.21));
            let a = if turn_a { Matrix::new(&a, k, m, m + pad).t() } else { Matrix::new(&a, m, k, k + pad) };
            let b = if turn_b { Matrix::new(&b, n, k, k + pad).t() } else { Matrix::new(&b, k, n, n + pad) };
            for way in ways() {
                let mut out = vec![0.5; m * (n + pad)];
                let into = if add { Into::Added } else { Into::Fresh };
                way.multiply(a, b, MatrixMut::new(&mut out, m, n, n + pad), into);
                for (at, &got) in out.iter().enumerate() {
                    let (i, j) = (at / (n + pad), at % (n + pad));
                    let want = if j < n { product(a, b, i, j) + if add { 0.5 } else { 0.0 } } else { 0.5 };
                    prop_assert!((f64::from(got) - want).abs() < 1e-3 + 1e-5 * want.abs(), "{way:?} [{i}, {j}]: {got}, want {want}");
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
        for way in ways() {
            let (a, b) = ([f32::NAN, 1.0], [2.0]);
            let mut out = [0.0; 2];
            let (a, b) = (Matrix::new(&a, 2, 1, 1), Matrix::new(&b, 1, 1, 1));
            way.multiply(a, b, MatrixMut::new(&mut out, 2, 1, 1), Into::Fresh);
            assert!(out[0].is_nan() && out[1] == 2.0, "{way:?}: {out:?}");
        }
    }
}
