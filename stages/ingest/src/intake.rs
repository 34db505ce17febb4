//! From records to rows of tables: duplicates, labels and votes.

use std::collections::{BTreeSet, HashMap};

use kit::rows::{Comparison, Embedding, Item, Pair, Prompt, ScoredVerdict, SizedVote, Verdict, Vote};
use kit::{Context, Message, Result, ids};

use crate::answer::{Answer, prompt_ids};
use crate::bad_row::BadRow;
use crate::ballot::Ballot;
use crate::config::Kept;
use crate::ledger::{Ids, Key, Labels, Place, joined, key, unordered};
use crate::record::{Record, Side};
use crate::register::{Counts, Register};
use crate::tables::push;

/// The result of taking in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is in the tables.
    Kept,
    /// It is not, and that is no fault: a duplicate, or a joint pair across the split.
    SetAside(BadRow),
    /// It contradicts an earlier row.
    Bad(BadRow),
}

/// Takes records in the order of their rows.
pub struct Intake<'a> {
    register: Register<'a>,
    labels: Labels,
    /// The comparisons that votes are about, by what they are about: their ids and first sides.
    voted: HashMap<Key, (String, Key)>,
    annotators: BTreeSet<String>,
    embeddings: Ids,
    /// The length of embeddings, and where it was first seen.
    width: Option<(usize, Place)>,
}

impl<'a> Intake<'a> {
    /// An intake into a register.
    pub fn new(register: Register<'a>) -> Intake<'a> {
        Intake {
            register,
            labels: Labels::default(),
            voted: HashMap::new(),
            annotators: BTreeSet::new(),
            embeddings: Ids::default(),
            width: None,
        }
    }

    /// Takes a record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn take(&mut self, record: Record, place: Place) -> Result<Admission> {
        match record {
            Record::Pair { sides, p_hat, weight, id } => {
                self.sides(*sides, Some((p_hat, None)), weight, id, None, place, false)
            }
            Record::Comparison { sides, p_hat, log_odds, weight, judge, id } => {
                self.sides(*sides, p_hat.map(|p_hat| (p_hat, log_odds)), weight, id, judge, place, true)
            }
            Record::Votes { sides: Some(sides), ballots, id } => self.votes(*sides, ballots, id, place),
            Record::Votes { sides: None, ballots, id } => {
                let id = id.expect("votes without responses have an id");
                self.write_votes(&id, ballots, false, place)?;
                Ok(Admission::Kept)
            }
            Record::Item { side, label, weight, id } => self.item(*side, label, weight, id, place),
            Record::Prompt { messages, id } => self.prompt(messages, id, place),
            Record::Embedding { messages, id, embedding } => self.embedding(messages, id, embedding, place),
        }
    }

