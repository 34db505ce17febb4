//! The questions to the judge, for people to read before a run.

use endpoint::Endpoint;
use kit::rows::Comparison;
use kit::{Context, Rendering, Result};
use tokens::lm_error;
use tokens::rendering::of_sequence;

use crate::config::Judge;
use crate::protocol::OneToken;
use crate::work::{Questions, Refused, Wording};

/// The questions of the first comparisons in both orders: what stands before the label, and the labels that count.
pub(crate) fn render(stage: &Judge, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
    let wording = Wording::open(stage)?;
    let comparisons = context.rows::<Comparison>("comparisons")?.take(rows);
    match &stage.endpoint {
        Some(endpoint) => of_endpoint(endpoint, &OneToken::new(endpoint, &stage.labels), &wording, comparisons),
        None => of_model(&Questions::open(stage, context, wording)?, comparisons),
    }
}

/// The request that an endpoint is sent.
fn of_endpoint(
    endpoint: &Endpoint,
    protocol: &OneToken,
    wording: &Wording,
    comparisons: impl Iterator<Item = Result<Comparison>>,
) -> Result<Vec<Rendering>> {
    let mut renderings = Vec::new();
    for row in comparisons {
        let row = row?;
        match wording.word(&row)? {
            Ok(worded) => {
                for (text, order) in worded.questions().zip(["a", "b"]) {
                    let request = endpoint.known_by(protocol, &text.to_owned());
                    renderings.push(Rendering::of_text(title(&row, order), request));
                }
            }
            Err(reason) => renderings.push(refused(&row, reason)),
        }
    }
    Ok(renderings)
}

/// The tokens that a model in this process is fed.
fn of_model(
    questions: &Questions<'_>,
    comparisons: impl Iterator<Item = Result<Comparison>>,
) -> Result<Vec<Rendering>> {
    let mut renderings = Vec::new();
    for row in comparisons {
        let row = row?;
        match questions.ask(&row)? {
            Ok(asked) => {
                for (order, question) in [("a", Some(&asked.ab)), ("b", asked.ba.as_ref())] {
                    let Some(question) = question else { continue };
                    renderings.push(of_question(questions, title(&row, order), &question.sequences)?);
                }
            }
            Err(reason) => renderings.push(refused(&row, reason)),
        }
    }
    Ok(renderings)
}

fn title(row: &Comparison, order: &str) -> String {
    format!("comparison {}, {order} first", row.comparison_id)
}

fn refused(row: &Comparison, (reason, detail): Refused) -> Rendering {
    Rendering::refused(format!("comparison {}", row.comparison_id), &reason, &detail)
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
