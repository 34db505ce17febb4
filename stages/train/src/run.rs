//! The run, top to bottom: data and its checks, the model, the loop, the ports.
//!
//! Ranks run it side by side and in step: they have the same weights, batches, metrics and decisions. Rank 0 alone writes
//! and tells.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use kit::rows::{Contrast, Metric, Split, StepRow};
use kit::{Collective, Context, Error, Outcome, Ranked, Result, Stage, Table, in_pools, ranks, wilson};
use lm::{AdamW, DecoderConfig, Memory, Share, Training};
use objective::Mixture;
use rayon::current_num_threads;
use tokens::{SequenceReader, lm_error};

use crate::best::{self, BestPolicies};
use crate::checkpoint::Checkpoints;
use crate::config::{MemorySchedule, Train};
use crate::dataset::Dataset;
use crate::evaluate::HeldOut;
use crate::log::Log;
use crate::order::Order;
use crate::step::Stepper;
use crate::tensorboard::EventFile;

/// Memory for kept values on a CPU where the configuration says nothing, GiB.
const BUDGET_GIB: f64 = 8.0;

/// Models of which each thread trains a copy, where a batch has parts for several, hold so many numbers at most.
const SMALL_PARAMETERS: usize = 4 << 20;

/// All that is known before a model is loaded.
pub(crate) struct Plan {
    pub(crate) dataset: Dataset,
    pub(crate) held_out: Option<HeldOut>,
    pub(crate) order: Order,
    /// Batches in all.
    pub(crate) batches: u64,
}

impl Train {
    /// The model's tokenizer and template under the stage's rules.
    pub(crate) fn reader(&self, context: &Context<'_>) -> Result<SequenceReader> {
        let path = &context.model("model")?.path;
        match self.starts_from_reward_model(path)? {
            true => SequenceReader::of_reward_model(path, self.tokens.text_rules(), self.tokens.max_tokens),
            false => SequenceReader::of_rows(path, &self.tokens),
        }
    }

    /// True where steps are also logged by form and label of their pairs.
    pub(crate) fn has_splits(&self) -> bool {
        let reads = self.objective.reads();
        reads.pairs() && !reads.items()
    }

