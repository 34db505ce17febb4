//! SIGINT, SIGTERM, SIGUSR1 (schedulers send it before a time limit) and SIGHUP (a terminal that is gone): the first asks
//! for a stop, the second stops at once. What is on disk is safe either way, and the record of the run says that it was
//! interrupted.

use std::io::Result;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::thread::Builder;
use std::time::Duration;

use kit::Interrupt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::exit;
use crate::streams::say;

/// After a first signal the process is gone within ten seconds, whatever its stages do.
const PATIENCE: Duration = Duration::from_millis(9_500);

/// The work that a signal stops.
struct AtWork {
    interrupt: Interrupt,
    on_first: Box<dyn Fn() + Send + Sync>,
    /// Called where the process ends before its work.
    last: Arc<dyn Fn() + Send + Sync>,
}

/// Somebody who waits for signals.
#[derive(Clone)]
pub struct Listener(Arc<OnceLock<AtWork>>);

impl Listener {
    /// Registers the stages to stop; `on_first` is called on the first signal, `last` before the process ends
    /// without waiting for them.
    pub fn at_work(
        &self,
        interrupt: Interrupt,
        on_first: impl Fn() + Send + Sync + 'static,
        last: impl Fn() + Send + Sync + 'static,
    ) {
        // A process works once.
        let _ = self.0.set(AtWork { interrupt, on_first: Box::new(on_first), last: Arc::new(last) });
    }
}

/// Listens for signals from now on. Before there is work, the first ends the process: nothing is lost.
///
/// # Errors
/// When the system refuses.
pub fn listen() -> Result<Listener> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])?;
    if !outlives_terminal() {
        signals.add_signal(SIGHUP)?;
    }
    let listener = Listener(Arc::new(OnceLock::new()));
    let heard = listener.clone();
    Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            let Some(AtWork { interrupt, on_first, last }) = heard.0.get() else {
                say("error: interrupted before the first stage; run the same command again");
                signal_hook::low_level::exit(exit::AGAIN)
            };
            if interrupt.raised() {
                last();
                signal_hook::low_level::exit(exit::AGAIN);
            }
            interrupt.raise();
            on_first();
            let at_end = last.clone();
            let patience = Builder::new().name("patience".to_owned()).spawn(move || {
                std::thread::sleep(PATIENCE);
                at_end();
                signal_hook::low_level::exit(exit::AGAIN);
            });
            // Without a thread to wait there is no time to wait for.
            if patience.is_err() {
                last();
                signal_hook::low_level::exit(exit::AGAIN);
            }
        }
    })?;
    Ok(listener)
}

/// True where the process was started to outlive its terminal, as `nohup` does it: SIGHUP is ignored.
fn outlives_terminal() -> bool {
    let ignored = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?.trim().to_owned();
        Some(u64::from_str_radix(&line, 16).ok()? >> (SIGHUP - 1) & 1 == 1)
    };
    // Where the system does not say, SIGHUP does what it always does.
    std::fs::read_to_string("/proc/self/status").ok().and_then(ignored).unwrap_or(true)
}

/// Lets a file beyond the limit on sizes be an error of writing, as a full disk is, and not the death of the process.
///
/// # Errors
/// When the system refuses.
pub fn survive_full_files() -> Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
}
