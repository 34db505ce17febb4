//! The LM head: log-probabilities of given tokens, by tiles of the logits; only training whose batch has few logits
//! beside its other activations holds what came of all of them.

#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda;
use crate::ops::linear;
use crate::ops::matrix::{Into, Matrix, MatrixMut};
use crate::ops::pointwise::capped;
use crate::ops::real::{Real, exp_in_place, largest, vectorised};
use crate::ops::rounded::Products;
use crate::ops::targets::{HeadScores, Target};
use crate::ops::{Kernel, add_plain, change, kernel_for, tensor, view};
use crate::{Error, Result};
use candle_core::{D, DType, Tensor};
use rayon::prelude::*;

// R scored rows, H width, V vocabulary; C rows of a chunk or a tile, B tokens of a tile.

/// Scores that a device may be computing yet.
pub(crate) enum Pending {
    Ready(HeadScores),
    #[cfg(any(feature = "cuda", test))]
    Computing(cuda::head::Scores),
}

impl Pending {
    /// The scores, once they are there.
    pub fn wait(self) -> Result<HeadScores> {
        match self {
            Pending::Ready(scores) => Ok(scores),
            #[cfg(any(feature = "cuda", test))]
            Pending::Computing(scores) => scores.wait(),
        }
    }
}

/// How logits are computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Form {
    /// The rounding of the product's numbers.
    pub products: Products,
    /// Logits x become cap tanh(x / cap) where there is a cap.
    pub cap: Option<f64>,
}

#[cfg(any(feature = "cuda", test))]
impl Form {
    /// Logits as the product gives them.
    pub const EXACT: Form = Form { products: Products::Exact, cap: None };
}

/// Values of a tile that may be kept between forward and backward, so that its logits are not computed again.
#[derive(Debug)]
pub(crate) struct Kept {
    /// exp(z - m) [C, B]: m is the largest logit of a row of the tile, or on a GPU the log-sum-exp of the whole row.
    exponentials: Tensor,
    /// m of each row, on a CPU.
    largest: Vec<f64>,
}

/// Logits that are computed at once: some 16 MiB in f32.
const AT_ONCE: usize = 4 << 20;
/// Rows that are computed at once, at most.
const ROWS: usize = 1024;

/// Rows per chunk where logits are computed for the whole vocabulary.
pub(crate) fn chunk_rows(vocab: usize) -> usize {
    (AT_ONCE / vocab.max(1)).clamp(16, ROWS)
}

/// Rows and tokens of a tile. Tiles are tall rather than wide: each reads its tokens' weights, and adds to their
/// gradients, once for all of its rows.
fn tile(rows: usize, vocab: usize) -> (usize, usize) {
    const MULTIPLE: usize = 64;
    let height = rows.clamp(1, ROWS);
    match AT_ONCE / height {
        width if width >= vocab => (height, vocab.max(1)),
        width => (height, width / MULTIPLE * MULTIPLE),
    }
}

/// The largest of some logits of a row, and the sum of exp(z - m) over them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    largest: f64,
    sum: f64,
}

impl Share {
    const NONE: Share = Share { largest: f64::NEG_INFINITY, sum: 0.0 };

    /// That of the logits of both. What is not a number stays in the sum.
    fn with(self, other: Share) -> Share {
        let largest = self.largest.max(other.largest);
        let scaled = |share: Share| share.sum * (share.largest - largest).exp();
        Share { largest, sum: scaled(self) + scaled(other) }
    }

    fn lse(self) -> f64 {
        self.largest + self.sum.ln()
    }
}

/// ln p of targets, sorted by row, under softmax(h W^T): h [R, H], W [V, H].
pub(crate) fn forward(h: &Tensor, weight: &Tensor, targets: &[Target], form: Form) -> Result<HeadScores> {
    begin(h, weight, targets, form)?.wait()
}