    /// Reads, tokenises and checks the data.
    pub(crate) fn plan(&self, context: &Context<'_>) -> Result<Plan> {
        if let Some(fault) = self.model_fault(&context.model("model")?.path)? {
            return Err(Error::Pipeline(fault));
        }
        let reader = self.reader(context)?;
        let items = context.table_of("from") == Some(Table::Items);
        let wrong_unit = match items {
            true => self.batch.pairs.map(|_| ("pairs", "items")),
            false => self.batch.items.map(|_| ("items", "pairs")),
        };
        if let Some((given, wanted)) = wrong_unit {
            return Err(Error::Pipeline(format!(
                "`batch.{given}` with a `from` that holds {wanted}: say `{wanted}: N`"
            )));
        }
        let read = |input: &'static str| -> Result<Dataset> {
            // The held-out pairs may be of one form, whatever form is trained on.
            let allow_same_prompt = self.allow_same_prompt || input != "from";
            let mut dataset = Dataset::read(context, input, &reader, &self.objective, allow_same_prompt)?;
            if !context.sources("reference").is_empty() {
                dataset.attach_reference(context, &self.objective, self.precision())?;
            }
            if self.objective.needs_similarities() {
                dataset.attach_embeddings(context)?;
            }
            Ok(dataset)
        };
        let dataset = read("from")?;
        let held_out = match context.sources("eval_pairs") {
            [] => None,
            _ => {
                let dataset = read("eval_pairs")?;
                Some(HeldOut { order: Order::new(&dataset, &self.batch.on_pairs(), false, None)?, dataset })
            }
        };
        let seed = self.batch.shuffle.then_some(context.seed);
        let order = Order::new(&dataset, &self.batch, self.objective.needs_kl(), seed)?;
        let batches = match (self.steps, self.epochs) {
            (Some(steps), _) => steps,
            (None, Some(epochs)) => (0..epochs).map(|pass| order.pass(pass).len() as u64).sum(),
            (None, None) => return Err(Error::Pipeline("missing `epochs` or `steps`".to_owned())),
        };
        Ok(Plan { dataset, held_out, order, batches })
    }

    /// Intermediate values that each of some ranks keeps between forward and backward.
    pub(crate) fn kept(&self, ranks: usize) -> Memory {
        let gib = self.memory.budget_gib.unwrap_or(BUDGET_GIB / ranks as f64);
        match self.memory.schedule {
            MemorySchedule::Auto => Memory::Auto { bytes: (gib * (1u64 << 30) as f64) as u64 },
            MemorySchedule::Keep => Memory::Keep,
            MemorySchedule::Boundaries => Memory::Boundaries,
            MemorySchedule::TwoPass => Memory::TwoPass,
        }
    }

    fn training(&self, context: &Context<'_>, ranks: &dyn Collective) -> Result<Training> {
        let decoder = self.decoder(context)?;
        let optimizer = &self.optimizer;
        let adamw = AdamW {
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            eps: optimizer.eps,
            weight_decay: optimizer.weight_decay,
        };
        let memory = self.kept(ranks.size());
        let share = match optimizer.sharded {
            true => Share { rank: ranks.rank(), of: ranks.size() },
            false => Share::WHOLE,
        };
        let budget = self.batch.tokens_per_micro_batch;
        let training = Training::of_share(decoder, adamw, optimizer.clip_norm, memory, budget, share);
        let mut training = training.map_err(lm_error)?;
        training.dropout_seed = context.seed.0;
        if self.memory.budget_gib.is_none() {
            training.use_free_memory().map_err(lm_error)?;
        }
        Ok(training)
    }

    /// The model as training begins or goes on, and what was measured before; on all ranks the same.
    fn begin(
        &self,
        context: &Context<'_>,
        checkpoints: &mut Checkpoints,
        best: Option<&BestPolicies<'_>>,
        ranks: &dyn Collective,
    ) -> Result<(Training, Log)> {
        let begun = self.training(context, ranks).and_then(|mut training| {
            let log = if ranks.rank() == 0 { checkpoints.resume(context, &mut training, best)? } else { None };
            Ok((training, log.unwrap_or_default()))
        });
        let (begun, done) = match begun {
            Ok((training, log)) => {
                let done = log.counters.batches as f64;
                (Some((training, log)), Ok(vec![done]))
            }
            Err(error) => (None, Err(error)),
        };
        let done = ranks.gather(done)?[0][0] as u64;
        let (mut training, mut log) = begun.ok_or_else(|| Error::internal("a rank's error was lost"))?;
        if ranks.rank() > 0 && done > 0 {
            log = checkpoints.follow(&mut training, done)?;
        }
        Ok((training, log))
    }

    fn train(&self, context: &Context<'_>, plan: &Plan, ranks: &dyn Collective) -> Result<Outcome> {
        for dataset in std::iter::once(&plan.dataset).chain(plan.held_out.iter().map(|held_out| &held_out.dataset)) {
            if let Some(text) = dataset.stopped.stop(dataset.read) {
                return Err(Error::Data(format!("`{}`: {text}", dataset.input)));
            }
            dataset.displaced_remark().into_iter().for_each(|text| context.warn(text));
        }
        let (mismatched, displaced) = plan.dataset.mismatched();
        let (name, title) = (self.objective.name(), self.objective.title());
        context.note(format!("`{name}` is {title}"));
        let soft = plan.dataset.soft_labels();
        if soft > 0 && !self.objective.reads_p_hat() {
            let rows = plan.dataset.examples.len();
            context.note(format!("`{name}` takes every label as certain: {soft} of {rows} rows have a soft one"));
        }
        let mut checkpoints = Checkpoints::open(context);
        let best = self.best.as_ref().map(|options| BestPolicies::open(options, context));
        let (mut training, mut log) = self.begin(context, &mut checkpoints, best.as_ref(), ranks)?;
        if let Some(lora) = training.decoder().adapter().filter(|lora| lora.dropout > 0.0 && self.adapter.is_none()) {
            context.note(format!("the adapter is trained on with the dropout of its own, {}", lora.dropout));
        }
        if log.counters.batches > 0 {
            let what = format!("step {} of {}", log.counters.batches, plan.batches);
            context.emit(kit::Event::Resumed { what });
        }
        let leads = ranks.rank() == 0;
        let result = self.run_steps(context, plan, ranks, &mut training, &mut log, &mut checkpoints);
        // It comes to all ranks at the same step.
        if let Err(Error::Interrupted) = &result {
            // The resumed run computes the gradient of the unfinished batch again.
            training.discard().map_err(lm_error)?;
            checkpoints.write(context, &training, &log, ranks)?;
        }
        result?;
        if !leads {
            return Ok(Outcome::default());
        }
        let (of_steps, kept) = match &best {
            Some(best) => best.publish(context, &log.metrics)?,
            None => {
                let policy = context.port("policy");
                if policy.exists() {
                    std::fs::remove_dir_all(&policy).map_err(Error::io(&policy))?;
                }
                (Vec::new(), self.write_policy(context, &training, &policy)?)
            }
        };
        if let Some(kept) = kept.filter(|kept| kept.share() < 0.99) {
            context.warn(format!(
                "`save.dtype` undoes the updates of {:.1} % of the {} weights that training changed; `f32` keeps them",
                100.0 * (1.0 - kept.share()),
                kept.changed
            ));
        }
        self.write_tables(context, &log)?;
        if log.counters.batches < plan.batches {
            let (done, of) = (log.counters.batches, plan.batches);
            let patience = self.best.and_then(|best| best.patience).unwrap_or_default();
            context.note(format!("ended at step {done} of {of}: {patience} evaluations without improvement"));
        }
        let mut rejects = plan.dataset.rejects.clone();
        let rejected = rejects.len() as u64;
        let mut outcome = Outcome::default().balance("from", plan.dataset.read, plan.dataset.read - rejected, rejected);
        let mut held_out = None;
        if let Some(HeldOut { dataset, .. }) = &plan.held_out {
            held_out = Some(dataset.examples.len());
            let rejected = dataset.rejects.len() as u64;
            outcome = outcome.balance("eval_pairs", dataset.read, dataset.read - rejected, rejected);
            rejects.extend(dataset.rejects.iter().cloned());
        }
        context.write_rejects(rejects)?;
        if let Some(kept) = kept {
            let share = (kept.share() * 1e6).round() / 1e6;
            outcome =
                outcome.figure("weights changed", kept.changed).figure("share of changes left by `save.dtype`", share);
        }
        for (what, count) in
            [("prompt is not a token prefix", mismatched), ("prompt is written otherwise before an answer", displaced)]
        {
            if count > 0 {
                outcome = outcome.figure(what, count);
            }
        }
        let counters = &log.counters;
        for (batches, what) in [
            (counters.without_weight, "without weight"),
            (counters.one_class, "without chosen or without rejected items"),
        ] {
            if batches > 0 {
                context.warn(format!("{batches} batches {what} made no step"));
            }
        }
        Ok(figures(outcome, &self.objective, &log, held_out, &of_steps))
    }

    fn run_steps(
        &self,
        context: &Context<'_>,
        plan: &Plan,
        ranks: &dyn Collective,
        training: &mut Training,
        log: &mut Log,
        checkpoints: &mut Checkpoints,
    ) -> Result<()> {
        let leads = ranks.rank() == 0;
        let best = self.best.as_ref().filter(|_| leads).map(|options| BestPolicies::open(options, context));
        let mut events = if leads { Some(EventFile::create(&context.folder.join(".tensorboard"))?) } else { None };
        let stepper = Stepper {
            dataset: &plan.dataset,
            objective: &self.objective,
            batch: &self.batch,
            interrupt: &context.interrupt,
            ranks,
        };
        let mut done = 0;
        let mut pass = 0;
        while done < plan.batches {
            let batches = plan.order.pass(pass);
            let length = batches.len() as f64;
            for (place, rows) in batches.into_iter().enumerate() {
                done += 1;
                if done < log.counters.batches {
                    continue; // before the checkpoint
                }
                if done > log.counters.batches {
                    let epoch = pass as f64 + (place + 1) as f64 / length;
                    let assembled = plan.dataset.assemble(&rows, &self.objective)?;
                    if let Some(why) = self.objective.no_step(&assembled.batch) {
                        log.no_step(why, epoch);
                    } else {
                        let lr = self.optimizer.learning_rate(done, plan.batches);
                        let step = stepper.take(training, &rows, assembled, lr, done)?;
                        let measures = self.objective.measure(&step.batch);
                        log.step(&plan.dataset, &rows, &step, &self.objective, &measures, epoch);
                    }
                }
                let metric = log.metrics.last_mut().expect("each batch has a row");
                let due = self.eval_every.is_some_and(|every| done.is_multiple_of(every)) || done == plan.batches;
                if let Some(held_out) = plan.held_out.as_ref().filter(|_| due && metric.eval_loss.is_none()) {
                    // A signal here leaves the step noted and its evaluation to the resumed run.
                    let budget = self.batch.tokens_per_micro_batch;
                    let interrupt = &context.interrupt;
                    held_out.measure(training.decoder(), &self.objective, budget, interrupt, ranks, metric)?;
                    if let Some(best) = &best {
                        best.keep(&log.metrics, |folder| self.write_policy(context, training, folder))?;
                    }
                }
                let metric = log.metrics.last().expect("each batch has a row");
                events.as_mut().map_or(Ok(()), |events| events.add(metric))?;
                context.progress(done, plan.batches, "steps", detail(metric));
                if self.best.is_some_and(|best| best.stops(&log.metrics)) {
                    return Ok(());
                }
                let mut due = done.is_multiple_of(self.checkpoint_every) || checkpoints.due(self.checkpoint_minutes);
                if training.is_shared() {
                    // All of them write, by the clock of rank 0.
                    due = ranks.gather(Ok(vec![f64::from(u8::from(due))]))?[0][0] > 0.0;
                }
                if due && done < plan.batches {
                    checkpoints.write(context, training, log, ranks)?;
                    if let Some(best) = &best {
                        best.prune(&log.metrics)?;
                    }
                }
                if done == plan.batches {
                    break;
                }
            }
            pass += 1;
        }
        Ok(())
    }

    fn write_tables(&self, context: &Context<'_>, log: &Log) -> Result<()> {
        let mut metrics = context.writer::<Metric>("metrics")?;
        metrics.extend(log.metrics.iter().cloned())?;
        metrics.finish()?;
        let mut steps = context.writer::<StepRow>("steps")?;
        steps.extend(log.steps.iter().cloned())?;
        steps.finish()?;
        if self.objective.needs_similarities() {
            let mut contrasts = context.writer::<Contrast>("contrasts")?;
            contrasts.extend(log.contrasts.iter().cloned())?;
            contrasts.finish()?;
        }
        if self.has_splits() {
            let mut splits = context.writer::<Split>("splits")?;
            splits.extend(log.splits.iter().cloned())?;
            splits.finish()?;
        }
        Ok(())
    }
}

