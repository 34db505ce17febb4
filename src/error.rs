//! The errors that end a command.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::pipeline::problem::Problem;
use crate::store::Owner;

/// The result of a command.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error that ended a command. `exit.rs` gives each its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line cannot be read.
    #[error(transparent)]
    CommandLine(clap::Error),
    /// The command line asks for something that is not there.
    #[error("{0}")]
    Usage(String),
    /// The pipeline file has problems.
    #[error("{}", lines(file, problems))]
    Problems {
        /// The pipeline file.
        file: PathBuf,
        /// All of them, sorted.
        problems: Vec<Problem>,
    },
    /// The request cannot be run as the pipeline stands.
    #[error("{0}")]
    Pipeline(String),
    /// A stage failed.
    #[error("stage `{stage}`: {source}")]
    Stage {
        /// The stage.
        stage: String,
        /// The stage's error.
        source: kit::Error,
    },
    /// A stage panicked.
    #[error("stage `{stage}` panicked: {text} (this is a bug in halftone)")]
    Panicked {
        /// The stage.
        stage: String,
        /// The panic's message.
        text: String,
    },
    /// Another process holds a lock, and we were not to wait.
    #[error("{what} is being worked on by {}; run the same command again later", owner.as_ref().map_or("another process".to_owned(), Owner::to_string))]
    Locked {
        /// The thing that is locked.
        what: String,
        /// Holder of the lock, where it is known.
        owner: Option<Owner>,
    },
    /// Entries of the store are not what their manifests say.
    #[error("{0}")]
    Damaged(String),
    /// Something panicked outside a stage.
    #[error(
        "{0}\nthis is a bug in halftone; please report it with the lines above, the command and `halftone --version`"
    )]
    Bug(String),
    /// Several stages failed side by side.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Error>),
    /// Everything else, outside a stage.
    #[error(transparent)]
    Kit(#[from] kit::Error),
}

/// Does something that must not panic; if it does, that is an error like others.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic_text(&*panic);
        Err(system_error(&text).map_or(Error::Bug(text), Error::Kit))
    })
}

/// The message of a panic.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

/// The system's error, where a library made a panic of it: no more threads, no room, a broken device.
pub fn system_error(panic: &str) -> Option<kit::Error> {
    use rustix::io::Errno;
    let (said, rest) = panic.split_once("Os { code: ")?;
    let code: i32 = rest.split(',').next()?.parse().ok()?;
    let short = [
        Errno::IO,
        Errno::AGAIN,
        Errno::NOMEM,
        Errno::NFILE,
        Errno::MFILE,
        Errno::FBIG,
        Errno::NOSPC,
        Errno::ROFS,
        Errno::DQUOT,
    ];
    let what = said.split(':').next().unwrap_or_default().trim();
    let known = short.iter().any(|errno| errno.raw_os_error() == code);
    known.then(|| kit::Error::Io { path: what.into(), source: std::io::Error::from_raw_os_error(code) })
}

fn lines(file: &Path, problems: &[Problem]) -> String {
    problems.iter().map(|problem| problem.line(file)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;

    #[test]
    fn a_panic_is_a_bug_to_report() {
        let row = 7;
        let error = guarded(|| -> Result<()> { panic!("row {row}") }).unwrap_err();
        assert_eq!(exit::code(&error), exit::INTERNAL);
        insta::assert_snapshot!(error.to_string(), @r"
        row 7
        this is a bug in halftone; please report it with the lines above, the command and `halftone --version`
        ");
        assert_eq!(guarded(|| Ok(3)).unwrap(), 3);
        // A library that makes a panic of what the system says.
        let full = guarded(|| -> Result<()> {
            let spawned: std::io::Result<()> = std::hint::black_box(Err(std::io::Error::from_raw_os_error(11)));
            spawned.expect("could not spawn threads");
            Ok(())
        });
        assert_eq!(exit::code(&full.unwrap_err()), exit::IO);
        // A panic from anything but a failing system is a bug.
        let absent = guarded(|| -> Result<()> {
            std::fs::File::open("/nowhere").unwrap();
            Ok(())
        });
        assert_eq!(exit::code(&absent.unwrap_err()), exit::INTERNAL);
    }
}
