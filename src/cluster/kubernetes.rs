//! Kubernetes manifests: an indexed job for the parts of a stage, a plain job for any other task.
//!
//! Rendered and not tried on a cluster. Kubernetes has no order among jobs, so that a script applies one after the other.

use serde_json::{Value, json};

use crate::cluster::command::{FINAL, quoted};
use crate::cluster::config::Kubernetes;
use crate::cluster::rendered::{File, PIPELINE, Rendered};
use crate::cluster::tasks::{Role, Task};
use crate::pipeline::write;

/// Longest name of a job: those of its pods add to it.
const LONGEST: usize = 52;

/// The manifests, and the script that applies them.
pub fn files(rendered: &Rendered<'_>, kubernetes: &Kubernetes) -> Vec<File> {
    let mut files = Vec::new();
    let mut apply = rendered.beginning("runs the tasks on Kubernetes (untested)");
    let namespace = kubernetes.namespace.as_ref().map(|name| format!(" -n {}", quoted(name))).unwrap_or_default();
    apply.push_str(&format!(
        "done_of() {{ kubectl get{namespace} job \"$1\" -o \
         jsonpath='{{.status.conditions[?(@.status==\"True\")].type}}'; }}\n\
         run() {{\n  kubectl apply{namespace} -f \"$2\"\n  while :; do\n    case $(done_of \"$1\") in\n      *Complete*) \
         return 0;;\n      *Failed*) echo \"job $1 failed: kubectl logs job/$1\" >&2; exit 1;;\n    esac\n    sleep 5\n  \
         done\n}}\n"
    ));
    for (index, task) in rendered.tasks.iter().enumerate() {
        let name = job_name(&rendered.graph.name, index, task);
        let mut text = String::from("# written by halftone; untested on a cluster\n") + &rendered.about_ranks(task);
        let manifest = manifest(rendered, kubernetes, task, &name);
        manifest.as_object().into_iter().flatten().for_each(|(key, value)| write::entry(&mut text, 0, key, value));
        let file = format!("{index:03}-{}.{}.yaml", task.name, task.role.word());
        apply.push_str(&format!("run {name} {}\n", quoted(&file)));
        files.push(File::new(file, text));
    }
    files.push(File { name: "apply.sh".to_owned(), text: apply, executable: true });
    files
}

fn manifest(rendered: &Rendered<'_>, kubernetes: &Kubernetes, task: &Task, name: &str) -> Value {
    let file = rendered.folder.join(PIPELINE);
    let program = rendered.program(&[], kubernetes.program.clone(), &file);
    let index = "\u{1}";
    let words = |command: Vec<String>| {
        let words = command.iter().map(|word| match word.strip_prefix(index) {
            Some(rest) => format!("\"$JOB_COMPLETION_INDEX{rest}\""),
            None => quoted(word),
        });
        words.collect::<Vec<_>>().join(" ")
    };
    let commands: Vec<String> = program.commands(task, index).into_iter().map(words).collect();
    // The last command takes the place of the shell, so that it gets the signals.
    let (last, first) = commands.split_last().expect("every task has a command");
    let line = first.iter().map(|command| format!("{command} && ")).collect::<String>() + "exec " + last;
    let mut limits = json!({});
    let gpus = kubernetes.gpus.filter(|_| rendered.holds_model(task)).map(|gpus| json!(gpus));
    for (key, value) in [
        ("nvidia.com/gpu", gpus),
        ("cpu", kubernetes.cpus.map(|cpus| json!(cpus))),
        ("memory", kubernetes.memory.as_ref().map(|memory| json!(memory))),
    ] {
        value.into_iter().for_each(|value| limits[key] = value);
    }
    let mut container = json!({
        "name": "halftone",
        "image": kubernetes.image,
        "workingDir": rendered.working,
        "command": ["/bin/sh", "-c", line],
        "resources": {"limits": limits},
        "volumeMounts": [{"name": "work", "mountPath": kubernetes.mount}],
    });
    if let Some(secret) = &kubernetes.secret {
        container["envFrom"] = json!([{"secretRef": {"name": secret}}]);
    }
    let mut spec = json!({
        "podFailurePolicy": {"rules": [{
            "action": if task.role == Role::Parts { "FailIndex" } else { "FailJob" },
            "onExitCodes": {"containerName": "halftone", "operator": "In", "values": FINAL},
        }]},
        "template": {"spec": {
            "restartPolicy": "Never",
            "containers": [container],
            "volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": kubernetes.volume_claim}}],
        }},
    });
    match task.role {
        Role::Parts => {
            let at_once = kubernetes.at_once.map_or(task.parts, |most| most.get().min(task.parts));
            spec["completionMode"] = json!("Indexed");
            (spec["completions"], spec["parallelism"]) = (json!(task.parts), json!(at_once));
            spec["backoffLimitPerIndex"] = json!(kubernetes.requeues);
        }
        _ => spec["backoffLimit"] = json!(kubernetes.requeues),
    }
    let mut metadata = json!({"name": name, "labels": {"app.kubernetes.io/managed-by": "halftone"}});
    if let Some(namespace) = &kubernetes.namespace {
        metadata["namespace"] = json!(namespace);
    }
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
}

/// Lower case, digits and dashes; the number keeps names apart that are cut or become equal.
fn job_name(pipeline: &str, index: usize, task: &Task) -> String {
    let pipeline: String = pipeline.chars().take(24).collect();
    let name = format!("{pipeline}-{index:03}-{}-{}", task.name, task.role.word()).to_lowercase();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    name.chars().take(LONGEST).collect::<String>().trim_matches('-').to_owned()
}
