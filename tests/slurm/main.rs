//! Pipelines on a real Slurm: the bytes are those of one process, whatever is killed.
//!
//! The short form takes some four minutes; `cargo test --test slurm -- --ignored --nocapture` takes longer and prints
//! the table of `README.md`, of a pipeline of one's own where `SLURM_PIPELINE` names it (and `SLURM_MEMORY` what each of
//! its tasks takes).

mod loopback;
mod ranks;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Project, stderr};
use loopback::{Loopback, kill, processes};

/// Every row-wise kind, between stages on whole tables.
const PIPELINE: &str = "
name: cluster
seed: 17
stages:
  world: {kind: sandbox, mode: world, prompts: 96, holdout_prompts: 4, demonstrations: 64, judge_rows: 64}
  samples: {kind: sample, from: world.prompts, model: world.model, k: 2, temperature: 1.0, max_tokens: 6, shard_rows: 4}
  comparisons: {kind: compare, from: samples, within: all}
  verdicts:
    kind: judge
    comparisons: comparisons
    model: world.model
    template: ./pipelines/templates/sandbox.jinja
    form: text
    labels: {first: [\" A\"], second: [\" B\"]}
    debias: probability
    least_mass: 0.0
    shard_rows: 4
  pairs: {kind: pairs, from: verdicts}
  reference: {kind: reference, from: pairs, model: world.model, shard_rows: 4}
  embeddings: {kind: embed, from: pairs, model: world.model, shard_rows: 4}
";

/// A value of the environment that may be in one file only.
const CANARY: &str = "canary-5f0e9c1b7d";

/// Tasks that are killed, each once.
const KILLS: usize = 4;

/// What happens while the tasks run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Kills,
    Node,
    Controller,
    /// A job of higher priority takes both nodes.
    Preemption,
}

struct Setting {
    cluster: Loopback,
    project: Project,
}

impl Setting {
    /// A cluster, and a pipeline that one process has run in the work folder `one`.
    fn new(pipeline: &str) -> Option<Setting> {
        let cluster = Loopback::up()?;
        let project = Project::with_pipelines();
        project.write("pipeline.yaml", pipeline);
        project.done(&["run", "pipeline.yaml", "--quiet", "--work", "one"]);
        Some(Setting { cluster, project })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.project.command(args);
        command.env("SLURM_CONF", self.cluster.conf()).env("HF_TOKEN", CANARY);
        command
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The cluster file for so many tasks a stage.
    fn cluster_file(&self, tasks: usize) {
        let memory = std::env::var("SLURM_MEMORY").unwrap_or_else(|_| "300M".to_owned());
        let text = format!(
            "kind: slurm\ntasks: {tasks}\nmemory: {memory}\ncpus: 1\ntime: \"0:30:00\"\nprelude: echo \"token \
             ${{HF_TOKEN:+is there}}\"\n"
        );
        self.project.write("cluster.yaml", &text);
    }

    fn submit(&self, work: &str) -> String {
        self.done(&["run", "pipeline.yaml", "--on", "cluster.yaml", "--work", work])
    }

    /// Runs the pipeline in a new work folder on the cluster, and submits again what a fault left missing. Gives the
    /// seconds, the number of kills, and of submissions.
    fn run(&self, work: &str, tasks: usize, fault: Fault) -> (f64, usize, usize) {
        self.cluster_file(tasks);
        let began = Instant::now();
        self.submit(work);
        let (mut kills, mut node) = (0, String::new());
        match fault {
            Fault::None => {}
            Fault::Kills => {
                // Each task once: its requeues are counted, and it is back a few seconds after its death.
                let ours = format!("--work {} ", self.project.path(work).display());
                let mut killed: Vec<String> = Vec::new();
                let end = Instant::now() + Duration::from_secs(60);
                while killed.len() < KILLS && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(20));
                    let known = killed.len();
                    let worker = processes(|line| {
                        let is =
                            line.contains(&ours) && !line.contains("bash") && !killed.iter().any(|old| old == line);
                        if is && killed.len() == known {
                            killed.push(line.to_owned());
                        }
                        is
                    });
                    worker.first().copied().into_iter().for_each(kill);
                }
                kills = killed.len();
            }
            Fault::Node => {
                let end = Instant::now() + Duration::from_secs(30);
                let running = || self.cluster.ask("squeue", &["-h", "-t", "R", "-o", "%N"]);
                node = loop {
                    assert!(Instant::now() < end, "no task runs");
                    std::thread::sleep(Duration::from_millis(500));
                    if let Some(node) = running().lines().last() {
                        break node.to_owned();
                    }
                };
                self.cluster.lose_node(&node);
                kills += 1;
            }
            Fault::Controller => {
                std::thread::sleep(Duration::from_secs(7));
                self.cluster.lose_controller(Duration::from_secs(2));
                kills += 1;
            }
            Fault::Preemption => {
                // Tasks that are about to end do so in their time of grace: again until one did not.
                let queue = |what: &str| self.cluster.ask("squeue", &["-h", "-r", "-t", what, "-o", "%i"]);
                while kills == 0 && !queue("R,PD,CG").is_empty() {
                    std::thread::sleep(Duration::from_millis(100));
                    if queue("R").contains('_') {
                        self.cluster.ask("sbatch", &URGENT);
                        kills = self.stopped(work);
                    }
                }
            }
        }
        let mut submissions = 1;
        loop {
            self.cluster.settle(Duration::from_secs(600));
            if fault == Fault::Node && submissions == 1 {
                self.cluster.restore_node(&node);
            }
            let again =
                self.done(&["run", "pipeline.yaml", "--on", "cluster.yaml", "--work", work, "--dry-run", "--json"]);
            let plan: serde_json::Value = serde_json::from_str(&again).unwrap();
            if plan["on"]["tasks"].as_array().unwrap().is_empty() {
                break;
            }
            submissions += 1;
            assert!(submissions < 8, "{}", self.done(&["status", "--work", work]));
            self.submit(work);
        }
        let seconds = began.elapsed().as_secs_f64();
        if fault == Fault::Preemption {
            kills = self.stopped(work);
            assert!(kills > 0, "no task was preempted: {}", self.done(&["status", "--work", work]));
        }
        assert_eq!(self.project.store(work), self.project.store("one"), "{work}");
        (seconds, kills, submissions)
    }

    /// Tasks of a work folder that were stopped by a signal of the scheduler.
    fn stopped(&self, work: &str) -> usize {
        let text = |log: &String| std::fs::read_to_string(self.project.path(log)).unwrap();
        let logs = self.project.files(&format!("{work}/cluster"), ".log");
        logs.iter().filter(|log| text(log).contains(": exit 75 after ")).count()
    }
}

