//! Slurm, by its commands.

use std::process::Command;

use kit::{Error, Result};

use crate::cluster::scheduler::{Condition, JobId, Queued, Scheduler, Submission};

/// Tasks that one `scancel` takes.
const AT_ONCE: usize = 500;

/// The cluster that `sbatch` submits to.
pub struct SlurmCommands;

impl Scheduler for SlurmCommands {
    fn most_elements(&self) -> Result<usize> {
        let text = output("scontrol", &["show", "config"])?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("MaxArraySize"));
        let size = line.and_then(|line| line.trim_start_matches([' ', '=']).trim().parse().ok());
        size.filter(|size| *size > 0).ok_or_else(|| {
            Error::Unreachable(
                "`scontrol show config` names no MaxArraySize above 0: this Slurm has no arrays".to_owned(),
            )
        })
    }

    fn submit(&self, submission: &Submission<'_>) -> Result<JobId> {
        let script = submission.script.display().to_string();
        let text = {
            let args = arguments(submission);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let offset = offset(submission).to_string();
            output("sbatch", &[&args[..], &[&script, &offset]].concat())?
        };
        // On federated clusters: `JOB;CLUSTER`.
        let job = text.trim().split(';').next().unwrap_or_default();
        match !job.is_empty() && job.chars().all(|c| c.is_ascii_digit()) {
            true => Ok(job.to_owned()),
            false => {
                Err(Error::Unreachable(format!("`sbatch` answered `{}`, wanted the number of a job", text.trim())))
            }
        }
    }

    fn queued(&self) -> Result<Vec<Queued>> {
        let user = rustix::process::getuid().as_raw().to_string();
        let text = output("squeue", &["--noheader", "--array", "--user", &user, "--format", "%i|%t|%r"])?;
        Ok(text.lines().filter_map(queued).collect())
    }

    fn cancel(&self, tasks: &[(JobId, Option<usize>)]) -> Result<()> {
        let name = |(job, element): &(JobId, Option<usize>)| match element {
            Some(element) => format!("{job}_{element}"),
            None => job.clone(),
        };
        for some in tasks.chunks(AT_ONCE) {
            let names: Vec<String> = some.iter().map(name).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            output("scancel", &[&["--quiet"], &names[..]].concat())?;
        }
        Ok(())
    }
}

/// The number that a job's script adds to those of its elements.
pub fn offset(submission: &Submission<'_>) -> usize {
    submission.parts.and_then(|parts| parts.first()).copied().unwrap_or(0)
}

/// The options of `sbatch` that differ from job to job of one script.
pub fn arguments(submission: &Submission<'_>) -> Vec<String> {
    let mut args = vec!["--parsable".to_owned()];
    if let Some(parts) = submission.parts {
        let first = offset(submission);
        let most = submission.at_once.map(|most| format!("%{most}")).unwrap_or_default();
        args.push(format!("--array={}{most}", ranges(parts.iter().map(|part| part - first))));
    }
    if !submission.after.is_empty() {
        args.push(format!("--dependency=afterok:{}", submission.after.join(":")));
    }
    args
}

/// Ascending numbers as `0-3,7`.
fn ranges(numbers: impl IntoIterator<Item = usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let text = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

/// A line of `squeue`: `7_3|PD|Dependency`.
fn queued(line: &str) -> Option<Queued> {
    let mut cells = line.splitn(3, '|');
    let (id, state, reason) = (cells.next()?.trim(), cells.next()?.trim(), cells.next()?.trim());
    let (job, element) = match id.split_once('_') {
        Some((job, element)) => (job, Some(element.parse().ok()?)),
        None => (id, None),
    };
    let reason = reason.to_owned();
    let condition = match state {
        "PD" if reason.contains("launch failed") || reason.contains("DependencyNeverSatisfied") => {
            Condition::Stuck(reason)
        }
        "RH" | "SE" => Condition::Held(reason),
        "PD" if reason.contains("Held") => Condition::Held(reason),
        "PD" | "RQ" | "RF" | "RD" => Condition::Pending(reason),
        _ => Condition::Running,
    };
    Some(Queued { job: job.to_owned(), element, condition })
}

/// The standard output of one of Slurm's commands that succeeds.
fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().map_err(|error| {
        Error::Unreachable(format!("`{program}` cannot be run: {error}; is this a machine that submits to Slurm?"))
    })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Unreachable(format!("`{program} {}`: {}", args.join(" "), text.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, element: Option<usize>, condition: &str) {
        let queued = queued(line).unwrap();
        let word = format!("{:?}", queued.condition);
        assert_eq!((queued.job.as_str(), queued.element), ("7", element), "{line}");
        assert!(word.starts_with(condition), "{line}: {word}");
    }

    #[test]
    fn lines_of_squeue() {
        check("7_3|PD|Dependency", Some(3), "Pending");
        check("7|R|None", None, "Running");
        check("7_0|CG|None", Some(0), "Running");
        check("7_0|PD|launch failed requeued held", Some(0), "Stuck");
        check("7|PD|DependencyNeverSatisfied", None, "Stuck");
        check("7|PD|JobHeldUser", None, "Held");
        check("7|PD|BeginTime", None, "Pending");
        assert_eq!(queued(""), None);
    }

    #[test]
    fn arrays_begin_at_their_first_part() {
        let script = std::path::Path::new("x.sh");
        let submission = |parts| Submission { script, parts, at_once: Some(4), after: vec!["3".into(), "4".into()] };
        let parts = [1000, 1001, 1005];
        let args = arguments(&submission(Some(&parts))).join(" ");
        assert_eq!(args, "--parsable --array=0-1,5%4 --dependency=afterok:3:4");
        assert_eq!(offset(&submission(Some(&parts))), 1000);
        assert_eq!(arguments(&submission(None)).join(" "), "--parsable --dependency=afterok:3:4");
    }
}
