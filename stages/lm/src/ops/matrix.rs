//! Matrix products on strided slices, by the `gemm` crate.

use crate::ops::Real;
use gemm::Parallelism;

/// A borrowed matrix with any strides.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    pub data: &'a [T],
    pub rows: usize,
    pub cols: usize,
    pub row_stride: usize,
    pub col_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows one after the other in `data`, each `stride` apart, of which the first `cols` count.
    pub fn new(data: &'a [T], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(rows == 0 || (cols <= stride && (rows - 1) * stride + cols <= data.len()), "matrix within its slice");
        Matrix { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// The transposed matrix, by exchange of strides.
    pub fn t(self) -> Self {
        Matrix {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

/// A matrix to write to, rows `stride` apart.
pub(crate) struct MatrixMut<'a, T> {
    pub data: &'a mut [T],
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
}

impl<'a, T> MatrixMut<'a, T> {
    /// Rows one after the other in `data`, each `stride` apart, of which the first `cols` count.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(rows == 0 || (cols <= stride && (rows - 1) * stride + cols <= data.len()), "matrix within its slice");
        MatrixMut { data, rows, cols, stride }
    }
}

/// The target of a product: it starts from zero or adds to the values there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Into {
    Fresh,
    Added,
}

/// Threads that compute a product: all threads of the pool, or the calling one. The result is the same to the bit,
/// since every output is summed over the inner dimension by one thread in one order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    All,
    One,
}

/// a b [m, n], by all threads.
pub(crate) fn product<T: Real>(a: Matrix<T>, b: Matrix<T>) -> Vec<T> {
    let (rows, cols) = (a.rows, b.cols);
    assert_eq!(a.cols, b.rows, "shapes of a matrix product");
    if a.cols == 0 {
        return T::zeros(rows * cols);
    }
    let mut out = Vec::with_capacity(rows * cols);
    // SAFETY: `out` has room for the rows, one after the other; a product that adds to nothing writes all of them.
    unsafe {
        multiply_into(a, b, out.as_mut_ptr(), cols, Into::Fresh, By::All);
        out.set_len(rows * cols);
    }
    out
}

/// out = a b, or out += a b. a is [m, k], b is [k, n], out is [m, n].
pub(crate) fn multiply<T: Real>(a: Matrix<T>, b: Matrix<T>, out: MatrixMut<T>, into: Into, by: By) {
    assert_eq!((a.rows, a.cols, b.cols), (out.rows, b.rows, out.cols), "shapes of a matrix product");
    // SAFETY: the constructor checked that the matrix lies within its slice; `out` is borrowed mutably, so that it
    // overlaps neither `a` nor `b`.
    unsafe { multiply_into(a, b, out.data.as_mut_ptr(), out.stride, into, by) }
}

/// out = a b, or out += a b, at an address.
///
/// # Safety
/// `out` must have room for [m, n] with rows `stride` >= n apart, overlap neither `a` nor `b`, and hold numbers where
/// it is added to.
unsafe fn multiply_into<T: Real>(a: Matrix<T>, b: Matrix<T>, out: *mut T, stride: usize, into: Into, by: By) {
    let parallelism = if by == By::All { Parallelism::Rayon(0) } else { Parallelism::None };
    // SAFETY: the constructors checked that `a` and `b` lie within their slices; the caller answers for `out`.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out,
            1,
            stride as isize,
            into == Into::Added,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            T::one(),
            T::one(),
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_and_transposed_products() {
        let (m, k, n) = (5, 7, 4);
        let a: Vec<f64> = (0..m * 10).map(|i| (i as f64 * 0.37).sin()).collect();
        let b: Vec<f64> = (0..n * 9).map(|i| (i as f64 * 0.21).cos()).collect();
        let mut out = vec![1.0; m * 6];
        multiply(
            Matrix::new(&a, m, k, 10),
            Matrix::new(&b, n, k, 9).t(),
            MatrixMut::new(&mut out, m, n, 6),
            Into::Added,
            By::One,
        );
        for i in 0..m {
            for j in 0..6 {
                let sum: f64 = (0..k).map(|c| a[i * 10 + c] * b[(j % n) * 9 + c]).sum();
                let want = if j < n { 1.0 + sum } else { 1.0 };
                assert!((out[i * 6 + j] - want).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn same_bytes_for_any_number_of_threads() {
        let (m, k, n) = (301, 517, 203);
        let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = (0..n * k).map(|i| (i as f32 * 0.21).cos()).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut out = vec![0f32; m * n];
                let (a, b) = (Matrix::new(&a, m, k, k), Matrix::new(&b, n, k, k).t());
                multiply(a, b, MatrixMut::new(&mut out, m, n, n), Into::Fresh, By::All);
                out
            })
        };
        let one = run(1);
        for threads in [2, 3, 4] {
            assert!(one == run(threads), "{threads} threads");
        }
    }
}
