//! The stage contract of `train`: ports, checks, forecast, run.

use std::path::Path;
use std::sync::Mutex;

use kit::{
    Amount, Context, Error, Finding, Forecast, ForecastInputs, InputPort, Job, Outlook, OutputPort, Rendering, Result,
    Stage, Table,
};
use tokens::kinds;
use tokens::rendering::{Shown, of_rows};

use crate::check::MOST_KEPT;
use crate::checkpoint::Checkpoints;
use crate::config::{Head, Train};
use crate::run::Together;
use crate::{best, forecast, read};

impl Train {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        let plan = self.plan(context)?;
        let done = Checkpoints::open(context).done()?.min(plan.batches);
        let mut notes = vec![match done {
            0 => format!("{} steps", plan.batches),
            _ => format!("{} steps, of which the checkpoint has {done}", plan.batches),
        }];
        if let Some(value) = self.objective.value_at_zero(1.0) {
            notes.push(format!("where policy = reference, the loss at p_hat = 1 is {value:.4}"));
        }
        if let (Some(best), Some(every)) = (&self.best, self.eval_every) {
            let evaluations = plan.batches / every + u64::from(!plan.batches.is_multiple_of(every));
            let name = best.metric.name();
            notes.push(format!("`policy` is the best of {evaluations} evaluations by `{name}`"));
        }
        for dataset in std::iter::once(&plan.dataset).chain(plan.held_out.iter().map(|held_out| &held_out.dataset)) {
            if let (mismatched @ 1.., _) = dataset.mismatched() {
                notes.push(format!("`{}`: {mismatched} sequences whose prompt is not a token prefix", dataset.input));
            }
            notes.extend(dataset.displaced_remark());
            notes.extend(dataset.stopped.remark().map(|text| format!("`{}`: {text}", dataset.input)));
        }
        // All passes have about as many tokens as the first.
        let pass = plan.order.pass(0);
        let tokens: usize = pass.iter().map(|rows| plan.dataset.tokens(rows)).sum();
        let passes = (plan.batches - done) as f64 / pass.len().max(1) as f64;
        Ok(Forecast {
            rows: Amount::exact(plan.dataset.read),
            tokens: Some(Amount::about((tokens as f64 * passes).ceil() as u64)),
            too_long: Some(Amount::exact(plan.dataset.too_long(self.tokens.too_long))),
            notes,
            ..Forecast::default()
        })
    }
}

impl Stage for Train {
    fn version(&self) -> String {
        format!("10+lm{}+objective{}", lm::VERSION, objective::VERSION)
    }

    fn inputs(&self) -> Vec<InputPort> {
        let objective = &self.objective;
        let name = objective.name();
        // A batch that counts the one is no batch of the other.
        let pairs = objective.reads().pairs() && !(self.batch.items.is_some() && objective.reads().items());
        let items = objective.reads().items() && !(self.batch.pairs.is_some() && objective.reads().pairs());
        let mut from = match pairs {
            true => InputPort::new("from", &self.from, Table::Pairs),
            false => InputPort::new("from", &self.from, Table::Items),
        };
        if pairs && items {
            from = from.or(Table::Items);
        }
        if objective.needs_kl() {
            from = from.needs("kl_response").needs("kl_group").fixed_by(
                "put `{kind: pairs, from: ..., write: items, kl_group: 16}` between, which reads `items` too",
            );
        }
        let model = InputPort::new("model", &self.model, Table::Model);
        // A reward model starts from a model of either kind.
        let model = match objective.needs_rewards() {
            true => model.or_gguf(),
            false => kinds::language_model(model, kinds::REWARDS_ELSEWHERE),
        };
        let mut inputs = vec![from, model];
        if let Some(reference) = &self.reference {
            let port =
                InputPort::new("reference", reference, Table::Reference).shares("dtype", self.precision().name());
            let port = port.shares("tokens", self.tokens.setting());
            inputs.push(if !objective.reads_rejected() || objective.needs_rewards() {
                port.idle(format!("`{name}` measures no log-ratio"))
            } else if objective.needs_prompt_part() {
                port.needs("prompt_logp").fixed_by("set `prompt_part: true` in the stage that scores the reference")
            } else {
                port
            });
        }
        if let Some(embeddings) = &self.embeddings {
            let port = InputPort::new("embeddings", embeddings, Table::Embeddings);
            let idle = format!("`{name}` does not weigh by how alike prompts are");
            inputs.push(if objective.needs_similarities() { port } else { port.idle(idle) });
        }
        if let Some(eval_pairs) = &self.eval_pairs {
            let port = InputPort::new("eval_pairs", eval_pairs, Table::Pairs);
            let idle = format!("`{name}` as configured is computed on items, not on pairs");
            inputs.push(if objective.reads().pairs() { port } else { port.idle(idle) });
        }
        for is_adapter in [true, false] {
            if let Some(fault) = self.adapter_fault(is_adapter) {
                let port = inputs.remove(1);
                inputs.insert(1, port.refuses("folder", Train::folder_kind(is_adapter), fault));
            }
        }
        inputs
    }

