//! Which rank a process is, as what started it says in the environment.

/// A process among those that were started together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From 0.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// Its number among the processes of its machine.
    pub local: usize,
    /// The name of the start, where it has one: two at once differ in it.
    pub start: String,
}

/// The variables of one launcher: rank, number of ranks, rank on the machine, and the names of the start.
struct Launcher {
    rank: &'static str,
    size: &'static str,
    local: &'static str,
    start: &'static [&'static str],
}

/// Inner ones first: `mpirun` and `torchrun` hand on what Slurm said to them.
const LAUNCHERS: [Launcher; 4] = [
    Launcher {
        rank: "OMPI_COMM_WORLD_RANK",
        size: "OMPI_COMM_WORLD_SIZE",
        local: "OMPI_COMM_WORLD_LOCAL_RANK",
        start: &["PMIX_NAMESPACE"],
    },
    Launcher { rank: "PMI_RANK", size: "PMI_SIZE", local: "MPI_LOCALRANKID", start: &["PMI_JOBID"] },
    Launcher {
        rank: "RANK",
        size: "WORLD_SIZE",
        local: "LOCAL_RANK",
        start: &["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"],
    },
    Launcher {
        rank: "SLURM_PROCID",
        size: "SLURM_NTASKS",
        local: "SLURM_LOCALID",
        start: &["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"],
    },
];

/// The place of a process by its environment; none where no launcher speaks.
pub fn place(variable: impl Fn(&str) -> Option<String>) -> Option<Place> {
    let number = |key: &str| variable(key)?.parse::<usize>().ok();
    LAUNCHERS.iter().find_map(|launcher| {
        let (rank, size) = (number(launcher.rank)?, number(launcher.size)?);
        let start: Vec<String> = launcher.start.iter().filter_map(|key| variable(key)).collect();
        Some(Place { rank, size, local: number(launcher.local).unwrap_or_default(), start: start.join(".") })
    })
}

/// The place of this process.
pub fn own() -> Option<Place> {
    place(|key| std::env::var(key).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inner_launcher_decides() {
        let of = |variables: &[(&str, &str)]| {
            place(|key| variables.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned()))
        };
        let slurm = [("SLURM_PROCID", "3"), ("SLURM_NTASKS", "4"), ("SLURM_LOCALID", "1"), ("SLURM_JOB_ID", "77")];
        let wanted = |rank, size, local, start: &str| Some(Place { rank, size, local, start: start.to_owned() });
        assert_eq!(of(&slurm), wanted(3, 4, 1, "77"));
        let step = [&slurm[..], &[("SLURM_STEP_ID", "0"), ("SLURM_RESTART_COUNT", "2")]].concat();
        assert_eq!(of(&step), wanted(3, 4, 1, "77.0.2"));
        let torch = [&slurm[..], &[("RANK", "0"), ("WORLD_SIZE", "8")]].concat();
        assert_eq!(of(&torch), wanted(0, 8, 0, ""));
        let open = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2"), ("PMIX_NAMESPACE", "5.1")];
        assert_eq!(of(&[&torch[..], &open].concat()), wanted(1, 2, 0, "5.1"));
        assert_eq!(of(&[("RANK", "0")]), None, "one of how many?");
        assert_eq!(of(&[("RANK", "first"), ("WORLD_SIZE", "2")]), None);
    }
}
