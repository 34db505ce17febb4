//! Threads of a run that are ranks, each with a GPU of its own.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kit::{Collective, Context, Error, Result};

use super::library::Libraries;
use super::over::Over;

/// The way between the GPUs of threads.
pub struct Between {
    libraries: Libraries,
    /// True once a rank has ended with an error.
    failed: AtomicBool,
}

impl Between {
    /// For devices that are different GPUs; `None` for others, and where NCCL is missing, which is noted.
    pub fn of(devices: &[String], context: &Context<'_>) -> Option<Between> {
        let distinct: BTreeSet<&String> = devices.iter().collect();
        if distinct.len() < devices.len() || !devices.iter().all(|device| device.starts_with("cuda:")) {
            return None;
        }
        match Libraries::open() {
            Ok(libraries) => Some(Between { libraries, failed: AtomicBool::new(false) }),
            Err(error) => {
                context.note(format!("gradients go over the memory of the machine, which is slow: {error}"));
                None
            }
        }
    }

    /// Does the work of one rank over NCCL.
    ///
    /// # Errors
    /// Those of the work, and of [`Over::join`].
    pub fn work<T>(
        &self,
        ranks: &dyn Collective,
        device: &str,
        work: impl FnOnce(&dyn Collective) -> Result<T>,
    ) -> Result<T> {
        let ended = Ended { failed: &self.failed, well: false };
        let wait = |done: &mut dyn FnMut() -> Result<bool>| {
            while !done()? {
                if self.failed.load(Ordering::Relaxed) {
                    let text = "another rank has ended; run the same command again to go on from the latest checkpoint";
                    return Err(Error::Waiting(text.to_owned()));
                }
                std::thread::sleep(Duration::from_micros(20));
            }
            Ok(())
        };
        let over = Over::join(self.libraries, ranks, device, ranks.rank(), wait)?;
        // Before the communicator is given up.
        let done = work(&over).inspect_err(|_| self.failed.store(true, Ordering::Relaxed))?;
        ended.well();
        Ok(done)
    }
}

/// Tells the other ranks where this one ends with an error or a panic.
struct Ended<'a> {
    failed: &'a AtomicBool,
    well: bool,
}

impl Ended<'_> {
    fn well(mut self) {
        self.well = true;
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if !self.well {
            self.failed.store(true, Ordering::Relaxed);
        }
    }
}
