//! From the rows of a table to sequences, and to the rows that are refused.

use std::collections::BTreeMap;

use kit::rows::{Item, Pair};
use kit::{Cell, Context, Error, Result, Table};
use lm::Sequence;
use objective::{Forms, Mixture};
use tokens::{DatasetRow, ItemSequences, Mismatched, RefusedRow, SequenceKey, SequenceReader};

use crate::dataset::{Dataset, Example};

impl Dataset {
    /// Reads and tokenises an input. Rows that cannot be trained on are refused with their reason; data on which the
    /// objective means nothing is an error.
    pub(crate) fn read(
        context: &Context<'_>,
        input: &'static str,
        sequences: &SequenceReader,
        objective: &Mixture,
        allow_same_prompt: bool,
    ) -> Result<Dataset> {
        let mut reader = Reader {
            sequences,
            objective,
            dataset: Dataset::empty(input),
            places: BTreeMap::new(),
            prompts: BTreeMap::new(),
        };
        let mut forms = Forms::default();
        match context.table_of(input) {
            Some(Table::Items) => reader.read_all::<Item>(context, |reader, row| reader.item(row))?,
            _ => reader.read_all::<Pair>(context, |reader, row| {
                count(&mut forms, &row.form);
                reader.pair(row)
            })?,
        }
        check_forms(objective, forms, allow_same_prompt, input)?;
        let dataset = reader.dataset;
        if !objective.reads_weights() {
            let mut weights = dataset.examples.iter().filter(|example| example.weight() > 0.0);
            if let Some(first) = weights.next()
                && let Some(other) = weights.find(|example| example.weight() != first.weight())
            {
                return Err(Error::data(format!(
                    "`{input}`: `{}` wants equal weights, and row `{}` has {} where row `{}` has {}",
                    objective.name(),
                    other.id(),
                    other.weight(),
                    first.id(),
                    first.weight()
                )));
            }
        }
        if let Some(text) = dataset.stopped.stop(dataset.read).filter(|_| dataset.examples.is_empty()) {
            return Err(Error::Data(format!("`{input}`: {text}")));
        }
        if dataset.examples.is_empty() {
            let mut reasons: Vec<_> = dataset.rejects.iter().map(|reject| reject.reason.as_str()).collect();
            reasons.sort_unstable();
            reasons.dedup();
            return Err(Error::data(format!(
                "`{input}` has no row that can be used: {} read, {} rejected ({})",
                dataset.read,
                dataset.rejects.len(),
                if reasons.is_empty() { "the table is empty".to_owned() } else { reasons.join(", ") }
            )));
        }
        Ok(dataset)
    }
}

/// The forms of an input's pairs; none where it is not there or holds items.
pub(crate) fn forms(context: &Context<'_>, input: &'static str) -> Result<Forms> {
    let mut forms = Forms::default();
    if context.table_of(input) == Some(Table::Pairs) {
        for batch in context.batches::<Pair>(&[input])?.only(&["form"]) {
            let batch = batch?;
            let column = batch.column("form");
            let form = |row| <String as Cell>::get(column, row).unwrap_or_default();
            (0..batch.batch.num_rows()).for_each(|row| count(&mut forms, &form(row)));
        }
    }
    Ok(forms)
}

fn count(forms: &mut Forms, form: &str) {
    match form {
        "joint" => forms.joint += 1,
        _ => forms.same += 1,
    }
}

/// Refuses pairs on which the objective means nothing.
pub(crate) fn check_forms(objective: &Mixture, forms: Forms, allow_same_prompt: bool, input: &str) -> Result<()> {
    let checked = objective.check_forms(forms, allow_same_prompt);
    checked.map_err(|text| Error::Pipeline(format!("`{input}`: {text}")))
}

struct Reader<'a> {
    sequences: &'a SequenceReader,
    objective: &'a Mixture,
    dataset: Dataset,
    places: BTreeMap<SequenceKey, usize>,
    prompts: BTreeMap<String, usize>,
}

/// Reason and detail of a row that is not kept.
type Refused = (String, String);