/// The arguments of a job that takes both nodes for a second, and is waited for.
const URGENT: [&str; 6] =
    ["--partition=urgent", "--nodes=2", "--exclusive", "--wait", "--output=/dev/null", "--wrap=sleep 1"];

/// The files below a folder that hold a text, with those that cannot be read passed over.
fn holding(folder: &Path, text: &str) -> Vec<String> {
    let output = Command::new("grep").args(["-rlaF", text]).arg(folder).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_pipeline_on_slurm_gives_the_bytes_of_one_process() {
    let Some(setting) = Setting::new(PIPELINE) else { return };
    let (cluster, project) = (&setting.cluster, &setting.project);
    // While the tasks wait for each other, the controller holds scripts and environments of all.
    setting.cluster_file(4);
    let first = setting.submit("plain");
    assert!(first.contains("submitted: samples (4 of 4 parts)") && first.contains("submitted: report"), "{first}");
    let environment = project.path("plain/cluster/cluster/environment");
    assert_eq!(environment.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(holding(&project.path("plain"), CANARY), [environment.display().to_string()]);
    for folder in ["state", "spool", "log"] {
        assert_eq!(holding(&cluster.folder().join(folder), CANARY), Vec::<String>::new());
    }
    // Submitted again at once, nothing is missing.
    assert!(setting.submit("plain").contains("nothing to submit"));
    let status = setting.done(&["status", "--work", "plain"]);
    assert!(status.contains("samples, parts") && status.contains("waiting"), "{status}");
    cluster.wait(Duration::from_secs(240));
    assert_eq!(project.store("plain"), project.store("one"), "{}", setting.done(&["status", "--work", "plain"]));
    assert!(project.path("plain/runs/cluster/report.html").exists());
    let logs = project.files("plain/cluster/cluster/1/logs", ".log");
    assert_eq!(logs.len(), 4 + 4 * 5 + 1 - 1, "{logs:?}");
    for log in logs {
        let text = std::fs::read_to_string(project.path(&log)).unwrap();
        assert!(text.contains("token is there") && text.trim_end().ends_with(": exit 0"), "{text}");
    }
    let end = setting.done(&["status", "--work", "plain"]);
    assert!(end.contains("no task is in the queue, and none is missing"), "{end}");

    let (_, kills, _) = setting.run("killed", 4, Fault::Kills);
    assert_eq!(kills, KILLS, "processes were killed");
}

#[test]
fn tasks_are_cancelled_and_what_is_missing_is_submitted_again() {
    let Some(setting) = Setting::new(PIPELINE) else { return };
    let project = &setting.project;
    setting.cluster_file(3);
    setting.submit("work");
    let cancelled = setting.done(&["cancel", "--work", "work"]);
    assert!(cancelled.starts_with("cluster: ") && cancelled.contains("tasks cancelled"), "{cancelled}");
    setting.cluster.wait(Duration::from_secs(60));
    assert_eq!(setting.done(&["cancel", "--work", "work"]), "cluster: no task is in the queue\n");
    assert!(!project.path("work/cluster/cluster/environment").exists());
    let status = setting.done(&["status", "--work", "work"]);
    assert!(status.contains("3 ended") && status.contains("--on cluster.yaml` submits what is missing"), "{status}");

    // A task that fails for good: what waits for it goes, and the log says why.
    project.write("broken.yaml", "kind: slurm\ntasks: 3\nmemory: 300M\nprelude: exit 65\n");
    let broken = ["run", "pipeline.yaml", "--on", "broken.yaml", "--work", "work"];
    assert!(setting.done(&broken).contains("submitted: world"));
    setting.cluster.wait(Duration::from_secs(60));

    // What is missing, and nothing else, is submitted again.
    setting.submit("work");
    setting.cluster.wait(Duration::from_secs(240));
    assert_eq!(project.store("work"), project.store("one"), "{}", setting.done(&["status", "--work", "work"]));
}

#[test]
#[ignore = "some minutes"]
fn many_tasks_and_faults() {
    let pipeline = match std::env::var_os("SLURM_PIPELINE") {
        Some(file) => std::fs::read_to_string(file).unwrap(),
        // Ten times the prompts, so that tasks live for some seconds.
        None => PIPELINE.replace("prompts: 96,", "prompts: 960,"),
    };
    let Some(setting) = Setting::new(&pipeline) else { return };
    println!(
        "| tasks a stage | fault | seconds | kills | submissions | bytes |\n| --- | --- | --- | --- | --- | --- |"
    );
    for tasks in [1, 2, 4, 16] {
        let preemption = (tasks > 1).then_some(Fault::Preemption);
        for fault in [Fault::None, Fault::Kills, Fault::Node, Fault::Controller].into_iter().chain(preemption) {
            let work = format!("{fault:?}-{tasks}").to_lowercase();
            let (seconds, kills, submissions) = setting.run(&work, tasks, fault);
            println!("| {tasks} | {fault:?} | {seconds:.0} | {kills} | {submissions} | equal |");
        }
    }
}
