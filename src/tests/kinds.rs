//! Small stage kinds: one that writes rows in shards, some that read them.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use kit::rows::{Message, Prompt, Reject};
use kit::{
    Amount, Context, Error, Event, Finding, Forecast, ForecastInputs, Input, InputPort, Job, Kind, Outcome, Outlook,
    OutputPort, Result, ShardOutput, Sharded, Stage, Table, complete_port, shard_ranges,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const KINDS: &[Kind] = &[
    Kind::of::<Count>("count", "writes numbered prompts"),
    Kind::of::<Shout>("shout", "reads prompts and adds to them"),
    Kind::of::<Twins>("twins", "writes two tables of one kind"),
    Kind::of::<Misbehave>("misbehave", "does what a stage must not do"),
];

/// Lets `count` give other bytes, to see a forced attempt differ.
pub static UNSTABLE: AtomicBool = AtomicBool::new(false);

/// Writes numbered prompts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// Number of rows.
    pub rows: u64,
    /// The first number.
    #[serde(default)]
    pub start: u64,
    /// Stops after this many shards, as a signal would.
    #[serde(default)]
    pub stop_after: Option<u64>,
    /// Only how the work is done.
    #[serde(default)]
    pub threads: u32,
    /// A file whose content counts.
    #[serde(default)]
    pub note: Option<std::path::PathBuf>,
    /// True where that file is written to while the stage runs.
    #[serde(default)]
    pub rewrites_note: bool,
    /// True where the seed counts.
    #[serde(default)]
    pub draws: bool,
    /// True where its bytes change from run to run.
    #[serde(default)]
    pub unstable: bool,
}

impl Count {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, _: &Context<'_>) -> Result<Forecast> {
        Ok(Forecast::of_rows(Amount::exact(self.rows)))
    }
}

impl Stage for Count {
    fn version(&self) -> String {
        "1".to_owned()
    }

    fn inputs(&self) -> Vec<InputPort> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<OutputPort> {
        vec![OutputPort::new(Table::Prompts).without("source_file"), OutputPort::new(Table::Rejects)]
    }

    fn check(&self) -> Vec<Finding> {
        match self.rows {
            0 => vec![Finding::at("rows", "`rows` has to be above 0")],
            _ => Vec::new(),
        }
    }

    fn execution_keys(&self) -> &'static [&'static str] {
        &["threads", "stop_after", "rewrites_note"]
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        self.note.iter().cloned().collect()
    }

    fn draws(&self) -> bool {
        self.draws
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(Ok(Outlook::default()), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        if let Some(note) = self.note.as_ref().filter(|_| self.rewrites_note) {
            std::fs::write(note, "two").unwrap();
        }
        Ok(Job::sharded(Writing { rows: self, context }))
    }
}

/// The rows of [`Count`] in shards of four.
struct Writing<'a> {
    rows: &'a Count,
    context: &'a Context<'a>,
}

impl Sharded for Writing<'_> {
    fn unit(&self) -> &'static str {
        "rows"
    }

    fn shards(&self) -> Vec<Range<usize>> {
        shard_ranges((0..self.rows.rows).map(|_| 1), 4)
    }

    fn compute(&mut self, range: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
        let Writing { rows, context } = self;
        if rows.stop_after.is_some_and(|shards| range.start as u64 >= 4 * shards) {
            return Err(Error::Interrupted);
        }
        let draw = if rows.draws { context.seed.0 } else { 0 };
        let other = u64::from(rows.unstable && UNSTABLE.load(Ordering::SeqCst));
        let rows: Vec<Prompt> = range.map(|row| prompt(rows.start + draw + other + row as u64)).collect();
        output.write("prompts", &rows)
    }

    fn finish(&mut self, _: u64) -> Result<Outcome> {
        complete_port::<Prompt>(self.context, "prompts")?;
        Ok(Outcome::default().figure("rows", self.rows.rows))
    }
}

fn prompt(number: u64) -> Prompt {
    Prompt {
        prompt_id: format!("p{number:06}"),
        messages: vec![Message::new("user", format!("say {number}"))],
        source_file: None,
        source_line: None,
    }
}

/// Reads prompts and adds to them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shout {
    /// The prompts.
    pub from: Input,
    /// The column that is added.
    pub how: How,
    /// Read only with `how: {name: extra}`.
    #[serde(default)]
    pub extra: Option<Input>,
    /// Rejects rows whose id ends so.
    #[serde(default)]
    pub drop: Option<String>,
    /// True where it needs to know where a row came from.
    #[serde(default)]
    pub sources: bool,
    /// True where it holds a model.
    #[serde(default)]
    pub device: bool,
}

/// The column that is added.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum How {
    /// Exclamation marks.
    Loud {
        /// Number of marks.
        marks: f64,
    },
    /// The number of extra prompts.
    Extra {
        /// Times this.
        factor: u64,
    },
}

impl Shout {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        Ok(Forecast::of_rows(Amount::exact(context.rows::<Prompt>("from")?.count() as u64)))
    }
}