/// The same, without waiting for a GPU: what comes next can be prepared meanwhile.
pub(crate) fn begin(h: &Tensor, weight: &Tensor, targets: &[Target], form: Form) -> Result<Pending> {
    let scores = match kernel_for(&[h, weight]) {
        Kernel::F32 => forward_on_cpu::<f32>(h, weight, targets, form, None),
        Kernel::F64 => forward_on_cpu::<f64>(h, weight, targets, form, None),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => return cuda::head::begin(h, weight, targets, form.cap, None).map(Pending::Computing),
        Kernel::Plain => forward_plain(h, weight, targets, form.cap),
    };
    scores.map(Pending::Ready)
}

/// The same, and what kernels keep of all rows: [R, V] numbers. Nothing is kept of bounded logits, whose gradient needs
/// more.
pub(crate) fn forward_keeping(
    h: &Tensor,
    weight: &Tensor,
    targets: &[Target],
    form: Form,
) -> Result<(HeadScores, Vec<Kept>)> {
    let mut kept = Vec::new();
    let scores = match kernel_for(&[h, weight]) {
        Kernel::F32 if form.cap.is_none() => forward_on_cpu::<f32>(h, weight, targets, form, Some(&mut kept)),
        Kernel::F64 if form.cap.is_none() => forward_on_cpu::<f64>(h, weight, targets, form, Some(&mut kept)),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda if form.cap.is_none() => {
            let mut shares = Vec::new();
            let scores =
                cuda::head::begin(h, weight, targets, None, Some(&mut shares)).and_then(cuda::head::Scores::wait);
            kept.extend(shares.into_iter().map(|exponentials| Kept { exponentials, largest: Vec::new() }));
            scores
        }
        _ => forward(h, weight, targets, form),
    };
    Ok((scores?, kept))
}

/// The targets of rows `first .. first + rows`, given targets sorted by row.
fn targets_of(targets: &[Target], first: usize, rows: usize) -> &[Target] {
    let from = targets.partition_point(|t| t.row < first);
    let to = targets.partition_point(|t| t.row < first + rows);
    &targets[from..to]
}

fn forward_on_cpu<T: Real>(
    h: &Tensor,
    weight: &Tensor,
    targets: &[Target],
    Form { products, cap }: Form,
    mut kept: Option<&mut Vec<Kept>>,
) -> Result<HeadScores> {
    let ((rows, width), vocab) = (h.dims2()?, weight.dim(0)?);
    let (h, weight) = (view::<T>(h)?, view::<T>(weight)?);
    let (height, breadth) = tile(rows, vocab);
    let mut buffer = Vec::new();
    let (mut logps, mut lse) = (Vec::with_capacity(targets.len()), Vec::with_capacity(rows));
    for first in (0..rows).step_by(height) {
        let count = height.min(rows - first);
        let states = Matrix::new(&h[first * width..], count, width, width);
        let here = targets_of(targets, first, count);
        let (mut shares, mut picked) = (vec![Share::NONE; count], vec![f64::NAN; here.len()]);
        for start in (0..vocab).step_by(breadth) {
            let tokens = breadth.min(vocab - start);
            let table = Matrix::new(&weight[start * width..], tokens, width, width).t();
            if buffer.len() < count * tokens {
                buffer = products.product(states, table);
            } else {
                products.multiply(states, table, MatrixMut::new(&mut buffer, count, tokens, tokens), Into::Fresh);
            }
            let logits = &mut buffer[..count * tokens];
            if let Some(cap) = cap {
                logits.par_chunks_mut(tokens).for_each(|row| bounded(row, T::of(cap)));
            }
            // The logits of the targets, before the rows turn into exponentials.
            for (target, picked) in here.iter().zip(&mut picked) {
                if let Some(column) = target.column(start, tokens) {
                    *picked = logits[(target.row - first) * tokens + column].to_f64();
                }
            }
            let of_tile: Vec<Share> = logits.par_chunks_mut(tokens).map(|row| shifted_exp(row)).collect();
            shares.iter_mut().zip(&of_tile).for_each(|(share, of_tile)| *share = share.with(*of_tile));
            if let Some(kept) = &mut kept {
                let exponentials = tensor(std::mem::take(&mut buffer), (count, tokens))?;
                kept.push(Kept { exponentials, largest: of_tile.iter().map(|share| share.largest).collect() });
            }
        }
        lse.extend(shares.into_iter().map(Share::lse));
        logps.extend(here.iter().zip(picked).map(|(target, logit)| logit - lse[target.row]));
    }
    Ok(HeadScores { logps, lse })
}

