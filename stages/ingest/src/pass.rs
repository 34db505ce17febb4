//! The pass over the files: every row is kept or rejected, and counted.

use std::collections::BTreeMap;

use kit::rows::Reject;
use kit::{Context, Error, Event, Outcome, Result};

use crate::bad_row::BadRow;
use crate::column::Column;
use crate::config::{Ingest, OnBadRow};
use crate::faults::Faults;
use crate::form::Form;
use crate::format::Format;
use crate::intake::{Admission, Intake};
use crate::layout::Layout;
use crate::ledger::Place;
use crate::reading::{Reading, join, read, row_id};
use crate::record::{Part, Record};
use crate::register::Register;
use crate::row::{Counts, Doubt};
use crate::survey::Survey;

/// Rows between two looks at whether to stop.
const ROWS_PER_LOOK: u64 = 1024;

/// The fewest labels of which some have to prefer each side.
const MANY: u64 = 10;

/// One pass over the files.
pub struct Pass<'a> {
    stage: &'a Ingest,
    context: &'a Context<'a>,
    survey: &'a Survey,
    intake: Intake<'a>,
    rejects: kit::TableWriter<Reject>,
    /// Rows of the files.
    rows: u64,
    /// Records in them: more than one per row where a row has several responses.
    read: u64,
    /// Rejected rows by reason.
    reasons: BTreeMap<&'static str, u64>,
    /// Rows that are at fault.
    bad: u64,
    /// Their faults.
    faults: Faults,
    /// Notes on how rows were read, with the number of rows.
    counts: Counts,
    /// Doubts about how rows were read, with the number of rows.
    doubts: BTreeMap<Doubt, u64>,
}

