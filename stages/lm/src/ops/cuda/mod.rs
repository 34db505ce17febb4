//! The operations on an NVIDIA GPU: kernels of our own, whose sources are in `kernels/`, and matrix products by cuBLAS.
//!
//! Activations and weights are f32 or bf16; sums, log-sum-exps, norms and gradients of parameters are f32 whatever the
//! activations are. Nothing here depends on the order in which blocks run: what one block adds up is added in a fixed
//! order, and what several find is added by a second kernel.
//!
//! Tests run the same code without a GPU: `emulator` compiles the kernels for the processor.

#[cfg(feature = "cuda")]
pub mod bench;
#[cfg(feature = "cuda")]
mod driver;
#[cfg(feature = "cuda")]
mod lt;
#[cfg(feature = "cuda")]
pub(crate) use driver::{allocates_ahead, alone, memory, prepare};
#[cfg(feature = "cuda")]
pub(crate) use lt::is_there as multiplies_onto;
#[cfg(test)]
pub(crate) mod emulator;

pub(crate) mod adamw;
pub(crate) mod attention;
mod balance;
pub(crate) mod decode;
pub(crate) mod dropout;
pub(crate) mod embed;
pub(crate) mod encode;
pub(crate) mod gated;
pub(crate) mod graph;
pub(crate) mod head;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod pointwise;
pub(crate) mod rope;
pub(crate) mod sampling;
pub(crate) mod steps;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod whole_norm;

use crate::{DType, Device, Error, Result};
use candle_core::{Shape, Tensor};
use std::sync::Mutex;

/// True where kernels here serve these tensors: all contiguous, on one GPU, of the first one's dtype or f32.
pub(crate) fn serves(tensors: &[&Tensor]) -> bool {
    let (dtype, place) = (tensors[0].dtype(), tensors[0].device().location());
    let fits = |t: &&Tensor| {
        t.is_contiguous() && t.device().location() == place && (t.dtype() == dtype || t.dtype() == DType::F32)
    };
    here(tensors[0].device()) && matches!(dtype, DType::F32 | DType::BF16) && tensors.iter().all(fits)
}

fn here(device: &Device) -> bool {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => true,
        #[cfg(test)]
        Device::Cpu => emulator::is_on(),
        _ => false,
    }
}

/// Bytes of memory of a device, read once; `None` where a GPU is emulated.
fn total_memory(device: &Device) -> Option<u64> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => driver::total_memory(device),
        _ => None,
    }
}

fn elsewhere() -> Error {
    Error::internal("a GPU kernel met a tensor of another device")
}

/// Address of the numbers of a contiguous tensor.
fn address(tensor: &Tensor) -> Result<u64> {
    if !tensor.is_contiguous() {
        return Err(Error::internal("a GPU kernel met a strided tensor"));
    }
    match tensor.device() {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => driver::address(tensor, device),
        #[cfg(test)]
        Device::Cpu => emulator::address(tensor),
        _ => Err(elsewhere()),
    }
}

/// A tensor to be written to; what is in it until then is undefined.
pub(crate) fn fresh(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    let shape = shape.into();
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => driver::fresh(shape, dtype, device),
        #[cfg(test)]
        Device::Cpu => emulator::fresh(shape, dtype),
        _ => Err(elsewhere()),
    }
}

/// Integers that were uploaded to a device, the last ones first.
type Remembered = Vec<(Vec<u32>, Tensor)>;

static LAST: Mutex<Vec<Remembered>> = Mutex::new(Vec::new());

/// Forgets what was uploaded to a device.
#[cfg(feature = "cuda")]
fn forget(place: candle_core::DeviceLocation) {
    let elsewhere = |known: &Remembered| known.first().is_some_and(|(_, tensor)| tensor.device().location() != place);
    LAST.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).retain(elsewhere);
}

/// Integers on a device. The last ones of each device are remembered: the blocks of a model ask for the same ones one
/// after another.
pub(crate) fn upload(numbers: &[u32], device: &Device) -> Result<Tensor> {
    const REMEMBERED: usize = 16;
    if graph::is_recording() {
        return Err(Error::internal("numbers of the host in recorded work"));
    }
    let mut last = LAST.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let of = |known: &Remembered| known.first().is_some_and(|(_, tensor)| tensor.device().same_device(device));
    let at = last.iter().position(of).unwrap_or(last.len());
    if at == last.len() {
        last.push(Vec::new());
    }
    let last = &mut last[at];
    let entry = match last.iter().position(|(known, _)| known == numbers) {
        Some(at) => last.remove(at),
        // Memory of nothing is refused by drivers that give none ahead of its use.
        None if numbers.is_empty() => (Vec::new(), Tensor::new(&[0u32], device)?.narrow(0, 0, 0)?),
        None => (numbers.to_vec(), Tensor::new(numbers, device)?),
    };
    let tensor = entry.1.clone();
    last.insert(0, entry);
    last.truncate(REMEMBERED);
    Ok(tensor)
}