vectorised! {
    /// Replaces each x of a row by exp(x - m), m being the largest of them.
    fn shifted_exp<T: Real>(row: &mut [T]) -> Share {
        let largest = largest(row);
        let sum = exp_in_place(row, T::one(), largest);
        Share { largest: largest.to_f64(), sum: sum.to_f64() }
    }
}

vectorised! {
    /// Replaces each x of a row by cap tanh(x / cap).
    fn bounded<T: Real>(row: &mut [T], cap: T) {
        for x in row.iter_mut() {
            *x = (*x / cap).tanh() * cap;
        }
    }
}

vectorised! {
    /// Replaces each x of a row by factor exp(z - lse) (1 - t^2), with t = tanh(x / cap) and z = cap t.
    fn bounded_slopes<T: Real>(row: &mut [T], cap: T, lse: T, factor: T) {
        for x in row.iter_mut() {
            let t = (*x / cap).tanh();
            *x = factor * (t * cap - lse).exp() * (T::one() - t * t);
        }
    }
}

/// Logits h W^T [R, V] of states h [R, H], in f32 at least. On a GPU they are left in `room`, where there is some.
pub(crate) fn logits(h: &Tensor, weight: &Tensor, form: Form, room: Option<&Tensor>) -> Result<Tensor> {
    #[cfg(any(feature = "cuda", test))]
    if kernel_for(&[h, weight]) == Kernel::Cuda {
        return capped(cuda::head::logits(h, weight, room)?, form.cap);
    }
    if room.is_some() {
        return Err(Error::internal("room for logits where no kernel leaves them"));
    }
    let logits = linear::forward(h, weight, None, None, form.products)?;
    capped(if logits.dtype() == DType::F64 { logits } else { logits.to_dtype(DType::F32)? }, form.cap)
}

/// Logits h W^T by tensor operations, in f32 at least: [C, V].
fn plain_logits(h: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let logits = h.matmul(&weight.t()?)?;
    Ok(if logits.dtype() == DType::F64 { logits } else { logits.to_dtype(DType::F32)? })
}

fn forward_plain(h: &Tensor, weight: &Tensor, targets: &[Target], cap: Option<f64>) -> Result<HeadScores> {
    let (rows, vocab) = (h.dim(0)?, weight.dim(0)?);
    let chunk = chunk_rows(vocab);
    let (mut logps, mut lse) = (Vec::with_capacity(targets.len()), Vec::with_capacity(rows));
    for first in (0..rows).step_by(chunk) {
        let count = chunk.min(rows - first);
        let logits = capped(plain_logits(&h.narrow(0, first, count)?, weight)?, cap)?;
        let shift = logits.max_keepdim(D::Minus1)?;
        let sum = logits.broadcast_sub(&shift)?.exp()?.sum_keepdim(D::Minus1)?;
        let sums = (shift + sum.log()?)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let here = targets_of(targets, first, count);
        if !here.is_empty() {
            let flat: Vec<u32> = here.iter().map(|t| ((t.row - first) * vocab) as u32 + t.token).collect();
            let picked = logits.flatten_all()?.index_select(&Tensor::new(flat, h.device())?, 0)?;
            let picked = picked.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            logps.extend(here.iter().zip(picked).map(|(t, logit)| logit - sums[t.row - first]));
        }
        lse.extend(sums);
    }
    Ok(HeadScores { logps, lse })
}