impl<'a> Pass<'a> {
    /// A pass that has read nothing yet.
    ///
    /// # Errors
    /// When the ports cannot be made.
    pub(crate) fn new(stage: &'a Ingest, context: &'a Context<'a>, survey: &'a Survey) -> Result<Pass<'a>> {
        let sized = survey.layouts.iter().any(|layout| layout.columns.has(Column::Length0));
        Ok(Pass {
            stage,
            context,
            survey,
            intake: Intake::new(Register::new(context, &survey.files, &survey.tables, sized, stage)?),
            rejects: context.writer("rejects")?,
            rows: 0,
            read: 0,
            reasons: BTreeMap::new(),
            bad: 0,
            faults: Faults::default(),
            counts: Counts::new(),
            doubts: BTreeMap::new(),
        })
    }

    /// Reads all files; `layouts` are their columns in words.
    ///
    /// # Errors
    /// When a file cannot be read or a table not written, and when rows are at fault and must not be.
    pub(crate) fn run(mut self, layouts: Vec<String>) -> Result<Outcome> {
        self.files()?;
        self.finish(layouts)
    }

    fn files(&mut self) -> Result<()> {
        let survey = self.survey;
        let total = survey.files.iter().map(|file| file.bytes).sum();
        let mut done = 0;
        // Rows that say nothing alone, with their places.
        let (mut places, mut together) = (Vec::new(), Vec::new());
        'files: for (number, (file, layout)) in survey.files.iter().zip(&survey.layouts).enumerate() {
            for row in file.rows(layout.wanted())? {
                if self.stage.limit.is_some_and(|limit| self.rows == limit) {
                    break 'files;
                }
                let row = row?;
                self.rows += 1;
                done += row.bytes;
                if self.rows.is_multiple_of(ROWS_PER_LOOK) {
                    self.context.interrupt.check()?;
                    self.context.progress(done, total, "bytes", format!("{} rows", self.rows));
                }
                let place = Place { file: number as u32, line: row.line };
                match row.fields {
                    Ok(fields) if layout.format.known().join.is_some() => {
                        places.push((place, row_id(&fields, layout)));
                        together.push((fields, layout));
                    }
                    Ok(fields) => {
                        let id = row_id(&fields, layout);
                        self.take(read(fields, layout, self.stage.form), id, place)?;
                    }
                    Err(bad) => self.refuse(bad, String::new(), place)?,
                }
            }
        }
        for ((place, id), part) in places.into_iter().zip(join(together, self.stage.form)) {
            match part {
                Ok(Part::Says(records)) => self.records(records, id, place)?,
                Ok(Part::Elsewhere) => {}
                Ok(Part::LeftOut(why)) => self.leave_out(why, id, place)?,
                Err(bad) => self.refuse(bad, id, place)?,
            }
        }
        Ok(())
    }

    /// Takes what a row says.
    fn take(&mut self, reading: Result<Reading, BadRow>, id: String, place: Place) -> Result<()> {
        let reading = match reading {
            Ok(reading) => reading,
            Err(bad) => return self.refuse(bad, id, place),
        };
        reading.doubts.into_iter().for_each(|doubt| *self.doubts.entry(doubt).or_insert(0) += 1);
        reading.counts.into_iter().for_each(|(what, times)| *self.counts.entry(what).or_insert(0) += times);
        if reading.records.is_empty() {
            let detail = "there are not two responses with a score or rank under one prompt";
            return self.leave_out(BadRow::new("nothing_to_compare", detail), id, place);
        }
        self.records(reading.records, id, place)
    }

    fn records(&mut self, records: Vec<Record>, id: String, place: Place) -> Result<()> {
        for record in records {
            match self.intake.take(record, place)? {
                Admission::Kept => self.read += 1,
                Admission::SetAside(why) => self.leave_out(why, id.clone(), place)?,
                Admission::Bad(why) => self.refuse(why, id.clone(), place)?,
            }
        }
        Ok(())
    }

    /// Rejects a row that is not at fault.
    fn leave_out(&mut self, why: BadRow, row_id: String, place: Place) -> Result<()> {
        self.read += 1;
        self.reject(why, row_id, place)
    }

    /// Rejects a row that is at fault.
    fn refuse(&mut self, why: BadRow, row_id: String, place: Place) -> Result<()> {
        self.read += 1;
        self.bad += 1;
        self.faults.note(format!("{}:{}", self.survey.files[place.file as usize].name, place.line), &why);
        if self.stage.max_rejects.is_some_and(|most| self.bad > most) {
            return Err(self.too_many());
        }
        self.reject(why, row_id, place)
    }

    fn reject(&mut self, why: BadRow, row_id: String, place: Place) -> Result<()> {
        *self.reasons.entry(why.reason).or_insert(0) += 1;
        self.rejects.push(Reject {
            input: "files".to_owned(),
            row_id,
            reason: why.reason.to_owned(),
            detail: why.detail,
            source_file: Some(self.survey.files[place.file as usize].name.clone()),
            source_line: Some(place.line),
        })
    }

    fn too_many(&self) -> Error {
        let most = self.stage.max_rejects.unwrap_or_default();
        let text = format!("more than {most} bad rows (`max_rejects`) within {} rows; the first:", self.read);
        Error::data(format!("{text}\n  {}", self.faults.lines(&self.survey.layouts[0]).join("\n  ")))
    }

    fn finish(self, layouts: Vec<String>) -> Result<Outcome> {
        let names: Vec<&str> = self.stage.files.0.iter().map(String::as_str).collect();
        let names = names.join(", ");
        if self.stage.on_bad_row == OnBadRow::Fail && self.bad > 0 {
            return Err(Error::data(format!(
                "{} of {} rows cannot be taken:\n  {}\nmend them, or go on without them with `on_bad_row: reject`",
                self.bad,
                self.read,
                self.faults.lines(&self.survey.layouts[0]).join("\n  ")
            )));
        }
        let rejected: u64 = self.reasons.values().sum();
        let kept = self.read - rejected;
        if kept == 0 {
            let why: Vec<String> = self.reasons.iter().map(|(reason, rows)| format!("{rows} {reason}")).collect();
            let why = if self.read == 0 { "there are none".to_owned() } else { why.join(", ") };
            let first = self.faults.first().map_or(String::new(), |first| format!("; the first: {first}"));
            return Err(Error::data(format!("{names}: no row is left to go on with: {why}{first}")));
        }
        self.rejects.finish()?;
        for (reason, rows) in &self.reasons {
            self.context.emit(Event::RowsRejected { reason: (*reason).to_owned(), rows: *rows });
        }
        let (counts, prompts, responses) = self.intake.finish(self.context)?;
        let mut outcome = Outcome::default().balance("files", self.read, kept, rejected);
        outcome = outcome.figure("columns", layouts.join("\n"));
        if self.read != self.rows {
            outcome = outcome.figure("rows of the files", self.rows);
            let rows =
                format!("{} rows of the files say {} things, which are counted one by one", self.rows, self.read);
            self.context.note(rows);
        }
        for (what, times) in &self.counts {
            outcome = outcome.figure(what, *times);
            self.context.note(format!("{times} {what}"));
        }
        if self.survey.layouts.iter().any(|layout| layout.plain) {
            let form = if self.stage.form == Form::Text { "raw text" } else { "messages of a chat" };
            outcome = outcome.figure("plain strings are", form);
        }
        if prompts > 0 {
            outcome = outcome.figure("prompts", prompts);
        }
        if responses > 0 {
            outcome = outcome.figure("responses", responses);
        }
        if counts.votes > 0 {
            outcome = outcome.figure("votes", counts.votes);
        }
        if counts.annotators > 0 {
            outcome = outcome.figure("annotators", counts.annotators);
        }
        if counts.joined > 0 {
            outcome = outcome.figure("rows whose votes are added to an earlier row's", counts.joined);
            // In a row for each vote that is what they are.
            if !self.survey.layouts.iter().all(|layout| layout.columns.has(Column::Annotator)) {
                self.context.note(format!(
                    "{} rows are about the two responses of an earlier row: their votes are added to its; `keep: [repeated]` \
                     takes each as a comparison of its own",
                    counts.joined
                ));
            }
        }
        for (form, rows) in counts.forms {
            outcome = outcome.figure(&format!("{form}-prompt pairs"), rows);
        }
        for (name, rows) in [("turned around, p_hat below 1/2", counts.reoriented), ("ties", counts.ties)] {
            if rows > 0 {
                outcome = outcome.figure(name, rows);
            }
        }
        for (doubt, rows) in &self.doubts {
            outcome = outcome.figure(doubt.figure, *rows);
            self.context.warn(format!("{rows} rows {}", doubt.warning));
        }
        let given = |layout: &Layout| {
            matches!(layout.format, Format::JpoJudge | Format::Arena) && layout.columns.scaled().is_none()
        };
        let (second, neither) = (counts.reoriented, counts.ties);
        let first = counts.judged.saturating_sub(second + neither);
        if counts.judged >= MANY
            && first.min(second) == 0
            && first + second > 0
            && self.survey.layouts.iter().all(given)
        {
            let [side, other] = if first == 0 { ["second", "first"] } else { ["first", "second"] };
            self.context.warn(format!(
                "of {} labels none prefers the {other} response, {} prefer the {side} and {neither} neither; if its values \
                 mean something else, name the column by what it holds: `columns: {{preference: THEIRS}}` (1 the first, 2 \
                 the second), `feedback` (0, 1; 2 neither), `first_is_better` (1, 0) or `strength` (-3 to 3)",
                counts.judged,
                first.max(second)
            ));
        }
        if let Some(share) = self.stage.holdout {
            outcome = outcome.figure("held out", counts.held_out);
            if counts.on_both_sides > 0 {
                outcome = outcome.figure("prompts on both sides of the split", counts.on_both_sides);
                self.context.warn(format!(
                    "{} prompts have several ids, of which some are held out and some not: what is held out was seen in \
                     training. Give one prompt one id",
                    counts.on_both_sides
                ));
            }
            if counts.held_out == 0 || counts.held_out == kept {
                let side = if counts.held_out == 0 { "no row" } else { "every row" };
                self.context.warn(format!("`holdout: {share}` holds out {side}: there are too few prompts to split"));
            }
        }
        Ok(outcome)
    }
}