/// A training for one rank or several, which share the data where they are in one process.
pub(crate) struct Together<'a> {
    pub(crate) train: &'a Train,
    pub(crate) plan: Mutex<Option<Arc<Plan>>>,
}

impl Ranked for Together<'_> {
    fn most_ranks(&self) -> usize {
        self.train.most_ranks()
    }

    fn compute(&self, context: &Context<'_>, ranks: &dyn Collective) -> Result<Outcome> {
        let plan = {
            let mut shared = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
            let plan = shared.take().map_or_else(|| self.train.plan(context).map(Arc::new), Ok)?;
            shared.insert(plan).clone()
        };
        match self.copies(context, ranks) {
            1 => self.train.train(context, &plan, ranks),
            copies => in_pools(copies, current_num_threads() / copies, |ranks| {
                self.train.train(&context.of_rank(ranks.rank(), context.device), &plan, ranks)
            }),
        }
    }
}

impl Together<'_> {
    /// Copies of the model that threads of a single rank train side by side: of a small model on a CPU, whose products are
    /// so short that threads would wait for one another at each of them.
    fn copies(&self, context: &Context<'_>, of: &dyn Collective) -> usize {
        let is_small = |path: &Path| {
            DecoderConfig::from_folder(path).is_ok_and(|config| config.parameter_count() <= SMALL_PARAMETERS)
        };
        let alone = of.size() == 1 && context.device == "cpu";
        match context.model("model").is_ok_and(|model| alone && is_small(&model.path)) {
            true => ranks(self.most_ranks(), current_num_threads()),
            false => 1,
        }
    }
}

