//! The work list: each distinct sequence once, grouped by prompt, and the rows that were refused.

use std::collections::BTreeMap;
use std::ops::Range;

use kit::rows::{Item, Message, Pair, Reject};
use kit::{Context, Error, Result, Table, ids, shard_ranges};
use lm::{Displaced, Sequence, TooLong};
use tokens::cost::shared_tokens;
use tokens::rendering::displaced_remark;
use tokens::{DatasetRow, ItemSequences, Mismatched, RefusedRow, SequenceKey, SequenceReader};

/// The sequences of one row, scored together. Units of one prompt stand next to each other.
pub(crate) struct Unit {
    /// The group: shards and batches do not cut it.
    pub(crate) prompt_id: String,
    pub(crate) task: Task,
}

pub(crate) enum Task {
    Score { response_id: String, sequence: Sequence },
    Refuse(Reject),
}

#[derive(Default)]
pub(crate) struct Counts {
    /// Rows refused because they are too long, and sequences cut for it.
    pub(crate) too_long: u64,
    /// Distinct sequences that lost tokens on the left.
    pub(crate) cut: u64,
    /// Distinct sequences with special-token text that was encoded as ordinary text.
    pub(crate) escaped: u64,
    /// Distinct sequences whose tokenised prompt is not a prefix of the whole.
    pub(crate) mismatched: u64,
    /// Distinct sequences whose prompt the template writes in another way when an answer follows.
    pub(crate) displaced: u64,
}

pub(crate) struct WorkList {
    pub(crate) units: Vec<Unit>,
    /// Rows read.
    pub(crate) rows: u64,
    pub(crate) counts: Counts,
    /// Rows at which the stage stops.
    pub(crate) stopped: Displaced,
}

impl WorkList {
    /// Reads and tokenises the rows of `from`.
    pub(crate) fn read(context: &Context<'_>, reader: &SequenceReader) -> Result<WorkList> {
        let mut builder = Builder {
            reader,
            distinct: BTreeMap::new(),
            texts: BTreeMap::new(),
            refused: Vec::new(),
            stopped: Displaced::default(),
        };
        let mut rows = 0;
        match context.table_of("from") {
            Some(Table::Items) => {
                for row in context.rows::<Item>("from")? {
                    rows += 1;
                    builder.item(&row?)?;
                }
            }
            _ => {
                for row in context.rows::<Pair>("from")? {
                    rows += 1;
                    builder.pair(&row?)?;
                }
            }
        }
        Ok(builder.finish(rows))
    }

    /// A remark on prompts that the template writes in another way when an answer follows; none where there are none.
    pub(crate) fn displaced_remark(&self) -> Option<String> {
        displaced_remark(self.counts.displaced)
    }

    /// Distinct sequences to score.
    pub(crate) fn sequences(&self) -> usize {
        self.units.iter().filter(|unit| matches!(unit.task, Task::Score { .. })).count()
    }

    /// Tokens to compute when every shared prefix of one prompt's sequences is computed once.
    pub(crate) fn shared_tokens(&self) -> u64 {
        self.groups(0..self.units.len()).into_iter().map(|group| self.tokens_of(group) as u64).sum()
    }

    /// Ranges of units that shards compute.
    pub(crate) fn shards(&self, size: usize) -> Vec<Range<usize>> {
        shard_ranges(self.groups(0..self.units.len()).into_iter().map(|group| group.len()), size)
    }

    /// Cuts a shard into batches of whole groups with at least `budget` tokens each, so that a signal is heard
    /// between them.
    pub(crate) fn batches(&self, shard: Range<usize>, budget: usize) -> Vec<Range<usize>> {
        let mut batches = Vec::new();
        let (mut start, mut end, mut tokens) = (shard.start, shard.start, 0);
        for group in self.groups(shard) {
            end = group.end;
            tokens += self.tokens_of(group);
            if tokens >= budget {
                batches.push(start..end);
                (start, tokens) = (end, 0);
            }
        }
        if end > start {
            batches.push(start..end);
        }
        batches
    }

    /// Tokens of some units, shared beginnings counted once.
    fn tokens_of(&self, units: Range<usize>) -> usize {
        shared_tokens(self.units[units].iter().filter_map(|unit| match &unit.task {
            Task::Score { sequence, .. } => Some(sequence.ids.as_slice()),
            Task::Refuse(_) => None,
        }))
    }

