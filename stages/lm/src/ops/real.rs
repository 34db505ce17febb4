//! Plain slices out of tensors, and the arithmetic that the kernels are generic over.

#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda;
use crate::{DType, Device, Error, Result};
use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, StorageRef, Tensor, WithDType};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::sync::Mutex;

/// Numbers from which on all threads fill a buffer.
const LARGE: usize = 1 << 16;

/// `n` numbers that `fill` writes, stretch by stretch, given where each begins.
fn filled<T: Copy + Send>(n: usize, fill: impl Fn(usize, &mut [MaybeUninit<T>]) + Sync) -> Vec<T> {
    let mut numbers = Vec::with_capacity(n);
    let spare = &mut numbers.spare_capacity_mut()[..n];
    spare.par_chunks_mut(LARGE).enumerate().for_each(|(i, part)| fill(i * LARGE, part));
    // SAFETY: every stretch was written.
    unsafe { numbers.set_len(n) };
    numbers
}

/// Numbers that the CPU kernels compute in: f32 for work, f64 for checking gradients.
pub(crate) trait Real: WithDType {
    fn exp(self) -> Self;
    fn sqrt(self) -> Self;
    fn tanh(self) -> Self;
    /// Zero times `n`.
    fn zeros(n: usize) -> Vec<Self> {
        if n < LARGE {
            return vec![Self::zero(); n];
        }
        filled(n, |_, part| part.fill(MaybeUninit::new(Self::zero())))
    }
    /// A copy.
    fn copied(numbers: &[Self]) -> Vec<Self> {
        if numbers.len() < LARGE {
            return numbers.to_vec();
        }
        filled(numbers.len(), |start, part| {
            for (into, &number) in part.iter_mut().zip(&numbers[start..]) {
                into.write(number);
            }
        })
    }
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
    /// The nearest number in bf16, ties to even, where `Self` is f32; the same otherwise.
    fn rounded(self) -> Self;
    /// The same numbers where `Self` is f32.
    fn singles(_numbers: &[Self]) -> Option<&[f32]> {
        None
    }
    fn singles_mut(_numbers: &mut [Self]) -> Option<&mut [f32]> {
        None
    }
    fn of(value: f64) -> Self {
        Self::from_f64(value)
    }
}

impl Real for f32 {
    /// exp to 2 units in the last place, in a form that compilers turn into vector code. Below -87.3 it is 0;
    /// above 88.7 it is infinite; NaN stays NaN.
    #[inline(always)]
    fn exp(self) -> f32 {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding and subtracting it rounds to an integer.
        let x = if self > 88.73 { 88.73 } else { self };
        let x = if x < -87.33 { -87.33 } else { x };
        let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
        // ln 2 in two parts, so that the remainder is exact.
        let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
        let mut p = 1.987_569_1e-4_f32;
        p = p * r + 1.398_199_9e-3;
        p = p * r + 8.333_452e-3;
        p = p * r + 4.166_579_6e-2;
        p = p * r + 1.666_666_5e-1;
        p = p * r + 0.5;
        let p = p * r * r + r + 1.0;
        // 2^n in two factors, since n may be 128.
        // NaN becomes 0 here and stays NaN through `p`.
        let n = n as i32;
        let half = n >> 1;
        let scale = |k: i32| f32::from_bits(((k + 127) as u32) << 23);
        let y = p * scale(half) * scale(n - half);
        if self < -87.33 { 0.0 } else { y }
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    /// tanh to a few units in the last place, by a quotient of polynomials that is 1 at the ends of its range.
    #[inline(always)]
    fn tanh(self) -> f32 {
        const END: f32 = 7.905_311;
        let x = if self > END { END } else { self };
        let x = if x < -END { -END } else { x };
        let square = x * x;
        let mut p = -2.760_768_5e-16_f32;
        for coefficient in
            [2.000_188e-13, -8.604_672e-11, 5.122_297e-8, 1.485_722_4e-5, 6.372_619_4e-4, 4.893_524_5e-3_f32]
        {
            p = p * square + coefficient;
        }
        let mut q = 1.198_258_4e-6_f32;
        for coefficient in [1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3_f32] {
            q = q * square + coefficient;
        }
        x * p / q
    }
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [f32]> {
        if let CpuStorage::F32(data) = storage { Some(data) } else { None }
    }
    #[inline(always)]
    fn rounded(self) -> f32 {
        let bits = self.to_bits();
        let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
        f32::from_bits(if self.is_nan() { bits & 0xffff_0000 | 0x40_0000 } else { nearest })
    }
    fn singles(numbers: &[f32]) -> Option<&[f32]> {
        Some(numbers)
    }
    fn singles_mut(numbers: &mut [f32]) -> Option<&mut [f32]> {
        Some(numbers)
    }
}

impl Real for f64 {
    #[inline(always)]
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [f64]> {
        if let CpuStorage::F64(data) = storage { Some(data) } else { None }
    }
    #[inline(always)]
    fn rounded(self) -> f64 {
        self
    }
}

/// Form of an operation that serves given tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The CPU kernel in f32.
    F32,
    /// The CPU kernel in f64.
    F64,
    /// The GPU kernels in f32 and bf16.
    #[cfg(any(feature = "cuda", test))]
    Cuda,
    /// Tensor operations: any device, any dtype.
    Plain,
}

