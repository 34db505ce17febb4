//! Standard output and standard error. What is printed on the first is a command's result, and a command that cannot
//! print it has failed; what is said on the second is talk, and lost talk changes nothing.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::error::Result;

/// True where the process began without a standard output. Rust's runtime puts `/dev/null` in the place of one that is
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
        return Err(closed(Errno::BADF.into()));
    }
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(closed(error)),
        _ => Ok(()),
    }
}

fn closed(source: io::Error) -> crate::error::Error {
    kit::Error::Io { path: "stdout".into(), source }.into()
}

/// Prints a line on stderr, without secrets that a message repeats.
pub fn say(line: &str) {
    say_coloured(&visible(&kit::redact(line)));
}

/// Says a line that has colours; what they are put around has to be [`visible`] before, and without secrets.
pub fn say_coloured(line: &str) {
    // Without stderr there is no place for the message.
    let _: io::Result<()> = writeln!(io::stderr(), "{line}");
}

/// A text with its control characters, but for the end of a line and tabs, as `\\u001b` and the like; and so what turns
/// the direction of writing round. In JSON, where they stand in texts alone, it means the same as before.
///
/// Data, models and servers are not ours: what they say could move the cursor, set the clipboard or hide a line. All
/// that is printed passes through here, but for colours that are put around such a text afterwards.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        let turns = matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (letter.is_control() && !matches!(letter, '\n' | '\t')) || turns {
            shown.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            shown.push(letter);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        let said = "a\u{1b}]52;c;eA==\u{7}\u{9b}2J\u{7f}\r\u{8}\u{202e}\tü\n";
        assert_eq!(visible(said), "a\\u001b]52;c;eA==\\u0007\\u009b2J\\u007f\\u000d\\u0008\\u202e\tü\n");
        let json = serde_json::json!({"a": said}).to_string() + "\n";
        assert_eq!(serde_json::from_str::<serde_json::Value>(&visible(&json)).unwrap()["a"], said);
    }
}
