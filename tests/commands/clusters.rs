//! Cluster files: findings, the plan on a cluster, and what is rendered.

use std::process::Command;

use harness::Project;
use serde_json::Value;

const PIPELINE: &str = "
name: small
seed: 17
stages:
  world: {kind: sandbox, mode: world, prompts: 48, holdout_prompts: 4, demonstrations: 64, judge_rows: 64}
  samples: {kind: sample, from: world.prompts, model: world.model, k: 2, temperature: 1.0, max_tokens: 6, shard_rows: 4}
  comparisons: {kind: compare, from: samples, within: all}
";

const SLURM: &str = "
kind: slurm
tasks: 4
partition: gpu
gres: gpu:1
time: \"2:00:00\"
memory: 8G
operations_per_second: 1.0e+12
modules: [cuda/12.4]
prelude: |
  echo \"it's $HOSTNAME\"
stages:
  samples: {tasks: 6, at_once: 3, options: [--exclusive]}
";

fn project(cluster: &str) -> Project {
    Project::new(&[("pipeline.yaml", PIPELINE), ("cluster.yaml", cluster)])
}

fn plan<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["plan", "pipeline.yaml", "--on", "cluster.yaml"], more].concat()
}

#[test]
fn all_findings_are_said_at_their_places() {
    let cluster = "
kind: slurm
tasks: 0
tsks: 3
time: 2h
account: 7
options: [--array=1-3, -x]
environment: [HF_TOKEN, 'SECRET=1']
stages:
  sampels: {tasks: 3}
  comparisons: {tasks: 3, at_once: 2, partition: cpu}
  samples: {gras: gpu:2, time: soon}
";
    let first = project(cluster).fails(&plan(&[]), 78);
    insta::assert_snapshot!(first, @r#"
        error: cluster.yaml:4:1: unknown key `tsks`; did you mean `tasks`?
        error: cluster.yaml:6:10: got the number 7, wanted text
        error: cluster.yaml:12:13: unknown key `gras`; did you mean `gres`?
    "#);
    let cluster = cluster.replace("tsks: 3\n", "").replace("account: 7\n", "").replace("tasks: 0", "tasks: 2");
    let second = project(&cluster.replace("gras: gpu:2, ", "")).fails(&plan(&[]), 78);
    insta::assert_snapshot!(second, @r#"
        error: cluster.yaml:4:1: `2h` is no time limit; wanted `"2:00:00"`, `1-12:00:00` or minutes in quotes
        error: cluster.yaml:5:11: `--array` is set for each task and cannot be given
        error: cluster.yaml:5:24: `-x` is no long option of sbatch, such as `--mail-type=FAIL`
        error: cluster.yaml:6:25: `SECRET=1` is no name of an environment variable; values do not belong here
        error: cluster.yaml:8:3: the pipeline has no stage `sampels`; did you mean `samples`?
        error: cluster.yaml:9:17: without effect: `comparisons` has no shards for other tasks and is one task
        error: cluster.yaml:9:27: without effect: `comparisons` has no shards for other tasks and is one task
        error: cluster.yaml:10:13: `soon` is no time limit; wanted `"2:00:00"`, `1-12:00:00` or minutes in quotes
    "#);
    assert!(project("kind: slrm\ntasks: 1\n").fails(&plan(&[]), 78).contains("did you mean `slurm`?"));
    assert!(project("tasks: 1\n").fails(&plan(&[]), 78).contains("`kind` is missing"));
    assert!(project("kind: slurm\n").fails(&plan(&[]), 78).contains("`tasks` is missing"));
}

#[test]
fn a_plan_on_slurm_shows_tasks_and_what_they_take() {
    let project = project(SLURM);
    let text = project.done(&plan(&["--device", "cpu"]));
    let (_, text) = text.split_once("each takes\n").unwrap();
    insta::assert_snapshot!(text, @r"
        1  world                        --partition=gpu --time=2:00:00 --mem=8G
        6  samples, parts  world        --partition=gpu --gres=gpu:1 --time=2:00:00 --mem=8G --exclusive  about 0.0 s
        1  samples, end    samples      --partition=gpu --gres=gpu:1 --time=2:00:00 --mem=8G --exclusive
        1  comparisons     samples      --partition=gpu --time=2:00:00 --mem=8G
        1  report          comparisons  --partition=gpu --time=2:00:00 --mem=8G
    on the cluster: 5 jobs, 10 tasks, about 0.0 s of computing, about 0.0 GPU-hours, at most 14.0 GPU-hours before tasks are put back, about 47.9 KiB of tables before compression
    ");
    let json: Value = serde_json::from_str(&project.done(&plan(&["--json"]))).unwrap();
    let tasks = json["on"]["tasks"].as_array().unwrap();
    let roles: Vec<String> =
        tasks.iter().map(|task| format!("{} {}", task["role"].as_str().unwrap(), task["tasks"])).collect();
    assert_eq!(roles, ["whole 1", "parts 6", "seal 1", "whole 1", "report 1"]);
    assert_eq!(tasks[3]["after"], serde_json::json!([2]));
    // What is there needs no task.
    project.done(&["run", "pipeline.yaml", "--quiet", "--until", "samples"]);
    let json: Value = serde_json::from_str(&project.done(&plan(&["--json"]))).unwrap();
    assert_eq!(json["on"]["tasks"].as_array().unwrap().len(), 2);
}

#[test]
fn scripts_for_slurm_are_rendered() {
    let project = project(SLURM);
    let said = project.done(&plan(&["--render", "jobs", "--set", "samples.k=3"]));
    assert!(said.contains("written: jobs/submit.sh") && said.contains("written: jobs/pipeline.yaml"), "{said}");
    for script in project.files("jobs", ".sh") {
        let checked = Command::new("bash").arg("-n").arg(project.path(&script)).status().unwrap();
        assert!(checked.success(), "{script}");
    }
    let text = std::fs::read_to_string(project.path("jobs/001-samples.parts.sh")).unwrap();
    let folder = project.folder().canonicalize().unwrap();
    let text =
        text.replace(&*folder.to_string_lossy(), "[folder]").replace(&*project.folder().to_string_lossy(), "[folder]");
    let text: String = text.lines().filter(|line| !line.contains("written by")).map(program_hidden).collect();
    insta::assert_snapshot!(text, @r##"
        #!/bin/bash
        #SBATCH --job-name=small/samples
        #SBATCH --output=[folder]/jobs/logs/samples.parts-%A_%a.log
        #SBATCH --open-mode=append
        #SBATCH --requeue
        #SBATCH --export=NIL
        #SBATCH --signal=B:USR1@120
        #SBATCH --kill-on-invalid-dep=yes
        #SBATCH --partition=gpu
        #SBATCH --gres=gpu:1
        #SBATCH --time=2:00:00
        #SBATCH --mem=8G
        #SBATCH --exclusive
        child= stopped=
        stop() { stopped=$1; if [ -n "$child" ]; then kill -"${asks:-TERM}" "$child" 2>/dev/null; fi; }
        trap 'stop USR1' USR1
        trap 'stop TERM' TERM
        cd [folder] || exit 74
        . [folder]/jobs/environment || exit 74
        if ! type module > /dev/null 2>&1; then . /etc/profile; fi
        module load cuda/12.4 || exit 74
        echo "it's $HOSTNAME"
        part=$((SLURM_ARRAY_TASK_ID + ${1:-0}))
        what=samples" part $part/6"
        requeues=10
        attempt=${SLURM_RESTART_COUNT:-0}
        if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then me=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; else me=$SLURM_JOB_ID; fi
        say() { echo "# $(date -u +%FT%TZ) $what, attempt $attempt, node ${SLURMD_NODENAME:-?}: $1"; }
        run() {
          if [ -n "$stopped" ]; then code=75; return; fi
          "$@" & child=$!
          while kill -0 "$child" 2>/dev/null; do wait "$child"; done
          wait "$child"; code=$?; child=
        }
        end() {
          say "exit $code${stopped:+ after $stopped}"
          case $code in 0|64|65|70|78) exit "$code";; esac
          if [ "$attempt" -lt "$requeues" ]; then
            say "back into the queue"
            # Slurm ends this script; after a preemption it has put the task back itself.
            scontrol requeue "$me" && sleep 60
          fi
          exit "$code"
        }
        if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export RAYON_NUM_THREADS=$SLURM_CPUS_PER_TASK; fi
        say begins
        run [halftone] --work [folder]/.halftone shard [folder]/jobs/pipeline.yaml --stage samples --shards "$part/6" --device auto
        if [ $code != 0 ]; then end; fi
        end
    "##);
    let submit = std::fs::read_to_string(project.path("jobs/submit.sh")).unwrap();
    let jobs: Vec<&str> = submit.lines().filter(|line| line.starts_with('j')).collect();
    insta::assert_snapshot!(jobs.join("\n"), @r#"
        j0=$(sbatch --parsable 000-world.whole.sh 0)
        j1=$(sbatch --parsable --array=0-5%3 --dependency=afterok:$j0 001-samples.parts.sh 0)
        j2=$(sbatch --parsable --dependency=afterok:$j1 002-samples.seal.sh 0)
        j3=$(sbatch --parsable --dependency=afterok:$j2 003-comparisons.whole.sh 0)
        j4=$(sbatch --parsable --dependency=afterok:$j3 004-report.report.sh 0)
    "#);
    // The rendered pipeline is the one of the command line, and halftone reads it.
    project.done(&["check", "jobs/pipeline.yaml"]);
    assert!(std::fs::read_to_string(project.path("jobs/pipeline.yaml")).unwrap().contains("k: 3"));
}

/// A training with ranks, after its data.
const RANKS: &str = "
name: small
seed: 17
stages:
  world: {kind: sandbox, mode: world, prompts: 48, holdout_prompts: 4, demonstrations: 64, judge_rows: 64}
  policy:
    kind: train
    from: world.demonstrations
    model: world.model
    objective: {name: sft}
    optimizer: {lr: 1.0e-3}
    batch: {items: 16, ranks: 8}
    steps: 6
";

fn ranks(cluster: &str) -> Project {
    Project::new(&[("pipeline.yaml", RANKS), ("cluster.yaml", cluster)])
}

#[test]
fn a_training_may_have_ranks_as_many_as_its_batch_allows() {
    let slurm = |stages: &str| format!("kind: slurm\ntasks: 4\nprogram: /opt/halftone\nstages: {stages}\n");
    let finds = |stages: &str, text: &str| {
        let found = ranks(&slurm(stages)).fails(&plan(&[]), 78);
        assert_eq!(found, format!("error: cluster.yaml:4:{text}\n"));
    };
    finds("{policy: {ranks: 3}}", "19: 3 ranks; wanted a power of two, at most `batch.ranks` of `policy` (8)");
    finds("{policy: {ranks: 16}}", "19: 16 ranks; wanted a power of two, at most `batch.ranks` of `policy` (8)");
    finds("{policy: {ranks: 4, nodes: 3}}", "29: of 4 ranks there cannot be as many on each of 3 nodes");
    finds("{policy: {nodes: 2}}", "19: of 1 ranks there cannot be as many on each of 2 nodes");
    finds(
        "{world: {ranks: 2}}",
        "18: without effect: `world` is done by one process; trainings have ranks by `batch.ranks`",
    );
    let empty = ranks(&slurm("{}\nlauncher: []")).fails(&plan(&[]), 78);
    assert!(empty.contains("cluster.yaml:5:1: wanted the words that start ranks"), "{empty}");
}

#[test]
fn the_ranks_of_a_training_are_tasks_of_one_job() {
    let stages = "stages: {policy: {ranks: 8, nodes: 2, gres: 'gpu:4', time: '1:00:00'}}";
    let project = ranks(&format!("kind: slurm\ntasks: 4\nprogram: /opt/halftone\ncontainer: [run, it]\n{stages}\n"));
    let text = project.done(&plan(&["--render", "jobs"]));
    let (_, shown) = text.split_once("each takes\n").unwrap();
    let shown: Vec<&str> = shown.lines().map(str::trim).filter(|line| line.contains("policy, ranks")).collect();
    insta::assert_snapshot!(shown.join("\n"), @"8  policy, ranks  world   --ntasks=8 --nodes=2 --ntasks-per-node=4 --gres=gpu:4 --time=1:00:00");
    let hours = text.lines().find(|line| line.starts_with("on the cluster")).unwrap();
    assert!(hours.contains("3 jobs, 10 tasks") && hours.contains("at most 8.0 GPU-hours"), "{hours}");
    let json: Value = serde_json::from_str(&project.done(&plan(&["--json"]))).unwrap();
    assert_eq!((&json["on"]["tasks"][1]["ranks"], &json["on"]["tasks"][1]["gpus_each"]), (&8.into(), &8.into()));
    let script = std::fs::read_to_string(project.path("jobs/001-policy.whole.sh")).unwrap();
    for line in ["#SBATCH --ntasks=8", "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=4", "asks=USR1"] {
        assert!(script.lines().any(|other| other == line), "{line}: {script}");
    }
    let command = script.lines().find(|line| line.starts_with("run mpirun")).unwrap();
    let command = command.replace(&*project.folder().canonicalize().unwrap().to_string_lossy(), "[folder]");
    let command = command.replace(&*project.folder().to_string_lossy(), "[folder]");
    insta::assert_snapshot!(command, @"run mpirun --bind-to none -n 8 run it /opt/halftone --work [folder]/.halftone rank [folder]/jobs/pipeline.yaml --stage policy --ranks 8 --device cuda:0,cuda:1,cuda:2,cuda:3");
    assert!(Command::new("bash").arg("-n").arg(project.path("jobs/001-policy.whole.sh")).status().unwrap().success());
    // Elsewhere it is one process, and the files say so.
    let one = "is done by one process here: its ranks are for Slurm";
    let project = ranks("kind: kubernetes\ntasks: 4\nimage: x\nvolume_claim: work\nmount: /\n");
    project.done(&plan(&["--render", "jobs"]));
    let text = std::fs::read_to_string(project.path("jobs/001-policy.whole.yaml")).unwrap();
    assert!(text.contains(one) && text.contains("run ") && text.contains("--only policy"), "{text}");
    assert!(!std::fs::read_to_string(project.path("jobs/000-world.whole.yaml")).unwrap().contains(one));
    let project = ranks("kind: ray\ntasks: 4\n");
    project.done(&plan(&["--render", "jobs"]));
    assert!(std::fs::read_to_string(project.path("jobs/driver.py")).unwrap().contains(one));
}

/// A line without the path of the program.
fn program_hidden(line: &str) -> String {
    let words = line.split(' ').map(|word| if word.ends_with("/halftone") { "[halftone]" } else { word });
    words.collect::<Vec<_>>().join(" ") + "\n"
}

#[test]
fn manifests_for_kubernetes_are_rendered() {
    let cluster = "kind: kubernetes\ntasks: 4\nat_once: 2\nimage: registry/halftone:1\nvolume_claim: work\nmount: /data\n\
                   gpus: 1\nsecret: hub\nnamespace: labs\n";
    let project = project(cluster);
    project.done(&plan(&["--render", "k8s"]));
    let text = std::fs::read_to_string(project.path("k8s/001-samples.parts.yaml")).unwrap();
    let manifest: Value = serde_yaml::from_str(&text).unwrap();
    let spec = &manifest["spec"];
    assert_eq!((&manifest["kind"], &manifest["metadata"]["name"]), (&"Job".into(), &"small-001-samples-parts".into()));
    assert_eq!(
        (&spec["completionMode"], &spec["completions"], &spec["parallelism"]),
        (&"Indexed".into(), &4.into(), &2.into())
    );
    let container = &spec["template"]["spec"]["containers"][0];
    let line = container["command"][2].as_str().unwrap();
    assert!(
        line.starts_with("exec halftone --work /") && line.contains("--shards \"$JOB_COMPLETION_INDEX/4\""),
        "{line}"
    );
    assert_eq!(container["resources"]["limits"]["nvidia.com/gpu"], 1);
    let whole = std::fs::read_to_string(project.path("k8s/003-comparisons.whole.yaml")).unwrap();
    assert!(!whole.contains("gpu") && whole.contains("--only comparisons"), "{whole}");
    assert!(Command::new("bash").arg("-n").arg(project.path("k8s/apply.sh")).status().unwrap().success());
    let refused = project.fails(&["run", "pipeline.yaml", "--on", "cluster.yaml"], 64);
    assert!(refused.contains("submits to Slurm alone") && refused.contains("--render FOLDER"), "{refused}");
}

#[test]
fn a_driver_for_ray_is_rendered() {
    let project = project("kind: ray\ntasks: 4\ncpus: 2\n");
    project.done(&plan(&["--render", "ray"]));
    let driver = std::fs::read_to_string(project.path("ray/driver.py")).unwrap();
    assert!(driver.contains("\"name\": \"samples\"") && driver.contains("\"num_cpus\": 2"), "{driver}");
    assert!(driver.contains("\\u0001/4"), "{driver}");
}

#[test]
fn the_schema_of_cluster_files_takes_them() {
    let project = project(SLURM);
    let schema: Value = serde_json::from_str(&project.done(&["schema", "--cluster"])).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let cluster = |text: &str| serde_json::to_value(serde_yaml::from_str::<serde_yaml::Value>(text).unwrap()).unwrap();
    assert!(validator.is_valid(&cluster(SLURM)));
    assert!(!validator.is_valid(&cluster(&format!("{SLURM}\ntsks: 3\n"))));
    // Every key has its manual.
    let text = schema.to_string();
    assert!(text.contains("How often a task is put back into the queue"), "{text}");
}

#[test]
fn nothing_was_submitted() {
    let project = project(SLURM);
    assert_eq!(project.done(&["cancel"]), "nothing was submitted from .halftone\n");
    assert!(project.fails(&["cancel", "small"], 64).contains("nothing was submitted for `small`"));
    assert!(project.fails(&["plan", "pipeline.yaml", "--render", "x"], 64).contains("--on"));
}
