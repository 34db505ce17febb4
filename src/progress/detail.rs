//! The detail of a command's output.

/// The detail of a run's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Errors alone.
    Quiet,
    /// The stages that run, warnings, and where to look next.
    Short,
    /// Everything: every stage with all of its figures.
    Full,
}

impl Detail {
    /// The detail that `--quiet` and `--verbose` mean together. Each may be set by a variable of the environment as
    /// well; the command line takes precedence.
    pub fn of(quiet: bool, verbose: bool) -> Detail {
        match (quiet, verbose) {
            (true, true) if std::env::var_os("HALFTONE_QUIET").is_some() => Detail::Full,
            (true, _) => Detail::Quiet,
            (false, true) => Detail::Full,
            (false, false) => Detail::Short,
        }
    }
}

/// The memory that this process holds now, in bytes; nothing where the system does not say.
pub fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}
