//! `plan --on` and `run --on`: the tasks of a pipeline on a cluster, files that start them, their submission.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::file::Choice;
use crate::cluster::config::{Cluster, Resources, seconds_of};
use crate::cluster::environment;
use crate::cluster::ledger::Ledger;
use crate::cluster::reading::{load, names_of};
use crate::cluster::rendered::{Rendered, write};
use crate::cluster::slurm::SlurmCommands;
use crate::cluster::submit::{Request, Submitted, submit};
use crate::cluster::tasks::{Role, Task, parts_in, tasks};
use crate::engine::forecast::StageForecast;
use crate::engine::plan::Planned;
use crate::engine::resolved;
use crate::error::{Error, Result};
use crate::pipeline::graph::Graph;
use crate::progress::aligned;
use crate::store::{Attempt, Store};
use crate::units::{size, spoken};

/// A plan on a cluster.
pub struct OnCluster<'a> {
    pub graph: &'a Graph,
    pub cluster: Cluster,
    pub tasks: Vec<Task>,
}

/// The options of a command that select stages, as words.
pub fn words(choice: &Choice) -> Vec<String> {
    let mut words = Vec::new();
    for (option, stage) in [("--only", &choice.only), ("--from", &choice.from), ("--until", &choice.until)] {
        words.extend(stage.iter().flat_map(|stage| [option.to_owned(), stage.clone()]));
    }
    words
}

/// Submits what a plan lacks, and cancels what it does not need; the tasks go on without this process.
///
/// # Errors
/// All problems with the cluster file; what the scheduler refuses.
pub fn submit_to(
    file: &Path,
    graph: &Graph,
    planned: &[Planned],
    store: &Store,
    device: &str,
    selection: &[String],
) -> Result<Submitted> {
    let cluster = load(file, graph)?;
    let Cluster::Slurm(slurm) = &cluster else {
        let text = format!(
            "`{}`: halftone submits to Slurm alone; `halftone plan {} --on {0} --render FOLDER` writes what starts the \
             tasks elsewhere",
            file.display(),
            graph.file.display()
        );
        return Err(Error::Usage(text));
    };
    let ledger = Ledger::new(store.root(), &graph.name);
    let Attempt::Held(_lock) = ledger.lock()? else {
        return Err(Error::Locked { what: format!("the submission of `{}`", graph.name), owner: None });
    };
    let tasks_of = &|stage: usize| parts_in(&cluster, graph, stage);
    let request = Request { graph, planned, store, slurm, file, device, selection, tasks_of };
    Ok(submit(&request, &ledger, &SlurmCommands)?)
}

/// What was submitted, for people.
pub fn submitted_text(submitted: &Submitted, graph: &Graph, file: &Path) -> String {
    let mut text = String::new();
    if !submitted.actions.cancel.is_empty() {
        text.push_str(&format!("cancelled: {}\n", counted(submitted.actions.cancel.len(), "task")));
    }
    for job in &submitted.jobs {
        let role = match job.role {
            Role::Whole | Role::Report => String::new(),
            Role::Parts => format!(" ({} of {} parts)", job.parts.len(), job.of),
            Role::Seal => " (end)".to_owned(),
        };
        text.push_str(&format!("submitted: {}{role} as job {}\n", job.name, job.job));
    }
    if submitted.jobs.is_empty() {
        text.push_str("nothing to submit: all that is missing is in the queue\n");
    } else {
        text.push_str(&format!("scripts and logs: {}\n", submitted.folder.display()));
    }
    text.push_str(&format!(
        "`halftone status` shows the tasks, `halftone cancel` cancels them, `halftone run {} --on {}` submits what is \
         missing then\n",
        graph.file.display(),
        file.display()
    ));
    text
}

/// The same for machines.
pub fn submitted_json(submitted: &Submitted) -> Value {
    let cancelled = submitted.actions.cancel.iter().map(|(job, element)| json!({"job": job, "element": element}));
    json!({
        "submitted": submitted.jobs, "cancelled": cancelled.collect::<Vec<_>>(),
        "kept": submitted.actions.kept.concat(), "folder": submitted.folder,
    })
}