    fn outputs(&self) -> Vec<OutputPort> {
        let gives = if self.objective.needs_rewards() { lm::REWARD_MODEL } else { lm::LANGUAGE_MODEL };
        let mut outputs = vec![
            OutputPort::named("policy", Table::Model).setting("model", gives),
            OutputPort::new(Table::Metrics),
            OutputPort::new(Table::Steps),
            OutputPort::new(Table::Rejects),
        ];
        let kept = self.best.map_or(1, |best| best.keep.min(MOST_KEPT));
        outputs.extend(
            (1..kept).map(|rank| OutputPort::named(best::port(rank), Table::Model).setting("model", gives).aside()),
        );
        if self.objective.needs_similarities() {
            outputs.push(OutputPort::new(Table::Contrasts));
        }
        if self.has_splits() {
            outputs.push(OutputPort::new(Table::Splits));
        }
        let kind = Train::folder_kind(self.trains_adapter());
        let told = |port: OutputPort| if port.table == Table::Model { port.setting("folder", kind) } else { port };
        outputs.into_iter().map(told).collect()
    }

    fn check(&self) -> Vec<Finding> {
        self.findings()
    }

    fn check_rows(&self, context: &Context<'_>) -> Result<()> {
        ["from", "eval_pairs"].into_iter().try_for_each(|input| {
            let forms = read::forms(context, input)?;
            read::check_forms(&self.objective, forms, self.allow_same_prompt, input)
        })
    }

    fn execution_keys(&self) -> &'static [&'static str] {
        &["checkpoint_every", "checkpoint_minutes", "optimizer.sharded"]
    }

    fn draws(&self) -> bool {
        let head = self.objective.needs_rewards() && self.head != Some(Head::Zeros);
        self.batch.shuffle || self.trains_adapter() || head
    }

    fn check_model(&self, _key: &str, model: &Path) -> Result<Option<String>> {
        let usable = match self.starts_from_reward_model(model)? {
            true => kinds::check_reward_model(model, self.precision(), kinds::REWARDS_ELSEWHERE)?,
            false => kinds::check_language_model(model, self.precision(), kinds::REWARDS_ELSEWHERE)?,
        };
        match self.model_fault(model)? {
            Some(fault) => Err(Error::data(fault)),
            None => Ok(usable.no_messages),
        }
    }

    fn remarks(&self) -> Vec<Finding> {
        self.dtype.remark().map(|text| Finding::at("dtype", text)).into_iter().collect()
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn most_ranks(&self) -> usize {
        self.batch.ranks
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(Ok(forecast::estimate(self, ahead)), |context| self.count(context))
    }

    fn job<'a>(&'a self, _context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(Job::ranked(Together { train: self, plan: Mutex::default() }))
    }

    fn rendered_inputs(&self) -> &'static [&'static str] {
        &["from", "model"]
    }

    fn render(&self, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
        let shown =
            Shown { rejected: self.objective.reads_rejected(), mismatched: self.objective.needs_kl(), labels: true };
        of_rows(context, &self.reader(context)?, rows, shown)
    }
}