    /// Commits the tables and gives the figures, and the numbers of prompts and responses.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn finish(mut self, context: &Context<'_>) -> Result<(Counts, usize, usize)> {
        self.register.counts.annotators = self.annotators.len() as u64;
        self.register.finish(context)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a pair, of which a comparison lacks some")]
    fn sides(
        &mut self,
        [a, b]: [Side; 2],
        label: Option<(f64, Option<f64>)>,
        weight: f64,
        id: Option<String>,
        judge: Option<String>,
        place: Place,
        judged: bool,
    ) -> Result<Admission> {
        let p_hat = label.map(|(p_hat, _)| p_hat);
        let (a, b) = (Answer::new(a), Answer::new(b));
        let (form, held_out) = match self.admit(&a, &b, &id) {
            Ok(admitted) => admitted,
            Err(taken) => return Ok(taken),
        };
        let repeated = self.labels.about(a.key(), b.key());
        if let Some(earlier) = repeated.filter(|_| !self.is_row_of_its_own(&id)) {
            let said = |p_hat: Option<f64>| p_hat.map_or(String::new(), |p| format!(" (P(first better) = {p})"));
            let (reversed, here) = (earlier.first != a.key(), said(p_hat));
            let there = format!("{}{}", self.register.at(earlier.place), said(earlier.label));
            let turned = if reversed { ", the other way round," } else { "" };
            // P(its first better) where both orders are to say the same.
            let agreeing = if reversed { p_hat.map(|p| 1.0 - p) } else { p_hat };
            let same = match (earlier.label, agreeing) {
                (Some(before), Some(now)) => (before - now).abs() < 1e-9,
                (before, now) => before == now,
            };
            return Ok(Admission::SetAside(if !same {
                let detail = format!("the same two responses{turned} have another label at {there}; here{here}");
                BadRow::new("conflicting_label", detail)
            } else if reversed {
                let detail = format!("the same two responses{turned} stand at {there}; here{here}");
                BadRow::new("reversed_duplicate", detail)
            } else {
                BadRow::new("duplicate", format!("the same two responses stand at {there}"))
            }));
        }
        if repeated.is_none() {
            self.labels.note(a.key(), b.key(), p_hat, place);
        }
        self.note_sides(&a, &b, &id, (form, held_out), place)?;
        let (source_file, source_line) = self.register.source(place);
        let given = id.clone().filter(|_| judged || repeated.is_some());
        let comparison_id = given.unwrap_or_else(|| ids::comparison_id(a.ids(), b.ids()));
        // A labelled pair's comparison must not tell by its order which side was chosen.
        let (first, second) = if !judged && b.ids() < a.ids() { (&b, &a) } else { (&a, &b) };
        let comparison = self.compared(comparison_id, form, first, second, place);
        let comparison_id = comparison.comparison_id.clone();
        match label.filter(|_| judged) {
            Some((p_hat, Some(log_odds))) => {
                let verdict = Verdict::of(comparison.clone(), p_hat, judge);
                let row = ScoredVerdict { log_odds: Some(log_odds), ..ScoredVerdict::from(verdict) };
                push(&mut self.register.tables(held_out).scored, row)?;
            }
            Some((p_hat, None)) => {
                push(&mut self.register.tables(held_out).verdicts, Verdict::of(comparison.clone(), p_hat, judge))?
            }
            None => {}
        }
        push(&mut self.register.tables(held_out).comparisons, comparison)?;
        if let Some(p_hat) = p_hat {
            let (chosen, rejected, p) = if p_hat < 0.5 { (b, a, 1.0 - p_hat) } else { (a, b, p_hat) };
            self.register.counts.reoriented += u64::from(p_hat < 0.5);
            self.register.counts.ties += u64::from(p_hat == 0.5);
            self.register.counts.judged += u64::from(judged);
            let made = match (&repeated, &id) {
                // The same two sides have a pair already.
                (Some(_), Some(id)) => kit::id_of(&["pair", id]),
                _ => ids::pair_id(chosen.ids(), rejected.ids()),
            };
            let row = Pair {
                pair_id: if judged { made } else { id.unwrap_or(made) },
                comparison_id: Some(comparison_id),
                form: form.to_owned(),
                chosen_prompt_id: chosen.prompt_id,
                chosen_response_id: chosen.response_id,
                chosen_prompt: chosen.side.prompt,
                chosen: chosen.side.response,
                rejected_prompt_id: rejected.prompt_id,
                rejected_response_id: rejected.response_id,
                rejected_prompt: rejected.side.prompt,
                rejected: rejected.side.response,
                p_hat: p,
                weight,
                source_file,
                source_line,
            };
            push(&mut self.register.tables(held_out).pairs, row)?;
        }
        Ok(Admission::Kept)
    }