impl Reader<'_> {
    fn read_all<R: DatasetRow>(
        &mut self,
        context: &Context<'_>,
        mut take: impl FnMut(&mut Self, &R) -> Result<Result<Example, Refused>>,
    ) -> Result<()> {
        for row in context.rows::<R>(self.dataset.input)? {
            let row = row?;
            self.dataset.read += 1;
            match take(self, &row)? {
                Ok(example) => self.dataset.examples.push(example),
                Err((reason, detail)) => {
                    self.dataset.rejects.push(row.reject(self.dataset.input, reason, detail));
                }
            }
        }
        Ok(())
    }

    fn pair(&mut self, row: &Pair) -> Result<Result<Example, Refused>> {
        let alike = row.chosen_prompt_id == row.rejected_prompt_id;
        let refused = |reason: &str, detail: String| Ok(Err((reason.to_owned(), detail)));
        if !(row.form == "joint" || row.form == "same" && alike) {
            let found = if alike { "one prompt" } else { "two prompts" };
            return refused("bad_form", format!("form `{}` with {found}, wanted `same` or `joint`", row.form));
        }
        if !(0.0..=1.0).contains(&row.p_hat) {
            return refused("bad_label", format!("p_hat {}, wanted 0.5 to 1", row.p_hat));
        }
        if row.p_hat < 0.5 && !self.objective.swap_symmetric() {
            let detail = format!(
                "p_hat {}: `{}` wants the better side first; `pairs` orients",
                row.p_hat,
                self.objective.name()
            );
            return refused("not_oriented", detail);
        }
        if let Err(refused) = check_weight(row.weight) {
            return Ok(Err(refused));
        }
        match self.sequences.pair(row)? {
            Err(refused) => Ok(Err(self.refuse(row, &refused))),
            Ok([chosen, rejected]) => Ok(Ok(Example::Pair {
                id: row.pair_id.clone(),
                chosen: self.add(&row.chosen_prompt_id, &row.chosen_response_id, chosen)?,
                rejected: self.add(&row.rejected_prompt_id, &row.rejected_response_id, rejected)?,
                joint: row.form == "joint",
                chosen_prompt: self.prompt(&row.chosen_prompt_id),
                rejected_prompt: self.prompt(&row.rejected_prompt_id),
                p_hat: row.p_hat,
                weight: row.weight,
            })),
        }
    }

    fn item(&mut self, row: &Item) -> Result<Result<Example, Refused>> {
        if !(0.0..=1.0).contains(&row.label) {
            return Ok(Err(("bad_label".to_owned(), format!("label {}, wanted 0 to 1", row.label))));
        }
        if let Err(why) = self.objective.accepts_label(row.label) {
            return Ok(Err(("label_not_taken".to_owned(), format!("label {}: {why}", row.label))));
        }
        if let Err(refused) = check_weight(row.weight) {
            return Ok(Err(refused));
        }
        let needs_kl = self.objective.needs_kl();
        let ItemSequences { response, mismatched } = match self.sequences.item(row, needs_kl)? {
            Ok(sequences) => sequences,
            Err(refused) => return Ok(Err(self.refuse(row, &refused))),
        };
        let kl = match mismatched {
            Some(Mismatched { response_id, sequence, .. }) => Some(self.add(&row.prompt_id, &response_id, sequence)?),
            None if needs_kl => {
                let detail = format!("`{}` wants a mismatched response with each item", self.objective.name());
                return Ok(Err(("no_kl_response".to_owned(), detail)));
            }
            None => None,
        };
        Ok(Ok(Example::Item {
            id: row.item_id.clone(),
            sequence: self.add(&row.prompt_id, &row.response_id, response)?,
            prompt: self.prompt(&row.prompt_id),
            label: row.label,
            weight: row.weight,
            kl,
            group: row.kl_group,
        }))
    }

    fn refuse<R: DatasetRow>(&mut self, row: &R, refused: &RefusedRow) -> Refused {
        self.dataset.stopped.note(&refused.named(row), &refused.refusal);
        (refused.reason(), refused.detail())
    }

    fn add(&mut self, prompt_id: &str, response_id: &str, sequence: Sequence) -> Result<usize> {
        let key = SequenceKey::of(prompt_id, response_id, &sequence);
        if let Some(&place) = self.places.get(&key) {
            if self.dataset.sequences[place].ids != sequence.ids {
                return Err(Error::data(format!(
                    "`{}`: prompt `{prompt_id}` and response `{response_id}` stand for two different texts; give each \
                     text its own id, or leave the ids out so that they are made from the text",
                    self.dataset.input
                )));
            }
            return Ok(place);
        }
        let place = self.dataset.sequences.len();
        self.dataset.sequences.push(sequence);
        self.dataset.keys.push(key.clone());
        self.dataset.reference.push(None);
        self.places.insert(key, place);
        Ok(place)
    }

    fn prompt(&mut self, id: &str) -> usize {
        if let Some(&place) = self.prompts.get(id) {
            return place;
        }
        let place = self.dataset.prompts.len();
        self.dataset.prompts.push(id.to_owned());
        self.prompts.insert(id.to_owned(), place);
        place
    }
}

fn check_weight(weight: f64) -> Result<(), Refused> {
    if weight >= 0.0 && weight.is_finite() {
        Ok(())
    } else {
        Err(("bad_weight".to_owned(), format!("weight {weight}, wanted a finite number of at least 0")))
    }
}
