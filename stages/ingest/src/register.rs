//! The texts, ids and rows that were taken, and the tables they stand in.

use std::collections::{BTreeMap, HashMap};

use kit::rows::{Prompt, Response};
use kit::{Context, Message, Result, Table};

use crate::answer::{Answer, held_out};
use crate::bad_row::BadRow;
use crate::config::Ingest;
use crate::ledger::{Ids, Key, Place, joined, key};
use crate::source::SourceFile;
use crate::tables::{Tables, push, recount};

/// Figures of what was taken.
#[derive(Debug, Default)]
pub struct Counts {
    /// Pairs whose `p_hat` was below 1/2, turned around.
    pub reoriented: u64,
    /// Pairs whose `p_hat` is 1/2.
    pub ties: u64,
    /// Comparisons with a label.
    pub judged: u64,
    /// Pairs and comparisons by form.
    pub forms: BTreeMap<&'static str, u64>,
    /// Rows held out.
    pub held_out: u64,
    /// Votes.
    pub votes: u64,
    /// Different names of annotators.
    pub annotators: u64,
    /// Rows whose votes went to an earlier comparison of the same two responses.
    pub joined: u64,
    /// Prompts whose text stands on both sides of the split, under several ids.
    pub on_both_sides: u64,
}

/// What is known of earlier rows. Each prompt and response is written where it is first seen.
pub struct Register<'a> {
    files: &'a [SourceFile],
    pub stage: &'a Ingest,
    tables: Tables,
    held_out: Option<Tables>,
    pub prompts: Ids,
    pub responses: Ids,
    pub rows: Ids,
    /// With a hold-out, the side on which a prompt's text was first seen.
    sides: HashMap<Key, bool>,
    pub counts: Counts,
}

impl<'a> Register<'a> {
    /// A register over some tables.
    ///
    /// # Errors
    /// When the ports cannot be made.
    pub fn new(
        context: &Context<'_>,
        files: &'a [SourceFile],
        tables: &[Table],
        sized: bool,
        stage: &'a Ingest,
    ) -> Result<Register<'a>> {
        let scored = stage.scores.as_ref().is_some_and(|scores| scores.scale.is_some());
        let wider = [scored, sized];
        let held_out = stage.holdout.map(|_| Tables::create(context, tables, "holdout_", wider)).transpose()?;
        Ok(Register {
            files,
            stage,
            tables: Tables::create(context, tables, "", wider)?,
            held_out,
            prompts: Ids::default(),
            responses: Ids::default(),
            rows: Ids::default(),
            sides: HashMap::new(),
            counts: Counts::default(),
        })
    }

    /// Commits the tables and gives the figures. Equal samples of one prompt are one response with their number.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn finish(self, context: &Context<'_>) -> Result<(Counts, usize, usize)> {
        let ports = if self.held_out.is_some() { vec!["responses", "holdout_responses"] } else { vec!["responses"] };
        let has_responses = self.tables.responses.is_some();
        self.tables.finish()?;
        self.held_out.map_or(Ok(()), Tables::finish)?;
        if has_responses && self.responses.any_counted_twice() {
            for port in ports {
                recount(context, port, &self.responses)?;
            }
        }
        Ok((self.counts, self.prompts.len(), self.responses.len()))
    }

    /// Name of a row in messages.
    pub fn at(&self, place: Place) -> String {
        format!("{}:{}", self.files[place.file as usize].name, place.line)
    }

    pub fn source(&self, place: Place) -> (Option<String>, Option<u64>) {
        (Some(self.files[place.file as usize].name.clone()), Some(place.line))
    }

    /// True where a prompt is held out: by a digest of its id, so that it falls to the same side in every file, order
    /// and pipeline.
    pub fn is_held_out(&self, prompt_id: &str) -> bool {
        self.stage.holdout.is_some_and(|share| held_out(prompt_id, share))
    }

    pub fn tables(&mut self, held_out: bool) -> &mut Tables {
        if held_out {
            self.held_out.as_mut().expect("rows are held out only with a hold-out")
        } else {
            &mut self.tables
        }
    }

    /// Refuses ids that stood for something else.
    pub fn check_answer(&self, answer: &Answer) -> Result<(), BadRow> {
        self.prompts
            .check(answer.prompt, answer.prompt_content)
            .map_err(|first| self.conflict("prompt", &answer.prompt_id, first))?;
        let content = joined(&[answer.prompt, answer.response_content]);
        self.responses
            .check(answer.response, content)
            .map_err(|first| self.conflict("response", &answer.response_id, first))?;
        Ok(())
    }

    pub fn conflict(&self, what: &str, id: &str, first: Place) -> BadRow {
        BadRow::new("id_conflict", format!("{what} id `{id}` stands for another text at {}", self.at(first)))
    }

    /// Refuses a given row id that stood for another row.
    pub fn check_row(&self, id: &Option<String>, content: Key) -> Result<(), BadRow> {
        let Some(id) = id else { return Ok(()) };
        self.rows.check(key(id), content).map(|_| ()).map_err(|first| {
            let BadRow { reason, detail } = self.conflict("row", id, first);
            BadRow { reason, detail: format!("{detail}; if rows may share it, leave it out: `columns: {{id: null}}`") }
        })
    }

    /// Takes note of a new prompt, and of whether the other side of the split has its text too.
    pub fn note_prompt(&mut self, id: Key, content: Key, held_out: bool, place: Place) {
        self.prompts.note(id, content, place);
        if self.stage.holdout.is_some() {
            let side = *self.sides.entry(content).or_insert(held_out);
            self.counts.on_both_sides += u64::from(side != held_out);
        }
    }

    pub fn note_row(&mut self, id: &Option<String>, content: Key, place: Place) {
        if let Some(id) = id {
            self.rows.note(key(id), content, place);
        }
    }

    /// Writes a prompt and a response where they are new.
    pub fn note_answer(&mut self, answer: &Answer, held_out: bool, place: Place) -> Result<()> {
        let (source_file, source_line) = self.source(place);
        if self.prompts.check(answer.prompt, answer.prompt_content) == Ok(true) {
            self.note_prompt(answer.prompt, answer.prompt_content, held_out, place);
            let row = Prompt {
                prompt_id: answer.prompt_id.clone(),
                messages: answer.side.prompt.clone(),
                source_file: source_file.clone(),
                source_line,
            };
            push(&mut self.tables(held_out).prompts, row)?;
        }
        let content = joined(&[answer.prompt, answer.response_content]);
        if self.responses.check(answer.response, content) == Ok(true) {
            self.responses.note(answer.response, content, place);
            let k = self.prompts.count(answer.prompt);
            let text = answer.side.response.iter().map(Message::text).collect::<Vec<_>>().join("\n");
            let row = Response {
                response_id: answer.response_id.clone(),
                prompt_id: answer.prompt_id.clone(),
                prompt: answer.side.prompt.clone(),
                messages: answer.side.response.clone(),
                text,
                k,
                count: 1,
                logp: None,
                tokens: None,
                finish: None,
                score: answer.side.score,
                model: answer.side.model.clone(),
                source_file,
                source_line,
            };
            push(&mut self.tables(held_out).responses, row)?;
        }
        Ok(())
    }
}
