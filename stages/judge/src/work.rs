//! The work list of comparisons, and the questions they become.

use std::collections::BTreeMap;
use std::ops::Range;

use kit::rows::{Comparison, Reject};
use kit::{Context, Error, Result, shard_ranges};
use lm::{Sequence, Text, Turn};
use tokens::SequenceReader;
use tokens::cost::shared_tokens;

use crate::config::{Judge, Orders};
use crate::labels::{LabelTokens, Labels};
use crate::template::Form;
use crate::template::{AsksFor, Side, Template};

/// The work on one row of the input.
pub(crate) enum Unit {
    Judge(Box<Comparison>),
    Refuse(Reject),
}

/// The comparisons, those of one prompt together.
///
/// The order does not depend on which side is called a: exchanging a and b leaves every batch as it is, so that its
/// numbers are the same to the last bit.
pub(crate) struct WorkList {
    pub(crate) units: Vec<Unit>,
    groups: Vec<usize>,
    pub(crate) rows: u64,
}

/// A side by its ids.
pub(crate) type SideId<'a> = (&'a str, &'a str);

pub(crate) fn sides(row: &Comparison) -> (SideId<'_>, SideId<'_>) {
    ((&row.a_prompt_id, &row.a_response_id), (&row.b_prompt_id, &row.b_response_id))
}

impl WorkList {
    pub(crate) fn read(context: &Context<'_>) -> Result<WorkList> {
        let mut rows: Vec<Comparison> = context.rows("comparisons")?.collect::<Result<_>>()?;
        let count = rows.len() as u64;
        rows.sort_by(|one, other| {
            let key = |row: &Comparison| {
                let (a, b) = sides(row);
                let (low, high) = (a.min(b), a.max(b));
                (low.0.to_owned(), low.1.to_owned(), high.0.to_owned(), high.1.to_owned(), row.comparison_id.clone())
            };
            key(one).cmp(&key(other))
        });
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        let mut units: Vec<Unit> = Vec::new();
        let mut groups: Vec<usize> = Vec::new();
        let mut group = None;
        for row in rows {
            let prompt = row.a_prompt_id.as_str().min(&row.b_prompt_id).to_owned();
            match groups.last_mut() {
                Some(length) if group.as_ref() == Some(&prompt) => *length += 1,
                _ => groups.push(1),
            }
            group = Some(prompt);
            match known.get(&row.comparison_id).map(|&index| &units[index]) {
                Some(Unit::Judge(earlier)) => units.push(Unit::Refuse(repeated(earlier, &row)?)),
                _ => {
                    known.insert(row.comparison_id.clone(), units.len());
                    units.push(Unit::Judge(Box::new(row)));
                }
            }
        }
        Ok(WorkList { units, groups, rows: count })
    }

    pub(crate) fn comparisons(&self) -> impl Iterator<Item = &Comparison> {
        self.units.iter().filter_map(|unit| match unit {
            Unit::Judge(comparison) => Some(&**comparison),
            Unit::Refuse(_) => None,
        })
    }

    /// One comparison of each form in the data, for early checks.
    pub(crate) fn first_of_each_form(&self) -> impl Iterator<Item = &Comparison> {
        [false, true].into_iter().filter_map(|joint| self.comparisons().find(|row| (row.form == "joint") == joint))
    }

    /// The groups of units that belong together: those of one prompt.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Range<usize>> {
        let mut start = 0;
        self.groups.iter().map(move |length| {
            start += length;
            start - length..start
        })
    }

    /// Ranges of units that shards compute.
    pub(crate) fn shards(&self, size: usize) -> Vec<Range<usize>> {
        shard_ranges(self.groups.iter().copied(), size)
    }
}

/// The reject for a row whose comparison was there before; an error where the two say different things.
fn repeated(earlier: &Comparison, row: &Comparison) -> Result<Reject> {
    let unsourced = |row: &Comparison| Comparison { source_file: None, source_line: None, ..row.clone() };
    let place = |row: &Comparison| match (&row.source_file, row.source_line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        _ => "the input".to_owned(),
    };
    if unsourced(earlier) != unsourced(row) {
        return Err(Error::data(format!(
            "comparison `{}` stands for two different comparisons, in {} and in {}",
            row.comparison_id,
            place(earlier),
            place(row)
        )));
    }
    Ok(Reject {
        input: "comparisons".to_owned(),
        row_id: row.comparison_id.clone(),
        reason: "duplicate".to_owned(),
        detail: format!("the same comparison as in {}", place(earlier)),
        source_file: row.source_file.clone(),
        source_line: row.source_line,
    })
}

/// Wording of comparisons as questions.
pub(crate) struct Wording {
    same: Option<Template>,
    joint: Option<Template>,
    pub(crate) form: Form,
    orders: Orders,
}

/// A comparison in words.
pub(crate) struct Worded<'a> {
    pub(crate) comparison: &'a Comparison,
    pub(crate) template: &'a Template,
    /// The order a first, and the order b first where it is asked.
    pub(crate) ab: String,
    pub(crate) ba: Option<String>,
}

impl Worded<'_> {
    /// The questions, a first.
    pub(crate) fn questions(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.ab).chain(&self.ba).map(String::as_str)
    }
}

impl Wording {
    pub(crate) fn open(judge: &Judge) -> Result<Wording> {
        let open = |name: &Option<String>, joint: bool| {
            let asks_for = judge.asks_for.filter(|_| name.as_ref().is_some_and(|name| name.contains('/')));
            name.as_ref().map(|name| Template::open(name, judge.task(), joint, asks_for)).transpose()
        };
        Ok(Wording {
            same: open(&judge.template, false)?,
            joint: open(&judge.joint_template, true)?,
            form: judge.form,
            orders: judge.orders,
        })
    }

