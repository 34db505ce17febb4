//! SIGINT and SIGTERM: the first asks for a stop, the second stops at once. What is on disk is safe either way.

use std::time::Duration;

use kit::Interrupt;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit;

/// After a first signal the process is gone within ten seconds, whatever its stages do.
const PATIENCE: Duration = Duration::from_millis(9_500);

/// Listens for signals from now on. `told` is called on the first.
///
/// # Errors
/// When the system refuses.
pub fn listen(interrupt: Interrupt, told: impl Fn() + Send + 'static) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if interrupt.raised() {
                signal_hook::low_level::exit(exit::AGAIN);
            }
            interrupt.raise();
            told();
            std::thread::spawn(|| {
                std::thread::sleep(PATIENCE);
                signal_hook::low_level::exit(exit::AGAIN);
            });
        }
    });
    Ok(())
}
