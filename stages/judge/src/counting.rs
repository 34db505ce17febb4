//! The forecast of judges that rate or write, counted from their inputs.

use endpoint::Protocol;
use kit::{Amount, Context, Error, Forecast, Result};
use tokens::cost::shared_tokens;

use crate::completion::{Completion, Request};
use crate::config::Judge;
use crate::modes::Mode;
use crate::modes::Rating;
use crate::protocol::OneToken;
use crate::rated::{RatingQuestions, rating_reader, responses};
use crate::work::{Wording, WorkList};
use crate::writing::Writing;

/// Ratings of the distinct responses.
///
/// # Errors
/// When the model's folder cannot be read, or when the stage would stop at a response.
pub(crate) fn ratings(judge: &Judge, rating: &Rating, context: &Context<'_>, work: &WorkList) -> Result<Forecast> {
    let responses = responses(work)?;
    let questions = RatingQuestions::open(judge, rating)?;
    let count = (responses.len() * questions.criteria.len()) as u64;
    let mut forecast = Forecast::of_rows(Amount::exact(work.rows)).note(rated(responses.len(), &questions));
    if let Some(endpoint) = &judge.endpoint {
        forecast.requests = Some(Amount::at_most(count));
        let protocol = OneToken::new(endpoint, &judge.labels);
        let asked = responses.iter().flat_map(|response| questions.criteria.iter().map(move |by| (response, by)));
        let cost = endpoint.cost_of(&protocol, asked.map(|(response, by)| questions.word(response, by)))?;
        forecast.notes.push(endpoint.destination(OneToken::PATH));
        forecast.notes.extend(cost);
        return Ok(forecast);
    }
    let reader = rating_reader(judge, context)?;
    let (mut tokens, mut too_long) = (0, 0);
    // Responses to one prompt share it, and the criteria share the response.
    for group in responses.chunk_by(|one, other| one.ids.0 == other.ids.0) {
        let mut sequences = Vec::new();
        for response in group {
            let mut long = false;
            for criterion in &questions.criteria {
                match questions.tokens(&reader, response, &questions.word(response, criterion)?)? {
                    Ok((asked, _)) => {
                        long |= asked.iter().any(|sequence| sequence.cut > 0);
                        sequences.extend(asked.into_iter().map(|sequence| sequence.ids));
                    }
                    Err((reason, _)) => long |= reason == "too_long",
                }
            }
            too_long += u64::from(long);
        }
        tokens += shared_tokens(sequences.iter().map(Vec::as_slice)) as u64;
    }
    forecast.tokens = Some(Amount::at_most(tokens));
    forecast.too_long = Some(Amount::exact(too_long));
    Ok(forecast)
}

fn rated(responses: usize, questions: &RatingQuestions<'_>) -> String {
    match questions.criteria.len() {
        1 => format!("{responses} responses, each rated once"),
        criteria => format!("{responses} responses, each rated once by each of {criteria} criteria"),
    }
}

/// Texts about the comparisons.
///
/// # Errors
/// As [`ratings`].
pub(crate) fn texts(judge: &Judge, context: &Context<'_>, work: &WorkList, wording: &Wording) -> Result<Forecast> {
    let (samples, rules) = judge.writing().ok_or_else(|| Error::internal("a judge that writes nothing"))?;
    let orders = work.comparisons().count() as u64 * judge.order_count();
    let texts = orders * samples as u64;
    let note = format!("{texts} texts of at most {} tokens each are written", rules.max_tokens);
    let mut forecast = Forecast::of_rows(Amount::exact(work.rows)).note(note);
    if let Some(endpoint) = &judge.endpoint {
        forecast.requests = Some(Amount::at_most(texts));
        forecast.notes.push(endpoint.destination(OneToken::PATH));
        if let Mode::Reasoning(reasoning) = judge.mode() {
            let of = |row| match wording.word(row) {
                Ok(Ok(worded)) => worded.questions().map(|text| Ok(text.to_owned())).collect(),
                Ok(Err(_)) => Vec::new(),
                Err(error) => vec![Err(error)],
            };
            let questions = work.comparisons().flat_map(of);
            let requests = questions.flat_map(|question: Result<String>| {
                let question = question.map_err(|error| error.to_string());
                (0..samples).map(move |sample| match &question {
                    Ok(question) => Ok(Request { question: question.clone(), sample }),
                    Err(error) => Err(Error::Pipeline(error.clone())),
                })
            });
            forecast.notes.extend(endpoint.cost_of(&Completion::new(reasoning), requests)?);
        }
        return Ok(forecast);
    }
    let writing = Writing::open(judge, context)?;
    let (mut questions, mut written, mut too_long) = (0, 0, 0);
    for comparison in work.comparisons() {
        let Ok(worded) = wording.word(comparison)? else { continue };
        match writing.prompts(&worded)? {
            Ok(prompts) => {
                too_long += u64::from(prompts.iter().any(|prompt| prompt.sequence.cut > 0));
                questions += shared_tokens(prompts.iter().map(|prompt| &*prompt.sequence.ids)) as u64;
                written += (prompts.len() * samples * rules.max_tokens) as u64;
            }
            Err((reason, _)) => too_long += u64::from(reason == "too_long"),
        }
    }
    // Behind a rationale the question is computed again, with the rationale and the labels.
    let again = if judge.rationale.is_some() { questions + written } else { 0 };
    forecast.tokens = Some(Amount::at_most(questions + written + again));
    forecast.too_long = Some(Amount::exact(too_long));
    Ok(forecast.note(format!("{questions} tokens of questions, {written} tokens written at most")))
}
