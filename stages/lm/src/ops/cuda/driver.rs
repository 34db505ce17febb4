//! Kernels and products on a GPU, by the driver and cuBLAS.

use super::{Launch, Operand};
use crate::{DType, Error, Result};
use candle_core::cuda_backend::cudarc::cublas::{result::gemm_ex, sys};
use candle_core::cuda_backend::cudarc::driver::result::{device::get_default_mem_pool, mem_pool};
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaDevice, CudaStorage, Shape, Storage, Tensor};
use half::bf16;
use std::ffi::c_void;

/// Makes a device that was just opened keep no events, and its memory.
pub(crate) fn prepare(device: &CudaDevice) -> candle_core::Result<()> {
    let stream = device.cuda_stream();
    let mut threshold = u64::MAX;
    // SAFETY: all work of the device goes through its one stream, which orders uses and releases of memory. The pool is
    // that of an open device, and takes a 64-bit number for this attribute.
    unsafe {
        device.disable_event_tracking();
        if stream.context().has_async_alloc() {
            let pool = get_default_mem_pool(stream.context().cu_device()).w()?;
            mem_pool::set_attribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, (&raw mut threshold).cast()).w()?;
        }
    }
    Ok(())
}

/// The kernels, compiled when this crate was.
mod ptx {
    include!(concat!(env!("OUT_DIR"), "/ptx.rs"));
}

fn source(file: &str) -> Result<&'static str> {
    Ok(match file {
        "adamw" => ptx::ADAMW,
        "attention" => ptx::ATTENTION,
        "attention_backward" => ptx::ATTENTION_BACKWARD,
        "embed" => ptx::EMBED,
        "head" => ptx::HEAD,
        "linear" => ptx::LINEAR,
        "norm" => ptx::NORM,
        "rope" => ptx::ROPE,
        "sampling" => ptx::SAMPLING,
        "swiglu" => ptx::SWIGLU,
        _ => return Err(Error::internal(format!("no kernels in {file}"))),
    })
}

pub(crate) fn address(tensor: &Tensor, device: &CudaDevice) -> Result<u64> {
    fn start<T: CudaDType + DeviceRepr>(storage: &CudaStorage, device: &CudaDevice) -> Result<u64> {
        // The one stream of the device orders all work, so that the address may outlive the guard.
        Ok(storage.as_cuda_slice::<T>()?.device_ptr(&device.cuda_stream()).0)
    }
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        return Err(super::elsewhere());
    };
    let start = match tensor.dtype() {
        DType::F32 => start::<f32>(storage, device)?,
        DType::F64 => start::<f64>(storage, device)?,
        DType::BF16 => start::<bf16>(storage, device)?,
        DType::U32 => start::<u32>(storage, device)?,
        dtype => return Err(Error::internal(format!("GPU kernels for {dtype:?}"))),
    };
    Ok(start + (layout.start_offset() * tensor.dtype().size_in_bytes()) as u64)
}

pub(crate) fn fresh(shape: Shape, dtype: DType, device: &CudaDevice) -> Result<Tensor> {
    fn storage<T: CudaDType + DeviceRepr>(count: usize, device: &CudaDevice) -> Result<CudaStorage> {
        // SAFETY: whoever asks for it writes all of it before it is read.
        let slice = unsafe { device.alloc::<T>(count.max(1)) }?;
        Ok(CudaStorage::wrap_cuda_slice(slice, device.clone()))
    }
    let count = shape.elem_count();
    let storage = match dtype {
        DType::F32 => storage::<f32>(count, device)?,
        DType::F64 => storage::<f64>(count, device)?,
        DType::BF16 => storage::<bf16>(count, device)?,
        dtype => return Err(Error::internal(format!("GPU kernels for {dtype:?}"))),
    };
    Ok(Tensor::from((Storage::Cuda(storage), shape)))
}

pub(crate) fn launch(call: &Launch, grid: [u32; 2], threads: u32, shared: usize, device: &CudaDevice) -> Result<()> {
    let function = device.get_or_load_custom_func(&call.name, call.file, source(call.file)?)?;
    // Beyond this a kernel has to ask.
    if shared > 48 << 10 {
        function.set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared as i32).w()?;
    }
    let mut builder = function.builder();
    for value in &call.values {
        builder.arg(value);
    }
    let config =
        LaunchConfig { grid_dim: (grid[0], grid[1], 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared as u32 };
    // SAFETY: the arguments are those of the kernel's signature, which the tests check for every call; 32-bit ones are
    // the low half of their 64 bits.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}

/// c = op(a) op(b), or c += op(a) op(b), of matrices whose columns lie `stride` apart: op(a) is [m, k], op(b) is [k, n],
/// c is [m, n].
pub(crate) fn gemm(
    a: Operand,
    b: Operand,
    c: Operand,
    [m, n, k]: [usize; 3],
    added: bool,
    device: &CudaDevice,
) -> Result<()> {
    let kind = |operand: &Operand| match operand.tensor.dtype() {
        DType::F32 => Ok(sys::cudaDataType::CUDA_R_32F),
        DType::BF16 => Ok(sys::cudaDataType::CUDA_R_16BF),
        dtype => Err(Error::internal(format!("GPU products of {dtype:?}"))),
    };
    let int = |n: usize| i32::try_from(n).map_err(|_| Error::internal("a matrix too large for cuBLAS"));
    let form = |operand: &Operand| match operand.transposed {
        true => sys::cublasOperation_t::CUBLAS_OP_T,
        false => sys::cublasOperation_t::CUBLAS_OP_N,
    };
    let (alpha, beta) = (1f32, if added { 1f32 } else { 0f32 });
    let blas = device.cublas_handle();
    device.cuda_stream().context().bind_to_thread().w()?;
    // SAFETY: the operands lie within tensors that live until the stream has gone past this call.
    unsafe {
        gemm_ex(
            *blas.handle(),
            form(&a),
            form(&b),
            int(m)?,
            int(n)?,
            int(k)?,
            (&raw const alpha).cast::<c_void>(),
            a.address()? as *const c_void,
            kind(&a)?,
            int(a.stride)?,
            b.address()? as *const c_void,
            kind(&b)?,
            int(b.stride)?,
            (&raw const beta).cast::<c_void>(),
            c.address()? as *mut c_void,
            kind(&c)?,
            int(c.stride)?,
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .w()?;
    Ok(())
}