/// The short figures beside the progress bar.
fn detail(metric: &Metric) -> String {
    let shown = [("loss", metric.loss), ("margin", metric.rewards_margins), ("accuracy", metric.rewards_accuracies)];
    let shown: Vec<String> =
        shown.iter().filter_map(|(name, value)| value.map(|value| format!("{name} {value:.4}"))).collect();
    if shown.is_empty() { "no weight in this batch".to_owned() } else { shown.join(", ") }
}

/// The figures of a training; `held_out` is how many pairs it was evaluated on, `of_steps` the steps of the kept policies
/// where evaluations chose them.
fn figures(outcome: Outcome, objective: &Mixture, log: &Log, held_out: Option<usize>, of_steps: &[u64]) -> Outcome {
    let counters = &log.counters;
    let without_step = counters.without_weight + counters.one_class;
    let mut outcome = outcome
        .figure("objective", objective.title())
        .figure("steps", counters.batches - without_step)
        .figure("tokens", counters.tokens);
    if counters.without_weight > 0 {
        outcome = outcome.figure("batches without weight (no step)", counters.without_weight);
    }
    if counters.one_class > 0 {
        outcome = outcome.figure("batches without chosen or without rejected items (no step)", counters.one_class);
    }
    // One batch says little, and the last one may be small.
    let ends: [(&str, Column); 3] = [
        ("loss", |metric| metric.loss),
        ("rewards/margins", |metric| metric.rewards_margins),
        ("rewards/accuracies", |metric| metric.rewards_accuracies),
    ];
    for (name, of) in ends {
        let values: Vec<f64> = log.metrics.iter().filter_map(of).collect();
        if let (Some((end, steps)), Some(first)) = (kit::end_mean(&values), values.first()) {
            let over = format!("mean of the last {steps} of {} steps", values.len());
            outcome = outcome.figure(&format!("{name}, first step"), *first).figure(&format!("{name}, {over}"), end);
            outcome = outcome.headline(name, end, None, over);
        }
    }
    for (rank, step) in of_steps.iter().enumerate() {
        outcome = outcome.figure(&format!("step of `{}`", best::port(rank)), *step);
    }
    let evaluated = match of_steps.first() {
        Some(step) => log.metrics.iter().find(|metric| metric.step == *step),
        None => log.metrics.last(),
    };
    for (name, value) in [
        ("eval_loss", evaluated.and_then(|metric| metric.eval_loss)),
        ("eval_rewards/accuracies", evaluated.and_then(|metric| metric.eval_rewards_accuracies)),
        ("eval_rewards/margins", evaluated.and_then(|metric| metric.eval_rewards_margins)),
    ] {
        if let Some(value) = value {
            let interval =
                held_out.filter(|_| name == "eval_rewards/accuracies").and_then(|rows| wilson(value, rows as u64));
            let at = of_steps.first().map_or(String::new(), |step| format!("at step {step}, "));
            let rows = held_out.map_or(String::new(), |rows| format!("{at}all {rows} held-out pairs"));
            outcome = outcome.figure(name, value).headline(name, value, interval, rows);
        }
    }
    outcome
}

/// A column of a row of metrics.
type Column = fn(&Metric) -> Option<f64>;
