//! The device that models compute on.

use std::path::Path;

pub use reference::{EFFICIENCY, Speed};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The device that `--device` means: `auto` is a GPU where one works, else the CPU.
///
/// # Errors
/// When the device is not there, or the word is none of `auto`, `cpu`, `cuda:N`.
pub fn resolve(word: &str) -> Result<String> {
    reference::resolve_device(word).map_err(|error| Error::Usage(format!("--device {word}: {error}")))
}

/// Number of GPUs that this process sees.
pub fn gpus() -> usize {
    reference::gpus()
}

/// Speed of this machine's matrix products: as measured before for the work folder, else measured now and stored there.
/// A folder that went to another machine is measured again.
pub fn speed(work: &Path) -> Speed {
    let (path, machine) = (work.join("speed.json"), machine());
    let known = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<StoredSpeed>(&text).ok());
    if let Some(stored) = known.filter(|stored| stored.machine == machine && stored.measured == MEASURED) {
        return stored.speed;
    }
    let stored = StoredSpeed { machine, measured: MEASURED.to_owned(), speed: Speed::measure() };
    if work.exists() {
        // Lost, it costs a tenth of a second.
        let _ = kit::commit::commit_bytes(&path, &serde_json::to_vec(&stored).expect("numbers can be written as JSON"));
    }
    stored.speed
}

/// Name of the method that measures speeds; a speed by another method is measured again.
const MEASURED: &str = "by the time of one thread";

#[derive(Serialize, Deserialize)]
struct StoredSpeed {
    machine: String,
    #[serde(default)]
    measured: String,
    speed: Speed,
}

/// Key of the machine's speed: the processor's name and the number of threads, as far as they are known.
fn machine() -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{} x {threads}", crate::engine::machine::processor())
}

/// Refuses words that cannot be a device, without looking for one.
///
/// # Errors
/// When the word is none of `auto`, `cpu`, `cuda:N`.
pub fn check(word: &str) -> Result<()> {
    let is_gpu = word.strip_prefix("cuda:").is_some_and(|number| number.parse::<usize>().is_ok());
    if is_gpu || ["auto", "cpu"].contains(&word) {
        return Ok(());
    }
    Err(Error::Usage(format!("--device {word}: there are `auto`, `cpu` and `cuda:0`")))
}
