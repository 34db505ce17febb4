//! Submitting what a pipeline lacks: the frozen pipeline, scripts, the environment's file, jobs in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kit::{Digest, Error, Result, committed_shards};
use serde_json::json;

use crate::clock;
use crate::cluster::config::Slurm;
use crate::cluster::environment;
use crate::cluster::ledger::{Job, Jobs, Ledger, ours};
use crate::cluster::reading::names_of;
use crate::cluster::reconcile::{Actions, Needed, open_parts, reconcile};
use crate::cluster::rendered::{ENVIRONMENT, File, PIPELINE, Rendered, program, write};
use crate::cluster::scheduler::{JobId, Queued, Scheduler, Submission};
use crate::cluster::script::{Places, script};
use crate::cluster::tasks::{Role, Task, tasks};
use crate::engine::plan::{Decision, Planned};
use crate::engine::resolved;
use crate::pipeline::graph::{Graph, Origin};
use crate::store::Store;

/// A pipeline that is to be submitted.
pub struct Request<'a> {
    pub graph: &'a Graph,
    pub planned: &'a [Planned],
    pub store: &'a Store,
    pub slurm: &'a Slurm,
    /// The cluster file.
    pub file: &'a Path,
    /// `--device`.
    pub device: &'a str,
    /// The options that select stages.
    pub selection: &'a [String],
    /// Tasks of a stage by the cluster file.
    pub tasks_of: &'a dyn Fn(usize) -> usize,
}

/// What was done.
pub struct Submitted {
    /// The tasks of the pipeline.
    pub tasks: Vec<Task>,
    pub actions: Actions,
    /// The jobs that were submitted now.
    pub jobs: Vec<Job>,
    /// The folder of their scripts and logs.
    pub folder: PathBuf,
}

/// Where the work on a pipeline stands: what its stages lack, and what is in the queue for it.
pub struct Standing {
    pub tasks: Vec<Task>,
    /// For each task, the parts that are not committed.
    pub open: Vec<Vec<usize>>,
    /// Digests of what decides the work of each task.
    pub work: Vec<String>,
}

impl Standing {
    /// Of a plan. A stage of which parts are in the queue keeps their number.
    ///
    /// # Errors
    /// When the records of shards cannot be read.
    pub fn of(
        graph: &Graph,
        planned: &[Planned],
        store: &Store,
        live: &[(&Job, &Queued)],
        tasks_of: &dyn Fn(usize) -> usize,
    ) -> Result<Standing> {
        let digests = works(graph);
        let parts = |stage: usize| {
            let node = &graph.nodes[stage];
            let of = |(job, _): &&(&Job, &Queued)| job.name == node.name && job.work == digests[stage];
            let parts = live.iter().filter(of).filter(|(job, _)| job.role == Role::Parts);
            parts.map(|(job, _)| job.of).next().unwrap_or_else(|| tasks_of(stage))
        };
        let tasks = tasks(graph, planned, &parts);
        let mut open = Vec::new();
        for task in &tasks {
            let recipe = task.stage.and_then(|stage| planned[stage].recipe.as_ref());
            open.push(match (task.role, recipe) {
                (Role::Parts, Some(recipe)) => {
                    let shards = committed_shards(&store.partial(&recipe.entry(), false))?;
                    open_parts(task.parts, shards.as_deref())
                }
                _ => (0..task.parts).collect(),
            });
        }
        let all = || Digest::of(digests.concat().as_bytes()).short(16);
        let work = tasks.iter().map(|task| task.stage.map_or_else(all, |stage| digests[stage].clone())).collect();
        Ok(Standing { tasks, open, work })
    }
}

