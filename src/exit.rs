//! Exit codes, after sysexits.h where one fits.

use crate::error::Error;
use crate::pipeline::problem::Fault;

/// Every requested result exists.
pub const DONE: i32 = 0;
/// The command line is wrong.
pub const USAGE: i32 = 64;
/// The data is at fault: a broken row, a torn file, a damaged entry.
pub const DATA: i32 = 65;
/// A judge or another service could not be reached; run again.
pub const UNREACHABLE: i32 = 69;
/// A bug in halftone.
pub const INTERNAL: i32 = 70;
/// Reading or writing failed: a full disk, missing rights, a full or closed stdout, no more threads.
pub const IO: i32 = 74;
/// Interrupted, or waiting: another process holds a lock, answers of a batch are to come, a limit of cost is reached. Run
/// the same command again to go on.
pub const AGAIN: i32 = 75;
/// The pipeline file is wrong.
pub const PIPELINE: i32 = 78;

/// The exit code of an error.
pub fn code(error: &Error) -> i32 {
    match error {
        Error::Usage(_) | Error::CommandLine(_) => USAGE,
        // A file that cannot be read now may hide further problems.
        Error::Problems { problems, .. } if problems.iter().any(|problem| problem.fault == Fault::System) => IO,
        Error::Problems { problems, .. } if problems.iter().all(|problem| problem.fault == Fault::Data) => DATA,
        Error::Problems { .. } | Error::Pipeline(_) => PIPELINE,
        Error::Panicked { .. } | Error::Bug(_) => INTERNAL,
        Error::Locked { .. } => AGAIN,
        Error::Damaged(_) => DATA,
        Error::Several(errors) => errors.first().map_or(INTERNAL, code),
        Error::Stage { source, .. } | Error::Kit(source) => match source {
            kit::Error::Data(_) => DATA,
            kit::Error::Pipeline(_) => PIPELINE,
            kit::Error::Unreachable(_) => UNREACHABLE,
            kit::Error::Interrupted | kit::Error::Waiting(_) => AGAIN,
            kit::Error::Io { .. } => IO,
            kit::Error::Internal(_) => INTERNAL,
        },
    }
}
