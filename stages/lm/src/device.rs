//! Choice of the device that computes.

use crate::panics::caught;
#[cfg(feature = "cuda")]
use crate::panics::quietly;
use crate::{Device, Error, Result};

/// Opens a device by name: `cpu`, or `cuda:N` in a build with the feature `cuda`.
///
/// Errors: an unknown name, a build without the feature, a machine without a driver or without that GPU. It never
/// panics, although the CUDA bindings do when the driver's library is missing.
pub fn open_device(name: &str) -> Result<Device> {
    let refuse = |what: &str| Err(Error::Device { name: name.to_owned(), what: what.to_owned() });
    if name == "cpu" {
        return Ok(Device::Cpu);
    }
    let Some(ordinal) = name.strip_prefix("cuda:").and_then(|n| n.parse::<usize>().ok()) else {
        return refuse("no such device; use `cpu`, `cuda:0` or `auto`");
    };
    if !candle_core::utils::cuda_is_available() {
        return refuse("this build has no GPU support; build with `--features cuda`, or use `cpu`");
    }
    match caught(|| open_gpu(ordinal)) {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(error)) => refuse(&format!("cannot be opened ({error}); is there such a GPU? `cpu` always works")),
        Err(panic) => refuse(&format!(
            "a library of NVIDIA's cannot be loaded: {}; libcuda comes with the driver, libcublas and libcurand with \
             CUDA 13 (put its folder into LD_LIBRARY_PATH); `cpu` always works",
            panic.split(" - ").next().unwrap_or_default()
        )),
    }
}

/// A GPU with one stream for all work. That orders it, so that no events need to be kept for each tensor; and memory
/// that tensors leave stays for the next ones instead of going back to the driver.
fn open_gpu(ordinal: usize) -> candle_core::Result<Device> {
    #[cfg(feature = "cuda")]
    let _alone = crate::ops::cuda::alone();
    let device = Device::new_cuda_with_stream(ordinal)?;
    #[cfg(feature = "cuda")]
    crate::ops::cuda::prepare(device.as_cuda_device()?)?;
    Ok(device)
}

/// The name that `auto` stands for here: `cuda:0` where one opens, else `cpu`. Other names are checked by opening them.
pub fn resolve_device(name: &str) -> Result<String> {
    match name {
        "auto" => Ok(if open_device("cuda:0").is_ok() { "cuda:0" } else { "cpu" }.to_owned()),
        _ => open_device(name).map(|_| name.to_owned()),
    }
}

/// Number of GPUs that this process sees; none where the driver cannot be asked, or the build has no GPU support.
pub fn gpus() -> usize {
    #[cfg(feature = "cuda")]
    return quietly(candle_core::cuda_backend::cudarc::driver::CudaContext::device_count)
        .and_then(|count| usize::try_from(count.ok()?).ok())
        .unwrap_or_default();
    #[cfg(not(feature = "cuda"))]
    0
}

/// Bytes of memory of a GPU: what is free for this process, and all there is. `None` for the CPU.
///
/// Errors: the driver's.
pub fn gpu_memory(device: &Device) -> Result<Option<(u64, u64)>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => Ok(Some(crate::ops::cuda::memory(device)?)),
        _ => Ok(None),
    }
}

/// What makes a device slow whatever it computes.
pub fn device_warnings(device: &Device) -> Vec<String> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(gpu) = device {
        let ahead = "the driver of this GPU gives memory only after all work is done (no asynchronous allocation, as on \
                     some virtual GPUs): everything takes several times as long there";
        let onto = "cublasLt cannot be opened (libcublasLt comes with CUDA 13; put its folder into LD_LIBRARY_PATH): \
                    residuals, biases and their gradients take passes of their own, some 5 % of a training step";
        let graphs = |reason| format!("CUDA graphs do not work here ({reason}): generation launches kernel by kernel");
        let ahead = (!crate::ops::cuda::allocates_ahead(gpu)).then(|| ahead.to_owned());
        let onto = (!crate::ops::cuda::multiplies_onto(gpu)).then(|| onto.to_owned());
        return ahead.into_iter().chain(onto).chain(crate::ops::cuda::graph::refusal(device).map(graphs)).collect();
    }
    let _ = device;
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(matches!(open_device("cpu"), Ok(Device::Cpu)));
        assert_eq!(resolve_device("cpu").unwrap(), "cpu");
        for name in ["gpu", "cuda", "cuda:x", ""] {
            assert!(open_device(name).unwrap_err().to_string().contains("no such device"), "{name}");
        }
    }

    #[test]
    fn a_missing_gpu_is_an_error_and_auto_falls_back() {
        if let Err(error) = open_device("cuda:0") {
            assert!(error.to_string().starts_with("device `cuda:0`: "), "{error}");
            assert_eq!(resolve_device("auto").unwrap(), "cpu");
        }
        assert!(open_device("cuda:63").is_err());
    }
}
