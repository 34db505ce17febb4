//! `.halftone/`: entries that never change, the work in progress beside them, the locks, the records of runs, and the
//! store that several machines share.

/// The folder for results and records where nobody names another.
pub const WORK: &str = ".halftone";

mod digests;
mod entry;
mod gc;
mod history;
mod lock;
mod manifest;
mod objects;
mod records;
mod shared;
mod statcache;
mod travel;

use kit::{Error, Result};

pub use digests::Digests;
pub use entry::{Condition, Store};
pub use gc::{garbage, leftovers};
pub use history::History;
pub use lock::{Attempt, Lock, Owner};
pub use manifest::{Difference, InputDigest, Manifest, Part, Recipe};
pub use objects::{Created, Objects};
pub use records::{Records, RunRecord, RunState, StageRecord, StageState, Travel};
pub use shared::{Access, Fetched, Found, Pushed, Shared, Wrong};

/// The value that was read; none where the file is torn. A file that the system cannot read is an error.
fn unless_torn<T>(read: Result<Option<T>>) -> Result<Option<T>> {
    match read {
        Err(Error::Data(_)) => Ok(None),
        read => read,
    }
}
