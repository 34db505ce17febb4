//! Running a pipeline: stages side by side where they can be, each result committed before anyone reads it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use crate::clock;
use crate::engine::plan::{Decision, Planned, Planner};
use crate::engine::run::{Run, STACK};
use crate::engine::share::FetchOutcome;
use crate::engine::work::{Work, WorkOutcome};
use crate::error::{Error, Result, guarded};
use crate::pipeline::graph::Node;
use crate::progress::RunEvent;
use crate::store::{Manifest, RunRecord, RunState, StageRecord, StageState, Travel};

/// Results that travel to the shared store at once.
const PUSHES: usize = 2;

/// The state of a stage in the scheduler.
enum Progress {
    Waiting,
    Running {
        device: bool,
        entry: String,
    },
    /// Its result is there.
    Done(Box<Manifest>),
    Skipped,
    Stopped,
}

/// What a worker sends when it is done.
enum Message {
    /// The work on a stage.
    Worked { stage: usize, worked: WorkOutcome },
    /// The transfer of its result to the shared store: true where it was not there before.
    Pushed { stage: usize, pushed: Result<bool> },
}

impl Run<'_> {
    /// Runs what the plan says. The record has the state of each stage, also after an error.
    ///
    /// # Errors
    /// The first error of a stage; a selection that cannot run; files that cannot be written.
    pub fn run(&self, number: u64, planned: Vec<Planned>) -> (RunRecord, Result<()>) {
        let began = Instant::now();
        let stages = self.graph.nodes.iter().map(|node| (node.name.clone(), StageRecord::new(StageState::Pending)));
        let record = RunRecord {
            pipeline: self.graph.name.clone(),
            run: number,
            file: self.graph.file.clone(),
            command: self.options.command.clone(),
            started: clock::now().to_string(),
            finished: None,
            state: RunState::Running,
            order: self.graph.nodes.iter().map(|node| node.name.clone()).collect(),
            stages: stages.collect(),
        };
        self.emit(
            None,
            RunEvent::RunStarted {
                pipeline: record.pipeline.clone(),
                run: number,
                device: self.options.device.clone(),
                stages: planned.iter().filter(|planned| !matches!(planned.decision, Decision::Skip(_))).count(),
            },
        );
        let (mut record, mut failed) = match Planner::new(self.graph, self.store, self.records, Some(number)) {
            Err(error) => (record, vec![Error::Kit(error)]),
            Ok(planner) => {
                let mut scheduler = Scheduler::new(self, planner, planned, record);
                let scheduled = scheduler.schedule();
                let Scheduler { record, mut failed, unpushed, .. } = scheduler;
                failed.extend(scheduled.err().into_iter().chain(unpushed));
                (record, failed)
            }
        };
        // An error says more than the interruption of the stages beside it.
        failed.sort_by_key(|error| crate::exit::code(error) == crate::exit::AGAIN);
        let again = |error: &Error| crate::exit::code(error) == crate::exit::AGAIN;
        if failed.first().is_some_and(|first| !again(first)) {
            failed.retain(|error| !again(error));
        }
        let error = match failed.len() {
            0 | 1 => failed.pop(),
            _ => Some(Error::Several(failed)),
        };
        record.state = match &error {
            None => RunState::Done,
            Some(error) if crate::exit::code(error) == crate::exit::AGAIN => RunState::Interrupted,
            Some(_) => RunState::Failed,
        };
        record.finished = Some(clock::now().to_string());
        let written = self.records.write(&record).and_then(|()| self.store.stats().save());
        self.emit(None, RunEvent::RunFinished { state: record.state, seconds: began.elapsed().as_secs_f64() });
        let result = match (error, written) {
            (Some(error), _) => Err(error),
            (None, written) => written.map_err(Error::Kit),
        };
        (record, result)
    }
}

struct Scheduler<'a> {
    run: &'a Run<'a>,
    planner: Planner<'a>,
    planned: Vec<Planned>,
    progress: Vec<Progress>,
    record: RunRecord,
    failed: Vec<Error>,
    /// Stages that have not seen all of their inputs that are there.
    unchecked: BTreeSet<usize>,
    /// Stages that were looked up and have to run, once the device is free.
    want_device: BTreeSet<usize>,
    /// Stages whose results the shared store may lack.
    to_push: VecDeque<usize>,
    /// Results on their way there.
    pushing: usize,
    /// The error after which nothing more is pushed: the shared store went away.
    unpushed: Option<Error>,
    /// True where the record has changed since it was written.
    unwritten: bool,
    /// When it may be written again.
    may_write: Instant,
}

