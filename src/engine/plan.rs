//! The decision on each stage of a run, with its reason. Deciding reads recipes, manifests and records; it changes
//! nothing.

use std::path::PathBuf;

use kit::{Context, Interrupt, Result, Seed};

use crate::engine::inputs::Resolver;
use crate::error::Error;
use crate::hub;
use crate::pipeline::graph::Graph;
use crate::store::{Condition, Found, History, Manifest, Recipe, Records, StageState, Store};

/// The stages that a command is about.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// This stage alone.
    pub only: Option<String>,
    /// This stage and what follows.
    pub from: Option<String>,
    /// This stage and what it needs.
    pub until: Option<String>,
    /// These stages even if their results could be used again.
    pub force: Vec<String>,
    /// True where a stage takes the latest result of an outdated stage before it.
    pub stale: bool,
}

/// The decision on a stage.
#[derive(Debug, Clone)]
pub enum Decision {
    /// An earlier result serves.
    Reuse(Box<Manifest>),
    /// A result in the shared store serves.
    Fetch(Box<Manifest>),
    /// Its latest result is taken although it is out of date; the reason why it is.
    Stale(Box<Manifest>, String),
    /// It does its work, for these reasons.
    Run(Vec<String>),
    /// Open until these stages are done.
    Depends(Vec<String>),
    /// It does not run, for this reason.
    Skip(String),
}

impl Decision {
    /// The manifest of the result that is there, in the work folder or in the shared store.
    pub fn manifest(&self) -> Option<&Manifest> {
        match self {
            Decision::Reuse(manifest) | Decision::Fetch(manifest) | Decision::Stale(manifest, _) => Some(manifest),
            _ => None,
        }
    }

    /// True where the result lies in the work folder.
    pub fn is_here(&self) -> bool {
        matches!(self, Decision::Reuse(_) | Decision::Stale(..))
    }

    /// True where the stage would do its work.
    pub fn computes(&self) -> bool {
        matches!(self, Decision::Run(_) | Decision::Depends(_))
    }

    /// The decision in words.
    pub fn sentence(&self) -> String {
        match self {
            Decision::Reuse(_) => "reuse".to_owned(),
            Decision::Fetch(_) => "reuse (remote)".to_owned(),
            Decision::Stale(_, why) => format!("take the latest result, out of date: {why}"),
            Decision::Run(reasons) => format!("run: {}", reasons.join("; ")),
            Decision::Depends(on) => format!("depends on {}", on.join(", ")),
            Decision::Skip(why) => format!("skip: {why}"),
        }
    }
}

/// A stage's decision, with the recipe where all its inputs are known.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The decision.
    pub decision: Decision,
    /// The inputs of its result: configuration, seed, version and contents.
    pub recipe: Option<Recipe>,
    /// True where the command selects this stage.
    pub selected: bool,
    /// True where it runs although its result could be reused.
    pub forced: bool,
}

/// Everything a decision is made from.
pub struct Planner<'a> {
    /// The pipeline.
    pub graph: &'a Graph,
    pub store: &'a Store,
    /// The inputs of its stages.
    pub inputs: Resolver<'a>,
    /// The records of runs.
    pub records: &'a Records,
    /// The earlier ones.
    history: History,
}