/// Submits what is missing, and cancels what is not needed.
///
/// # Errors
/// When the scheduler or the file system refuses; what was submitted is recorded.
pub fn submit(request: &Request<'_>, ledger: &Ledger, scheduler: &dyn Scheduler) -> Result<Submitted> {
    let Request { graph, planned, store, slurm, .. } = *request;
    let mut jobs = ledger.read()?;
    let queued = scheduler.queued()?;
    let live = ours(&jobs.jobs, &queued);
    let standing = Standing::of(graph, planned, store, &live, request.tasks_of)?;
    let absolute = |path: &Path| std::path::absolute(path).map_err(Error::io(path));
    let folder = absolute(&ledger.submission(ledger.next()?))?;
    let texts = scripts(request, &standing.tasks, &absolute(ledger.folder())?, &folder, &absolute(Path::new("."))?)?;
    // The same but for its folder.
    let asked = |text: &str| Digest::of(text.replace(&folder.display().to_string(), "").as_bytes()).short(16);
    let needed: Vec<Needed<'_>> = standing
        .tasks
        .iter()
        .zip(&standing.open)
        .zip(standing.work.iter().zip(&texts))
        .map(|((task, open), (work, text))| Needed { task, open: open.clone(), work: work.clone(), asked: asked(text) })
        .collect();
    let others: BTreeSet<String> = graph
        .nodes
        .iter()
        .zip(planned)
        .filter(|(_, plan)| matches!(plan.decision, Decision::Skip(_)))
        .map(|(node, _)| node.name.clone())
        .collect();
    let actions = reconcile(&needed, &live, &others);
    scheduler.cancel(&actions.cancel)?;
    let mut submitted = Vec::new();
    if actions.submit.iter().any(|parts| !parts.is_empty()) {
        freeze(request, ledger, &folder)?;
        (jobs.cluster, jobs.file) = (request.file.to_owned(), graph.file.clone());
        let most = match standing.tasks.iter().any(|task| task.role == Role::Parts) {
            true => scheduler.most_elements()?,
            false => 1,
        };
        let mut ids: Vec<Vec<JobId>> = actions.kept.clone();
        for (index, needed) in needed.iter().enumerate() {
            let task = needed.task;
            let path = folder.join(script_name(index, task));
            if !actions.submit[index].is_empty() {
                write(&folder, &[File::new(script_name(index, task), texts[index].clone())])?;
            }
            for parts in chunks(&actions.submit[index], most) {
                let after = task.after.iter().flat_map(|other| ids[*other].clone()).collect();
                let at_once = resources_of(graph, slurm, task).at_once.map(usize::from);
                let in_parts = (task.role == Role::Parts).then_some(parts);
                let job = scheduler.submit(&Submission { script: &path, parts: in_parts, at_once, after })?;
                ids[index].push(job.clone());
                let job = Job {
                    job,
                    name: task.name.clone(),
                    role: task.role,
                    of: task.parts,
                    parts: in_parts.map(<[usize]>::to_vec).unwrap_or_default(),
                    work: needed.work.clone(),
                    asked: needed.asked.clone(),
                    submission: number_of(&folder),
                    at: clock::now().to_string(),
                };
                submitted.push(job.clone());
                jobs.jobs.push(job);
                // A kill loses what the scheduler has taken and nobody wrote down: one job, whose work is done twice.
                ledger.write(&jobs)?;
            }
        }
    }
    Ok(Submitted { tasks: standing.tasks, actions, jobs: submitted, folder })
}

/// Cancels all tasks in the queue that were submitted for a pipeline. Gives their number.
///
/// # Errors
/// When the scheduler does not answer.
pub fn cancel(jobs: &Jobs, scheduler: &dyn Scheduler) -> Result<usize> {
    let queued = scheduler.queued()?;
    let live = ours(&jobs.jobs, &queued);
    // Whole arrays, where none of their elements is somebody else's: one request for thousands.
    let mut ids: BTreeMap<&str, usize> = BTreeMap::new();
    live.iter().for_each(|(job, _)| *ids.entry(job.job.as_str()).or_default() += 1);
    let all: Vec<(JobId, Option<usize>)> = ids.keys().map(|id| ((*id).to_owned(), None)).collect();
    scheduler.cancel(&all)?;
    Ok(live.len())
}

