//! The stage contract of `judge`: ports, checks, forecast, run.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use endpoint::{EXECUTION_KEYS, Endpoint, Protocol, SENT_KEYS};
use kit::{
    Amount, Context, Error, Finding, Forecast, ForecastInputs, InputPort, Job, Outlook, OutputPort, Rendering, Result,
    Stage, Table,
};
use tokens::kinds;

use crate::answering::Answering;
use crate::config::{Judge, Orders};
use crate::judging::Judging;
use crate::local::Local;
use crate::modes::Mode;
use crate::protocol::OneToken;
use crate::rated::Rated;
use crate::remote::Remote;
use crate::remote_rated::RemoteRated;
use crate::remote_texts::RemoteTexts;
use crate::template::{Form, Template};
use crate::work::{Questions, Wording, WorkList};
use crate::{counting, forecast, rendering, reward};

/// The keys that change how the judge is asked and not what it says.
static JUDGE_EXECUTION_KEYS: LazyLock<Vec<&str>> =
    LazyLock::new(|| [&["max_low_mass"], EXECUTION_KEYS.as_slice()].concat());

/// The ways on from a model of the other kind.
const LANGUAGE_INSTEAD: &str =
    "it judges as `model` with a `template`, and `train` with the objective `reward` makes a reward model of it";
const REWARD_INSTEAD: &str = "give it as `reward`, without `model` and the keys of the question";

/// The columns of log-probs and orders.
const LOG_PROBS: [&str; 6] = ["ab_logp_a", "ab_logp_b", "ab_mass", "ba_logp_a", "ba_logp_b", "ba_mass"];
const OF_ORDERS: [&str; 3] = ["ab_p", "ba_p", "position_gap"];

impl Judge {
    fn forecast_remotely(&self, endpoint: &Endpoint, work: &WorkList, wording: &Wording) -> Result<Forecast> {
        let requests = work.comparisons().count() as u64 * self.order_count();
        let protocol = OneToken::new(endpoint, &self.labels);
        let questions = work.comparisons().flat_map(|row| match wording.word(row) {
            Ok(Ok(worded)) => worded.questions().map(|text| Ok(text.to_owned())).collect(),
            Ok(Err(_)) => Vec::new(),
            Err(error) => vec![Err(error)],
        });
        let cost = endpoint.cost_of(&protocol, questions)?;
        Ok(Forecast {
            rows: Amount::exact(work.rows),
            requests: Some(Amount::at_most(requests)),
            notes: std::iter::once(endpoint.destination(OneToken::PATH)).chain(cost).collect(),
            ..Forecast::default()
        })
    }
}

impl Judge {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        if self.reward.is_some() {
            return reward::count(self, context);
        }
        let work = WorkList::read(context)?;
        if let Mode::Rating(rating) = self.mode() {
            return counting::ratings(self, rating, context, &work);
        }
        let wording = Wording::open(self)?;
        if self.writing().is_some() {
            return counting::texts(self, context, &work, &wording);
        }
        if let Some(endpoint) = &self.endpoint {
            return self.forecast_remotely(endpoint, &work, &wording);
        }
        let questions = Questions::open(self, context, wording)?;
        let (mut tokens, mut too_long) = (0, 0);
        for comparison in work.comparisons() {
            match questions.ask(comparison)? {
                Ok(asked) => {
                    tokens += asked.shared_tokens() as u64;
                    too_long += u64::from(asked.cut());
                }
                Err(refusal) => too_long += u64::from(refusal.0 == "too_long"),
            }
        }
        Ok(Forecast {
            rows: Amount::exact(work.rows),
            tokens: Some(Amount::at_most(tokens)),
            too_long: Some(Amount::exact(too_long)),
            notes: vec![
                "questions share more tokens than counted where comparisons have a prompt in common".to_owned(),
            ],
            ..Forecast::default()
        })
    }
}

impl Stage for Judge {
    fn version(&self) -> String {
        format!("5+lm{}", lm::VERSION)
    }

    fn inputs(&self) -> Vec<InputPort> {
        let mut inputs = vec![InputPort::new("comparisons", &self.comparisons, Table::Comparisons)];
        let model = |model| kinds::language_model(InputPort::new("model", model, Table::Model), REWARD_INSTEAD);
        inputs.extend(self.model.iter().map(model));
        let reward = |model| kinds::reward_model(InputPort::new("reward", model, Table::Model), LANGUAGE_INSTEAD);
        inputs.extend(self.reward.iter().map(reward));
        inputs
    }