impl<'a> Planner<'a> {
    /// A planner for a pipeline. A run that is going on is not among the earlier ones.
    ///
    /// # Errors
    /// When the folder of records cannot be read.
    pub fn new(graph: &'a Graph, store: &'a Store, records: &'a Records, now: Option<u64>) -> Result<Planner<'a>> {
        Ok(Planner {
            graph,
            store,
            inputs: Resolver { graph, store },
            records,
            history: History::of(records, &graph.name, now)?,
        })
    }

    /// The decision on each stage.
    ///
    /// # Errors
    /// When the selection names unknown stages, or leaves out a stage that would have to run first.
    pub fn plan(&self, selection: &Selection) -> crate::error::Result<Vec<Planned>> {
        let (selected, idle) = self.selected(selection)?;
        let forced = self.numbers(&selection.force)?;
        if let Some(stage) = forced.iter().find(|stage| !selected[**stage]) {
            let name = &self.graph.nodes[*stage].name;
            let why = idle[*stage].clone().unwrap_or_else(|| "the selection leaves it out".to_owned());
            return Err(Error::Usage(format!("--force {name}: {why}")));
        }
        let mut planned: Vec<Option<Planned>> = vec![None; self.graph.nodes.len()];
        let mut needed = vec![false; planned.len()];
        for stage in (0..planned.len()).filter(|stage| selected[*stage]) {
            self.graph.needs(stage).into_iter().enumerate().for_each(|(other, yes)| needed[other] |= yes);
        }
        for &stage in &self.graph.order {
            let decided = if let (Some(why), false) = (&idle[stage], selected[stage]) {
                Planned { decision: Decision::Skip(why.clone()), recipe: None, selected: false, forced: false }
            } else if !needed[stage] {
                Planned {
                    decision: Decision::Skip("not selected".to_owned()),
                    recipe: None,
                    selected: false,
                    forced: false,
                }
            } else {
                self.decide(stage, &planned, selected[stage], forced.contains(&stage))?
            };
            planned[stage] = Some(decided);
        }
        let mut planned: Vec<Planned> =
            planned.into_iter().map(|one| one.expect("every stage is in the order")).collect();
        self.settle_upstream(selection, &selected, &mut planned)?;
        Ok(planned)
    }

    fn numbers(&self, names: &[String]) -> crate::error::Result<Vec<usize>> {
        names.iter().map(|name| self.named(name)).collect::<crate::error::Result<Vec<_>>>().map(|all| all.concat())
    }

    /// The stage of a name, or all stages of a matrix.
    fn named(&self, name: &str) -> crate::error::Result<Vec<usize>> {
        let found = self.graph.find_all(name);
        if found.is_empty() {
            let groups = self.graph.nodes.iter().filter_map(|node| Some(node.group.as_ref()?.name.as_str()));
            let names = self.graph.nodes.iter().map(|node| node.name.as_str());
            let near = crate::pipeline::problem::did_you_mean(name, groups.chain(names));
            return Err(Error::Usage(format!("there is no stage `{name}`{near}")));
        }
        Ok(found)
    }

    /// The selected stages, and the reason of each idle stage.
    fn selected(&self, selection: &Selection) -> crate::error::Result<(Vec<bool>, Vec<Option<String>>)> {
        let count = self.graph.nodes.len();
        let mut idle = self.graph.idle_stages();
        if let Some(only) = &selection.only {
            let only = self.named(only)?;
            only.iter().for_each(|stage| idle[*stage] = None);
            return Ok(((0..count).map(|stage| only.contains(&stage)).collect(), idle));
        }
        let from = selection.from.as_ref().map(|name| self.named(name)).transpose()?;
        let until = selection.until.as_ref().map(|name| self.named(name)).transpose()?;
        let any = |stages: &[usize], reached: &dyn Fn(usize) -> Vec<bool>| {
            let mut all = vec![false; count];
            stages.iter().for_each(|stage| all.iter_mut().zip(reached(*stage)).for_each(|(all, yes)| *all |= yes));
            all
        };
        let mut selected = vec![true; count];
        if let Some(from) = &from {
            let following = any(from, &|stage| self.graph.follows(stage));
            selected.iter_mut().zip(&following).for_each(|(selected, follows)| *selected &= follows);
        }
        if let Some(until) = &until {
            let needed = any(until, &|stage| self.graph.needs(stage));
            selected.iter_mut().zip(&needed).for_each(|(selected, needed)| *selected &= needed);
            // Asked for by name, a stage and what it needs are not idle.
            idle.iter_mut().zip(&needed).filter(|(_, needed)| **needed).for_each(|(idle, _)| *idle = None);
        }
        from.iter().flatten().for_each(|from| idle[*from] = None);
        selected.iter_mut().zip(&idle).for_each(|(selected, idle)| *selected &= idle.is_none());
        if let (Some(from), Some(until), false) = (&selection.from, &selection.until, selected.contains(&true)) {
            let text = format!("--from {from} --until {until} chooses no stage: `{until}` needs nothing of `{from}`");
            return Err(Error::Usage(text));
        }
        Ok((selected, idle))
    }

    /// Stages outside the selection do not run: what the selection reads of them has to be there.
    fn settle_upstream(
        &self,
        selection: &Selection,
        selected: &[bool],
        planned: &mut [Planned],
    ) -> crate::error::Result<()> {
        let mut blocked = Vec::new();
        let mut replaced = false;
        for stage in (0..planned.len()).filter(|stage| selected[*stage]) {
            for upstream in self.graph.upstream(stage) {
                if selected[upstream] || planned[upstream].decision.manifest().is_some() {
                    continue;
                }
                let (name, why) = (&self.graph.nodes[upstream].name, self.root_cause(upstream, planned));
                match self.latest_whole(name)? {
                    Some(manifest) if selection.stale => {
                        planned[upstream].decision = Decision::Stale(manifest, why);
                        replaced = true;
                    }
                    Some(_) => blocked.push(format!(
                        "stage `{name}` would not be reused ({why}); run it first, or take its latest result with --stale"
                    )),
                    None => blocked.push(format!("stage `{name}` has no result ({why}); run it first")),
                }
            }
        }
        if !blocked.is_empty() {
            blocked.sort();
            blocked.dedup();
            return Err(Error::Pipeline(blocked.join("\n")));
        }
        if replaced {
            // A stage that reads a stale result is decided again, now that the content is known.
            let forced = self.numbers(&selection.force)?;
            for &stage in self.graph.order.iter().filter(|stage| selected[**stage]) {
                let all: Vec<Option<Planned>> = planned.iter().cloned().map(Some).collect();
                planned[stage] = self.decide(stage, &all, true, forced.contains(&stage))?;
            }
        }
        Ok(())
    }

    /// The newest result of a stage that is whole. Attempts that came to nothing and damaged entries are passed over.
    fn latest_whole(&self, name: &str) -> Result<Option<Box<Manifest>>> {
        for attempt in self.history.attempts(name) {
            let (_, record) = attempt?;
            if let Some(recipe) = &record.recipe
                && let Condition::Whole(manifest) = self.store.condition(recipe)?
            {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    /// The reason why a stage would not be reused; where it depends on others, down to those that would run.
    fn root_cause(&self, stage: usize, planned: &[Planned]) -> String {
        let Decision::Depends(on) = &planned[stage].decision else { return planned[stage].decision.sentence() };
        let cause = |name: &String| {
            let other = self.graph.find(name)?;
            Some(format!("{name}: {}", self.root_cause(other, planned)))
        };
        on.iter().filter_map(cause).collect::<Vec<_>>().join("; ")
    }

    fn decide(&self, stage: usize, planned: &[Option<Planned>], selected: bool, forced: bool) -> Result<Planned> {
        let manifest = |stage: usize| planned[stage].as_ref().and_then(|planned| planned.decision.manifest());
        let waiting: Vec<String> = self
            .graph
            .upstream(stage)
            .into_iter()
            .filter(|upstream| manifest(*upstream).is_none())
            .map(|upstream| self.graph.nodes[upstream].name.clone())
            .collect();
        if !waiting.is_empty() {
            return Ok(Planned { decision: Decision::Depends(waiting), recipe: None, selected, forced });
        }
        let absent: Vec<String> =
            self.graph.absent(stage).map(|name| format!("`{name}` will be fetched from {}", hub::endpoint())).collect();
        if !absent.is_empty() {
            return Ok(Planned { decision: Decision::Run(absent), recipe: None, selected, forced });
        }
        let recipe = self.inputs.recipe(stage, &manifest)?;
        let decision = self.look_up(stage, &recipe, forced)?;
        Ok(Planned { decision, recipe: Some(recipe), selected, forced })
    }

    /// The decision whether the store has a result for a recipe; where it has none, with the reason.
    ///
    /// # Errors
    /// When a file of the store cannot be read.
    pub fn look_up(&self, stage: usize, recipe: &Recipe, forced: bool) -> Result<Decision> {
        if forced {
            return Ok(Decision::Run(vec!["forced".to_owned()]));
        }
        Ok(match self.store.condition(recipe)? {
            Condition::Whole(manifest) => Decision::Reuse(manifest),
            Condition::Damaged(damage) => {
                let why = || Ok(vec![format!("entry {} is damaged: {damage}", recipe.entry())]);
                self.look_up_remote(recipe, why)?
            }
            Condition::Missing => self.look_up_remote(recipe, || self.reasons(stage, recipe))?,
        })
    }

    /// The same of the shared store.
    fn look_up_remote(&self, recipe: &Recipe, why: impl FnOnce() -> Result<Vec<String>>) -> Result<Decision> {
        let found = self.store.shared().map_or(Ok(Found::Nothing), |shared| shared.find(recipe))?;
        Ok(match found {
            Found::Whole(manifest) => Decision::Fetch(manifest),
            Found::Nothing => Decision::Run(why()?),
            Found::Damaged(damage) => {
                Decision::Run(why()?.into_iter().chain([format!("the shared store's is damaged: {damage}")]).collect())
            }
        })
    }

    fn reasons(&self, stage: usize, recipe: &Recipe) -> Result<Vec<String>> {
        let pipeline = &self.graph.name;
        let mut reasons = match self.history.attempts(&self.graph.nodes[stage].name).next().transpose()? {
            None => vec!["never run".to_owned()],
            Some((run, record)) => {
                let changes = record.recipe.as_ref().map(|before| recipe.changes_since(before)).unwrap_or_default();
                match (changes.is_empty(), record.state) {
                    (false, _) => changes,
                    (true, StageState::Failed | StageState::Interrupted) => {
                        vec![format!("{} before", record.state.word())]
                    }
                    (true, StageState::Running) if self.records.alive(pipeline, run) => {
                        vec!["another run is at it".to_owned()]
                    }
                    (true, StageState::Running) => vec!["was killed before".to_owned()],
                    (true, _) => vec!["its result is no longer in the store".to_owned()],
                }
            }
        };
        if self.store.partial(&recipe.entry(), false).exists() {
            reasons.push("goes on with unfinished work".to_owned());
        }
        Ok(reasons)
    }

    /// Lends the surroundings that a stage would run in, where its inputs are there.
    pub fn surroundings<T>(
        &self,
        stage: usize,
        planned: &[Planned],
        device: &str,
        look: impl FnOnce(&Context<'_>) -> T,
    ) -> Option<T> {
        let manifest = |stage: usize| planned[stage].decision.manifest();
        // What lies in the shared store cannot be read yet.
        if !self.graph.upstream(stage).iter().all(|upstream| planned[*upstream].decision.is_here()) {
            return None;
        }
        let recipe = planned[stage].recipe.as_ref()?;
        let folder: PathBuf = self.store.partial(&recipe.entry(), false);
        let silent = |_: kit::Event| {};
        Some(look(&Context {
            seed: Seed(self.graph.nodes[stage].seed.unwrap_or_default()),
            device,
            folder: &folder,
            inputs: self.inputs.sources(stage, recipe, &manifest),
            events: &silent,
            interrupt: Interrupt::default(),
        }))
    }
}