/// Writes what all jobs of a submission share.
fn freeze(request: &Request<'_>, ledger: &Ledger, folder: &Path) -> Result<()> {
    let logs = folder.join("logs");
    std::fs::create_dir_all(&logs).map_err(Error::io(&logs))?;
    let frozen = resolved::yaml(request.graph);
    let names = environment::names(request.graph, &frozen, &request.slurm.environment);
    environment::write(&ledger.folder().join(ENVIRONMENT), &names)?;
    write(folder, &[File::new(PIPELINE, frozen)])
}

/// The text of each task's script.
fn scripts(request: &Request<'_>, tasks: &[Task], ledger: &Path, folder: &Path, working: &Path) -> Result<Vec<String>> {
    let Request { graph, slurm, store, device, selection, .. } = *request;
    let work = std::path::absolute(store.root()).map_err(Error::io(store.root()))?;
    for path in [folder, working, &work] {
        let text = path.display().to_string();
        if let Some(odd) = text.chars().find(|c| c.is_control() || ['%', '"', '\\'].contains(c)) {
            return Err(Error::Pipeline(format!(
                "{odd:?} in `{text}`: Slurm cannot name a log there; use another folder"
            )));
        }
    }
    let rendered =
        Rendered { graph, tasks, working, folder, work: &work, device, selection, environment: &[], pipeline: "" };
    let file = folder.join(PIPELINE);
    let program = rendered.program(&slurm.container, program(slurm.program.as_ref())?, &file);
    let (logs, environment) = (folder.join("logs"), ledger.join(ENVIRONMENT));
    let places = Places { working, logs: &logs, environment: &environment };
    let one = |task: &Task| script(slurm, &resources_of(graph, slurm, task), task, &program, &graph.name, &places);
    Ok(tasks.iter().map(one).collect())
}

fn resources_of(graph: &Graph, slurm: &Slurm, task: &Task) -> crate::cluster::config::Resources {
    let node = task.stage.map(|stage| &graph.nodes[stage]);
    slurm.resources(&node.map(names_of).unwrap_or_default(), node.is_some_and(|node| node.stage.needs_device()))
}

fn script_name(index: usize, task: &Task) -> String {
    format!("{index:03}-{}.{}.sh", task.name, task.role.word())
}

fn number_of(folder: &Path) -> u64 {
    folder.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or_default()
}

/// Ascending parts in pieces of which each fits an array: its elements count from its first part.
fn chunks(parts: &[usize], most: usize) -> Vec<&[usize]> {
    let mut chunks = Vec::new();
    let mut rest = parts;
    while let Some(first) = rest.first() {
        let (chunk, after) = rest.split_at(rest.partition_point(|part| part - first < most));
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

/// Digests of what decides the work of each stage: its kind, version, settings and seed, and those of the stages before
/// it. Unlike a recipe it is known before the inputs are there.
fn works(graph: &Graph) -> Vec<String> {
    let mut works = vec![String::new(); graph.nodes.len()];
    for &stage in &graph.order {
        let node = &graph.nodes[stage];
        let origin = |origin: &Origin| match origin {
            Origin::Port { stage, port, .. } => json!([works[*stage], port]),
            Origin::Path { path, .. } => json!(path),
            Origin::Hub { name } => json!(name.to_string()),
        };
        let read = node.inputs.iter().filter(|edge| edge.idle.is_none());
        let inputs: Vec<_> =
            read.map(|edge| json!([edge.key, edge.sources.iter().map(origin).collect::<Vec<_>>()])).collect();
        let seed = node.stage.draws().then_some(node.seed).flatten();
        let text = json!([node.name, node.kind, node.stage.version(), node.settings, seed, inputs]).to_string();
        works[stage] = Digest::of(text.as_bytes()).short(16);
    }
    works
}

#[cfg(test)]
mod tests {
    use super::chunks;

    #[test]
    fn arrays_hold_no_more_than_they_may() {
        assert_eq!(chunks(&[0, 1, 2, 3, 4], 2), [&[0, 1][..], &[2, 3], &[4]]);
        // Of parts that are submitted again, the distance counts.
        assert_eq!(chunks(&[3, 4, 9, 10], 3), [&[3, 4][..], &[9, 10]]);
        assert_eq!(chunks(&[], 3), Vec::<&[usize]>::new());
    }
}