impl<'a> Scheduler<'a> {
    fn new(run: &'a Run<'a>, planner: Planner<'a>, planned: Vec<Planned>, record: RunRecord) -> Scheduler<'a> {
        Scheduler {
            run,
            planner,
            planned,
            progress: run.graph.nodes.iter().map(|_| Progress::Waiting).collect(),
            record,
            failed: Vec::new(),
            unchecked: (0..run.graph.nodes.len()).collect(),
            want_device: BTreeSet::new(),
            to_push: VecDeque::new(),
            pushing: 0,
            unpushed: None,
            unwritten: false,
            may_write: Instant::now(),
        }
    }

    fn schedule(&mut self) -> Result<()> {
        let (sender, receiver): (Sender<Message>, Receiver<Message>) = channel();
        let run = self.run;
        std::thread::scope(|scope| {
            loop {
                if self.failed.is_empty() && !run.interrupt.raised() {
                    self.launch(scope, &sender)?;
                }
                self.push(scope, &sender)?;
                let running = self.progress.iter().any(|progress| matches!(progress, Progress::Running { .. }));
                if !running && self.pushing == 0 {
                    break;
                }
                let patience = match self.unwritten {
                    true => self.may_write.saturating_duration_since(Instant::now()),
                    false => Duration::MAX,
                };
                match receiver.recv_timeout(patience) {
                    Ok(Message::Worked { stage, worked }) => self.settle(stage, worked)?,
                    Ok(Message::Pushed { stage, pushed }) => self.settle_push(stage, pushed)?,
                    Err(RecvTimeoutError::Timeout) => self.write()?,
                    Err(RecvTimeoutError::Disconnected) => unreachable!("a sender lives as long as the loop"),
                }
            }
            let waiting = self.progress.iter().any(|progress| matches!(progress, Progress::Waiting));
            let unfinished = waiting || !self.to_push.is_empty();
            if unfinished && self.failed.is_empty() { Err(Error::Kit(kit::Error::Interrupted)) } else { Ok(()) }
        })
    }

    /// Writes the record, for which it takes no more than a tenth of the time: that of thousands of stages is large.
    fn write(&mut self) -> Result<()> {
        let began = Instant::now();
        self.unwritten = began < self.may_write;
        if !self.unwritten {
            self.run.records.write(&self.record).map_err(Error::Kit)?;
            self.may_write = Instant::now() + 9 * began.elapsed();
        }
        Ok(())
    }

    fn manifest(&self, stage: usize) -> Option<&Manifest> {
        match &self.progress[stage] {
            Progress::Done(manifest) => Some(manifest),
            _ => None,
        }
    }

    /// Starts every stage that can start, and settles those that need no work.
    fn launch<'scope>(&mut self, scope: &'scope Scope<'scope, '_>, sender: &Sender<Message>) -> Result<()>
    where
        'a: 'scope,
    {
        let graph = self.run.graph;
        loop {
            let mut settled = false;
            let mut busy = self.device_is_busy();
            for &stage in &graph.order {
                if !matches!(self.progress[stage], Progress::Waiting) {
                    continue;
                }
                if let Decision::Skip(why) = &self.planned[stage].decision {
                    let why = why.clone();
                    self.skip(stage, why);
                    settled = true;
                    continue;
                }
                if busy && self.want_device.contains(&stage) {
                    continue;
                }
                if graph.sources(stage).any(|source| self.manifest(source).is_none()) {
                    continue;
                }
                if let Err((refusing, error)) = self.check_rows() {
                    return self.settle(refusing, WorkOutcome::Stopped(error));
                }
                match self.launch_one(stage, scope, sender) {
                    Ok(needed_no_work) => settled |= needed_no_work,
                    Err(error) => return self.settle(stage, WorkOutcome::Stopped(error)),
                }
                busy = busy || self.device_is_busy();
            }
            if !settled {
                return self.write();
            }
        }
    }

