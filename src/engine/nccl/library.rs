//! The functions of `libnccl.so.2` and of the driver's `libcuda.so.1`, opened by name.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// A communicator of NCCL, a context and a stream of the driver.
pub type Handle = *mut c_void;

/// `ncclUniqueId`.
pub const ID: usize = 128;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Id(pub [u8; ID]);

/// `ncclConfig_t` as of NCCL 2.17; later ones know it by its version.
#[derive(Debug)]
#[repr(C)]
pub struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    /// 0: no call waits.
    blocking: c_int,
    rest: [c_int; 3],
    net: *const c_char,
}

impl Config {
    /// One whose calls do not wait.
    pub fn eager() -> Config {
        const UNDEFINED: c_int = c_int::MIN;
        let (magic, version) = (0xcafe_beef, 21_700);
        Config { size: size_of::<Config>(), magic, version, blocking: 0, rest: [UNDEFINED; 3], net: std::ptr::null() }
    }
}

/// Values of `ncclResult_t` and `CUresult`.
pub const DONE: c_int = 0;
pub const NCCL_INVALID_ARGUMENT: c_int = 4;
pub const NCCL_INVALID_USAGE: c_int = 5;
pub const NCCL_IN_PROGRESS: c_int = 7;
pub const CUDA_NOT_READY: c_int = 600;

/// `ncclInt8`: bytes.
pub const BYTES: c_int = 0;
/// `CU_STREAM_NON_BLOCKING`: not in step with the default stream.
pub const BESIDE: c_uint = 1;

macro_rules! library {
    ($(#[$doc:meta])* $name:ident, $file:literal: $($function:ident = $symbol:literal ($($arg:ty),*) -> $result:ty;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name {
            $(pub $function: unsafe extern "C" fn($($arg),*) -> $result,)*
        }

        impl $name {
            fn open() -> Result<$name, String> {
                // SAFETY: a library of NVIDIA's, whose start has no conditions.
                let library = unsafe { libloading::Library::new($file) }.map_err(|error| error.to_string())?;
                // It stays as long as the process, so that its functions do.
                let library: &'static libloading::Library = Box::leak(Box::new(library));
                $(
                    // SAFETY: the function has this signature in the header of the library.
                    let $function = unsafe { library.get::<unsafe extern "C" fn($($arg),*) -> $result>($symbol) };
                    let $function = *$function.map_err(|error| error.to_string())?;
                )*
                Ok($name { $($function,)* })
            }
        }
    };
}

library! {
    /// Of NCCL.
    Nccl, "libnccl.so.2":
    get_unique_id = "ncclGetUniqueId" (*mut Id) -> c_int;
    init = "ncclCommInitRankConfig" (*mut Handle, c_int, Id, c_int, *mut Config) -> c_int;
    state = "ncclCommGetAsyncError" (Handle, *mut c_int) -> c_int;
    group_start = "ncclGroupStart" () -> c_int;
    group_end = "ncclGroupEnd" () -> c_int;
    send = "ncclSend" (*const c_void, usize, c_int, c_int, Handle, Handle) -> c_int;
    recv = "ncclRecv" (*mut c_void, usize, c_int, c_int, Handle, Handle) -> c_int;
    abort = "ncclCommAbort" (Handle) -> c_int;
    error_string = "ncclGetErrorString" (c_int) -> *const c_char;
    last_error = "ncclGetLastError" (Handle) -> *const c_char;
}

library! {
    /// Of the driver.
    Cuda, "libcuda.so.1":
    init = "cuInit" (c_uint) -> c_int;
    device = "cuDeviceGet" (*mut c_int, c_int) -> c_int;
    retain = "cuDevicePrimaryCtxRetain" (*mut Handle, c_int) -> c_int;
    set_current = "cuCtxSetCurrent" (Handle) -> c_int;
    stream = "cuStreamCreate" (*mut Handle, c_uint) -> c_int;
    query = "cuStreamQuery" (Handle) -> c_int;
    alloc = "cuMemAlloc_v2" (*mut u64, usize) -> c_int;
    free = "cuMemFree_v2" (u64) -> c_int;
    to_device = "cuMemcpyHtoDAsync_v2" (u64, *const c_void, usize, Handle) -> c_int;
    to_host = "cuMemcpyDtoHAsync_v2" (*mut c_void, u64, usize, Handle) -> c_int;
    error_string = "cuGetErrorString" (c_int, *mut *const c_char) -> c_int;
}

/// Both of them.
#[derive(Clone, Copy)]
pub struct Libraries {
    pub nccl: Nccl,
    pub cuda: Cuda,
}

impl Libraries {
    /// Opens them.
    ///
    /// # Errors
    /// Which one is missing, or a function of it, and what to do.
    pub fn open() -> Result<Libraries, String> {
        let cuda = Cuda::open().map_err(|error| {
            format!("the driver's library cannot be opened ({error}); it comes with the driver of an NVIDIA GPU")
        })?;
        let nccl = Nccl::open().map_err(|error| {
            format!(
                "NCCL cannot be opened ({error}); install NCCL 2.17 or later and put the folder of libnccl.so.2 into \
                 LD_LIBRARY_PATH (the Python package `nvidia-nccl-cu13` has it in site-packages/nvidia/nccl/lib)"
            )
        })?;
        Ok(Libraries { nccl, cuda })
    }

    /// What NCCL says of a result.
    pub fn of_nccl(&self, result: c_int, comm: Handle) -> String {
        // SAFETY: both give a text that stays, or null; the communicator is one of ours, or null.
        let (what, last) = unsafe { (text((self.nccl.error_string)(result)), text((self.nccl.last_error)(comm))) };
        match last.trim() {
            "" => what,
            last => format!("{what}; {last}"),
        }
    }

    /// What the driver says of a result.
    pub fn of_cuda(&self, result: c_int) -> String {
        let mut what = std::ptr::null();
        // SAFETY: it gives a text that stays, or null.
        unsafe {
            (self.cuda.error_string)(result, &raw mut what);
            text(what)
        }
    }
}

/// # Safety
/// A text of C, or null.
unsafe fn text(what: *const c_char) -> String {
    if what.is_null() {
        return String::new();
    }
    // SAFETY: as promised.
    unsafe { CStr::from_ptr(what) }.to_string_lossy().into_owned()
}
