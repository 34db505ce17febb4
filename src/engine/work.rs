//! The work on one stage: lock, inputs checked, the stage itself, its outputs checked, the commit.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kit::{Context, Digest, Outcome, PortFiles, Seed, Source, Table, read_port};

use crate::engine::executor::{Executor, Here};
use crate::engine::inputs::{Resolver, Results};
use crate::engine::run::Run;
use crate::error::{Error, Result, panic_text, system_error};
use crate::pipeline::graph::{Node, Origin};
use crate::progress::{Event, RunEvent};
use crate::store::{Attempt, Condition, Digests, Lock, Manifest, Owner, Recipe};

/// Time between two attempts of a waiting process to take a lock.
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// A stage that is about to run.
pub struct Work<'a> {
    pub run: &'a Run<'a>,
    /// The stage.
    pub node: &'a Node,
    /// Its inputs.
    pub sources: BTreeMap<&'static str, Vec<Source>>,
    /// The inputs of its result: configuration, seed, version and contents.
    pub recipe: Recipe,
    /// Reasons why it runs.
    pub reasons: Vec<String>,
    /// True where it runs although its result exists.
    pub forced: bool,
    /// The entries it reads, each with its stage and the ports in question.
    pub upstream: Vec<(usize, Manifest, Vec<String>)>,
}

/// The outcome of a stage's work.
pub enum WorkOutcome {
    /// The result is in the store.
    Finished {
        manifest: Box<Manifest>,
        /// Seconds of work.
        seconds: f64,
        /// Ports whose bytes differ from the entry that a forced attempt replaced.
        differing: Vec<String>,
    },
    /// Another process made it meanwhile.
    Found(Box<Manifest>),
    /// It came from the shared store.
    Fetched(Box<Manifest>),
    /// It is damaged in the shared store.
    NotFetched,
    /// An entry that it reads is not what its manifest says.
    DamagedInput {
        /// The stage that wrote it.
        upstream: usize,
        /// The fault.
        damage: String,
    },
    /// It stopped.
    Stopped(Error),
}

