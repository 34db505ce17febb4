//! Standard output and standard error. What is printed on the first is a command's result, and a command that cannot
//! print it has failed; what is said on the second is talk, and lost talk changes nothing.

use std::io::{Error, ErrorKind, Result, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::report::visible;

/// Whether the process began without a standard output. Rust's runtime puts `/dev/null` in the place of one that is
/// closed, before `main`, so that writes seem to succeed.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Runs before Rust's runtime.
#[cfg(target_os = "linux")]
extern "C" fn look() {
    CLOSED.store(rustix::io::fcntl_getfd(rustix::stdio::stdout()) == Err(Errno::BADF), Ordering::Relaxed);
}

// SAFETY: the loader calls the functions of this section once each, and `look` takes nothing and needs no runtime.
#[cfg(target_os = "linux")]
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

/// Prints a result on stdout. A reader that has enough (`| head`) is not an error.
///
/// # Errors
/// When stdout is closed, or full.
pub fn print(text: &str) -> Result<()> {
    print_coloured(&visible(text))
}

/// Prints a result that has colours; what they are put around has to be [`visible`] before.
///
/// # Errors
/// When stdout is closed, or full.
pub fn print_coloured(text: &str) -> Result<()> {
    if CLOSED.load(Ordering::Relaxed) {
        return Err(Errno::BADF.into());
    }
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Says a line on stderr, without secrets that somebody repeated.
pub fn say(line: &str) {
    say_coloured(&visible(&kit::redact(line)));
}

/// Says a line that has colours; what they are put around has to be [`visible`] before, and without secrets.
pub fn say_coloured(line: &str) {
    // There is nobody to tell that there is nobody to tell.
    let _: std::result::Result<(), Error> = writeln!(std::io::stderr(), "{line}");
}
