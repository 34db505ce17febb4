//! The work list: each distinct response once, those of a prompt together, and the comparisons that rest on them.

use std::collections::BTreeMap;
use std::ops::Range;

use kit::rows::{Comparison, Message, Reject};
use kit::{Context, Error, Result, shard_ranges};
use lm::Sequence;
use tokens::SequenceReader;
use tokens::cost::shared_tokens;

use crate::config::Judge;
use crate::judging::reject;
use crate::work::{Unit, WorkList};

/// The tokenizer and template of the reward model, with the stage's rules.
pub(crate) fn reader(stage: &Judge, context: &Context<'_>) -> Result<SequenceReader> {
    let folder = &context.model("reward")?.path;
    SequenceReader::of_reward_model(folder, stage.tokens.text_rules(), stage.tokens.max_tokens)
}

/// A side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    pub(crate) const BOTH: [Side; 2] = [Side::A, Side::B];

    /// The letter in columns and messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::A => "a",
            Side::B => "b",
        }
    }

    /// The ids of its prompt and its response.
    pub(crate) fn ids(self, row: &Comparison) -> (&str, &str) {
        match self {
            Side::A => (&row.a_prompt_id, &row.a_response_id),
            Side::B => (&row.b_prompt_id, &row.b_response_id),
        }
    }

    /// Its prompt and its response.
    pub(crate) fn texts(self, row: &Comparison) -> (&[Message], &[Message]) {
        match self {
            Side::A => (&row.a_prompt, &row.a_response),
            Side::B => (&row.b_prompt, &row.b_response),
        }
    }
}

/// A response to score: the side of a comparison that has its text, and its tokens under its prompt.
pub(crate) struct Scored {
    /// Index in [`RewardWork::comparisons`].
    pub(crate) comparison: usize,
    pub(crate) side: Side,
    pub(crate) sequence: Sequence,
    /// Its number among the responses of its prompt, from 0.
    pub(crate) k: u32,
}

/// A unit of the work list. Those of one prompt stand together.
pub(crate) enum Task {
    Score(Scored),
    Refuse(Reject),
}

/// All that is known before the model is loaded. Exchanging a and b of a comparison changes no sequence and no batch.
pub(crate) struct RewardWork {
    /// The comparisons, with those that are rejected.
    pub(crate) comparisons: Vec<Comparison>,
    /// True for a comparison that gets a verdict.
    pub(crate) kept: Vec<bool>,
    pub(crate) tasks: Vec<Task>,
    /// Lengths of the groups of tasks that shards and batches do not cut.
    groups: Vec<usize>,
    /// Rows read.
    pub(crate) rows: u64,
    /// Comparisons with a response beyond the limit, refused or cut.
    pub(crate) too_long: u64,
}

/// Reason and detail of a response that has no tokens.
type Refused = (String, String);

/// A distinct response as it was first met.
struct Met {
    comparison: usize,
    side: Side,
    tokens: std::result::Result<Sequence, Refused>,
}

impl RewardWork {
    /// Reads the comparisons and tokenises each distinct response.
    ///
    /// # Errors
    /// When they cannot be read, when one response has two texts, or when the rules say to stop.
    pub(crate) fn read(context: &Context<'_>, reader: &SequenceReader) -> Result<RewardWork> {
        let WorkList { units, rows, .. } = WorkList::read(context)?;
        let mut refused: Vec<(String, Reject)> = Vec::new();
        let mut comparisons: Vec<Comparison> = Vec::new();
        let mut group = String::new();
        for unit in units {
            match unit {
                Unit::Judge(row) => {
                    row.a_prompt_id.as_str().min(&row.b_prompt_id).clone_into(&mut group);
                    comparisons.push(*row);
                }
                // It stands beside the row that it repeats.
                Unit::Refuse(reject) => refused.push((group.clone(), reject)),
            }
        }
        let mut met: BTreeMap<(String, String), Met> = BTreeMap::new();
        for (index, row) in comparisons.iter().enumerate() {
            for side in Side::BOTH {
                meet(&mut met, reader, &comparisons, (index, row, side))?;
            }
        }
        let (mut kept, mut too_long) = (Vec::new(), 0);
        for row in &comparisons {
            let group = || row.a_prompt_id.as_str().min(&row.b_prompt_id).to_owned();
            let sides = Side::BOTH.map(|side| (side, &met[&owned(side.ids(row))]));
            let fault = wrong_form(row).or_else(|| {
                sides.iter().find_map(|(side, met)| {
                    let (reason, detail) = met.tokens.as_ref().err()?;
                    Some((reason.clone(), format!("{}: {detail}", side.name())))
                })
            });
            let cut = sides.iter().any(|(_, met)| met.tokens.as_ref().is_ok_and(|sequence| sequence.cut > 0));
            too_long += u64::from(fault.as_ref().map_or(cut, |(reason, _)| reason == "too_long"));
            kept.push(fault.is_none());
            refused.extend(fault.map(|(reason, detail)| (group(), reject(row, reason, detail))));
        }
        let (tasks, groups) = tasks(met, refused);
        Ok(RewardWork { comparisons, kept, tasks, groups, rows, too_long })
    }