    /// Words a comparison.
    ///
    /// # Errors
    /// When its form has no template, or when the template fails.
    pub(crate) fn word<'b>(&'b self, row: &'b Comparison) -> Result<Result<Worded<'b>, Refused>> {
        let joint = row.form == "joint";
        let (template, key) = if joint { (&self.joint, "joint_template") } else { (&self.same, "template") };
        let Some(template) = template else {
            return Err(Error::Pipeline(format!(
                "comparison `{}` has the form `{}` and there is no `{key}` for it; give one, or leave such comparisons out",
                row.comparison_id, row.form
            )));
        };
        if !joint && row.a_prompt != row.b_prompt {
            let detail = format!("its form is `{}` and its sides have different prompts", row.form);
            return Ok(Err(("form".to_owned(), detail)));
        }
        let a = Side { prompt: &row.a_prompt, response: &row.a_response };
        let b = Side { prompt: &row.b_prompt, response: &row.b_response };
        let ab = template.render(joint, a, b, self.form)?;
        let ba = match self.orders {
            Orders::One => None,
            Orders::Both => Some(template.render(joint, b, a, self.form)?),
        };
        Ok(Ok(Worded { comparison: row, template, ab, ba }))
    }
}

/// Tokenisation of comparisons.
pub(crate) struct Questions<'a> {
    wording: Wording,
    reader: SequenceReader,
    labels: &'a Labels,
}

/// Reason and detail of a refusal.
pub(crate) type Refused = (String, String);

/// A comparison as the judge sees it.
pub(crate) struct JudgeInput<'a> {
    pub(crate) comparison: &'a Comparison,
    /// The order a first, and the order b first where it is asked.
    pub(crate) ab: Question,
    pub(crate) ba: Option<Question>,
    pub(crate) template: &'a Template,
}

/// One order of a comparison: the question with each spelling of the labels.
pub(crate) struct Question {
    pub(crate) sequences: Vec<Sequence>,
    pub(crate) labels: LabelTokens,
}

impl<'a> Questions<'a> {
    pub(crate) fn open(judge: &'a Judge, context: &Context<'_>, wording: Wording) -> Result<Questions<'a>> {
        let rules = judge.tokens.text_rules();
        let reader = SequenceReader::open(&context.model("model")?.path, rules, judge.tokens.max_tokens)?;
        Ok(Questions { wording, reader, labels: &judge.labels })
    }

    /// The judge's tokenizer.
    pub(crate) fn text(&self) -> &Text {
        &self.reader.text
    }

    /// Words and tokenises a comparison.
    ///
    /// # Errors
    /// When its form has no template, when the template fails, or when the labels cannot be distinguished.
    pub(crate) fn ask<'b>(&'b self, row: &'b Comparison) -> Result<Result<JudgeInput<'b>, Refused>> {
        let worded = match self.wording.word(row)? {
            Ok(worded) => worded,
            Err(refused) => return Ok(Err(refused)),
        };
        let mut questions = worded.questions().map(|question| self.question(row, question));
        let ab = match questions.next().expect("the order a first is always asked")? {
            Ok(question) => question,
            Err(refused) => return Ok(Err(refused)),
        };
        let ba = match questions.next().transpose()? {
            None => None,
            Some(Ok(question)) => Some(question),
            Some(Err(refused)) => return Ok(Err(refused)),
        };
        drop(questions);
        Ok(Ok(JudgeInput { comparison: row, ab, ba, template: worded.template }))
    }

    fn question(&self, row: &Comparison, question: &str) -> Result<Result<Question, Refused>> {
        let turn = Turn::new(self.wording.form.role(), question);
        let row = format!("comparison `{}`", row.comparison_id);
        match self.reader.continuations(&row, turn, &self.labels.texts())? {
            Ok(mut sequences) => {
                let labels = self.labels.sort(&mut sequences).map_err(Error::Pipeline)?;
                Ok(Ok(Question { sequences, labels }))
            }
            Err(refusal) => Ok(Err((refusal.reason().to_owned(), refusal.to_string()))),
        }
    }
}

impl JudgeInput<'_> {
    /// The questions in an order that exchanging a and b does not change.
    pub(crate) fn questions(&self) -> impl Iterator<Item = &Question> {
        let (a, b) = sides(self.comparison);
        let ab = std::iter::once(&self.ab);
        let (first, second) = if a <= b { (Some(ab), None) } else { (None, Some(ab)) };
        first.into_iter().flatten().chain(&self.ba).chain(second.into_iter().flatten())
    }

    /// Tokens to compute when the two orders share what they have in common.
    pub(crate) fn shared_tokens(&self) -> usize {
        shared_tokens(self.questions().flat_map(|question| &question.sequences).map(|sequence| &*sequence.ids))
    }

    /// True where a question lost its beginning.
    pub(crate) fn cut(&self) -> bool {
        self.questions().flat_map(|question| &question.sequences).any(|sequence| sequence.cut > 0)
    }
}

impl Template {
    /// Sequences of the label for "shown first is better", and of the other.
    pub(crate) fn better<'a>(&self, labels: &'a LabelTokens) -> (&'a [usize], &'a [usize]) {
        match self.asks_for {
            AsksFor::Better => (&labels.first, &labels.second),
            AsksFor::Worse => (&labels.second, &labels.first),
        }
    }
}
