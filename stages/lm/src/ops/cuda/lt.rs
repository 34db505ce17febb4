//! Matrix products by cublasLt: what is added to a product, and sums beside it, in the same pass.

use super::{Beside, Operand, Product};
use crate::panics::caught;
use crate::{DType, Error, Result};
use candle_core::CudaDevice;
use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::sys::{cublasOperation_t, cublasSetWorkspace_v2};
use candle_core::cuda_backend::cudarc::cublaslt::result::{self, CublasError};
use candle_core::cuda_backend::cudarc::cublaslt::sys;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, LazyLock, Mutex};

/// Bytes that a product may use for partial sums: NVIDIA's advice for Hopper, twice.
const WORKSPACE: usize = 64 << 20;

/// Forms of products that are remembered: micro-batches have all numbers of rows.
const REMEMBERED: usize = 4096;

/// All that the choice of an algorithm depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Form {
    sizes: [usize; 3],
    strides: [usize; 4],
    transposed: [bool; 2],
    dtypes: [DType; 2],
    /// Bytes that addresses of a, b, c and d are multiples of.
    alignments: [u32; 4],
    added: bool,
    epilogue: i32,
}

/// What cublasLt needs for a form.
struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 4],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// cublasLt on a device.
struct Library {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    /// None for a form that it does not compute.
    plans: HashMap<Form, Option<Plan>>,
}

// SAFETY: the pointers are to descriptions on the host, which any thread may use as long as one does at a time: they
// are behind a lock.
unsafe impl Send for Library {}

