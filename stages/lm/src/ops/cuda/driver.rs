//! Kernels and products on a GPU, by the driver and cuBLAS.

use super::{Launch, Operand};
use crate::{DType, Error, Result};
use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cublas::{result::gemm_ex, sys};
use candle_core::cuda_backend::cudarc::driver::result::{device::get_default_mem_pool, mem_pool, memcpy_htod_async};
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute::{
    CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, CU_MEMPOOL_ATTR_USED_MEM_CURRENT,
};
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUgraphInstantiate_flags, CUstreamCaptureMode, cuDeviceGraphMemTrim, cudaError_enum,
};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaGraph, CudaModule, DevicePtr, DeviceRepr, DriverError, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaDevice, CudaStorage, DeviceLocation, Shape, Storage, Tensor};
use half::bf16;
use std::collections::HashMap;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

/// Makes a device that was just opened keep no events, and its memory; and sum products in f32 throughout.
pub(crate) fn prepare(device: &CudaDevice) -> candle_core::Result<()> {
    let stream = device.cuda_stream();
    let mut threshold = u64::MAX;
    let blas = device.cublas_handle();
    // SAFETY: the handle is that of an open device. cuBLAS may else add parts of a product that it splits in bf16.
    unsafe {
        sys::cublasSetMathMode(*blas.handle(), sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)
    }
    .result()
    .w()?;
    // SAFETY: all work of the device goes through its one stream, which orders uses and releases of memory. The pool is
    // that of an open device, and takes a 64-bit number for this attribute.
    unsafe {
        device.disable_event_tracking();
        if stream.context().has_async_alloc() {
            let pool = get_default_mem_pool(stream.context().cu_device()).w()?;
            mem_pool::set_attribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, (&raw mut threshold).cast()).w()?;
        }
    }
    // What was uploaded to this GPU as it was opened before would keep all of that.
    super::forget(DeviceLocation::Cuda { gpu_id: stream.context().ordinal() });
    super::lt::is_there(device);
    Ok(())
}

/// False where each tensor that is dropped waits for all work.
pub(crate) fn allocates_ahead(device: &CudaDevice) -> bool {
    device.cuda_stream().context().has_async_alloc()
}

/// The machine code of a file of kernels for each kind of GPU, and PTX for later ones.
fn code(file: &str) -> Result<&'static [u8]> {
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"))
}

/// A kernel on a device, and the bytes of dynamic shared memory it may take.
struct Loaded {
    function: CudaFunction,
    shared: usize,
}

/// The loaded files of kernels, and the kernels by name, by the number of the GPU: whoever opens it again finds them.
#[derive(Default)]
struct Store {
    modules: HashMap<(usize, &'static str), Arc<CudaModule>>,
    functions: HashMap<usize, HashMap<String, Loaded>>,
}

static STORE: LazyLock<Mutex<Store>> = LazyLock::new(Mutex::default);

/// A kernel that may take so many bytes of dynamic shared memory.
fn function(call: &Launch, shared: usize, device: &CudaDevice) -> Result<CudaFunction> {
    let mut store = STORE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let Store { modules, functions } = &mut *store;
    let stream = device.cuda_stream();
    let context = stream.context();
    let functions = functions.entry(context.ordinal()).or_default();
    if let Some(loaded) = functions.get(&call.name)
        && loaded.shared >= shared
    {
        return Ok(loaded.function.clone());
    }
    let failed = |error: DriverError| failure(call, &error);
    let key = (context.ordinal(), call.file);
    let module = match modules.get(&key) {
        Some(module) => module,
        None => {
            let code = Ptx::from_binary(code(call.file)?.to_vec());
            let module = context.load_module(code).map_err(failed)?;
            modules.entry(key).or_insert(module)
        }
    };
    let function = module.load_function(&call.name).map_err(failed)?;
    // Beyond 48 KiB a kernel has to ask.
    let shared = shared.max(48 << 10);
    if shared > 48 << 10 {
        function.set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared as i32).map_err(failed)?;
    }
    functions.insert(call.name.clone(), Loaded { function: function.clone(), shared });
    Ok(function)
}

/// An error of the driver, with the kernel it met.
fn failure(call: &Launch, error: &DriverError) -> Error {
    Error::from(candle_core::Error::Msg(format!("kernel {} ({}.cu): {error:?}", call.name, call.file)))
}

/// True where each launch waits for its kernel, so that a fault is named after it and not after a later copy.
fn synchronous() -> bool {
    static ON: LazyLock<bool> = LazyLock::new(|| std::env::var_os("HALFTONE_CUDA_SYNC").is_some_and(|on| on == "1"));
    *ON
}

/// Bytes of memory of a device, asked for once.
pub(crate) fn total_memory(device: &CudaDevice) -> Option<u64> {
    static KNOWN: LazyLock<Mutex<HashMap<DeviceId, u64>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(all) = known.get(&device.id()) {
        return Some(*all);
    }
    let (_, all) = memory(device).ok()?;
    known.insert(device.id(), all);
    Some(all)
}

