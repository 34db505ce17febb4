//! The questions to the judge, for people to read before a run.

use endpoint::Endpoint;
use kit::rows::Comparison;
use kit::{Context, Rendering, Result};
use tokens::lm_error;
use tokens::rendering::of_sequence;

use crate::completion::{Completion, Request};
use crate::config::Judge;
use crate::modes::Mode;
use crate::modes::Rating;
use crate::protocol::OneToken;
use crate::rated::{RatingQuestions, rating_reader, responses};
use crate::work::{Questions, Refused, Wording, WorkList};
use crate::writing::Writing;

/// The questions of the first comparisons in both orders: what stands before the label, and the labels that count.
pub(crate) fn render(stage: &Judge, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
    if let Mode::Rating(rating) = stage.mode() {
        return of_ratings(stage, rating, context, rows);
    }
    let wording = Wording::open(stage)?;
    let comparisons = context.rows::<Comparison>("comparisons")?.take(rows);
    match &stage.endpoint {
        Some(endpoint) => of_endpoint(stage, endpoint, &wording, comparisons),
        None if stage.writing().is_some() => of_writing(&Writing::open(stage, context)?, &wording, comparisons),
        None => of_model(&Questions::open(stage, context, wording)?, comparisons),
    }
}

/// The request that an endpoint is sent.
fn of_endpoint(
    stage: &Judge,
    endpoint: &Endpoint,
    wording: &Wording,
    comparisons: impl Iterator<Item = Result<Comparison>>,
) -> Result<Vec<Rendering>> {
    let mut renderings = Vec::new();
    for row in comparisons {
        let row = row?;
        match wording.word(&row)? {
            Ok(worded) => {
                for (text, order) in worded.questions().zip(["a", "b"]) {
                    let question = text.to_owned();
                    let request = match stage.mode() {
                        Mode::Reasoning(reasoning) => {
                            endpoint.known_by(&Completion::new(reasoning), &Request { question, sample: 0 })
                        }
                        _ => endpoint.known_by(&OneToken::new(endpoint, &stage.labels), &question),
                    };
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
                    renderings.push(of_labels(questions.text(), title(&row, order), &question.sequences)?);
                }
            }
            Err(reason) => renderings.push(refused(&row, reason)),
        }
    }
    Ok(renderings)
}

/// The questions that a model in this process writes behind.
fn of_writing(
    writing: &Writing<'_>,
    wording: &Wording,
    comparisons: impl Iterator<Item = Result<Comparison>>,
) -> Result<Vec<Rendering>> {
    let mut renderings = Vec::new();
    for row in comparisons {
        let row = row?;
        let worded = match wording.word(&row)? {
            Ok(worded) => worded,
            Err(reason) => {
                renderings.push(refused(&row, reason));
                continue;
            }
        };
        match writing.prompts(&worded)? {
            Ok(mut prompts) => {
                prompts.sort_by_key(|prompt| prompt.order.name());
                for prompt in prompts {
                    let mut rendering =
                        of_sequence(&writing.reader.text, title(&row, &prompt.order.name()[..1]), &prompt.sequence)?;
                    rendering.facts.extend(writing.behind());
                    renderings.push(rendering);
                }
            }
            Err(reason) => renderings.push(refused(&row, reason)),
        }
    }
    Ok(renderings)
}

/// The questions about the responses of the first comparisons.
fn of_ratings(stage: &Judge, rating: &Rating, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
    let work = WorkList::read(context)?;
    let questions = RatingQuestions::open(stage, rating)?;
    let reader = if stage.endpoint.is_none() { Some(rating_reader(stage, context)?) } else { None };
    let mut renderings = Vec::new();
    for response in responses(&work)?.iter().take(2 * rows) {
        for criterion in &questions.criteria {
            let by = if criterion.name.is_empty() { String::new() } else { format!(", by {}", criterion.name) };
            let title = format!("response {}{by}", response.ids.1);
            let question = questions.word(response, criterion)?;
            let Some(reader) = &reader else {
                let endpoint = stage.endpoint.as_ref().expect("without a reader there is an endpoint");
                let request = endpoint.known_by(&OneToken::new(endpoint, &stage.labels), &question);
                renderings.push(Rendering::of_text(title, request));
                continue;
            };
            renderings.push(match questions.tokens(reader, response, &question)? {
                Ok((sequences, _)) => of_labels(&reader.text, title, &sequences)?,
                Err((reason, detail)) => Rendering::refused(title, &reason, &detail),
            });
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
fn of_labels(text: &lm::Text, title: String, sequences: &[lm::Sequence]) -> Result<Rendering> {
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