    fn outputs(&self) -> Vec<OutputPort> {
        if self.reward.is_some() {
            return reward::outputs();
        }
        let (mut without, mut evidence) = (Vec::new(), None);
        match self.mode() {
            Mode::Labels => {}
            Mode::Rating(_) => {
                without.extend(LOG_PROBS.iter().chain(&OF_ORDERS));
                evidence = Some(Table::Ratings);
            }
            Mode::Reasoning(_) => {
                without.extend(&LOG_PROBS);
                evidence = Some(Table::Answers);
            }
            Mode::Rationale(_) => evidence = Some(Table::Answers),
        }
        if self.orders == Orders::One {
            without.extend(["ba_logp_a", "ba_logp_b", "ba_mass", "ba_p", "position_gap"]);
        }
        if self.endpoint.is_none() || evidence.is_some() {
            without.push("bounded");
        }
        without.sort_unstable();
        without.dedup();
        let mut ports = vec![without.into_iter().fold(OutputPort::new(Table::Verdicts), OutputPort::without)];
        ports.extend(evidence.map(OutputPort::new));
        ports.extend([OutputPort::new(Table::Summary), OutputPort::new(Table::Rejects)]);
        ports
    }

    fn check(&self) -> Vec<Finding> {
        self.findings()
    }

    fn idle_keys(&self) -> Vec<Finding> {
        self.without_effect()
    }

    fn execution_keys(&self) -> &'static [&'static str] {
        &JUDGE_EXECUTION_KEYS
    }

    fn sent_keys(&self) -> &'static [&'static str] {
        SENT_KEYS
    }

    fn files(&self) -> Vec<PathBuf> {
        self.templates().filter_map(|(_, name, _)| Template::file(name)).collect()
    }

    fn check_model(&self, key: &str, model: &Path) -> Result<Option<String>> {
        if key == "reward" {
            return kinds::check_reward_model(model, self.precision(), LANGUAGE_INSTEAD)
                .map(|usable| usable.no_messages);
        }
        let usable = kinds::check_language_model(model, self.precision(), REWARD_INSTEAD)?;
        // Every question is a message under the chat template.
        if let Some(text) = usable.no_messages.filter(|_| self.form == Form::Chat) {
            return Err(Error::data(text));
        }
        self.check_labels(model).map(|()| None)
    }

    fn draws(&self) -> bool {
        // An endpoint draws by itself.
        self.endpoint.is_none() && self.writing().is_some_and(|(_, rules)| rules.temperature > 0.0)
    }

    fn remarks(&self) -> Vec<Finding> {
        let dtype = self.dtype.remark().map(|text| Finding::at("dtype", text));
        dtype.into_iter().chain(self.endpoint.as_ref().and_then(Endpoint::unset_key)).collect()
    }

    fn needs_device(&self) -> bool {
        self.endpoint.is_none()
    }

    fn is_row_wise(&self) -> bool {
        self.needs_device()
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        let estimate = match self.reward {
            Some(_) => Ok(reward::estimate(self, ahead)),
            None => forecast::estimate(self, ahead),
        };
        ahead.counted(estimate, |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        if self.reward.is_some() {
            return Ok(Job::sharded(reward::Scoring::new(self, context)?));
        }
        if let Mode::Rating(rating) = self.mode() {
            return Ok(match &self.endpoint {
                Some(endpoint) => Job::sharded(RemoteRated::new(self, rating, endpoint, context)?),
                None => Job::sharded(Rated::new(self, rating, context)?),
            });
        }
        let wording = Wording::open(self)?;
        if self.writing().is_some() && self.endpoint.is_none() {
            return Ok(Job::sharded(Answering::new(self, context, wording)?));
        }
        let judging = Judging::new(self, context, &wording)?;
        if let (Mode::Reasoning(reasoning), Some(endpoint)) = (self.mode(), &self.endpoint) {
            return Ok(Job::sharded(RemoteTexts::new(judging, endpoint, wording, reasoning)?));
        }
        Ok(match &self.endpoint {
            Some(endpoint) => Job::sharded(Remote::new(judging, endpoint, wording)),
            None => Job::sharded(Local::new(judging, wording)?),
        })
    }

    fn rendered_inputs(&self) -> &'static [&'static str] {
        if self.reward.is_some() { &["comparisons", "reward"] } else { &["comparisons", "model"] }
    }

    fn render(&self, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
        match self.reward {
            Some(_) => reward::render(self, context, rows),
            None => rendering::render(self, context, rows),
        }
    }
}