/// Bytes of the device's memory that nobody has, counting what this process keeps for its next tensors; and all there
/// are.
pub(crate) fn memory(device: &CudaDevice) -> candle_core::Result<(u64, u64)> {
    let stream = device.cuda_stream();
    let (free, all) = stream.context().mem_get_info().w()?;
    let mut kept = 0u64;
    if stream.context().has_async_alloc() {
        let (mut reserved, mut used) = (0u64, 0u64);
        // SAFETY: the pool is that of an open device, and gives a 64-bit number for these attributes.
        unsafe {
            let pool = get_default_mem_pool(stream.context().cu_device()).w()?;
            mem_pool::get_attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, (&raw mut reserved).cast()).w()?;
            mem_pool::get_attribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, (&raw mut used).cast()).w()?;
        }
        kept = reserved.saturating_sub(used);
    }
    Ok((free as u64 + kept, all as u64))
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
    let function = function(call, shared, device)?;
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&function);
    for value in &call.values {
        builder.arg(value);
    }
    let config =
        LaunchConfig { grid_dim: (grid[0], grid[1], 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared as u32 };
    // SAFETY: the arguments are those of the kernel's signature, which the tests check for every call; 32-bit ones are
    // the low half of their 64 bits.
    unsafe { builder.launch(config) }.map_err(|error| failure(call, &error))?;
    if synchronous() {
        stream.synchronize().map_err(|error| failure(call, &error))?;
    }
    Ok(())
}

/// True where work is to be recorded: with the driver's pool of memory, without `HALFTONE_CUDA_SYNC=1`, which waits for
/// each kernel, and unless `HALFTONE_CUDA_GRAPHS=0` says no.
pub(crate) fn graphs_are_wanted(device: &CudaDevice) -> bool {
    static ASKED: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("HALFTONE_CUDA_GRAPHS").is_none_or(|on| on != "0"));
    *ASKED && !synchronous() && allocates_ahead(device)
}

/// Work of a device as a CUDA graph. Memory that it takes and gives back while it is recorded is its own each time it
/// runs.
pub(crate) struct Graph {
    graph: CudaGraph,
    device: CudaDevice,
}

// SAFETY: a graph may be used by one thread after another, and nothing here shares one.
unsafe impl Send for Graph {}

impl Graph {
    pub fn record(device: &CudaDevice, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let stream = device.cuda_stream();
        // candle refuses copies from the host for as long as this lives: they would be repeated from where these numbers
        // once were.
        let _without_copies = device.enable_cuda_graph_htod_cache();
        let _alone = alone();
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).w()?;
        let done = catch_unwind(AssertUnwindSafe(work));
        // It has to end whatever was met: what drops of tensors met would be reported in its place.
        let met = stream.context().check_err();
        let graph = stream.end_capture(CUgraphInstantiate_flags(0)).w();
        done.unwrap_or_else(|panic| resume_unwind(panic))?;
        met.w()?;
        let graph = graph?.ok_or_else(|| Error::internal("the driver recorded nothing"))?;
        Ok(Graph { graph, device: device.clone() })
    }

    /// Where the device's memory is full, it is tried once more without what is kept for tensors to come.
    pub fn run(&self) -> Result<()> {
        let launched = self.graph.launch();
        if launched != Err(DriverError(cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY)) {
            return Ok(launched.w()?);
        }
        let stream = self.device.cuda_stream();
        stream.synchronize().w()?;
        // SAFETY: the pool is that of an open device.
        unsafe { mem_pool::trim_to(get_default_mem_pool(stream.context().cu_device()).w()?, 0) }.w()?;
        Ok(self.graph.launch().w()?)
    }
}

/// A context must not be asked to wait while work of it is recorded, and a GPU that is opened is.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Gives memory that no graph uses any more back to the device.
pub(crate) fn trim_graphs(device: &CudaDevice) {
    let context = device.cuda_stream().context().clone();
    // SAFETY: the device is open. A failure leaves the memory where it is, for graphs to come.
    let _ = unsafe { cuDeviceGraphMemTrim(context.cu_device()) };
}

pub(crate) fn overwrite(tensor: &Tensor, numbers: &[u32], device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().w()?;
    // SAFETY: the tensor has as many numbers and lives until the stream has gone past this copy. The driver has read the
    // numbers when it returns, as they are not in page-locked memory.
    Ok(unsafe { memcpy_htod_async(address(tensor, device)?, numbers, stream.cu_stream()) }.w()?)
}

/// c = op(a) op(b), or c += op(a) op(b), of matrices whose columns lie `stride` apart: op(a) is [m, k], op(b) is [k,
/// n], c is [m, n].
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
    if synchronous() {
        let failed = |error| candle_core::Error::Msg(format!("a product of [{m}, {k}] and [{k}, {n}]: {error:?}"));
        device.cuda_stream().synchronize().map_err(failed)?;
    }
    Ok(())
}