/// The call of a kernel: its arguments one by one, as they stand in its signature.
pub(crate) struct Launch<'a> {
    device: &'a Device,
    file: &'static str,
    name: String,
    /// The dtype of T in the signature.
    dtype: DType,
    /// The bits of each argument.
    values: Vec<u64>,
    /// A letter for each argument: f, d and u for f32, f64 and u32; F, D, U and B for pointers to them and to bf16.
    kinds: String,
}

impl<'a> Launch<'a> {
    /// A kernel of a file that is there once.
    pub fn new(file: &'static str, name: &str, device: &'a Device) -> Launch<'a> {
        Launch { device, file, name: name.to_owned(), dtype: DType::F32, values: Vec::new(), kinds: String::new() }
    }

    /// A kernel that is there for each dtype of activations, and here called for that of `like`.
    pub fn like(file: &'static str, name: &str, like: &'a Tensor) -> Launch<'a> {
        let dtype = like.dtype();
        let suffix = if dtype == DType::BF16 { "bf16" } else { "f32" };
        Launch { dtype, ..Launch::new(file, &format!("{name}_{suffix}"), like.device()) }
    }

    /// The same, there for several widths.
    pub fn wide(mut self, width: usize) -> Self {
        self.name = format!("{}_{width}", self.name);
        self
    }

    fn argument(mut self, kind: char, bits: u64) -> Self {
        self.kinds.push(kind);
        self.values.push(bits);
        self
    }

    fn pointer(self, tensor: Option<&Tensor>, dtype: DType) -> Result<Self> {
        let kind = match dtype {
            DType::F32 => 'F',
            DType::F64 => 'D',
            DType::U32 => 'U',
            DType::BF16 => 'B',
            _ => return Err(Error::internal(format!("{} takes no {dtype:?}", self.name))),
        };
        let Some(tensor) = tensor else { return Ok(self.argument(kind, 0)) };
        if tensor.dtype() != dtype {
            let (name, got) = (&self.name, tensor.dtype());
            return Err(Error::internal(format!("{name} takes {dtype:?} where it got {got:?}")));
        }
        let address = address(tensor)?;
        Ok(self.argument(kind, address))
    }

    /// A pointer to T.
    pub fn tensor(self, tensor: &Tensor) -> Result<Self> {
        let dtype = self.dtype;
        self.pointer(Some(tensor), dtype)
    }

    /// A pointer to T, or null.
    pub fn optional(self, tensor: Option<&Tensor>) -> Result<Self> {
        let dtype = self.dtype;
        self.pointer(tensor, dtype)
    }

    /// Weights, in T or in f32: a pointer to T and one to f32, one of which is null.
    pub fn weights(self, weights: &Tensor) -> Result<Self> {
        match weights.dtype() == self.dtype {
            true => self.tensor(weights)?.optional_of(DType::F32, None),
            false => self.optional(None)?.of(DType::F32, weights),
        }
    }

    /// A pointer to numbers of a dtype.
    pub fn of(self, dtype: DType, tensor: &Tensor) -> Result<Self> {
        self.pointer(Some(tensor), dtype)
    }

    /// A pointer to numbers of a dtype, or null.
    pub fn optional_of(self, dtype: DType, tensor: Option<&Tensor>) -> Result<Self> {
        self.pointer(tensor, dtype)
    }

    pub fn count(self, count: usize) -> Result<Self> {
        let count = u32::try_from(count).map_err(|_| Error::internal("a tensor too large for a GPU kernel"))?;
        Ok(self.argument('u', u64::from(count)))
    }

    pub fn f32(self, number: f64) -> Self {
        self.argument('f', u64::from((number as f32).to_bits()))
    }

    pub fn f64(self, number: f64) -> Self {
        self.argument('d', number.to_bits())
    }

    /// Runs it with so many blocks, threads in each, and bytes of shared memory.
    pub fn run(self, grid: (usize, usize), threads: u32, shared: usize) -> Result<()> {
        if grid.0 == 0 || grid.1 == 0 {
            return Ok(());
        }
        let grid = [grid.0, grid.1].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        match self.device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => driver::launch(&self, grid, threads, shared, device),
            #[cfg(test)]
            Device::Cpu => emulator::launch(&self, grid, threads, shared),
            _ => Err(elsewhere()),
        }
    }
}

/// A matrix in a contiguous tensor, whatever its shape: rows `stride` apart, from the number `start` on.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub tensor: &'a Tensor,
    pub start: usize,
    pub stride: usize,
    /// True where the transposed matrix is meant.
    pub transposed: bool,
}