/// The CPU kernel where all tensors are contiguous on the CPU and of one dtype that has kernels; the GPU kernel where
/// that serves.
pub(crate) fn kernel_for(tensors: &[&Tensor]) -> Kernel {
    #[cfg(test)]
    if super::PLAIN.get() {
        return Kernel::Plain;
    }
    #[cfg(any(feature = "cuda", test))]
    if cuda::serves(tensors) {
        return Kernel::Cuda;
    }
    let dtype = tensors[0].dtype();
    let native = |t: &&Tensor| matches!(t.device(), Device::Cpu) && t.is_contiguous() && t.dtype() == dtype;
    match dtype {
        DType::F32 if tensors.iter().all(native) => Kernel::F32,
        DType::F64 if tensors.iter().all(native) => Kernel::F64,
        _ => Kernel::Plain,
    }
}

/// The numbers of a contiguous CPU tensor, borrowed.
pub(crate) struct View<'a, T> {
    storage: StorageRef<'a>,
    start: usize,
    end: usize,
    numbers: PhantomData<T>,
}

/// Borrows the numbers of a contiguous CPU tensor of dtype `T`.
pub(crate) fn view<T: Real>(tensor: &Tensor) -> Result<View<'_, T>> {
    let (storage, layout) = tensor.storage_and_layout();
    let (start, end) = layout.contiguous_offsets().ok_or_else(|| Error::internal("a kernel met a strided tensor"))?;
    match &*storage {
        Storage::Cpu(cpu) => T::cpu_storage_as_slice(cpu).map(|_| ())?,
        _ => return Err(Error::internal("a CPU kernel met a tensor of another device")),
    }
    Ok(View { storage, start, end, numbers: PhantomData })
}

impl<T: Real> Deref for View<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let Storage::Cpu(cpu) = &*self.storage else { unreachable!("`view` checked the device") };
        &T::cpu_storage_as_slice(cpu).expect("`view` checked the dtype")[self.start..self.end]
    }
}

/// A CPU tensor that takes over `numbers`.
pub(crate) fn tensor<T: Real>(numbers: Vec<T>, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(numbers, shape.into(), &Device::Cpu)?)
}

/// Changes the numbers of a contiguous CPU tensor in place. All tensors that share its storage change.
pub(crate) fn change<T: Real>(tensor: &Tensor, work: impl FnOnce(&mut [T])) -> Result<()> {
    struct Change<T, F>(Mutex<Option<F>>, PhantomData<T>);
    impl<T: Real, F: FnOnce(&mut [T])> InplaceOp1 for Change<T, F> {
        fn name(&self) -> &'static str {
            "change"
        }
        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
            let refuse = |what: &str| candle_core::Error::Msg(format!("in-place kernel: {what}"));
            let (start, end) = layout.contiguous_offsets().ok_or_else(|| refuse("strided tensor"))?;
            let numbers = T::slice_mut(storage).ok_or_else(|| refuse("other dtype"))?;
            let work = self.0.lock().ok().and_then(|mut work| work.take()).ok_or_else(|| refuse("applied twice"))?;
            work(&mut numbers[start..end]);
            Ok(())
        }
    }
    Ok(tensor.inplace_op1(&Change::<T, _>(Mutex::new(Some(work)), PhantomData))?)
}

