//! What is there, what is in the queue, and what is therefore cancelled and submitted.
//!
//! The store decides: a result or a shard that is committed needs no task, whatever the scheduler says; one that is not
//! needs one, unless a live task works on it.

use std::collections::BTreeSet;

use crate::cluster::ledger::Job;
use crate::cluster::scheduler::{Condition, JobId, Queued};
use crate::cluster::tasks::Task;

/// A task that the pipeline needs.
pub struct Needed<'a> {
    pub task: &'a Task,
    /// Parts whose shards are not all committed; `[0]` where it is not in parts.
    pub open: Vec<usize>,
    /// Digest of what decides the work.
    pub work: String,
    /// Digest of what is asked for.
    pub asked: String,
}

/// What is done about the tasks of a pipeline.
#[derive(Debug, Default, PartialEq)]
pub struct Actions {
    /// Tasks that are cancelled, with their elements.
    pub cancel: Vec<(JobId, Option<usize>)>,
    /// For each needed task, the parts that are submitted.
    pub submit: Vec<Vec<usize>>,
    /// For each needed task, the jobs that work on it already; elements of an array by themselves where others of it are
    /// no longer in the queue, of which some may have failed.
    pub kept: Vec<Vec<JobId>>,
}

/// Decides. `live` are the tasks in the queue with their jobs; `others` are the stages that are not asked for now, whose
/// tasks are left alone.
pub fn reconcile(needed: &[Needed<'_>], live: &[(&Job, &Queued)], others: &BTreeSet<String>) -> Actions {
    let mut actions = Actions::default();
    let mut settled: BTreeSet<usize> = BTreeSet::new();
    let cancel = |actions: &mut Actions, task: &Queued| actions.cancel.push((task.job.clone(), task.element));
    // What is committed, was changed or is gone from the pipeline needs no task. A task that runs beside a committed
    // result ends by itself.
    let mut ended: BTreeSet<&str> = BTreeSet::new();
    for (at, (job, task)) in live.iter().enumerate() {
        let of_stage = |needed: &Needed<'_>| needed.task.name == job.name && needed.task.role == job.role;
        let wanted = needed.iter().find(|needed| of_stage(needed));
        let same = wanted.is_some_and(|needed| needed.work == job.work);
        if same || others.contains(&job.name) {
            continue;
        }
        settled.insert(at);
        let runs = task.condition == Condition::Running;
        let changed = wanted.is_some();
        if !runs || changed {
            cancel(&mut actions, task);
            ended.insert(&job.name);
        }
    }
    for (index, needed) in needed.iter().enumerate() {
        // Slurm ends a task that waits for a task which did not end well.
        let renewed = needed.task.after.iter().any(|other| !actions.submit[*other].is_empty())
            || needed.task.reads.iter().any(|stage| ended.contains(stage.as_str()));
        let mut covered: BTreeSet<usize> = BTreeSet::new();
        let mut kept: Vec<(&Job, Option<usize>)> = Vec::new();
        let of_task = |(job, _): &(&Job, &Queued)| job.name == needed.task.name && job.role == needed.task.role;
        let mut mine: Vec<usize> = (0..live.len()).filter(|at| !settled.contains(at) && of_task(&live[*at])).collect();
        // Of two tasks for one part the one that runs stays.
        mine.sort_by_key(|at| live[*at].1.condition != Condition::Running);
        for at in mine {
            let (job, task) = live[at];
            let part = job.part(task.element);
            let fits = job.of == needed.task.parts && needed.open.contains(&part) && !covered.contains(&part);
            let stays = match &task.condition {
                // Whatever it computes is of use, and of two that compute the same one finds it done.
                Condition::Running => true,
                Condition::Pending(_) | Condition::Held(_) => fits && !renewed && job.asked == needed.asked,
                Condition::Stuck(_) => false,
            };
            match stays {
                true => {
                    kept.push((job, task.element));
                    covered.extend(fits.then_some(part));
                }
                false => cancel(&mut actions, task),
            }
        }
        let missing = needed.open.iter().copied().filter(|part| !covered.contains(part)).collect();
        debug_assert_eq!(actions.submit.len(), index);
        actions.submit.push(missing);
        actions.kept.push(dependencies(&kept));
    }
    actions
}

/// Names of tasks for those that wait for them.
fn dependencies(kept: &[(&Job, Option<usize>)]) -> Vec<JobId> {
    let whole = |job: &Job| kept.iter().filter(|(other, _)| other.job == job.job).count() == job.parts.len().max(1);
    let name = |(job, element): &(&Job, Option<usize>)| match element {
        Some(element) if !whole(job) => format!("{}_{element}", job.job),
        _ => job.job.clone(),
    };
    let names: BTreeSet<JobId> = kept.iter().map(name).collect();
    names.into_iter().collect()
}

/// The parts whose shards are not all committed; all of them where nobody has counted the shards yet.
pub fn open_parts(parts: usize, shards: Option<&[bool]>) -> Vec<usize> {
    let Some(shards) = shards else { return (0..parts).collect() };
    let range = |part: usize| shards.len() * part / parts..shards.len() * (part + 1) / parts;
    (0..parts).filter(|part| !shards[range(*part)].iter().all(|there| *there)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tasks::Role;

    fn is_nothing(actions: &Actions) -> bool {
        actions.cancel.is_empty() && actions.submit.iter().all(Vec::is_empty)
    }

    /// `samples` in four parts and its end, `pairs`, the report; `world` before them is committed.
    fn tasks() -> Vec<Task> {
        let task = |role, name: &str, parts, after: &[usize], reads: &[&str]| Task {
            role,
            name: name.to_owned(),
            stage: Some(0),
            parts,
            after: after.to_vec(),
            reads: reads.iter().map(|name| (*name).to_owned()).collect(),
        };
        vec![
            task(Role::Parts, "samples", 4, &[], &["world"]),
            task(Role::Seal, "samples", 1, &[0], &["world"]),
            task(Role::Whole, "pairs", 1, &[1], &["samples"]),
            task(Role::Report, "report", 1, &[2], &["samples", "pairs"]),
        ]
    }

    fn needed<'a>(tasks: &'a [Task], open: &[usize]) -> Vec<Needed<'a>> {
        let one = |task: &'a Task| Needed {
            task,
            open: if task.role == Role::Parts { open.to_vec() } else { vec![0] },
            work: "w".to_owned(),
            asked: "a".to_owned(),
        };
        tasks.iter().map(one).collect()
    }

    fn job(id: &str, name: &str, role: Role, parts: &[usize]) -> Job {
        Job {
            job: id.to_owned(),
            name: name.to_owned(),
            role,
            of: if role == Role::Parts { 4 } else { 1 },
            parts: parts.to_vec(),
            work: "w".to_owned(),
            asked: "a".to_owned(),
            submission: 1,
            at: String::new(),
        }
    }

    /// All jobs of a first submission.
    fn jobs() -> Vec<Job> {
        vec![
            job("1", "samples", Role::Parts, &[0, 1, 2, 3]),
            job("2", "samples", Role::Seal, &[]),
            job("3", "pairs", Role::Whole, &[]),
            job("4", "report", Role::Report, &[]),
        ]
    }

    /// Decides for queued tasks such as `1_0 R`, `2 P`, `3 S` (stuck), `4 H` (held).
    fn decide(needed: &[Needed<'_>], jobs: &[Job], queue: &[&str]) -> Actions {
        let queued: Vec<Queued> = queue
            .iter()
            .map(|text| {
                let (id, state) = text.split_once(' ').unwrap();
                let (job, element) = id.split_once('_').map_or((id, None), |(job, at)| (job, Some(at)));
                let condition = match state {
                    "R" => Condition::Running,
                    "P" => Condition::Pending("Dependency".to_owned()),
                    "H" => Condition::Held("JobHeldUser".to_owned()),
                    _ => Condition::Stuck("launch failed requeued held".to_owned()),
                };
                Queued { job: job.to_owned(), element: element.map(|at| at.parse().unwrap()), condition }
            })
            .collect();
        let live = crate::cluster::ledger::ours(jobs, &queued);
        assert_eq!(live.len(), queued.len(), "a task without its job");
        reconcile(needed, &live, &BTreeSet::new())
    }

    fn names(actions: &Actions) -> Vec<String> {
        let mut names: Vec<String> = actions
            .cancel
            .iter()
            .map(|(job, element)| element.map_or(job.clone(), |element| format!("{job}_{element}")))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn at_first_all_is_submitted_and_then_nothing() {
        let tasks = tasks();
        let needed = needed(&tasks, &[0, 1, 2, 3]);
        let first = decide(&needed, &[], &[]);
        assert_eq!(first.submit, [vec![0, 1, 2, 3], vec![0], vec![0], vec![0]]);
        let queue = ["1_0 R", "1_1 R", "1_2 P", "1_3 P", "2 P", "3 P", "4 P"];
        let again = decide(&needed, &jobs(), &queue);
        assert!(is_nothing(&again), "{again:?}");
        assert_eq!(again.kept[0], ["1"]);
    }

    #[test]
    fn a_part_that_failed_is_submitted_again_with_all_that_waits_for_it() {
        let tasks = tasks();
        // Part 1 is committed, part 2 failed; what waited for the array may not be gone yet.
        let actions = decide(&needed(&tasks, &[0, 2, 3]), &jobs(), &["1_0 R", "1_3 P", "2 P", "3 P"]);
        assert_eq!(actions.submit, [vec![2], vec![0], vec![0], vec![0]]);
        assert_eq!(names(&actions), ["2", "3"]);
        // The array as a whole has not ended well.
        assert_eq!(actions.kept[0], ["1_0", "1_3"]);
    }

    #[test]
    fn a_committed_stage_needs_no_task() {
        // The controller forgot that it had started them: committed, and held for ever.
        let all = tasks();
        let (mut pairs, mut report) = (all[2].clone(), all[3].clone());
        (pairs.after, report.after) = (vec![], vec![0]);
        let tasks = [pairs, report];
        let actions = decide(&needed(&tasks, &[]), &jobs(), &["1_0 S", "2 P", "3 P", "4 P"]);
        assert_eq!(names(&actions), ["1_0", "2", "3", "4"]);
        assert_eq!(actions.submit, [vec![0], vec![0]]);
        // One that runs ends by itself, and nothing waits for it anew.
        let actions = decide(&needed(&tasks, &[]), &jobs(), &["2 R", "3 P", "4 P"]);
        assert!(is_nothing(&actions), "{actions:?}");
    }

    #[test]
    fn committed_parts_need_no_task_and_the_end_is_kept() {
        let tasks = tasks();
        let actions = decide(&needed(&tasks, &[3]), &jobs(), &["1_3 R", "2 P", "3 P", "4 P"]);
        assert!(is_nothing(&actions), "{actions:?}");
        // A waiting task whose part somebody else has computed.
        let actions = decide(&needed(&tasks, &[3]), &jobs(), &["1_0 P", "1_3 R", "2 P", "3 P", "4 P"]);
        assert_eq!(names(&actions), ["1_0"]);
    }

    #[test]
    fn other_work_is_cancelled_and_other_resources_where_it_waits() {
        let tasks = tasks();
        let mut needed = needed(&tasks, &[0, 1, 2, 3]);
        needed[0].asked = "more".to_owned();
        let queue = ["1_0 R", "1_1 P", "1_2 H", "1_3 S", "2 P", "3 P", "4 P"];
        let actions = decide(&needed, &jobs(), &queue);
        assert_eq!(names(&actions), ["1_1", "1_2", "1_3", "2", "3", "4"]);
        assert_eq!(actions.submit[0], [1, 2, 3]);
        needed[0].work = "other".to_owned();
        let actions = decide(&needed, &jobs(), &queue);
        assert_eq!(names(&actions), ["1_0", "1_1", "1_2", "1_3", "2", "3", "4"]);
        assert_eq!(actions.submit[0], [0, 1, 2, 3]);
    }

    #[test]
    fn tasks_of_stages_that_are_not_asked_for_are_left_alone() {
        let tasks = tasks();
        let needed = needed(&tasks[..2], &[0, 1, 2, 3]);
        let (jobs, condition) = (jobs(), Condition::Pending("Dependency".to_owned()));
        let queued = [Queued { job: "3".to_owned(), element: None, condition }];
        let live = crate::cluster::ledger::ours(&jobs, &queued);
        let others = BTreeSet::from(["pairs".to_owned()]);
        assert_eq!(reconcile(&needed, &live, &others).cancel, []);
    }

    #[test]
    fn parts_are_open_until_all_their_shards_are_there() {
        assert_eq!(open_parts(3, None), [0, 1, 2]);
        assert_eq!(open_parts(2, Some(&[true, true, true, false])), [1]);
        // More parts than shards: those without any are done.
        assert_eq!(open_parts(4, Some(&[false, true])), [1]);
        assert_eq!(open_parts(2, Some(&[])), Vec::<usize>::new());
    }
}
