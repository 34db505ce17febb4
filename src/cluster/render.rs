//! Files that start the tasks of a plan without `run --on`: for reading, for other tools, for other schedulers.

use kit::Result;

use crate::cluster::command::quoted;
use crate::cluster::config::{Cluster, Slurm};
use crate::cluster::reading::names_of;
use crate::cluster::rendered::{ENVIRONMENT, File, PIPELINE, Rendered, program};
use crate::cluster::scheduler::Submission;
use crate::cluster::script::{Places, script};
use crate::cluster::slurm::{arguments, offset};
use crate::cluster::tasks::Role;
use crate::cluster::{kubernetes, ray};

/// Elements of an array in rendered scripts, at most: Slurm's default `MaxArraySize`, less one.
const MOST_ELEMENTS: usize = 1000;

impl Rendered<'_> {
    /// The files for a cluster.
    pub fn files(&self, cluster: &Cluster) -> Result<Vec<File>> {
        let mut files = match cluster {
            Cluster::Slurm(slurm) => self.slurm(slurm)?,
            Cluster::Kubernetes(kubernetes) => kubernetes::files(self, kubernetes),
            Cluster::Ray(ray) => ray::files(self, ray)?,
        };
        files.push(File::new(PIPELINE, self.pipeline.to_owned()));
        Ok(files)
    }

    fn slurm(&self, slurm: &Slurm) -> Result<Vec<File>> {
        let (file, logs) = (self.folder.join(PIPELINE), self.folder.join("logs"));
        let environment = self.folder.join(ENVIRONMENT);
        let places = Places { working: self.working, logs: &logs, environment: &environment };
        let program = self.program(&slurm.container, program(slurm.program.as_ref())?, &file);
        let mut files = Vec::new();
        let mut submit = self.beginning("submits the tasks to Slurm");
        let values = "printf 'export %s=%q\\n' \"$name\" \"${!name}\"";
        submit.push_str(&format!(
            "mkdir -p logs\n(umask 077 && for name in {}; do if [ -n \"${{!name+x}}\" ]; then {values}; fi; done > \
             {ENVIRONMENT})\n",
            self.environment.join(" ")
        ));
        for (index, task) in self.tasks.iter().enumerate() {
            let names = task.stage.map(|stage| names_of(&self.graph.nodes[stage])).unwrap_or_default();
            let resources = slurm.resources(&names, self.holds_model(task));
            let name = format!("{index:03}-{}.{}.sh", task.name, task.role.word());
            let text = script(slurm, &resources, task, &program, &self.graph.name, &places);
            let path = self.folder.join(&name);
            let all: Vec<usize> = (0..task.parts).collect();
            let chunks: Vec<Option<&[usize]>> = match task.role {
                Role::Parts => all.chunks(MOST_ELEMENTS).map(Some).collect(),
                _ => vec![None],
            };
            let mut jobs = Vec::new();
            for parts in chunks {
                let after = task.after.iter().map(|other| format!("$j{other}")).collect();
                let at_once = resources.at_once.map(usize::from);
                let submission = Submission { script: &path, parts, at_once, after };
                let (options, offset) = (arguments(&submission).join(" "), offset(&submission));
                jobs.push(format!("$(sbatch {options} {} {offset})", quoted(&name)));
            }
            submit.push_str(&format!("j{index}={}\n", jobs.join(":")));
            files.push(File::new(name, text));
        }
        let jobs: Vec<String> = (0..self.tasks.len()).map(|task| format!("$j{task}")).collect();
        submit.push_str(&format!("echo \"submitted: {}\"\n", jobs.join(" ")));
        files.push(File { name: "submit.sh".to_owned(), text: submit, executable: true });
        Ok(files)
    }
}