    /// The responses to score among some tasks.
    pub(crate) fn scored(&self, tasks: Range<usize>) -> Vec<&Scored> {
        let scored = self.tasks[tasks].iter().filter_map(|task| match task {
            Task::Score(scored) => Some(scored),
            Task::Refuse(_) => None,
        });
        scored.collect()
    }

    /// Ranges of tasks that shards compute.
    pub(crate) fn shards(&self, size: usize) -> Vec<Range<usize>> {
        shard_ranges(self.groups.iter().copied(), size)
    }

    /// A shard in batches of whole prompts with at least `budget` tokens each, so that a signal is heard between them.
    pub(crate) fn batches(&self, shard: Range<usize>, budget: usize) -> Vec<Range<usize>> {
        let mut batches = Vec::new();
        let (mut start, mut end, mut tokens) = (0, 0, 0);
        for length in &self.groups {
            end += length;
            if end > shard.end {
                break;
            }
            if end - length < shard.start {
                start = end;
                continue;
            }
            tokens += self.tokens_of(end - length..end);
            if tokens >= budget {
                batches.push(start..end);
                (start, tokens) = (end, 0);
            }
        }
        if shard.end > start {
            batches.push(start..shard.end);
        }
        batches
    }

    /// Tokens to compute, a prompt once for all its responses.
    pub(crate) fn shared_tokens(&self) -> u64 {
        let mut start = 0;
        let tokens = self.groups.iter().map(|length| {
            start += length;
            self.tokens_of(start - length..start) as u64
        });
        tokens.sum()
    }

    fn tokens_of(&self, tasks: Range<usize>) -> usize {
        shared_tokens(self.scored(tasks).into_iter().map(|scored| scored.sequence.ids.as_slice()))
    }
}

fn owned((prompt, response): (&str, &str)) -> (String, String) {
    (prompt.to_owned(), response.to_owned())
}

/// Notes a side of a comparison, with its tokens where it was not met before.
fn meet(
    met: &mut BTreeMap<(String, String), Met>,
    reader: &SequenceReader,
    comparisons: &[Comparison],
    (comparison, row, side): (usize, &Comparison, Side),
) -> Result<()> {
    let (prompt, response) = side.texts(row);
    if let Some(known) = met.get(&owned(side.ids(row))) {
        if known.side.texts(&comparisons[known.comparison]) != (prompt, response) {
            let (prompt, response) = side.ids(row);
            return Err(Error::data(format!(
                "`comparisons`: prompt `{prompt}` and response `{response}` stand for two different texts; give each text \
                 its own id, or leave the ids out so that they are made from the text"
            )));
        }
        return Ok(());
    }
    let named = format!("comparison `{}`, {}", row.comparison_id, side.name());
    let tokens = reader.response(&named, prompt, response)?;
    let tokens = tokens.map_err(|refusal| (refusal.reason().to_owned(), refusal.to_string()));
    met.insert(owned(side.ids(row)), Met { comparison, side, tokens });
    Ok(())
}

/// Reason and detail where a comparison's form and prompts contradict each other.
fn wrong_form(row: &Comparison) -> Option<Refused> {
    let wrong = row.form != "joint" && row.a_prompt != row.b_prompt;
    wrong.then(|| ("form".to_owned(), format!("its form is `{}` and its sides have different prompts", row.form)))
}

/// The tasks by prompt, responses in the order of their ids before refused comparisons, and the lengths of the groups.
fn tasks(met: BTreeMap<(String, String), Met>, refused: Vec<(String, Reject)>) -> (Vec<Task>, Vec<usize>) {
    let mut by_prompt: BTreeMap<String, Vec<Task>> = BTreeMap::new();
    for ((prompt, _), Met { comparison, side, tokens }) in met {
        if let Ok(sequence) = tokens {
            let group = by_prompt.entry(prompt).or_default();
            let k = group.len() as u32;
            group.push(Task::Score(Scored { comparison, side, sequence, k }));
        }
    }
    for (prompt, reject) in refused {
        by_prompt.entry(prompt).or_default().push(Task::Refuse(reject));
    }
    let groups = by_prompt.values().map(Vec::len).collect();
    (by_prompt.into_values().flatten().collect(), groups)
}