    /// The form of two sides and whether they are held out; or why they are not taken.
    fn admit(
        &self,
        a: &Answer,
        b: &Answer,
        id: &Option<String>,
    ) -> std::result::Result<(&'static str, bool), Admission> {
        for answer in [a, b] {
            self.register.check_answer(answer).map_err(Admission::Bad)?;
        }
        // Both may be new and at odds with each other.
        if (a.prompt == b.prompt && a.prompt_content != b.prompt_content)
            || (a.response == b.response && a.response_content != b.response_content)
        {
            return Err(Admission::Bad(BadRow::new("id_conflict", "both sides have one id and different texts")));
        }
        self.register.check_row(id, joined(&[a.key(), b.key()])).map_err(Admission::Bad)?;
        let form = if a.prompt == b.prompt { "same" } else { "joint" };
        let keeps = |kept| self.register.stage.keep.contains(&kept);
        if form == "same" && a.response_content == b.response_content && !keeps(Kept::Identical) {
            let detail = "both responses are the same text, so neither is better";
            return Err(Admission::SetAside(BadRow::new("identical", detail)));
        }
        if let Some(empty) = empty(a).or_else(|| empty(b)).filter(|_| !keeps(Kept::Empty)) {
            return Err(Admission::SetAside(empty));
        }
        let held_out = self.register.is_held_out(&a.prompt_id);
        if held_out != self.register.is_held_out(&b.prompt_id) {
            let detail =
                format!("one of the prompts `{}` and `{}` is held out, the other not", a.prompt_id, b.prompt_id);
            return Err(Admission::SetAside(BadRow::new("across_split", detail)));
        }
        Ok((form, held_out))
    }

    /// True where a row about the two responses of an earlier one is a comparison by itself.
    fn is_row_of_its_own(&self, id: &Option<String>) -> bool {
        let new = |id: &String| self.register.rows.place(key(id)).is_none();
        self.register.stage.keep.contains(&Kept::Repeated) && id.as_ref().is_some_and(new)
    }