impl Stage for Shout {
    fn version(&self) -> String {
        "1".to_owned()
    }

    fn inputs(&self) -> Vec<InputPort> {
        let mut from = InputPort::new("from", &self.from, Table::Prompts);
        if self.sources {
            from = from.needs("source_file");
        }
        let mut inputs = vec![from];
        if let Some(extra) = &self.extra {
            let port = InputPort::new("extra", extra, Table::Prompts);
            inputs.push(match self.how {
                How::Extra { .. } => port,
                How::Loud { .. } => port.idle("`loud` does not look at it"),
            });
        }
        inputs
    }

    fn outputs(&self) -> Vec<OutputPort> {
        vec![OutputPort::new(Table::Prompts), OutputPort::new(Table::Rejects)]
    }

    fn check(&self) -> Vec<Finding> {
        match self.how {
            How::Loud { marks } if marks < 0.0 => vec![Finding::at("how.marks", "`marks` is below 0")],
            _ => Vec::new(),
        }
    }

    fn needs_device(&self) -> bool {
        self.device
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(Ok(Outlook::default()), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(Job::whole(move || {
            let added = match self.how {
                How::Loud { marks } => "!".repeat(marks as usize),
                How::Extra { factor } => (factor * context.rows::<Prompt>("extra")?.count() as u64).to_string(),
            };
            let mut writer = context.writer::<Prompt>("prompts")?;
            let mut rejects = Vec::new();
            let (mut read, mut kept) = (0, 0);
            for row in context.rows::<Prompt>("from")? {
                let mut row = row?;
                read += 1;
                if self.drop.as_ref().is_some_and(|end| row.prompt_id.ends_with(end)) {
                    rejects.push(reject(&row.prompt_id));
                    continue;
                }
                kept += 1;
                row.messages[0].content.push_str(&added);
                writer.push(row)?;
            }
            writer.finish()?;
            let rejected = rejects.len() as u64;
            context.write_rejects(rejects)?;
            context.emit(Event::Noted { text: format!("added {added}") });
            Ok(Outcome::default().balance("from", read, kept, rejected))
        }))
    }
}

fn reject(id: &str) -> Reject {
    Reject {
        input: "from".to_owned(),
        row_id: id.to_owned(),
        reason: "dropped".to_owned(),
        detail: "its id ends so".to_owned(),
        source_file: None,
        source_line: None,
    }
}

/// Two tables of one kind, so that the plain name of the stage can mean either.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Twins {}

impl Twins {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, _: &Context<'_>) -> Result<Forecast> {
        Ok(Forecast::default())
    }
}

impl Stage for Twins {
    fn version(&self) -> String {
        "1".to_owned()
    }

    fn inputs(&self) -> Vec<InputPort> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<OutputPort> {
        vec![
            OutputPort::named("left", Table::Prompts),
            OutputPort::named("right", Table::Prompts),
            OutputPort::new(Table::Pairs),
        ]
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(Ok(Outlook::default()), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(Job::whole(move || {
            for port in ["left", "right"] {
                complete_port::<Prompt>(context, port)?;
            }
            complete_port::<kit::rows::Pair>(context, "pairs")?;
            Ok(Outcome::default())
        }))
    }
}

/// Does what a stage must not do.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Misbehave {
    /// The misdeed.
    pub by: Misdeed,
}

/// Ways in which a stage breaks its contract or fails.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Misdeed {
    /// It panics.
    Panicking,
    /// It says it read more rows than it kept and rejected.
    LosingRows,
    /// It leaves out an output.
    ForgettingAnOutput,
    /// It writes a folder that is no output.
    Littering,
    /// It finds bad data.
    BadData,
    /// The disk is full.
    FullDisk,
    /// A service is away.
    Unreachable,
}

impl Misbehave {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, _: &Context<'_>) -> Result<Forecast> {
        Ok(Forecast::default())
    }
}

impl Stage for Misbehave {
    fn version(&self) -> String {
        "1".to_owned()
    }

    fn inputs(&self) -> Vec<InputPort> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<OutputPort> {
        vec![OutputPort::new(Table::Prompts), OutputPort::new(Table::Rejects)]
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(Ok(Outlook::default()), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(Job::whole(move || {
            complete_port::<Prompt>(context, "prompts")?;
            let outcome = Outcome::default();
            match self.by {
                Misdeed::ForgettingAnOutput => return Ok(outcome),
                Misdeed::Panicking => panic!("on purpose"),
                Misdeed::BadData => return Err(Error::data("data.jsonl:3: column `x`: broken")),
                Misdeed::Unreachable => return Err(Error::Unreachable("no answer".to_owned())),
                Misdeed::FullDisk => {
                    let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
                    return Err(Error::Io { path: context.port("prompts"), source });
                }
                Misdeed::Littering => complete_port::<Prompt>(context, "litter")?,
                Misdeed::LosingRows => {}
            }
            complete_port::<Reject>(context, "rejects")?;
            Ok(outcome.balance("from", 3, 2, 0))
        }))
    }
}
