//! One rank's communicator, and memory of its GPU for what comes from the processor's.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use kit::{Error, GpuSwap, Result};

use super::library::{
    BESIDE, BYTES, CUDA_NOT_READY, Config, DONE, Handle, ID, Id, Libraries, NCCL_IN_PROGRESS, NCCL_INVALID_ARGUMENT,
    NCCL_INVALID_USAGE,
};

/// Looks until something is done that takes other ranks, or others are found missing.
pub type Wait<'a> = dyn Fn(&mut dyn FnMut() -> Result<bool>) -> Result<()> + Sync + 'a;

/// A way from one GPU to those of the other ranks.
pub struct Link {
    libraries: Libraries,
    context: Handle,
    /// Null before it is there, and once it was given up.
    comm: AtomicPtr<c_void>,
    stream: Handle,
}

// SAFETY: each call makes the context that of its thread. Ranks make their calls one after the other.
unsafe impl Send for Link {}
// SAFETY: see above.
unsafe impl Sync for Link {}

/// The name of a start, which rank 0 makes for all ranks.
///
/// # Errors
/// NCCL's.
pub fn id(libraries: &Libraries) -> Result<[u8; ID]> {
    let mut id = Id([0; ID]);
    // SAFETY: it writes an id.
    let result = unsafe { (libraries.nccl.get_unique_id)(&raw mut id) };
    of_nccl(libraries, "ncclGetUniqueId", result, null_mut())?;
    Ok(id.0)
}

impl Link {
    /// Joins the others on the GPU of a number, from 0.
    ///
    /// # Errors
    /// The driver's and NCCL's; those of `wait`.
    pub fn join(
        libraries: Libraries,
        gpu: usize,
        (rank, size): (usize, usize),
        id: [u8; ID],
        wait: &Wait<'_>,
    ) -> Result<Link> {
        let number = |number: usize| c_int::try_from(number).map_err(|_| Error::internal("a number of ranks or GPUs"));
        let (gpu, rank, size) = (number(gpu)?, number(rank)?, number(size)?);
        let comm = AtomicPtr::new(null_mut());
        let mut link = Link { libraries, context: null_mut(), comm, stream: null_mut() };
        let (Libraries { nccl, cuda }, mut device) = (&link.libraries, 0);
        let open = |call: &str, result| match result {
            DONE => Ok(()),
            result => Err(Error::Pipeline(format!("GPU {gpu}: {call}: {}", libraries.of_cuda(result)))),
        };
        // SAFETY: the driver is begun before it is asked; each call writes what the next one reads.
        unsafe {
            open("cuInit", (cuda.init)(0))?;
            open("cuDeviceGet", (cuda.device)(&raw mut device, gpu))?;
            open("cuDevicePrimaryCtxRetain", (cuda.retain)(&raw mut link.context, device))?;
            link.enter()?;
            let made = (cuda.stream)(&raw mut link.stream, BESIDE);
            link.of_cuda("cuStreamCreate", made)?;
        }
        let mut config = Config::eager();
        // SAFETY: as long as NCCL reads it the configuration lives, which is this call.
        let result = unsafe { (nccl.init)(link.comm.as_ptr(), size, Id(id), rank, &raw mut config) };
        link.begun("ncclCommInitRankConfig", result)?;
        link.until(wait, || link.is_ready("ncclCommInitRankConfig"))?;
        Ok(link)
    }

    /// Swaps memory of this GPU with a partner's, after what its stream was given before, and waits for the end.
    ///
    /// # Errors
    /// The driver's and NCCL's; those of `wait`.
    pub fn swap(&self, partner: usize, swap: &GpuSwap, wait: &Wait<'_>) -> Result<()> {
        let partner = c_int::try_from(partner).map_err(|_| Error::internal("a number of ranks"))?;
        let (nccl, stream, comm) = (&self.libraries.nccl, swap.stream as Handle, self.comm());
        self.enter()?;
        // SAFETY: whoever asks for the swap lends as many bytes at these addresses until it is done.
        let (sent, taken, ended) = unsafe {
            self.begun("ncclGroupStart", (nccl.group_start)())?;
            let (mut sent, mut taken) = (DONE, DONE);
            if swap.sent > 0 {
                sent = (nccl.send)(swap.from as *const _, swap.sent, BYTES, partner, comm, stream);
            }
            if swap.taken > 0 {
                taken = (nccl.recv)(swap.to as *mut _, swap.taken, BYTES, partner, comm, stream);
            }
            (sent, taken, (nccl.group_end)())
        };
        let begun = [("ncclSend", sent), ("ncclRecv", taken), ("ncclGroupEnd", ended)];
        begun.into_iter().try_for_each(|(call, result)| self.begun(call, result))?;
        self.until(wait, || Ok(self.is_ready("ncclSend and ncclRecv")? && self.is_done(stream)?))
    }