impl<'a> Work<'a> {
    /// The work on a stage, all of whose inputs are there.
    pub fn of(
        run: &'a Run<'a>,
        inputs: &Resolver<'_>,
        stage: usize,
        recipe: &Recipe,
        results: Results<'_, '_>,
    ) -> Work<'a> {
        let node = &run.graph.nodes[stage];
        let mut upstream: Vec<(usize, Manifest, Vec<String>)> = Vec::new();
        for origin in node.inputs.iter().filter(|edge| edge.idle.is_none()).flat_map(|edge| &edge.sources) {
            if let Origin::Port { stage: from, port, .. } = origin {
                match upstream.iter_mut().find(|(stage, ..)| stage == from) {
                    Some((.., ports)) => ports.push(port.clone()),
                    None => {
                        let manifest = results(*from).expect("upstream is done").clone();
                        upstream.push((*from, manifest, vec![port.clone()]));
                    }
                }
            }
        }
        let sources = inputs.sources(stage, recipe, results);
        Work { run, node, sources, recipe: recipe.clone(), reasons: Vec::new(), forced: false, upstream }
    }

    /// Does the work. Nothing is visible in the store until all of it is.
    pub fn run(&self) -> WorkOutcome {
        // The scheduler waits for word from every stage, so that no panic may pass in silence.
        match catch_unwind(AssertUnwindSafe(|| self.attempt())) {
            Ok(worked) => worked.unwrap_or_else(WorkOutcome::Stopped),
            Err(panic) => {
                let text = panic_text(&*panic);
                let bug = || Error::Bug(format!("stage `{}`: {text}", self.node.name));
                WorkOutcome::Stopped(system_error(&text).map_or_else(bug, |source| self.stage_error(source)))
            }
        }
    }

    pub(crate) fn stage_error(&self, source: kit::Error) -> Error {
        match source {
            kit::Error::Interrupted => Error::Kit(kit::Error::Interrupted),
            source => Error::Stage { stage: self.node.name.clone(), source },
        }
    }

    fn attempt(&self) -> Result<WorkOutcome> {
        let store = self.run.store;
        let entry = self.recipe.entry();
        let failed = |source| self.stage_error(source);
        let _lock = lock(self.run, &self.node.name, &entry)?;
        if !self.forced {
            match store.condition(&self.recipe).map_err(failed)? {
                Condition::Whole(manifest) => return Ok(WorkOutcome::Found(manifest)),
                Condition::Damaged(damage) => {
                    let moved = store.set_aside(&store.entry(&entry)).map_err(failed)?;
                    self.emit_damage(damage, &moved);
                }
                Condition::Missing => {}
            }
            let partial = store.partial(&entry, false);
            match store.unnamed(&partial, &self.recipe).map_err(failed)? {
                Condition::Whole(manifest) => {
                    store.publish(&partial, &manifest).map_err(failed)?;
                    return Ok(WorkOutcome::Found(manifest));
                }
                Condition::Damaged(damage) => {
                    let moved = store.set_aside(&partial).map_err(failed)?;
                    self.emit_damage(damage, &moved);
                }
                Condition::Missing => {}
            }
        }
        if let Some((upstream, damage)) = self.damaged_input()? {
            return Ok(WorkOutcome::DamagedInput { upstream, damage });
        }
        let began = Instant::now();
        let device = self.device();
        let begun = store.begin(&entry, self.forced, device, cpu_level()).map_err(failed)?;
        if let Some((damage, moved)) = begun.damaged {
            self.emit_damage(damage, &moved);
        }
        let (partial, resumed) = (begun.folder, begun.resumed);
        self.emit(RunEvent::StageStarted {
            kind: self.node.kind,
            why: self.reasons.clone(),
            entry,
            device: device.to_owned(),
            resumed,
        });
        let outcome = self.run_stage(&partial, device);
        // A change explains a failure better than what the stage made of it; nothing unfinished is taken up again.
        if let Some(path) = self.changed().map_err(failed)? {
            std::fs::remove_dir_all(&partial).map_err(kit::Error::io(&partial)).map_err(failed)?;
            if !matches!(outcome, Err(Error::Kit(kit::Error::Interrupted))) {
                let text = "changed while it was read, nothing was stored; run again when nothing writes to it";
                return Err(failed(kit::Error::Io { path, source: std::io::Error::other(text) }));
            }
        }
        let outcome = outcome?;
        let ports = self.ports(&partial).map_err(failed)?;
        self.balance(&partial, &outcome, &ports).map_err(failed)?;
        for balance in outcome.balance.iter().filter(|balance| balance.read > 0 && balance.kept == 0) {
            let (input, read, name) = (&balance.input, balance.read, &self.node.name);
            let text = format!("none of the {read} rows of `{input}` is left: see `halftone inspect {name}.rejects`");
            self.run.reporter.report(Some(name), &Event::Work(kit::Event::Warned { text }));
        }
        let manifest = Manifest {
            key: self.recipe.key(),
            recipe: self.recipe.clone(),
            device: device.to_owned(),
            cpu: cpu_level().to_owned(),
            halftone: env!("CARGO_PKG_VERSION").to_owned(),
            ports,
            outcome,
        };
        let before = store.commit(&partial, &manifest).map_err(failed)?;
        let differing = before.map(|before| manifest.differing_ports(&before)).unwrap_or_default();
        Ok(WorkOutcome::Finished { manifest: Box::new(manifest), seconds: began.elapsed().as_secs_f64(), differing })
    }

    /// The device that the stage computes on.
    pub(crate) fn device(&self) -> &str {
        if self.node.stage.needs_device() { self.run.options.device.as_str() } else { "cpu" }
    }

    /// The first stage before it whose result is not what its manifest says, and the fault.
    pub(crate) fn damaged_input(&self) -> Result<Option<(usize, String)>> {
        for (stage, manifest, ports) in &self.upstream {
            let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
            let damage = self.run.store.verify(manifest, Some(&ports)).map_err(|source| self.stage_error(source))?;
            if let Some(damage) = damage {
                return Ok(Some((*stage, damage)));
            }
        }
        Ok(None)
    }

    fn emit(&self, event: RunEvent) {
        self.run.emit(Some(&self.node.name), event);
    }

    fn emit_damage(&self, damage: String, moved: &Path) {
        let (entry, moved) = (self.recipe.entry(), moved.display().to_string());
        self.emit(RunEvent::EntryDamaged { entry, damage, moved });
    }

    fn run_stage(&self, folder: &Path, device: &str) -> Result<Outcome> {
        let name = self.node.name.as_str();
        let events = |event: kit::Event| self.run.reporter.report(Some(name), &Event::Work(event));
        let context = Context {
            seed: Seed(self.recipe.seed.unwrap_or_default()),
            device,
            folder,
            inputs: self.sources.clone(),
            events: &events,
            interrupt: self.run.interrupt.clone(),
        };
        // What needs no device is no work for other processes of this machine: the answers of an endpoint have one
        // journal, and arithmetic takes all threads already. Forced work has a folder of its own.
        let executor: &dyn Executor =
            if self.node.stage.needs_device() && !self.forced { self.run.executor } else { &Here };
        self.guarded(|| executor.execute(name, self.node.stage.job(&context)?, &context))
    }

    /// Does the stage's own work, whose panics are errors.
    pub(crate) fn guarded<T: Send>(&self, work: impl FnOnce() -> kit::Result<T> + Send) -> Result<T> {
        // A stage that computes with all threads is one of them: from outside, each of its thousands of products would
        // wake a thread and wait for it.
        let in_place = || if self.node.stage.needs_device() { rayon::scope(|_| work()) } else { work() };
        match catch_unwind(AssertUnwindSafe(in_place)) {
            Ok(result) => result.map_err(|source| self.stage_error(source)),
            Err(panic) => {
                let text = panic_text(&*panic);
                Err(match system_error(&text) {
                    Some(source) => self.stage_error(source),
                    None => Error::Panicked { stage: self.node.name.clone(), text },
                })
            }
        }
    }

    /// The first path outside the store that the stage reads and that changed after the recipe was made.
    fn changed(&self) -> kit::Result<Option<PathBuf>> {
        let digests = Digests::new(self.run.store.stats());
        let is = |digest: kit::Result<Digest>, known: Option<&Digest>| match digest {
            Ok(digest) => Ok(known == Some(&digest)),
            Err(kit::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        let files = self.node.stage.files();
        let name = |path: &Path| path.to_string_lossy().into_owned();
        if let Some(gone) = self.recipe.files.keys().find(|known| !files.iter().any(|file| name(file) == **known)) {
            return Ok(Some(gone.into()));
        }
        for file in files {
            if !is(digests.file(&file), self.recipe.files.get(&name(&file)))? {
                return Ok(Some(file));
            }
        }
        for edge in self.node.inputs.iter().filter(|edge| edge.idle.is_none()) {
            for (origin, known) in edge.sources.iter().zip(&self.recipe.inputs[edge.key]) {
                if let Origin::Path { path, table } = origin
                    && !is(digests.input(path, *table), Some(&known.digest))?
                {
                    return Ok(Some(path.clone()));
                }
            }
        }
        Ok(None)
    }

    /// Reads the declared ports; any other content of the folder is a bug.
    fn ports(&self, folder: &Path) -> kit::Result<BTreeMap<String, PortFiles>> {
        let mut ports = BTreeMap::new();
        for output in &self.node.outputs {
            let path = folder.join(&output.name);
            // A folder that the system cannot look at may well be there.
            match std::fs::metadata(&path) {
                Ok(found) if found.is_dir() => {}
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(kit::Error::io(&path)(error)),
                _ => return Err(kit::Error::internal(format!("the output `{}` was not written", output.name))),
            }
            ports.insert(output.name.clone(), read_port(&path, output.table)?);
        }
        for entry in std::fs::read_dir(folder).map_err(kit::Error::io(folder))? {
            let name = entry.map_err(kit::Error::io(folder))?.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && !ports.contains_key(&name) {
                return Err(kit::Error::internal(format!("`{name}` was written and is no output")));
            }
        }
        Ok(ports)
    }

    /// Rows read = rows kept + rejected, and the rejects are there to be read.
    fn balance(&self, folder: &Path, outcome: &Outcome, ports: &BTreeMap<String, PortFiles>) -> kit::Result<()> {
        let mut written: BTreeMap<String, u64> = BTreeMap::new();
        if ports.get("rejects").is_some_and(|port| port.table == Table::Rejects && port.rows > 0) {
            for reject in kit::RowReader::<kit::rows::Reject>::open(&[&folder.join("rejects")])? {
                *written.entry(reject?.input).or_insert(0) += 1;
            }
        }
        for balance in &outcome.balance {
            let (input, rejects) = (&balance.input, written.remove(&balance.input).unwrap_or(0));
            if balance.read != balance.kept + balance.rejected || balance.rejected != rejects {
                return Err(kit::Error::internal(format!(
                    "the rows of input `{input}` do not add up: {} read, {} kept, {} rejected, {rejects} in the table of rejects",
                    balance.read, balance.kept, balance.rejected,
                )));
            }
        }
        match written.into_iter().next() {
            Some((input, rows)) => Err(kit::Error::internal(format!(
                "{rows} rejects of input `{input}`, whose rows are not accounted for"
            ))),
            None => Ok(()),
        }
    }
}

/// Takes the right to make an entry; waits for another process, or leaves where that is asked for.
pub(crate) fn lock(run: &Run<'_>, stage: &str, entry: &str) -> Result<Lock> {
    let mut waited = false;
    loop {
        match run.store.lock(entry).map_err(|source| Error::Stage { stage: stage.to_owned(), source })? {
            Attempt::Held(lock) => return Ok(lock),
            Attempt::Busy(owner) => wait(run, stage, owner, &mut waited)?,
        }
    }
}

/// Waits a moment for another process, or leaves where that is asked for.
pub(crate) fn wait(run: &Run<'_>, stage: &str, owner: Option<Owner>, waited: &mut bool) -> Result<()> {
    if run.options.no_wait {
        return Err(Error::Locked { what: format!("stage `{stage}`"), owner });
    }
    if !*waited {
        run.emit(Some(stage), RunEvent::StageWaited { owner });
        *waited = true;
    }
    run.interrupt.check()?;
    std::thread::sleep(POLL);
    Ok(())
}

/// The vector instructions of this CPU; the bytes of a result may depend on them.
pub fn cpu_level() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
        {
            return "x86-64-v4";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("bmi2") {
            return "x86-64-v3";
        }
        "x86-64"
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::env::consts::ARCH
}