    /// Starts the worker of a stage. True where the stage needed no work.
    fn launch_one<'scope>(
        &mut self,
        stage: usize,
        scope: &'scope Scope<'scope, '_>,
        sender: &Sender<Message>,
    ) -> Result<bool>
    where
        'a: 'scope,
    {
        let run = self.run;
        let node = &run.graph.nodes[stage];
        let failed = |source| Error::Stage { stage: node.name.clone(), source };
        if let Decision::Stale(manifest, why) = self.planned[stage].decision.clone() {
            self.record_of(stage).why = Some(why);
            self.done(stage, manifest, StageState::Stale, None).map_err(failed)?;
            return Ok(true);
        }
        let manifest = |stage: usize| self.manifest(stage);
        let recipe = self.planner.inputs.recipe(stage, &manifest).map_err(failed)?;
        let forced = self.planned[stage].forced;
        let reasons = match self.planner.look_up(stage, &recipe, forced).map_err(failed)? {
            Decision::Reuse(found) => {
                run.emit(Some(&node.name), reused(node, &found));
                self.done(stage, found, StageState::Reused, None).map_err(failed)?;
                return Ok(true);
            }
            Decision::Fetch(found) => {
                let twin = recipe_is_at_work(&self.progress, &found.recipe.entry());
                if !twin {
                    self.fetch(stage, found, scope, sender)?;
                }
                return Ok(false);
            }
            // It was whole before in this run, and was set aside.
            Decision::Run(_) if self.record.stages[&node.name].recipe.is_some() => {
                vec!["its result is damaged".to_owned()]
            }
            Decision::Run(reasons) => reasons,
            _ => unreachable!("a recipe is either there or to be made"),
        };
        if !self.planned[stage].selected {
            // It was whole when the plan was made.
            let text = format!("stage `{}` would have to run: {}", node.name, reasons.join("; "));
            return Err(Error::Pipeline(text));
        }
        let entry = recipe.entry();
        let needs_device = node.stage.needs_device();
        if needs_device && self.device_is_busy() {
            self.want_device.insert(stage);
            return Ok(false);
        }
        if recipe_is_at_work(&self.progress, &entry) {
            return Ok(false);
        }
        let work = Work { reasons, forced, ..Work::of(run, &self.planner.inputs, stage, &recipe, &manifest) };
        let record = self.record_of(stage);
        (record.state, record.entry, record.recipe) = (StageState::Running, Some(entry.clone()), Some(recipe));
        record.why = Some(work.reasons.join("; "));
        self.progress[stage] = Progress::Running { device: needs_device, entry };
        let sender = sender.clone();
        let worker = std::thread::Builder::new().name(node.name.clone()).stack_size(STACK);
        let spawned = worker.spawn_scoped(scope, move || {
            let worked = work.run();
            // The receiver outlives all workers: the scope ends after them.
            let _ = sender.send(Message::Worked { stage, worked });
        });
        if let Err(source) = spawned {
            self.progress[stage] = Progress::Waiting;
            return Err(failed(kit::Error::Io { path: "a thread".into(), source }));
        }
        Ok(false)
    }

    /// Starts the transfer of a stage's result from the shared store.
    fn fetch<'scope>(
        &mut self,
        stage: usize,
        manifest: Box<Manifest>,
        scope: &'scope Scope<'scope, '_>,
        sender: &Sender<Message>,
    ) -> Result<()>
    where
        'a: 'scope,
    {
        let (run, entry) = (self.run, manifest.recipe.entry());
        let (node, sender) = (&run.graph.nodes[stage], sender.clone());
        let shared = run.store.shared().expect("what is fetched was found in a shared store");
        let record = self.record_of(stage);
        (record.state, record.entry) = (StageState::Running, Some(entry.clone()));
        self.progress[stage] = Progress::Running { device: false, entry };
        let spawned = std::thread::Builder::new().name(node.name.clone()).spawn_scoped(scope, move || {
            let worked = match guarded(|| run.fetch(node, shared, &manifest)) {
                Ok(FetchOutcome::Here(manifest)) => WorkOutcome::Fetched(manifest),
                Ok(FetchOutcome::Damaged) => WorkOutcome::NotFetched,
                Err(error) => WorkOutcome::Stopped(error),
            };
            let _ = sender.send(Message::Worked { stage, worked });
        });
        spawned.map(drop).map_err(|source| Error::Kit(kit::Error::Io { path: "a thread".into(), source }))
    }

    /// Starts transfers to the shared store. An interrupted run leaves them to the next one.
    fn push<'scope>(&mut self, scope: &'scope Scope<'scope, '_>, sender: &Sender<Message>) -> Result<()>
    where
        'a: 'scope,
    {
        let run = self.run;
        let Some(shared) = run.store.shared() else { return Ok(()) };
        while self.pushing < PUSHES && !run.interrupt.raised() {
            let Some(stage) = self.to_push.pop_front() else { break };
            let Some(manifest) = self.manifest(stage).cloned() else { continue };
            let (node, sender) = (&run.graph.nodes[stage], sender.clone());
            self.pushing += 1;
            let spawned = std::thread::Builder::new().name(node.name.clone()).spawn_scoped(scope, move || {
                let pushed = guarded(|| run.push(node, shared, &manifest));
                let _ = sender.send(Message::Pushed { stage, pushed });
            });
            if let Err(source) = spawned {
                self.pushing -= 1;
                return Err(Error::Kit(kit::Error::Io { path: "a thread".into(), source }));
            }
        }
        Ok(())
    }

    /// Takes what a transfer to the shared store came to.
    fn settle_push(&mut self, stage: usize, pushed: Result<bool>) -> Result<()> {
        self.pushing -= 1;
        match pushed {
            Ok(new) => {
                let travel = if new { Travel::Pushed } else { Travel::There };
                self.shared(stage, travel);
            }
            Err(error) => {
                // What cannot be reached now is tried again by the next run; the work here goes on.
                if crate::exit::code(&error) == crate::exit::UNREACHABLE {
                    self.to_push.clear();
                    self.unpushed.get_or_insert(error);
                } else {
                    self.failed.push(error);
                }
            }
        }
        self.write()
    }

    /// Records that the shared store has a stage's result.
    fn shared(&mut self, stage: usize, travel: Travel) {
        let address = self.run.store.shared().map(|shared| shared.address().to_owned());
        self.record_of(stage).shared = address.map(|address| (address, travel));
    }

    fn device_is_busy(&self) -> bool {
        self.progress.iter().any(|progress| matches!(progress, Progress::Running { device: true, .. }))
    }

    fn record_of(&mut self, stage: usize) -> &mut StageRecord {
        let name = &self.run.graph.nodes[stage].name;
        self.record.stages.get_mut(name).expect("the record has every stage")
    }

    fn skip(&mut self, stage: usize, why: String) {
        self.run.emit(Some(&self.run.graph.nodes[stage].name), RunEvent::StageSkipped { why: why.clone() });
        let record = self.record_of(stage);
        (record.state, record.why) = (StageState::Skipped, Some(why));
        self.progress[stage] = Progress::Skipped;
    }

    fn done(
        &mut self,
        stage: usize,
        manifest: Box<Manifest>,
        state: StageState,
        seconds: Option<f64>,
    ) -> kit::Result<()> {
        let ports: Vec<String> = manifest.ports.keys().cloned().collect();
        let entry = manifest.recipe.entry();
        let node = &self.run.graph.nodes[stage];
        self.run.records.link(&self.run.graph.name, &node.name, &entry, &ports)?;
        let rows = manifest.rows(&node.outputs);
        let record = self.record_of(stage);
        record.state = state;
        (record.entry, record.recipe) = (Some(entry), Some(manifest.recipe.clone()));
        (record.read, record.rows, record.rejected) = (manifest.read(), Some(rows), Some(manifest.rejected()));
        (record.seconds, record.ports) = (seconds, ports);
        record.figures = manifest.outcome.figures.clone();
        record.headlines = manifest.outcome.headlines.clone();
        if let Some(shared) = self.run.store.shared() {
            match shared.is_marked(&manifest.recipe.entry()) {
                true => self.shared(stage, Travel::There),
                false if self.unpushed.is_none() => self.to_push.push_back(stage),
                false => {}
            }
        }
        self.progress[stage] = Progress::Done(manifest);
        let graph = self.run.graph;
        self.unchecked
            .extend((0..graph.nodes.len()).filter(|reader| graph.sources(*reader).any(|source| source == stage)));
        Ok(())
    }

    /// Lets the stages whose inputs grew make the checks that need rows, before others compute on them. Gives the stage
    /// that refuses.
    fn check_rows(&mut self) -> std::result::Result<(), (usize, Error)> {
        for stage in std::mem::take(&mut self.unchecked) {
            let planned = &self.planned[stage];
            if !planned.selected || matches!(planned.decision, Decision::Skip(_) | Decision::Reuse(_)) {
                continue;
            }
            let node = &self.run.graph.nodes[stage];
            let checked = self.planner.inputs.inputs_so_far(stage, &|stage| self.manifest(stage)).and_then(|inputs| {
                let silent = |_: kit::Event| {};
                node.stage.check_rows(&kit::Context {
                    seed: kit::Seed(node.seed.unwrap_or_default()),
                    device: &self.run.options.device,
                    folder: self.run.store.root(),
                    inputs,
                    events: &silent,
                    interrupt: self.run.interrupt.clone(),
                })
            });
            checked.map_err(|source| (stage, Error::Stage { stage: node.name.clone(), source }))?;
        }
        Ok(())
    }

    /// Takes what a worker came to.
    fn settle(&mut self, stage: usize, worked: WorkOutcome) -> Result<()> {
        let run = self.run;
        let name = &run.graph.nodes[stage].name;
        let failed = |source| Error::Stage { stage: name.clone(), source };
        match worked {
            WorkOutcome::Finished { manifest, seconds, differing } => {
                if !differing.is_empty() {
                    run.emit(Some(name), RunEvent::BytesDiffered { ports: differing });
                }
                run.emit(
                    Some(name),
                    RunEvent::StageFinished {
                        entry: manifest.recipe.entry(),
                        read: manifest.read(),
                        rows: manifest.rows(&run.graph.nodes[stage].outputs),
                        rejected: manifest.rejected(),
                        seconds,
                        figures: manifest.outcome.figures.clone(),
                    },
                );
                self.done(stage, manifest, StageState::Ran, Some(seconds)).map_err(failed)?;
            }
            WorkOutcome::Found(manifest) => {
                run.emit(Some(name), reused(&run.graph.nodes[stage], &manifest));
                self.done(stage, manifest, StageState::Reused, None).map_err(failed)?;
            }
            WorkOutcome::Fetched(manifest) => {
                run.emit(Some(name), reused(&run.graph.nodes[stage], &manifest));
                self.done(stage, manifest, StageState::Reused, None).map_err(failed)?;
                self.shared(stage, Travel::Fetched);
            }
            WorkOutcome::NotFetched => {
                // It is computed here: the shared store is not asked for it again.
                self.progress[stage] = Progress::Waiting;
                let record = self.record_of(stage);
                (record.state, record.entry) = (StageState::Pending, None);
            }
            WorkOutcome::DamagedInput { upstream, damage } => {
                // The writer of the damaged entry runs again; this stage waits for it anew.
                self.progress[stage] = Progress::Waiting;
                let record = self.record_of(stage);
                (record.state, record.entry, record.recipe) = (StageState::Pending, None, None);
                if let Err(error) = self.repair(upstream, &damage) {
                    return self.settle(stage, WorkOutcome::Stopped(error));
                }
            }
            WorkOutcome::Stopped(error) => {
                let interrupted = crate::exit::code(&error) == crate::exit::AGAIN;
                let record = self.record_of(stage);
                record.state = if interrupted { StageState::Interrupted } else { StageState::Failed };
                record.why = Some(error.to_string());
                let event = match interrupted && !matches!(error, Error::Locked { .. }) {
                    true => RunEvent::StageInterrupted,
                    false => RunEvent::StageFailed { error: error.to_string() },
                };
                run.emit(Some(name), event);
                self.progress[stage] = Progress::Stopped;
                self.failed.push(error);
            }
        }
        self.write()
    }

    fn repair(&mut self, stage: usize, damage: &str) -> Result<()> {
        let run = self.run;
        let name = &run.graph.nodes[stage].name;
        let Some(manifest) = self.manifest(stage) else { return Ok(()) };
        let entry = manifest.recipe.entry();
        if !self.planned[stage].selected {
            let text = format!("entry {entry} of stage `{name}`, which the selection leaves out, is damaged: {damage}");
            return Err(Error::Damaged(format!("{text}; run `{name}` to compute it again")));
        }
        let moved = run.store.set_aside(&run.store.entry(&entry)).map_err(Error::Kit)?;
        run.emit(
            Some(name),
            RunEvent::EntryDamaged { entry, damage: damage.to_owned(), moved: moved.display().to_string() },
        );
        self.progress[stage] = Progress::Waiting;
        self.record_of(stage).state = StageState::Pending;
        Ok(())
    }
}

/// True where a stage makes or fetches the same entry.
fn recipe_is_at_work(progress: &[Progress], entry: &str) -> bool {
    progress.iter().any(|progress| matches!(progress, Progress::Running { entry: other, .. } if other == entry))
}

fn reused(node: &Node, manifest: &Manifest) -> RunEvent {
    RunEvent::StageReused {
        entry: manifest.recipe.entry(),
        read: manifest.read(),
        rows: manifest.rows(&node.outputs),
        rejected: manifest.rejected(),
    }
}
