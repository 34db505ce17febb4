//! The questions to the judge, before it is asked.

use crate::config::Judge;
use crate::work::{Questions, Wording};
use kit::rows::Comparison;
use kit::{Context, Rendering, Result};
use tokens::lm_error;
use tokens::rendering::of_sequence;

/// The questions of the first comparisons in both orders: what stands before the label, and the labels that count.
pub(crate) fn render(stage: &Judge, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
    let wording = Wording::open(stage)?;
    let questions = match stage.endpoint {
        Some(_) => None,
        None => Some(Questions::open(stage, context, Wording::open(stage)?)?),
    };
    let mut renderings = Vec::new();
    for row in context.rows::<Comparison>("comparisons")?.take(rows) {
        let row = row?;
        let title = |order: &str| format!("comparison {}, {order} first", row.comparison_id);
        let refused = |(reason, detail): (String, String)| {
            Rendering::refused(format!("comparison {}", row.comparison_id), &reason, &detail)
        };
        match &questions {
            Some(questions) => match questions.ask(&row)? {
                Ok(asked) => {
                    for (order, question) in [("a", Some(&asked.ab)), ("b", asked.ba.as_ref())] {
                        let Some(question) = question else { continue };
                        renderings.push(of_question(questions, title(order), &question.sequences)?);
                    }
                }
                Err(reason) => renderings.push(refused(reason)),
            },
            None => match wording.word(&row)? {
                Ok(worded) => {
                    let texts = worded.questions().zip(["a", "b"]);
                    let of_endpoint = |question: &str| match &stage.endpoint {
                        Some(endpoint) => endpoint.request(question),
                        None => question.to_owned(),
                    };
                    renderings.extend(texts.map(|(text, order)| Rendering::of_text(title(order), of_endpoint(text))));
                }
                Err(reason) => renderings.push(refused(reason)),
            },
        }
    }
    Ok(renderings)
}

/// The question with its first spelling of a label; the others stand in the facts.
fn of_question(questions: &Questions<'_>, title: String, sequences: &[lm::Sequence]) -> Result<Rendering> {
    let text = questions.text();
    let first = &sequences[0];
    let mut rendering = of_sequence(text, title, first)?;
    let mut labels = Vec::new();
    for sequence in sequences {
        let (_, label) = text.spelled(sequence).map_err(lm_error)?;
        labels.push(format!("{label:?} = {:?}", &sequence.ids[sequence.start..]));
    }
    rendering.facts.push(format!("labels as tokens: {}", labels.join(", ")));
    Ok(rendering)
}
