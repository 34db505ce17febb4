//! The work list: each distinct sequence once, grouped by prompt, and the rows that were refused.

use std::collections::BTreeMap;
use std::ops::Range;

use kit::rows::{Item, Message, Pair, Reject};
use kit::{Context, Error, Result, Table, ids, shard_ranges};
use lm::{Displaced, Refusal, Sequence, Text, TextRules, TooLong, Turn};

use crate::lm_error;

/// What one shard entry does. Units of one prompt stand together.
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

impl Counts {
    /// What there is to say of prompts that the template writes in another way when an answer follows.
    pub(crate) fn displaced_remark(&self) -> Option<String> {
        let text = "whose prompt the chat template writes in another way when an answer follows; look at some with \
                    `halftone render`";
        (self.displaced > 0).then(|| format!("{} sequences {text}", self.displaced))
    }
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
    pub(crate) fn read(context: &Context<'_>, text: &Text, rules: &TextRules, limit: usize) -> Result<WorkList> {
        let mut builder = Builder {
            text,
            rules,
            limit,
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

    /// Distinct sequences to score.
    pub(crate) fn sequences(&self) -> usize {
        self.units.iter().filter(|unit| matches!(unit.task, Task::Score { .. })).count()
    }

    /// Tokens to compute when every shared prefix of one prompt's sequences is computed once.
    pub(crate) fn shared_tokens(&self) -> u64 {
        self.groups(0..self.units.len()).into_iter().map(|group| shared_tokens(&self.units[group]) as u64).sum()
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
            tokens += shared_tokens(&self.units[group]);
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

/// Tokens of the trie over some sequences: in lexical order, each adds what it does not share with its predecessor.
fn shared_tokens(units: &[Unit]) -> usize {
    let mut sequences: Vec<&[u32]> = units
        .iter()
        .filter_map(|unit| match &unit.task {
            Task::Score { sequence, .. } => Some(sequence.ids.as_slice()),
            Task::Refuse(_) => None,
        })
        .collect();
    sequences.sort_unstable();
    let mut before: &[u32] = &[];
    let mut tokens = 0;
    for sequence in sequences {
        let shared = before.iter().zip(sequence).take_while(|(a, b)| a == b).count();
        tokens += sequence.len() - shared;
        before = sequence;
    }
    tokens
}

/// What makes a sequence distinct: prompt, response, first completion token, length. The same response has another
/// start where its pair tokenises with a shorter common prefix, and another length where its pair was cut.
type Key = (String, String, usize, usize);

struct Builder<'a> {
    text: &'a Text,
    rules: &'a TextRules,
    limit: usize,
    distinct: BTreeMap<Key, Sequence>,
    /// What each (prompt id, response id) stands for, as a digest of both texts.
    texts: BTreeMap<(String, String), String>,
    refused: Vec<(String, Reject)>,
    stopped: Displaced,
}

impl Builder<'_> {
    fn pair(&mut self, row: &Pair) -> Result<()> {
        let chosen = (&*turns(&row.chosen_prompt), &*turns(&row.chosen));
        let rejected = (&*turns(&row.rejected_prompt), &*turns(&row.rejected));
        let tokenised = self.text.pair(chosen, rejected, self.rules, self.limit);
        match tokenised.map_err(|error| of_row("pair", &row.pair_id, error))? {
            Ok((chosen, rejected)) => {
                self.add((&row.chosen_prompt_id, &row.chosen_response_id), (&row.chosen_prompt, &row.chosen), chosen)?;
                let texts = (&*row.rejected_prompt, &*row.rejected);
                self.add((&row.rejected_prompt_id, &row.rejected_response_id), texts, rejected)
            }
            Err(refusal) => {
                let source = (&row.source_file, row.source_line);
                self.stopped.note(&format!("pair `{}`", row.pair_id), &refusal);
                self.refuse(&row.chosen_prompt_id, &row.pair_id, source, &refusal, "");
                Ok(())
            }
        }
    }

    fn item(&mut self, row: &Item) -> Result<()> {
        let prompt = turns(&row.prompt);
        let source = (&row.source_file, row.source_line);
        let single = |response: &[Message]| {
            self.text
                .single(&prompt, &turns(response), self.rules, self.limit)
                .map_err(|error| of_row("item", &row.item_id, error))
        };
        let sequence = match single(&row.response)? {
            Ok(sequence) => sequence,
            Err(refusal) => {
                self.stopped.note(&format!("item `{}`", row.item_id), &refusal);
                self.refuse(&row.prompt_id, &row.item_id, source, &refusal, "");
                return Ok(());
            }
        };
        if let Some((message, response_id)) = kl_response(row) {
            let messages = [message];
            match single(&messages)? {
                Ok(mismatched) => self.add((&row.prompt_id, &response_id), (&row.prompt, &messages), mismatched)?,
                Err(refusal) => {
                    self.stopped.note(&format!("item `{}`, kl_response", row.item_id), &refusal);
                    self.refuse(&row.prompt_id, &row.item_id, source, &refusal, "kl_response: ");
                    return Ok(());
                }
            }
        }
        self.add((&row.prompt_id, &row.response_id), (&row.prompt, &row.response), sequence)
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
        let key = (prompt_id.to_owned(), response_id.to_owned(), sequence.start, sequence.ids.len());
        self.distinct.entry(key).or_insert(sequence);
        Ok(())
    }

    fn refuse(
        &mut self,
        prompt_id: &str,
        row_id: &str,
        (file, line): (&Option<String>, Option<u64>),
        refusal: &Refusal,
        part: &str,
    ) {
        let reject = Reject {
            input: "from".to_owned(),
            row_id: row_id.to_owned(),
            reason: refusal.reason().to_owned(),
            detail: format!("{part}{refusal}"),
            source_file: file.clone(),
            source_line: line,
        };
        self.refused.push((prompt_id.to_owned(), reject));
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
        counts.too_long = match self.rules.too_long {
            TooLong::CutLeft => counts.cut,
            TooLong::Reject | TooLong::Error => self.refused.iter().filter(too_long).count() as u64,
        };
        let scored = self.distinct.into_iter().map(|((prompt_id, response_id, ..), sequence)| Unit {
            prompt_id,
            task: Task::Score { response_id, sequence },
        });
        let refused =
            self.refused.into_iter().map(|(prompt_id, reject)| Unit { prompt_id, task: Task::Refuse(reject) });
        let mut units: Vec<Unit> = scored.chain(refused).collect();
        // The sort is stable: within a prompt the sequences keep the order of their keys, the refused rows theirs.
        units.sort_by(|a, b| a.prompt_id.cmp(&b.prompt_id));
        WorkList { units, rows, counts, stopped: self.stopped }
    }
}

/// KTO's mismatched response as a message in the form of the item's own response, and its id.
pub(crate) fn kl_response(row: &Item) -> Option<(Message, String)> {
    let text = row.kl_response.as_ref()?;
    let role = row.response.last().map_or("assistant", |message| message.role.as_str());
    let message = Message::new(role, text);
    let made = || ids::response_id(&row.prompt_id, std::slice::from_ref(&message));
    let response_id = row.kl_response_id.clone().unwrap_or_else(made);
    Some((message, response_id))
}

pub(crate) fn turns(messages: &[Message]) -> Vec<Turn<'_>> {
    messages
        .iter()
        .map(|message| Turn { role: &message.role, content: &message.content, extra: message.extra.as_deref() })
        .collect()
}

fn of_row(what: &str, id: &str, error: lm::Error) -> Error {
    match lm_error(error) {
        Error::Data(text) => Error::Data(format!("{what} `{id}`: {text}")),
        other => other,
    }
}