    /// Takes note of two sides and writes their prompts and responses where they are new.
    fn note_sides(
        &mut self,
        a: &Answer,
        b: &Answer,
        id: &Option<String>,
        (form, held_out): (&'static str, bool),
        place: Place,
    ) -> Result<()> {
        self.register.note_row(id, joined(&[a.key(), b.key()]), place);
        self.register.note_answer(a, held_out, place)?;
        self.register.note_answer(b, held_out, place)?;
        *self.register.counts.forms.entry(form).or_insert(0) += 1;
        self.register.counts.held_out += u64::from(held_out);
        Ok(())
    }

    fn compared(&self, comparison_id: String, form: &str, a: &Answer, b: &Answer, place: Place) -> Comparison {
        let (source_file, source_line) = self.register.source(place);
        Comparison {
            comparison_id,
            form: form.to_owned(),
            a_prompt_id: a.prompt_id.clone(),
            a_response_id: a.response_id.clone(),
            a_prompt: a.side.prompt.clone(),
            a_response: a.side.response.clone(),
            b_prompt_id: b.prompt_id.clone(),
            b_response_id: b.response_id.clone(),
            b_prompt: b.side.prompt.clone(),
            b_response: b.side.response.clone(),
            source_file,
            source_line,
        }
    }

    /// Votes on two responses. Rows about the same two are one comparison, unless each is to be one.
    fn votes(
        &mut self,
        [a, b]: [Side; 2],
        mut ballots: Vec<Ballot>,
        id: Option<String>,
        place: Place,
    ) -> Result<Admission> {
        let (a, b) = (Answer::new(a), Answer::new(b));
        let (form, held_out) = match self.admit(&a, &b, &id) {
            Ok(admitted) => admitted,
            Err(taken) => return Ok(taken),
        };
        let apart = self.register.stage.keep.contains(&Kept::Repeated);
        let about = match id.as_ref().filter(|_| apart) {
            Some(id) => key(id),
            None => unordered(a.key(), b.key()),
        };
        if let Some((comparison_id, first)) = self.voted.get(&about).cloned() {
            if first != a.key() {
                ballots.iter_mut().for_each(Ballot::turn);
            }
            self.register.note_row(&id, joined(&[a.key(), b.key()]), place);
            self.register.counts.joined += 1;
            self.register.counts.held_out += u64::from(held_out);
            self.write_votes(&comparison_id, ballots, held_out, place)?;
            return Ok(Admission::Kept);
        }
        let comparison_id = id.clone().unwrap_or_else(|| ids::comparison_id(a.ids(), b.ids()));
        self.voted.insert(about, (comparison_id.clone(), a.key()));
        self.note_sides(&a, &b, &id, (form, held_out), place)?;
        let comparison = self.compared(comparison_id.clone(), form, &a, &b, place);
        push(&mut self.register.tables(held_out).comparisons, comparison)?;
        self.write_votes(&comparison_id, ballots, held_out, place)?;
        Ok(Admission::Kept)
    }

    fn write_votes(&mut self, comparison_id: &str, ballots: Vec<Ballot>, held_out: bool, place: Place) -> Result<()> {
        self.register.counts.votes += ballots.len() as u64;
        for Ballot { annotator, vote, log_odds, weight, lengths } in ballots {
            if let Some(annotator) = annotator.as_ref().filter(|name| !self.annotators.contains(*name)) {
                self.annotators.insert(annotator.clone());
            }
            let (source_file, source_line) = self.register.source(place);
            let comparison_id = comparison_id.to_owned();
            let tables = self.register.tables(held_out);
            if tables.sized.is_none() {
                let row = Vote { comparison_id, annotator, vote, log_odds, weight, source_file, source_line };
                push(&mut tables.votes, row)?;
                continue;
            }
            let [length_a, length_b] = lengths.map_or([None; 2], |lengths| lengths.map(Some));
            let row = SizedVote {
                comparison_id,
                annotator,
                vote,
                log_odds,
                weight,
                length_a,
                length_b,
                source_file,
                source_line,
            };
            push(&mut tables.sized, row)?;
        }
        Ok(())
    }

    fn item(&mut self, side: Side, label: f64, weight: f64, id: Option<String>, place: Place) -> Result<Admission> {
        let answer = Answer::new(side);
        let content = answer.key();
        let checked = self.register.check_answer(&answer).and_then(|()| self.register.check_row(&id, content));
        if let Err(bad) = checked {
            return Ok(Admission::Bad(bad));
        }
        if let Some(empty) = empty(&answer) {
            return Ok(Admission::SetAside(empty));
        }
        if let Some(earlier) = self.labels.about(content, content) {
            let there = self.register.at(earlier.place);
            return Ok(Admission::SetAside(if earlier.label == Some(label) {
                self.register.responses.count(answer.response);
                BadRow::new("duplicate", format!("the same response stands at {there}; it is counted there"))
            } else {
                let was = earlier.label.unwrap_or_default();
                let detail = format!("the same response has the label {was} at {there}, here {label}");
                BadRow::new("conflicting_label", detail)
            }));
        }
        self.labels.note(content, content, Some(label), place);
        self.register.note_row(&id, content, place);
        let held_out = self.register.is_held_out(&answer.prompt_id);
        self.register.note_answer(&answer, held_out, place)?;
        self.register.responses.count(answer.response);
        self.register.counts.held_out += u64::from(held_out);
        let (source_file, source_line) = self.register.source(place);
        let item_id = id.unwrap_or_else(|| ids::item_id(&answer.prompt_id, &answer.response_id, label));
        let row = Item {
            item_id,
            prompt_id: answer.prompt_id,
            response_id: answer.response_id,
            prompt: answer.side.prompt,
            response: answer.side.response,
            label,
            weight,
            kl_response_id: None,
            kl_response: None,
            kl_group: None,
            source_file,
            source_line,
        };
        push(&mut self.register.tables(held_out).items, row)?;
        Ok(Admission::Kept)
    }

    fn prompt(&mut self, messages: Vec<Message>, id: Option<String>, place: Place) -> Result<Admission> {
        let (prompt_id, own, content) = prompt_ids(id, &messages);
        match self.register.prompts.check(own, content) {
            Err(first) => return Ok(Admission::Bad(self.register.conflict("prompt", &prompt_id, first))),
            Ok(false) => {
                let first = self.register.prompts.place(own).expect("it is known");
                let detail = format!("the same prompt stands at {}", self.register.at(first));
                return Ok(Admission::SetAside(BadRow::new("duplicate", detail)));
            }
            Ok(true) => {}
        }
        let held_out = self.register.is_held_out(&prompt_id);
        self.register.note_prompt(own, content, held_out, place);
        self.register.counts.held_out += u64::from(held_out);
        let (source_file, source_line) = self.register.source(place);
        push(&mut self.register.tables(held_out).prompts, Prompt { prompt_id, messages, source_file, source_line })?;
        Ok(Admission::Kept)
    }

    fn embedding(
        &mut self,
        messages: Option<Vec<Message>>,
        id: Option<String>,
        embedding: Vec<f32>,
        place: Place,
    ) -> Result<Admission> {
        if let Some((width, first)) = self.width.filter(|(width, _)| *width != embedding.len()) {
            let detail = format!("{} numbers, wanted {width} as at {}", embedding.len(), self.register.at(first));
            return Ok(Admission::Bad(BadRow::new("wrong_width", detail)));
        }
        let prompt = messages.map(|messages| (prompt_ids(id.clone(), &messages), messages));
        let prompt_id = match (&prompt, id) {
            (Some(((made, ..), _)), _) => made.clone(),
            (None, Some(id)) => id,
            (None, None) => unreachable!("a row of embeddings has a prompt or its id"),
        };
        let bits: Vec<String> = embedding.iter().map(|x| x.to_bits().to_string()).collect();
        let (own, content) = (key(&prompt_id), key(&kit::id_of(&bits)));
        if let Some(((_, prompt_key, prompt_content), _)) = &prompt
            && let Err(first) = self.register.prompts.check(*prompt_key, *prompt_content)
        {
            return Ok(Admission::Bad(self.register.conflict("prompt", &prompt_id, first)));
        }
        match self.embeddings.check(own, content) {
            Err(first) => {
                let detail = format!("prompt id `{prompt_id}` has another embedding at {}", self.register.at(first));
                return Ok(Admission::Bad(BadRow::new("id_conflict", detail)));
            }
            Ok(false) => {
                let first = self.embeddings.place(own).expect("it is known");
                let detail = format!("the same embedding stands at {}", self.register.at(first));
                return Ok(Admission::SetAside(BadRow::new("duplicate", detail)));
            }
            Ok(true) => self.embeddings.note(own, content, place),
        }
        self.width.get_or_insert((embedding.len(), place));
        let held_out = self.register.is_held_out(&prompt_id);
        self.register.counts.held_out += u64::from(held_out);
        let (source_file, source_line) = self.register.source(place);
        if let Some(((_, prompt_key, prompt_content), messages)) = prompt {
            self.register.note_prompt(prompt_key, prompt_content, held_out, place);
            let (prompt_id, source_file) = (prompt_id.clone(), source_file.clone());
            push(
                &mut self.register.tables(held_out).prompts,
                Prompt { prompt_id, messages, source_file, source_line },
            )?;
        }
        push(
            &mut self.register.tables(held_out).embeddings,
            Embedding { prompt_id, embedding, source_file, source_line },
        )?;
        Ok(Admission::Kept)
    }
}

/// The fault of a response without a word; `sample` leaves out such responses too.
fn empty(answer: &Answer) -> Option<BadRow> {
    let said = answer.side.response.iter().any(|message| !message.text().trim().is_empty());
    (!said).then(|| BadRow::new("empty", format!("response `{}` is empty", answer.response_id)))
}
