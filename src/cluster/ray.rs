//! A driver for Ray: Python that starts the tasks on a Ray cluster whose nodes see one file system.

use kit::Result;
use serde_json::json;

use crate::cluster::command::FINAL;
use crate::cluster::config::Ray;
use crate::cluster::rendered::{File, PIPELINE, Rendered, program};
use crate::cluster::tasks::Role;

/// The driver after its data. A command that may be tried again raises `Again`, which Ray retries.
const DRIVER: &str = include_str!("driver.py");

/// The driver.
pub fn files(rendered: &Rendered<'_>, ray: &Ray) -> Result<Vec<File>> {
    let file = rendered.folder.join(PIPELINE);
    let program = rendered.program(&[], program(ray.program.as_ref())?, &file);
    let part = "\u{1}";
    let tasks: Vec<_> = rendered
        .tasks
        .iter()
        .map(|task| {
            let mut resources = json!({});
            if let Some(cpus) = ray.cpus {
                resources["num_cpus"] = json!(cpus);
            }
            if let Some(gpus) = ray.gpus.filter(|_| rendered.holds_model(task)) {
                resources["num_gpus"] = json!(gpus);
            }
            let name = match task.role {
                Role::Parts | Role::Whole => task.name.clone(),
                role => format!("{}.{}", task.name, role.word()),
            };
            json!({
                "name": name, "parts": task.parts, "after": task.after, "resources": resources,
                "commands": program.commands(task, part),
            })
        })
        .collect();
    let about: String = rendered.tasks.iter().map(|task| rendered.about_ranks(task)).collect();
    // Values of JSON that are texts, numbers, lists and mappings are the same in Python.
    let text = format!(
        "# The tasks of `{}` on Ray: `python driver.py` on a node of the cluster; written by halftone {}.\n\
         {about}import subprocess\n\nimport ray\n\nWORKING = {}\nREQUEUES = {}\nFINAL = {:?}\nPART = {}\nTASKS = {}\n{DRIVER}",
        rendered.graph.name,
        env!("CARGO_PKG_VERSION"),
        json!(rendered.working),
        ray.requeues,
        FINAL,
        json!(part),
        serde_json::to_string_pretty(&tasks).expect("texts and numbers can be written as JSON"),
    );
    Ok(vec![File::new("driver.py", text)])
}