    /// The same for memory of the processor; gives as many bytes as are to come.
    ///
    /// # Errors
    /// As [`Link::swap`].
    pub fn swap_bytes(&self, partner: usize, sent: &[u8], taken: usize, wait: &Wait<'_>) -> Result<Vec<u8>> {
        self.enter()?;
        let cuda = &self.libraries.cuda;
        let (from, to) = (Memory::of(self, sent.len())?, Memory::of(self, taken)?);
        if !sent.is_empty() {
            // SAFETY: as many bytes are there, and are in the driver's hands when the call is over.
            let copied = unsafe { (cuda.to_device)(from.address, sent.as_ptr().cast(), sent.len(), self.stream) };
            self.of_cuda("cuMemcpyHtoDAsync", copied)?;
        }
        let (stream, from, sent) = (self.stream as u64, from.address, sent.len());
        self.swap(partner, &GpuSwap { stream, from, sent, to: to.address, taken }, wait)?;
        let mut bytes = vec![0u8; taken];
        if taken > 0 {
            // SAFETY: as many bytes are there, and stay there until the stream is done.
            let copied = unsafe { (cuda.to_host)(bytes.as_mut_ptr().cast(), to.address, taken, self.stream) };
            self.of_cuda("cuMemcpyDtoHAsync", copied)?;
            // The memory is the driver's until then, whatever others do.
            while !self.is_done(self.stream)? {
                std::thread::yield_now();
            }
        }
        Ok(bytes)
    }

    /// Waits for something. Where it fails nothing of the communicator's work comes to an end by itself.
    fn until(&self, wait: &Wait<'_>, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        wait(&mut done).inspect_err(|_| self.give_up())
    }

    /// Ends what hangs, and the communicator.
    fn give_up(&self) {
        let comm = self.comm.swap(null_mut(), Ordering::Relaxed);
        if !comm.is_null() && self.enter().is_ok() {
            // SAFETY: it is asked for nothing else any more.
            unsafe { (self.libraries.nccl.abort)(comm) };
        }
    }

    fn comm(&self) -> Handle {
        self.comm.load(Ordering::Relaxed)
    }

    /// Makes this GPU that of the calling thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context is kept as long as the process.
        self.of_cuda("cuCtxSetCurrent", unsafe { (self.libraries.cuda.set_current)(self.context) })
    }

    /// True once NCCL has done what it was asked for last, so far as it is its own work.
    fn is_ready(&self, call: &str) -> Result<bool> {
        let mut state = DONE;
        // SAFETY: it writes the state of a communicator that was begun.
        let asked = unsafe { (self.libraries.nccl.state)(self.comm(), &raw mut state) };
        of_nccl(&self.libraries, "ncclCommGetAsyncError", asked, self.comm())?;
        match state {
            NCCL_IN_PROGRESS => Ok(false),
            state => of_nccl(&self.libraries, call, state, self.comm()).map(|()| true),
        }
    }

    /// True once a stream has done all it was given.
    fn is_done(&self, stream: Handle) -> Result<bool> {
        // SAFETY: a stream of this GPU.
        match unsafe { (self.libraries.cuda.query)(stream) } {
            CUDA_NOT_READY => Ok(false),
            result => self.of_cuda("cuStreamQuery", result).map(|()| true),
        }
    }

    /// Takes what a call of NCCL gave that may still be at work.
    fn begun(&self, call: &str, result: c_int) -> Result<()> {
        match result {
            NCCL_IN_PROGRESS => Ok(()),
            result => of_nccl(&self.libraries, call, result, self.comm()),
        }
    }

    fn of_cuda(&self, call: &str, result: c_int) -> Result<()> {
        match result {
            DONE => Ok(()),
            result => Err(Error::Waiting(again(call, &self.libraries.of_cuda(result)))),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Memory of a GPU.
struct Memory<'a> {
    link: &'a Link,
    address: u64,
}

impl Memory<'_> {
    fn of(link: &Link, bytes: usize) -> Result<Memory<'_>> {
        let mut memory = Memory { link, address: 0 };
        if bytes > 0 {
            // SAFETY: it writes an address.
            let result = unsafe { (link.libraries.cuda.alloc)(&raw mut memory.address, bytes) };
            link.of_cuda("cuMemAlloc", result)?;
        }
        Ok(memory)
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        if self.address != 0 {
            // SAFETY: it was given for this, and the call waits for all work that uses it.
            unsafe { (self.link.libraries.cuda.free)(self.address) };
        }
    }
}

/// The error where a call of NCCL failed. A wrong use is the configuration's fault or ours; everything else may pass.
fn of_nccl(libraries: &Libraries, call: &str, result: c_int, comm: Handle) -> Result<()> {
    if result == DONE {
        return Ok(());
    }
    let what = libraries.of_nccl(result, comm);
    Err(match result {
        NCCL_INVALID_ARGUMENT => Error::internal(format!("{call}: {what}")),
        NCCL_INVALID_USAGE => Error::Pipeline(format!(
            "{call}: {what}: NCCL wants a GPU of its own for each rank, such as `--device cuda:0,cuda:1` for two"
        )),
        _ => Error::Waiting(again(call, &what)),
    })
}

fn again(call: &str, what: &str) -> String {
    format!("{call}: {what}; run the same command again to go on from the latest checkpoint")
}
