//! The stage contract of `evaluate`: ports, checks, forecast, run.

use std::path::Path;

use kit::rows::{Score, SummaryRow};
use kit::{
    Amount, Context, Error, Finding, Forecast, ForecastInputs, InputPort, Job, Outcome, Outlook, OutputPort, Result,
    Stage, Table,
};
use tokens::kinds;

use crate::config::Evaluate;
use crate::pairs::Pairs;
use crate::summary::Summary;
use crate::{forecast, preference, scores, truth, utility, win_rate};

/// The ways on from a model of the other kind.
const LANGUAGE_INSTEAD: &str =
    "`train` with the objective `reward` makes a reward model of it, other objectives measure it";
const REWARD_INSTEAD: &str = "it is measured with `objective: {name: reward}`";

/// The columns of `scores` that are of reward models, and of policies.
const OF_REWARDS: [&str; 2] = ["chosen_reward", "rejected_reward"];
const OF_POLICIES: [&str; 8] = [
    "policy_chosen_logp",
    "policy_rejected_logp",
    "policy_chosen_prompt_logp",
    "policy_rejected_prompt_logp",
    "reference_chosen_logp",
    "reference_rejected_logp",
    "reference_chosen_prompt_logp",
    "reference_rejected_prompt_logp",
];

impl Evaluate {
    fn compute(&self, context: &Context<'_>) -> Result<Outcome> {
        let mut summary = Summary::default();
        let mut outcome = Outcome::default();
        let mut rejects = Vec::new();
        if self.pairs.is_some() {
            let pairs = Pairs::read(self, context)?;
            if let Some(text) = pairs.stopped.stop(pairs.rows) {
                return Err(Error::Data(format!("`pairs`: {text}")));
            }
            pairs.displaced_remark().into_iter().for_each(|text| context.warn(text));
            if let Some(objective) = &self.objective {
                let checked = objective.check_forms(pairs.forms, true);
                checked.map_err(|text| Error::Pipeline(format!("`pairs`: {text}")))?;
            }
            let scores = scores::score(self, context, &pairs)?;
            preference::summarise(&scores, self.beta(), &mut summary);
            outcome = outcome.balance("pairs", pairs.rows, scores.len() as u64, pairs.rejects.len() as u64);
            rejects = pairs.rejects;
            let mut writer = context.writer::<Score>("scores")?;
            writer.extend(scores)?;
            writer.finish()?;
        }
        if let (Some(_), Some(ties)) = (&self.verdicts, self.ties) {
            outcome = win_rate::summarise(self, context, ties, &mut summary, &mut rejects, outcome)?;
        }
        if self.truth.is_some() {
            outcome = truth::summarise(context, &mut summary, outcome)?;
        }
        if self.utilities.is_some() {
            outcome = utility::summarise(context, &self.utility_names, &mut summary, outcome)?;
        }
        for row in &summary.rows {
            outcome = outcome.figure(&row.metric, (row.value * 1e6).round() / 1e6);
        }
        for row in summary.headlines() {
            let note = row.note.split(';').next().unwrap_or_default();
            outcome = outcome.headline(&row.metric, row.value, row.low.zip(row.high), note);
        }
        let mut writer = context.writer::<SummaryRow>("summary")?;
        writer.extend(summary.rows)?;
        writer.finish()?;
        context.write_rejects(rejects)?;
        Ok(outcome)
    }
}

impl Evaluate {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        let tables = context.count_rows_of(&["verdicts", "truth", "utilities"])?;
        if self.pairs.is_none() {
            return Ok(Forecast::of_rows(Amount::exact(tables)));
        }
        let pairs = Pairs::read(self, context)?;
        let mut notes = vec!["sequences share their prompts, so fewer tokens are computed".to_owned()];
        notes.extend(pairs.displaced_remark());
        notes.extend(pairs.stopped.remark());
        let tokens: u64 = pairs.sides().map(|side| side.sequence.ids.len() as u64).sum();
        let models = self.models(context.table_of("reference"));
        Ok(Forecast {
            rows: Amount::exact(pairs.rows + tables),
            tokens: Some(Amount::at_most(tokens * models)),
            too_long: Some(Amount::exact(pairs.too_long)),
            notes,
            ..Forecast::default()
        })
    }
}

impl Stage for Evaluate {
    fn version(&self) -> String {
        format!("8+lm{}+objective{}", lm::VERSION, objective::VERSION)
    }

    fn inputs(&self) -> Vec<InputPort> {
        let mut inputs = Vec::new();
        inputs.extend(self.pairs.iter().map(|from| InputPort::new("pairs", from, Table::Pairs)));
        inputs.extend(self.model.iter().map(|from| {
            let input = InputPort::new("model", from, Table::Model);
            match self.of_rewards() {
                true => kinds::reward_model(input, LANGUAGE_INSTEAD),
                false => kinds::language_model(input, REWARD_INSTEAD),
            }
        }));
        inputs.extend(self.reference.iter().map(|from| {
            if self.of_rewards() {
                let input = InputPort::new("reference", from, Table::Reference).or(Table::Model);
                return input.idle("`reward` measures no log-ratio");
            }
            let input = InputPort::new("reference", from, Table::Reference).or(Table::Model);
            let input = kinds::language_model(input, "leave `reference` out with the objective `reward`");
            let input = input.shares("dtype", self.precision().name()).shares("tokens", self.tokens.setting());
            let fix = "set `prompt_part: true` in the stage that scores the reference";
            if self.prompt_part() { input.needs("prompt_logp").fixed_by(fix) } else { input }
        }));
        inputs.extend(self.verdicts.iter().map(|from| InputPort::new("verdicts", from, Table::Verdicts)));
        inputs.extend(self.baseline.iter().map(|from| InputPort::new("baseline", from, Table::Responses)));
        inputs.extend(self.undecided.iter().map(|from| InputPort::new("undecided", from, Table::Rejects)));
        inputs.extend(self.truth.iter().map(|from| InputPort::new("truth", from, Table::Truth)));
        inputs.extend(self.utilities.iter().map(|from| InputPort::new("utilities", from, Table::Utilities)));
        inputs
    }

    fn outputs(&self) -> Vec<OutputPort> {
        let mut outputs = vec![OutputPort::new(Table::Summary), OutputPort::new(Table::Rejects)];
        if self.pairs.is_some() {
            let without: &[_] = if self.of_rewards() { &OF_POLICIES } else { &OF_REWARDS };
            outputs.insert(0, without.iter().fold(OutputPort::new(Table::Scores), |port, name| port.without(name)));
        }
        outputs
    }

    fn check(&self) -> Vec<Finding> {
        self.findings()
    }

    fn idle_keys(&self) -> Vec<Finding> {
        self.without_effect()
    }

    fn draws(&self) -> bool {
        self.bootstrap.is_some()
    }

    fn check_model(&self, _key: &str, model: &Path) -> Result<Option<String>> {
        let usable = match self.of_rewards() {
            true => kinds::check_reward_model(model, self.precision(), LANGUAGE_INSTEAD)?,
            false => kinds::check_language_model(model, self.precision(), REWARD_INSTEAD)?,
        };
        Ok(usable.no_messages)
    }

    fn remarks(&self) -> Vec<Finding> {
        self.dtype.remark().map(|text| Finding::at("dtype", text)).into_iter().collect()
    }

    fn needs_device(&self) -> bool {
        self.pairs.is_some()
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(Ok(forecast::estimate(self, ahead)), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(Job::whole(move || self.compute(context)))
    }
}