/// The gradient by h [R, H], given the derivatives of the loss by each target's ln p. The gradient by W is added to
/// `weight_gradient`. The logits are computed again, tile by tile, but for those of which something was kept.
///
/// With p = exp(z - lse): dz = sum over the row's targets of g (onehot - p), dh = dz W, dW = dz^T h. Where z is
/// cap t, t = tanh(x / cap), x = h W^T, dz has the factor 1 - t^2.
pub(crate) fn backward(
    h: &Tensor,
    weight: &Tensor,
    targets: &[Target],
    (lse, kept): (&[f64], Vec<Kept>),
    g: &[f64],
    weight_gradient: Option<&Tensor>,
    form: Form,
) -> Result<Tensor> {
    let mut all = vec![h, weight];
    all.extend(weight_gradient);
    match kernel_for(&all) {
        Kernel::F32 => backward_on_cpu::<f32>(h, weight, targets, (lse, kept), g, weight_gradient, form),
        Kernel::F64 => backward_on_cpu::<f64>(h, weight, targets, (lse, kept), g, weight_gradient, form),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => {
            let kept = kept.into_iter().map(|kept| kept.exponentials).collect();
            cuda::head::backward(h, weight, targets, (lse, kept), g, weight_gradient, form.cap)
        }
        Kernel::Plain => backward_plain(h, weight, targets, lse, g, weight_gradient, form.cap),
    }
}

fn backward_on_cpu<T: Real>(
    h: &Tensor,
    weight: &Tensor,
    targets: &[Target],
    (lse, kept): (&[f64], Vec<Kept>),
    g: &[f64],
    weight_gradient: Option<&Tensor>,
    Form { products, cap }: Form,
) -> Result<Tensor> {
    let ((rows, width), vocab) = (h.dims2()?, weight.dim(0)?);
    let (h, weight) = (view::<T>(h)?, view::<T>(weight)?);
    let (height, breadth) = tile(rows, vocab);
    let mut dh = T::zeros(rows * width);
    let mut kept = kept.into_iter();
    let mut buffer = None;
    for first in (0..rows).step_by(height) {
        let count = height.min(rows - first);
        let states = Matrix::new(&h[first * width..], count, width, width);
        for start in (0..vocab).step_by(breadth) {
            let tokens = breadth.min(vocab - start);
            let table = Matrix::new(&weight[start * width..], tokens, width, width);
            let kept = kept.next();
            let logits = match (&kept, buffer.take()) {
                (Some(kept), _) => kept.exponentials.clone(),
                (None, Some(buffer)) => of_size(buffer, count, tokens)?,
                (None, None) => tensor(T::zeros(count * tokens), (count, tokens))?,
            };
            change::<T>(&logits, |logits| {
                if kept.is_none() {
                    products.multiply(states, table.t(), MatrixMut::new(logits, count, tokens, tokens), Into::Fresh);
                }
                logits.par_chunks_mut(tokens).enumerate().for_each(|(i, row)| {
                    let from = targets.partition_point(|t| t.row < first + i);
                    let to = targets.partition_point(|t| t.row <= first + i);
                    let total: f64 = g[from..to].iter().sum();
                    // Whether exponentials were kept must not show in the last bit.
                    let factor = |largest: f64| T::of(-total * (largest - lse[first + i]).exp());
                    let of_row = targets[from..to].iter().zip(&g[from..to]);
                    let of_row = of_row.filter_map(|(target, g)| Some((target.column(start, tokens)?, *g)));
                    if let Some(cap) = cap {
                        let slope = |x: T| 1.0 - (x.to_f64() / cap).tanh().powi(2);
                        let own: Vec<(usize, f64)> = of_row.map(|(at, g)| (at, g * slope(row[at]))).collect();
                        bounded_slopes(row, T::of(cap), T::of(lse[first + i]), T::of(-total));
                        own.into_iter().for_each(|(at, own)| row[at] += T::of(own));
                        return;
                    }
                    match &kept {
                        Some(kept) => times(row, factor(kept.largest[i])),
                        None => {
                            let share = shifted_exp(row);
                            times(row, factor(share.largest));
                        }
                    }
                    of_row.for_each(|(at, g)| row[at] += T::of(g));
                });
            })?;
            let numbers = view::<T>(&logits)?;
            let dz = Matrix::new(&numbers, count, tokens, tokens);
            let into = if start == 0 { Into::Fresh } else { Into::Added };
            products.multiply(dz, table, MatrixMut::new(&mut dh[first * width..], count, width, width), into);
            if let Some(gradient) = weight_gradient {
                change::<T>(gradient, |gradient| {
                    let gradient = &mut gradient[start * width..];
                    products.multiply(dz.t(), states, MatrixMut::new(gradient, tokens, width, width), Into::Added);
                })?;
            }
            drop(numbers);
            buffer = Some(logits);
        }
    }
    tensor(dh, (rows, width))
}