fn counted(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

impl<'a> OnCluster<'a> {
    /// Reads a cluster file and makes the tasks of a plan.
    ///
    /// # Errors
    /// All problems with the file.
    pub fn of(file: &Path, graph: &'a Graph, planned: &[Planned]) -> Result<OnCluster<'a>> {
        let cluster = load(file, graph)?;
        let tasks = tasks(graph, planned, &|stage| parts_in(&cluster, graph, stage));
        Ok(OnCluster { graph, cluster, tasks })
    }

    /// Writes the files that start the tasks into a folder.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn render(&self, to: &Path, work: &Path, device: &str, selection: &[String]) -> Result<Vec<PathBuf>> {
        std::fs::create_dir_all(to).map_err(kit::Error::io(to))?;
        let absolute = |path: &Path| std::path::absolute(path).map_err(kit::Error::io(path));
        let (folder, work, working) = (absolute(to)?, absolute(work)?, absolute(Path::new("."))?);
        let frozen = resolved::yaml(self.graph);
        let further = if let Cluster::Slurm(slurm) = &self.cluster { slurm.environment.as_slice() } else { &[] };
        let rendered = Rendered {
            graph: self.graph,
            tasks: &self.tasks,
            working: &working,
            folder: &folder,
            work: &work,
            device,
            selection,
            environment: &environment::names(self.graph, &frozen, further),
            pipeline: &frozen,
        };
        let files = rendered.files(&self.cluster)?;
        write(&folder, &files)?;
        Ok(files.iter().map(|file| to.join(&file.name)).collect())
    }

    fn resources(&self, task: &Task) -> Option<Resources> {
        let Cluster::Slurm(slurm) = &self.cluster else { return None };
        let node = task.stage.map(|stage| &self.graph.nodes[stage]);
        let names = node.map(names_of).unwrap_or_default();
        Some(slurm.resources(&names, node.is_some_and(|node| node.stage.needs_device())))
    }

    /// The tasks with what they ask for and take.
    pub fn text(&self, forecasts: &[Option<kit::Result<StageForecast>>]) -> String {
        let costs: Vec<Cost> = self.tasks.iter().map(|task| self.cost(task, forecasts)).collect();
        let mut rows = vec![["tasks", "of", "after", "asks for", "each takes"].map(str::to_owned).to_vec()];
        let mut lines: Vec<(String, usize, Vec<String>)> = Vec::new();
        for (task, cost) in self.tasks.iter().zip(&costs) {
            let title = title(self.graph, task) + if cost.ranks > 1 { ", ranks" } else { "" };
            let after: Vec<String> = task.after.iter().map(|other| label(self.graph, &self.tasks[*other])).collect();
            let options = self.resources(task).map(|resources| resources.options.join(" ")).unwrap_or_default();
            let takes = cost
                .each
                .filter(|time| !time.is_zero())
                .map(|time| format!("about {}", spoken(time)))
                .unwrap_or_default();
            let cells = vec![title.clone(), shortened(after), options, takes];
            // Stages of a matrix are one line, as long as they are alike.
            let count = task.parts * cost.ranks;
            match lines.iter_mut().find(|(other, _, cells_of)| *other == title && cells_of[2] == cells[2]) {
                Some((_, tasks, _)) => *tasks += count,
                None => lines.push((title, count, cells)),
            }
        }
        rows.extend(lines.into_iter().map(|(_, tasks, cells)| [vec![tasks.to_string()], cells].concat()));
        let sum = Cost::sum(&costs);
        let count: usize = costs.iter().map(|cost| cost.parts * cost.ranks).sum();
        let mut total = vec![format!("{} jobs, {count} tasks", self.tasks.len())];
        total.extend(sum.time.map(|time| format!("about {} of computing", spoken(time))));
        total.extend(sum.gpu_hours.map(|hours| format!("about {hours:.1} GPU-hours")));
        total.extend(sum.most_gpu_hours.map(|hours| format!("at most {hours:.1} GPU-hours before tasks are put back")));
        total.extend(sum.bytes.map(|bytes| format!("about {} of tables before compression", size(bytes))));
        let mut text = aligned(&rows, &[0]) + &format!("on the cluster: {}\n", total.join(", "));
        let unknown = costs.iter().any(|cost| cost.gpus > 0 && cost.each.is_none());
        if unknown {
            text.push_str("GPU-hours: forecast where `operations_per_second` says what a GPU computes\n");
        }
        text
    }

    /// The same for machines.
    pub fn in_json(&self, forecasts: &[Option<kit::Result<StageForecast>>]) -> Value {
        let costs: Vec<Cost> = self.tasks.iter().map(|task| self.cost(task, forecasts)).collect();
        let tasks = self.tasks.iter().zip(&costs).map(|(task, cost)| {
            json!({
                "stage": task.stage.map(|_| &task.name), "role": task.role, "tasks": task.parts, "ranks": cost.ranks,
                "after": task.after,
                "options": self.resources(task).map(|resources| resources.options),
                "seconds_each": cost.each.map(|time| time.as_secs_f64()), "gpus_each": cost.gpus, "bytes": cost.bytes,
            })
        });
        let sum = Cost::sum(&costs);
        json!({
            "tasks": tasks.collect::<Vec<_>>(), "seconds": sum.time.map(|time| time.as_secs_f64()),
            "gpu_hours": sum.gpu_hours, "most_gpu_hours": sum.most_gpu_hours, "bytes": sum.bytes,
        })
    }

    fn cost(&self, task: &Task, forecasts: &[Option<kit::Result<StageForecast>>]) -> Cost {
        let resources = self.resources(task);
        let gpus = resources.as_ref().map_or(0, |resources| resources.gpus);
        let ranks = resources.as_ref().map_or(1, |resources| resources.ranks);
        let limit = resources.as_ref().and_then(|resources| seconds_of(resources.time.as_deref()?));
        let limit = limit.map(Duration::from_secs);
        let forecast = task.stage.and_then(|stage| forecasts[stage].as_ref()?.as_ref().ok());
        // The end of a stage reads what its parts have computed.
        let forecast = forecast.filter(|_| matches!(task.role, Role::Whole | Role::Parts));
        let speed = resources.and_then(|resources| resources.operations_per_second);
        let measured = forecast.and_then(|forecast| Some(forecast.forecast.work?.operations / speed?));
        let own = || forecast.filter(|_| gpus == 0).and_then(|forecast| forecast.time);
        let all = measured.map_or_else(own, |seconds| Duration::try_from_secs_f64(seconds).ok());
        let each = match task.role {
            Role::Whole | Role::Parts => all.map(|all| all.div_f64((task.parts * ranks) as f64)),
            Role::Seal | Role::Report => Some(Duration::ZERO),
        };
        Cost { parts: task.parts, ranks, gpus, each, limit, bytes: forecast.and_then(|forecast| forecast.bytes) }
    }
}

/// What the tasks of one job take.
struct Cost {
    parts: usize,
    /// Ranks of a training, which share its GPUs and its work.
    ranks: usize,
    gpus: u64,
    each: Option<Duration>,
    limit: Option<Duration>,
    bytes: Option<u64>,
}

/// What all jobs take.
struct Sum {
    time: Option<Duration>,
    gpu_hours: Option<f64>,
    most_gpu_hours: Option<f64>,
    bytes: Option<u64>,
}

impl Cost {
    fn sum(costs: &[Cost]) -> Sum {
        let hours = |of: &dyn Fn(&Cost) -> Option<Duration>| {
            let gpus = costs.iter().filter(|cost| cost.gpus > 0);
            let each = gpus.map(|cost| Some(of(cost)?.as_secs_f64() / 3600.0 * (cost.parts as u64 * cost.gpus) as f64));
            each.collect::<Option<Vec<f64>>>().filter(|all| !all.is_empty()).map(|all| all.iter().sum())
        };
        let known = costs.iter().filter_map(|cost| Some(cost.each?.mul_f64((cost.parts * cost.ranks) as f64)));
        let time = known.filter(|time| !time.is_zero());
        Sum {
            time: time.reduce(Duration::saturating_add),
            gpu_hours: hours(&|cost| cost.each),
            most_gpu_hours: hours(&|cost| cost.limit),
            bytes: costs.iter().filter_map(|cost| cost.bytes).reduce(u64::saturating_add),
        }
    }
}

/// The stage, or its matrix, with the role where it is not the work itself.
fn title(graph: &Graph, task: &Task) -> String {
    let name = task.stage.map_or(task.name.as_str(), |stage| names_of(&graph.nodes[stage]).pop().unwrap_or(&task.name));
    match task.role {
        Role::Whole | Role::Report => name.to_owned(),
        Role::Parts => format!("{name}, parts"),
        Role::Seal => format!("{name}, end"),
    }
}

fn label(graph: &Graph, task: &Task) -> String {
    title(graph, task).replace(", end", "").replace(", parts", "")
}

/// Names, each once; of many the first ones.
fn shortened(mut names: Vec<String>) -> String {
    names.dedup();
    match names.len() {
        0..=3 => names.join(", "),
        count => format!("{} and {} more", names[..2].join(", "), count - 2),
    }
}