/// Compiles a function for the vector units of newer x86 processors too, and picks the widest that is there.
/// The body must hold the loops itself; what rayon calls from inside would not be compiled along.
macro_rules! vectorised {
    ($(#[$meta:meta])* fn $name:ident<T: Real>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name<T: Real>($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn portable<T: Real>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn wide<T: Real>($($arg: $ty),*) $(-> $ret)? {
                    portable($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn medium<T: Real>($($arg: $ty),*) $(-> $ret)? {
                    portable($($arg),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the features were detected on this processor.
                    return unsafe { wide($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the features were detected on this processor.
                    return unsafe { medium($($arg),*) };
                }
            }
            portable($($arg),*)
        }
    };
}
pub(crate) use vectorised;

/// Lanes of a sum: enough for the widest vectors, and a fixed order of addition.
const LANES: usize = 16;

/// The dot product of two rows, in a fixed order.
#[inline(always)]
pub(crate) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::zero(); LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_blocks.remainder(), b_blocks.remainder());
    for (x, y) in a_blocks.zip(b_blocks) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    let mut sum = T::zero();
    for lane in lanes {
        sum += lane;
    }
    for (&x, &y) in a_rest.iter().zip(b_rest) {
        sum += x * y;
    }
    sum
}

/// The sum of the products of three rows, in a fixed order.
#[inline(always)]
pub(crate) fn dot3<T: Real>(a: &[T], b: &[T], c: &[T]) -> T {
    let mut lanes = [T::zero(); LANES];
    let blocks = a.len() / LANES * LANES;
    let (a_rest, b_rest, c_rest) = (&a[blocks..], &b[blocks..], &c[blocks..]);
    for ((x, y), z) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)).zip(c.chunks_exact(LANES)) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i] * z[i];
        }
    }
    let mut sum = T::zero();
    for lane in lanes {
        sum += lane;
    }
    for ((&x, &y), &z) in a_rest.iter().zip(b_rest).zip(c_rest) {
        sum += x * y * z;
    }
    sum
}

/// The largest number of a row; NaN does not count.
#[inline(always)]
pub(crate) fn largest<T: Real>(row: &[T]) -> T {
    let mut lanes = [T::of(f64::NEG_INFINITY); LANES];
    let blocks = row.chunks_exact(LANES);
    let rest = blocks.remainder();
    for block in blocks {
        for i in 0..LANES {
            lanes[i] = if block[i] > lanes[i] { block[i] } else { lanes[i] };
        }
    }
    let mut best = T::of(f64::NEG_INFINITY);
    for &x in lanes.iter().chain(rest) {
        best = if x > best { x } else { best };
    }
    best
}

/// Replaces each x of a row by exp(scale * x - shift) and gives the sum of the results, in a fixed order.
#[inline(always)]
pub(crate) fn exp_in_place<T: Real>(row: &mut [T], scale: T, shift: T) -> T {
    for x in row.iter_mut() {
        *x = (*x * scale - shift).exp();
    }
    let mut lanes = [T::zero(); LANES];
    let blocks = row.chunks_exact(LANES);
    let rest = blocks.remainder();
    for block in blocks {
        for i in 0..LANES {
            lanes[i] += block[i];
        }
    }
    let mut sum = T::zero();
    for &x in lanes.iter().chain(rest) {
        sum += x;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_of_f32_is_accurate_and_keeps_its_limits() {
        let mut x = -87.0_f32;
        while x < 88.0 {
            let (got, want) = (Real::exp(x), f64::exp(f64::from(x)));
            assert!((f64::from(got) / want - 1.0).abs() < 3e-7, "exp({x}) = {got}, want {want}");
            x += 0.0371;
        }
        assert_eq!(Real::exp(0.0_f32), 1.0);
        assert_eq!(Real::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(Real::exp(-1e30_f32), 0.0);
        assert_eq!(Real::exp(f32::INFINITY), f32::INFINITY);
        assert!(Real::exp(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_of_f32_is_accurate_and_keeps_its_limits() {
        let mut x = -10.0_f32;
        while x < 10.0 {
            let (got, want) = (Real::tanh(x), f64::tanh(f64::from(x)));
            assert!((f64::from(got) / want - 1.0).abs() < 4e-7, "tanh({x}) = {got}, want {want}");
            x += 0.00371;
        }
        assert_eq!(Real::tanh(0.0_f32), 0.0);
        assert!((Real::tanh(1e-20_f32) / 1e-20 - 1.0).abs() < 4e-7);
        for (x, want) in [(f32::NEG_INFINITY, -1.0), (-1e30, -1.0), (f32::INFINITY, 1.0)] {
            assert!((Real::tanh(x) - want).abs() < 2e-7);
        }
        assert!(Real::tanh(f32::NAN).is_nan());
    }

    #[test]
    fn views_respect_offsets_and_changes_are_seen_by_all_who_share() {
        let whole = Tensor::arange(0f32, 12., &Device::Cpu).unwrap().reshape((4, 3)).unwrap();
        let part = whole.narrow(0, 1, 2).unwrap();
        assert_eq!(&*view::<f32>(&part).unwrap(), &[3., 4., 5., 6., 7., 8.]);
        change::<f32>(&part, |numbers| numbers.fill(-1.0)).unwrap();
        assert_eq!(whole.narrow(0, 0, 2).unwrap().to_vec2::<f32>().unwrap(), [[0., 1., 2.], [-1., -1., -1.]]);
        assert!(view::<f32>(&whole.t().unwrap()).is_err());
        assert!(view::<f64>(&whole).is_err());
    }
}
