//! Kernels and products that are recorded once and run again as a whole, with what their tensors hold by then. A step of
//! decoding is hundreds of them, and takes the host longer than the GPU where they are launched one by one.

#[cfg(feature = "cuda")]
use super::driver;
#[cfg(test)]
use super::emulator;
use super::pointwise::added;
use super::{Operand, elsewhere, multiply, multiply_onto};
use crate::{Device, Error, Result};
use candle_core::{DeviceLocation, Tensor};
use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(false) };
}

/// True while work is recorded: nothing of it is done, and it may read nothing of the host.
pub(crate) fn is_recording() -> bool {
    RECORDING.get()
}

/// Recorded work. What it reads and writes has to stay where it is for as long as it may be run; tensors that it makes
/// are its own.
pub(crate) enum Graph {
    #[cfg(feature = "cuda")]
    There(driver::Graph),
    #[cfg(test)]
    Emulated(emulator::Graph),
}

impl Graph {
    /// Records what some work asks a device for.
    ///
    /// Errors: those of the work, and the driver's.
    pub fn record(device: &Device, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        struct Recording;
        impl Drop for Recording {
            fn drop(&mut self) {
                RECORDING.set(false);
            }
        }
        let recorded = || {
            RECORDING.set(true);
            let _until_here = Recording;
            work()
        };
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => driver::Graph::record(device, recorded).map(Graph::There),
            #[cfg(test)]
            Device::Cpu => emulator::Graph::record(recorded).map(Graph::Emulated),
            _ => Err(elsewhere()),
        }
    }

    /// Does the work.
    pub fn run(&self) -> Result<()> {
        match self {
            #[cfg(feature = "cuda")]
            Graph::There(graph) => graph.run(),
            #[cfg(test)]
            Graph::Emulated(graph) => graph.run(),
        }
    }
}

/// True where a device records work.
pub(crate) fn is_there(device: &Device) -> bool {
    is_wanted(device) && refusal(device).is_none()
}

/// True where work would be recorded if the device could.
fn is_wanted(device: &Device) -> bool {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => driver::graphs_are_wanted(device),
        #[cfg(test)]
        Device::Cpu => emulator::records(),
        _ => false,
    }
}

/// Why a device that is to record work does not; none where it does. It is tried once.
pub(crate) fn refusal(device: &Device) -> Option<String> {
    static KNOWN: Mutex<Vec<(DeviceLocation, Option<String>)>> = Mutex::new(Vec::new());
    if !is_wanted(device) {
        return None;
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let place = device.location();
    if let Some((_, refusal)) = known.iter().find(|(other, _)| *other == place) {
        return refusal.clone();
    }
    let refusal = match tried(device) {
        Ok(true) => None,
        Ok(false) => Some("it gives other numbers".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    known.push((place, refusal.clone()));
    refusal
}

/// Gives memory of graphs that are gone back to the device.
pub(crate) fn trim(device: &Device) {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        driver::trim_graphs(device);
    }
    #[cfg(not(feature = "cuda"))]
    let _ = device;
}

/// True where recorded work gives what it gives as it is: a kernel, products, and a tensor of its own.
fn tried(device: &Device) -> Result<bool> {
    const SIDE: usize = 64;
    let numbers = (0..SIDE * SIDE).map(|i| (i % 7) as f32).collect::<Vec<_>>();
    let x = Tensor::from_vec(numbers, (SIDE, SIDE), device)?;
    let y = x.zeros_like()?;
    let work = || {
        let (sum, sizes) = (added(&x, &x)?, [SIDE, SIDE, SIDE]);
        let (a, b, c) = (Operand::new(&sum)?, Operand::new(&x)?, Operand::new(&y)?);
        multiply(a, b, c, SIDE, SIDE, SIDE, false)?;
        multiply_onto((a, b), (Some(&sum), None), c, sizes).map(drop)
    };
    work()?;
    let want = y.to_vec2::<f32>()?;
    let graph = Graph::record(device, work)?;
    y.slice_set(&x, 0, 0)?;
    graph.run()?;
    Ok(y.to_vec2::<f32>()? == want)
}

/// Numbers of the host in place of those of a tensor of u32.
pub(crate) fn overwrite(tensor: &Tensor, numbers: &[u32]) -> Result<()> {
    if is_recording() || tensor.elem_count() != numbers.len() {
        return Err(Error::internal("numbers that cannot take the place of a tensor's"));
    }
    match tensor.device() {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => driver::overwrite(tensor, numbers, device),
        #[cfg(test)]
        Device::Cpu => emulator::overwrite(tensor, numbers),
        _ => Err(elsewhere()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cuda::emulator::{calls, emulated};
    use crate::ops::cuda::upload;

    #[test]
    fn recorded_work_is_done_when_it_is_run() {
        calls();
        let Some(called) = emulated(|| {
            assert!(tried(&Device::Cpu).unwrap());
            calls()
        }) else {
            return;
        };
        assert_eq!(called, ["add_numbers_f32", "product", "product", "graph", "add_numbers_f32", "product", "product"]);
    }

    /// Numbers of the host would be repeated.
    #[test]
    fn recorded_work_reads_nothing_of_the_host() {
        let Some(error) = emulated(|| {
            let read = || upload(&[1, 2, 3], &Device::Cpu).map(drop);
            read().unwrap();
            let error = Graph::record(&Device::Cpu, read).err().unwrap();
            read().unwrap();
            error
        }) else {
            return;
        };
        assert!(error.to_string().contains("numbers of the host in recorded work"), "{error}");
    }
}