    fn groups(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let mut groups: Vec<Range<usize>> = Vec::new();
        for index in range {
            match groups.last_mut() {
                Some(group) if self.units[group.start].prompt_id == self.units[index].prompt_id => {
                    group.end = index + 1;
                }
                _ => groups.push(index..index + 1),
            }
        }
        groups
    }
}

struct Builder<'a> {
    reader: &'a SequenceReader,
    distinct: BTreeMap<SequenceKey, Sequence>,
    /// Digest of both texts, by (prompt id, response id).
    texts: BTreeMap<(String, String), String>,
    refused: Vec<(String, Reject)>,
    stopped: Displaced,
}

impl Builder<'_> {
    fn pair(&mut self, row: &Pair) -> Result<()> {
        match self.reader.pair(row)? {
            Ok([chosen, rejected]) => {
                self.add((&row.chosen_prompt_id, &row.chosen_response_id), (&row.chosen_prompt, &row.chosen), chosen)?;
                let texts = (&*row.rejected_prompt, &*row.rejected);
                self.add((&row.rejected_prompt_id, &row.rejected_response_id), texts, rejected)
            }
            Err(refused) => {
                self.refuse(&row.chosen_prompt_id, row, &refused);
                Ok(())
            }
        }
    }

    fn item(&mut self, row: &Item) -> Result<()> {
        match self.reader.item(row, true)? {
            Ok(ItemSequences { response, mismatched }) => {
                if let Some(Mismatched { response_id, message, sequence }) = mismatched {
                    let texts = (&*row.prompt, std::slice::from_ref(&message));
                    self.add((&row.prompt_id, &response_id), texts, sequence)?;
                }
                self.add((&row.prompt_id, &row.response_id), (&row.prompt, &row.response), response)
            }
            Err(refused) => {
                self.refuse(&row.prompt_id, row, &refused);
                Ok(())
            }
        }
    }

    fn add(
        &mut self,
        (prompt_id, response_id): (&str, &str),
        (prompt, response): (&[Message], &[Message]),
        sequence: Sequence,
    ) -> Result<()> {
        let said = ids::response_id(&ids::prompt_id(prompt), response);
        let known = self.texts.entry((prompt_id.to_owned(), response_id.to_owned())).or_insert_with(|| said.clone());
        if *known != said {
            return Err(Error::data(format!(
                "`from`: prompt `{prompt_id}` and response `{response_id}` stand for two different texts; give each \
                 text its own id, or leave the ids out so that they are made from the text"
            )));
        }
        let key = SequenceKey::of(prompt_id, response_id, &sequence);
        self.distinct.entry(key).or_insert(sequence);
        Ok(())
    }

    fn refuse<R: DatasetRow>(&mut self, prompt_id: &str, row: &R, refused: &RefusedRow) {
        self.stopped.note(&refused.named(row), &refused.refusal);
        self.refused.push((prompt_id.to_owned(), row.reject("from", refused.reason(), refused.detail())));
    }

    fn finish(self, rows: u64) -> WorkList {
        let mut counts = Counts::default();
        for sequence in self.distinct.values() {
            counts.cut += u64::from(sequence.cut > 0);
            counts.escaped += u64::from(sequence.escaped > 0);
            counts.mismatched += u64::from(sequence.start < sequence.prompt_tokens);
            counts.displaced += u64::from(sequence.displaced);
        }
        let too_long = |(_, reject): &&(String, Reject)| reject.reason == "too_long";
        counts.too_long = match self.reader.rules.too_long {
            TooLong::CutLeft => counts.cut,
            TooLong::Reject | TooLong::Error => self.refused.iter().filter(too_long).count() as u64,
        };
        let scored = self.distinct.into_iter().map(|(key, sequence)| Unit {
            prompt_id: key.prompt_id,
            task: Task::Score { response_id: key.response_id, sequence },
        });
        let refused =
            self.refused.into_iter().map(|(prompt_id, reject)| Unit { prompt_id, task: Task::Refuse(reject) });
        let mut units: Vec<Unit> = scored.chain(refused).collect();
        // The sort is stable: within a prompt the sequences keep the order of their keys, the refused rows theirs.
        units.sort_by(|a, b| a.prompt_id.cmp(&b.prompt_id));
        WorkList { units, rows, counts, stopped: self.stopped }
    }
}