impl<'a> Operand<'a> {
    /// All of a tensor [rows, columns].
    pub fn new(tensor: &'a Tensor) -> Result<Operand<'a>> {
        Ok(Operand { tensor, start: 0, stride: tensor.dim(1)?, transposed: false })
    }

    pub fn t(self) -> Self {
        Operand { transposed: !self.transposed, ..self }
    }

    /// From a row on.
    pub fn rows_from(self, row: usize) -> Self {
        Operand { start: row * self.stride, ..self }
    }

    fn address(&self) -> Result<u64> {
        Ok(address(self.tensor)? + (self.start * self.tensor.dtype().size_in_bytes()) as u64)
    }
}

/// c = a b, or c += a b: a is [m, k], b is [k, n], c is [m, n], summed in f32. a and b are of one dtype, c of theirs or
/// f32.
pub(crate) fn multiply(a: Operand, b: Operand, c: Operand, m: usize, k: usize, n: usize, added: bool) -> Result<()> {
    if m == 0 || n == 0 {
        return Ok(());
    }
    if a.tensor.dtype() != b.tensor.dtype() || c.transposed {
        return Err(Error::internal("a product of matrices that do not fit"));
    }
    // cuBLAS counts columns first, so that to it each matrix is the transposed one: c^T = b^T a^T.
    match c.tensor.device() {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => driver::gemm(b, a, c, [n, m, k], added, device),
        #[cfg(test)]
        Device::Cpu => emulator::gemm(b, a, c, [n, m, k], added),
        _ => Err(elsewhere()),
    }
}

/// A product with something beside it, as cublasLt takes it: d = op(a) op(b) + c of matrices whose columns lie `stride`
/// apart. op(a) is [m, k], op(b) is [k, n], c and d are [m, n].
pub(crate) struct Product<'a> {
    a: Operand<'a>,
    b: Operand<'a>,
    c: Option<Operand<'a>>,
    d: Operand<'a>,
    /// m, n, k.
    sizes: [usize; 3],
    beside: Beside<'a>,
}

/// Work of a product on the same numbers.
#[derive(Clone, Copy)]
pub(crate) enum Beside<'a> {
    Nothing,
    /// Adds [m] to each column of d.
    Bias(&'a Tensor),
    /// Writes the sums of the columns of op(b) [n], in f32.
    Sums(&'a Tensor),
}

/// c = a b + residual + bias, as [`multiply`] has it; residual is a tensor as c, bias is [n]. False where no library
/// computes that at once, and nothing is done.
pub(crate) fn multiply_onto(
    (a, b): (Operand, Operand),
    (residual, bias): (Option<&Tensor>, Option<&Tensor>),
    c: Operand,
    [m, k, n]: [usize; 3],
) -> Result<bool> {
    let base = residual.map(Operand::new).transpose()?;
    let beside = bias.map_or(Beside::Nothing, Beside::Bias);
    together(&Product { a: b, b: a, c: base, d: c, sizes: [n, m, k], beside })
}

/// c += a b, and `sums` [m] = the sums of the rows of a, in f32. False where no library computes that at once, and
/// nothing is done.
pub(crate) fn multiply_summing(
    a: Operand,
    b: Operand,
    c: Operand,
    sums: &Tensor,
    [m, k, n]: [usize; 3],
) -> Result<bool> {
    together(&Product { a: b, b: a, c: Some(c), d: c, sizes: [n, m, k], beside: Beside::Sums(sums) })
}

fn together(product: &Product) -> Result<bool> {
    if product.sizes.contains(&0) {
        return Ok(false);
    }
    match product.d.tensor.device() {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => lt::product(product, device),
        #[cfg(test)]
        Device::Cpu => emulator::product(product),
        _ => Err(elsewhere()),
    }
}

/// Cut of sums by columns: (columns of a thread, rows of a thread). Enough threads for a GPU, and few partial sums.
fn columns(rows: usize, width: usize) -> (usize, usize) {
    (if width.is_multiple_of(8) { 8 } else { 1 }, rows.div_ceil(512).max(16))
}

/// Adds the rows of `partial`, of which `width` columns from `start` on count, to a gradient, in their order.
fn add_partials(partial: &Tensor, start: usize, gradient: &Tensor) -> Result<()> {
    let ((chunks, stride), width) = (partial.dims2()?, gradient.elem_count());
    let part = partial.flatten_all()?.narrow(0, start, chunks * stride - start)?;
    Launch::new("linear", "add_partials", gradient.device())
        .of(DType::F32, &part)?
        .of(DType::F32, gradient)?
        .count(chunks)?
        .count(stride)?
        .count(width)?
        .run((width.div_ceil(32), 1), 256, 0)
}