impl Library {
    fn destroy(self) {
        self.plans.into_values().flatten().for_each(Plan::destroy);
        // SAFETY: nobody has it any more. A failure would leave a few bytes of the host behind.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// By device; none where the library is not there.
static LIBRARIES: LazyLock<Mutex<HashMap<DeviceId, Option<Library>>>> = LazyLock::new(Mutex::default);

/// Does something with the library of a device.
fn with<T>(device: &CudaDevice, work: impl FnOnce(&mut Library) -> Result<T>) -> Result<Option<T>> {
    let mut libraries = LIBRARIES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !libraries.contains_key(&device.id()) {
        // A missing library is a panic there.
        let library = match caught(result::create_handle) {
            Ok(Ok(handle)) => {
                workspace_of(device).map(|workspace| Library { handle, workspace, plans: HashMap::new() })
            }
            _ => None,
        };
        // Of devices that nobody has any more, memory and descriptions go.
        let gone = |library: &mut Library| Arc::strong_count(library.workspace.stream()) == 1;
        for (_, library) in libraries.extract_if(|_, library| library.as_mut().is_some_and(gone)) {
            library.into_iter().for_each(Library::destroy);
        }
        libraries.insert(device.id(), library);
    }
    libraries.get_mut(&device.id()).and_then(Option::as_mut).map(work).transpose()
}

/// Memory for partial sums, which cuBLAS uses too: the one stream of the device orders them. What cuBLAS takes by itself
/// it would take again for each product of recorded work.
fn workspace_of(device: &CudaDevice) -> Option<CudaSlice<u8>> {
    // SAFETY: cuBLAS and cublasLt read no more of it than they wrote. It goes after the device's handle of cuBLAS.
    unsafe {
        let workspace = device.alloc::<u8>(WORKSPACE).ok()?;
        let start = workspace.device_ptr(&device.cuda_stream()).0 as *mut c_void;
        cublasSetWorkspace_v2(*device.cublas_handle().handle(), start, WORKSPACE).result().ok()?;
        Some(workspace)
    }
}

/// True where products can have something beside them.
pub(crate) fn is_there(device: &CudaDevice) -> bool {
    matches!(with(device, |_| Ok(())), Ok(Some(())))
}

/// Computes a product; false where cublasLt does not, so that it is to be done in parts.
pub(crate) fn product(product: &Product, device: &CudaDevice) -> Result<bool> {
    let addresses = [&product.a, &product.b, product.c.as_ref().unwrap_or(&product.d), &product.d];
    let [a, b, c, d] = addresses.map(Operand::address);
    let addresses = [a?, b?, c?, d?];
    let form = Form::of(product, addresses);
    device.cuda_stream().context().bind_to_thread().w()?;
    let computed = with(device, |library| {
        if library.plans.len() >= REMEMBERED && !library.plans.contains_key(&form) {
            library.plans.drain().filter_map(|(_, plan)| plan).for_each(Plan::destroy);
        }
        let handle = library.handle;
        let plan = library.plans.entry(form.clone()).or_insert_with(|| Plan::new(handle, &form, product).ok());
        let Some(plan) = plan else { return Ok(false) };
        plan.point_at(product.beside).map_err(failed(&form))?;
        let (alpha, beta) = (1f32, if form.added { 1f32 } else { 0f32 });
        let stream = device.cuda_stream();
        let workspace = library.workspace.device_ptr(&stream).0;
        let [a, b, c, d] = addresses.map(|address| address as *mut c_void);
        // SAFETY: the operands lie within tensors that live until the stream has gone past this call.
        unsafe {
            result::matmul(
                handle,
                plan.description,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                a,
                plan.layouts[0],
                b,
                plan.layouts[1],
                c,
                plan.layouts[2],
                d,
                plan.layouts[3],
                &raw const plan.algorithm,
                workspace as *mut c_void,
                WORKSPACE,
                stream.cu_stream().cast(),
            )
        }
        .or_else(|error| match error.0 {
            sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED => Err(None),
            _ => Err(Some(failed(&form)(error))),
        })
        .map_or_else(|error| error.map_or(Ok(false), Err), |()| Ok(true))
    })?;
    Ok(computed.unwrap_or(false))
}

fn failed(form: &Form) -> impl Fn(CublasError) -> Error {
    let [m, n, k] = form.sizes;
    move |error| Error::from(candle_core::Error::Msg(format!("a product of [{m}, {k}] and [{k}, {n}]: {error:?}")))
}

impl Form {
    fn of(product: &Product, addresses: [u64; 4]) -> Form {
        let Product { a, b, c, d, sizes, beside } = product;
        Form {
            sizes: *sizes,
            strides: [a.stride, b.stride, c.as_ref().unwrap_or(d).stride, d.stride],
            transposed: [a.transposed, b.transposed],
            dtypes: [a.tensor.dtype(), d.tensor.dtype()],
            alignments: addresses.map(|address| 1 << address.trailing_zeros().min(8)),
            added: c.is_some(),
            epilogue: beside.epilogue() as i32,
        }
    }
}

impl Beside<'_> {
    fn epilogue(self) -> sys::cublasLtEpilogue_t {
        match self {
            Beside::Nothing => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
            Beside::Bias(_) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            Beside::Sums(_) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BGRADB,
        }
    }
}

fn kind(dtype: DType) -> sys::cudaDataType {
    if dtype == DType::BF16 { sys::cudaDataType::CUDA_R_16BF } else { sys::cudaDataType::CUDA_R_32F }
}

/// Sets an attribute of a description of a product.
fn set<T>(
    description: sys::cublasLtMatmulDesc_t,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: T,
) -> std::result::Result<(), CublasError> {
    // SAFETY: the description lives, and the value is of the attribute's type.
    unsafe { result::set_matmul_desc_attribute(description, attribute, (&raw const value).cast(), size_of_val(&value)) }
}

impl Plan {
    /// Asks for the best algorithm that adds partial sums in f32, in a fixed order.
    fn new(handle: sys::cublasLtHandle_t, form: &Form, product: &Product) -> std::result::Result<Plan, CublasError> {
        use sys::cublasLtMatmulDescAttributes_t::{
            CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB,
        };
        use sys::cublasLtMatmulPreferenceAttributes_t::{
            CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        };
        use sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
        let Form { sizes: [m, n, k], strides, transposed, dtypes: [operands, results], alignments, .. } = *form;
        let description =
            result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType::CUDA_R_32F)?;
        let operation = |transposed| match transposed {
            true => cublasOperation_t::CUBLAS_OP_T,
            false => cublasOperation_t::CUBLAS_OP_N,
        };
        set(description, CUBLASLT_MATMUL_DESC_TRANSA, operation(transposed[0]))?;
        set(description, CUBLASLT_MATMUL_DESC_TRANSB, operation(transposed[1]))?;
        set(description, CUBLASLT_MATMUL_DESC_EPILOGUE, product.beside.epilogue())?;
        let layout = |dtype, (rows, columns): (usize, usize), stride| {
            result::create_matrix_layout(kind(dtype), rows as u64, columns as u64, stride as i64)
        };
        let turned = |transposed, (rows, columns)| if transposed { (columns, rows) } else { (rows, columns) };
        let layouts = [
            layout(operands, turned(transposed[0], (m, k)), strides[0])?,
            layout(operands, turned(transposed[1], (k, n)), strides[1])?,
            layout(results, (m, n), strides[2])?,
            layout(results, (m, n), strides[3])?,
        ];
        // The algorithm is set below.
        let algorithm = sys::cublasLtMatmulAlgo_t { data: [0; 8] };
        let mut plan = Plan { description, layouts, algorithm };
        plan.point_at(product.beside)?;
        let preference = result::create_matmul_pref()?;
        let prefer = |attribute, value: *const c_void, size: usize| {
            // SAFETY: the preference lives, and the value is of the attribute's type.
            unsafe { result::set_matmul_pref_attribute(preference, attribute, value, size) }
        };
        let workspace = WORKSPACE as u64;
        prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const workspace).cast(), size_of_val(&workspace))?;
        let sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, (&raw const sums).cast(), size_of_val(&sums))?;
        let of_operands = [
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ];
        for (attribute, alignment) in of_operands.into_iter().zip(alignments) {
            prefer(attribute, (&raw const alignment).cast(), size_of_val(&alignment))?;
        }
        let [a, b, c, d] = layouts;
        // SAFETY: all of them live.
        let found = unsafe { result::get_matmul_algo_heuristic(handle, description, a, b, c, d, preference) };
        // SAFETY: nobody has it any more.
        unsafe { result::destroy_matmul_pref(preference) }?;
        match found {
            Ok(found) => {
                plan.algorithm = found.algo;
                Ok(plan)
            }
            Err(error) => {
                plan.destroy();
                Err(error)
            }
        }
    }

    /// Names the bias or the sums.
    fn point_at(&self, beside: Beside) -> std::result::Result<(), CublasError> {
        use sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
        let (Beside::Bias(vector) | Beside::Sums(vector)) = beside else { return Ok(()) };
        let unaddressed = CublasError(sys::cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE);
        let address = super::address(vector).map_err(|_| unaddressed)?;
        set(self.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, address as *const c_void)
    }

    fn destroy(self) {
        // SAFETY: they are in no other plan. A failure would leave a few bytes of the host behind.
        unsafe {
            let _ = result::destroy_matmul_desc(self.description);
            for layout in self.layouts {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}