/// The first numbers of a tile, as one that is as large or smaller.
fn of_size(tile: Tensor, rows: usize, tokens: usize) -> Result<Tensor> {
    if tile.dims() == [rows, tokens] {
        return Ok(tile);
    }
    Ok(tile.flatten_all()?.narrow(0, 0, rows * tokens)?.reshape((rows, tokens))?)
}

vectorised! {
    /// Multiplies a row by a factor.
    fn times<T: Real>(row: &mut [T], factor: T) {
        for x in row.iter_mut() {
            *x *= factor;
        }
    }
}

fn backward_plain(
    h: &Tensor,
    weight: &Tensor,
    targets: &[Target],
    lse: &[f64],
    g: &[f64],
    weight_gradient: Option<&Tensor>,
    cap: Option<f64>,
) -> Result<Tensor> {
    let (rows, vocab) = (h.dim(0)?, weight.dim(0)?);
    let (chunk, device) = (chunk_rows(vocab), h.device());
    let mut dh = Vec::new();
    for first in (0..rows).step_by(chunk) {
        let count = chunk.min(rows - first);
        let states = h.narrow(0, first, count)?.contiguous()?;
        let logits = capped(plain_logits(&states, weight)?, cap)?;
        let wide = logits.dtype();
        let column = |numbers: Vec<f64>| -> Result<Tensor> {
            Ok(Tensor::from_vec(numbers, (count, 1), device)?.to_dtype(wide)?)
        };
        let from = targets.partition_point(|t| t.row < first);
        let here = targets_of(targets, first, count);
        let mut totals = vec![0.0; count];
        for (target, g) in here.iter().zip(&g[from..]) {
            totals[target.row - first] -= g;
        }
        let p = logits.broadcast_sub(&column(lse[first..first + count].to_vec())?)?.exp()?;
        let mut dz = p.broadcast_mul(&column(totals)?)?.flatten_all()?;
        if !here.is_empty() {
            let flat: Vec<u32> = here.iter().map(|t| ((t.row - first) * vocab) as u32 + t.token).collect();
            let g = Tensor::new(&g[from..from + here.len()], device)?.to_dtype(wide)?;
            dz = dz.index_add(&Tensor::new(flat, device)?, &g, 0)?;
        }
        let dz = dz.reshape((count, vocab))?;
        let dz = match cap {
            Some(cap) => (dz * (1.0 - (&logits / cap)?.sqr()?)?)?,
            None => dz,
        };
        let dz = dz.to_dtype(h.dtype())?;
        if let Some(gradient) = weight_gradient {
            add_plain(gradient, &dz.t()?.contiguous()?.matmul(&states)?)?;
        }
        dh.push(dz.matmul(weight)?);
    }
    Ok(Tensor::cat(&dh, 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Case, gradients, numbers, plain_agrees};

    const EXACT: Form = Form::EXACT;

    /// A row without a target, and rows with two.
    const TARGETS: [Target; 5] = [
        Target { row: 0, token: 6 },
        Target { row: 0, token: 2 },
        Target { row: 2, token: 0 },
        Target { row: 3, token: 6 },
        Target { row: 3, token: 1 },
    ];

    #[test]
    fn gradient() {
        check(EXACT);
    }

    #[test]
    fn gradient_of_bounded_logits() {
        check(Form { cap: Some(0.4), ..EXACT });
    }

    fn check(form: Form) {
        let inputs = [numbers(1, &[4, 3]), numbers(2, &[7, 3])];
        gradients(&inputs, |t| {
            let HeadScores { logps, lse } = forward(&t[0], &t[1], &TARGETS, form)?;
            Ok(Case::new(Tensor::new(logps, t[0].device())?, move |t, g, d| {
                Ok(vec![(0, backward(&t[0], &t[1], &TARGETS, (&lse, Vec::new()), &g.to_vec1()?, Some(&d[1]), form)?)])
            }))
        });
        plain_agrees(&inputs, |t| {
            let HeadScores { logps, lse } = forward(&t[0], &t[1], &TARGETS, form)?;
            let dw = t[1].ones_like()?;
            let dh = backward(&t[0], &t[1], &TARGETS, (&lse, Vec::new()), &[1., 2., -3., 0.5, 1.], Some(&dw), form)?;
            Ok(vec![Tensor::new(logps, t[0].device())?, Tensor::new(lse, t[0].device())?, dh, dw])
        });
    }

    /// Kept values of several tiles give the gradients that computing them again gives.
    #[test]
    fn kept_exponentials_do_not_show() {
        let (rows, vocab) = (50, 100_000);
        let (h, weight) = (numbers(1, &[rows, 2]), numbers(2, &[vocab, 2]));
        let targets: Vec<Target> = (0..rows).map(|row| Target { row, token: row as u32 * 1000 }).collect();
        let g: Vec<f64> = (0..rows).map(|i| (i as f64).sin()).collect();
        let gradients = |keep: bool| {
            let (scores, kept) = match keep {
                true => forward_keeping(&h, &weight, &targets, EXACT).unwrap(),
                false => (forward(&h, &weight, &targets, EXACT).unwrap(), Vec::new()),
            };
            assert_eq!(kept.len(), if keep { vocab.div_ceil(tile(rows, vocab).1) } else { 0 });
            let dw = weight.zeros_like().unwrap();
            let dh = backward(&h, &weight, &targets, (&scores.lse, kept), &g, Some(&dw), EXACT).unwrap();
            (scores, [dh, dw])
        };
        let ((kept_scores, kept), (scores, again)) = (gradients(true), gradients(false));
        assert_eq!(kept_scores, scores);
        for (kept, again) in kept.iter().zip(&again) {
            let worst = (kept - again).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(worst.to_scalar::<f64>().unwrap() < 1e-12);
        }
    }

    /// The same rows in one tile each and in several together.
    #[test]
    fn tiles_do_not_show() {
        let (rows, vocab) = (50, 100_000);
        assert!(tile(rows, vocab).1 < vocab && tile(1, vocab).1 == vocab);
        let h = numbers(1, &[rows, 2]);
        let weight = numbers(2, &[vocab, 2]);
        let targets: Vec<Target> = (0..rows).map(|row| Target { row, token: row as u32 * 1000 }).collect();
        let whole = forward(&h, &weight, &targets, EXACT).unwrap();
        let g: Vec<f64> = (0..rows).map(|i| (i as f64).sin()).collect();
        let dw = weight.zeros_like().unwrap();
        let dh = backward(&h, &weight, &targets, (&whole.lse, Vec::new()), &g, Some(&dw), EXACT)
            .unwrap()
            .to_vec2::<f64>()
            .unwrap();
        let dw_alone = weight.zeros_like().unwrap();
        for row in 0..rows {
            let one = h.narrow(0, row, 1).unwrap();
            let target = [Target { row: 0, token: row as u32 * 1000 }];
            let alone = forward(&one, &weight, &target, EXACT).unwrap();
            assert!((alone.logps[0] - whole.logps[row]).abs() < 1e-9);
            let dh_alone =
                backward(&one, &weight, &target, (&alone.lse, Vec::new()), &g[row..=row], Some(&dw_alone), EXACT)
                    .unwrap();
            for (a, b) in dh_alone.to_vec2::<f64>().unwrap()[0].iter().zip(&dh[row]) {
                assert!((a - b).abs() < 1e-9);
            }
        }
        let worst = (dw - dw_alone).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(worst.to_scalar::<f64>().unwrap() < 1e-9);
    }
}
