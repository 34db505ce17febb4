//! The second step of judging with a rationale: the labels behind rationale and ending.

use kit::{Error, Result};
use lm::{Sequence, Turn};
use tokens::SequenceReader;

use crate::labels::{LabelTokens, Labels};
use crate::modes::Rationale;
use crate::work::{Question, Refused};

/// The question with the rationale, the ending and each spelling of the labels behind it, all tokenised as one text.
/// The labels start where the text without them ends.
///
/// # Errors
/// When the labels cannot be distinguished, or when the rules say to stop at this row.
pub(crate) fn labelled(
    reader: &SequenceReader,
    labels: &Labels,
    rationale: &Rationale,
    (row, turn): (&str, Turn<'_>),
    written: &str,
) -> Result<Result<Question, Refused>> {
    let before = format!("{written}{}", rationale.ending);
    let texts: Vec<String> = std::iter::once(before.clone())
        .chain(labels.texts().into_iter().map(|label| format!("{before}{label}")))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut sequences = match reader.continuations(row, turn, &texts)? {
        Ok(sequences) => sequences,
        Err(refusal) => return Ok(Err((refusal.reason().to_owned(), refusal.to_string()))),
    };
    let alone = sequences.remove(0);
    let shared = |one: &Sequence| one.ids.iter().zip(&alone.ids).take_while(|(a, b)| a == b).count();
    let start = sequences.iter().map(shared).min().unwrap_or(0);
    for sequence in &mut sequences {
        sequence.start = start;
    }
    let labels: LabelTokens = labels.sort(&mut sequences).map_err(Error::Pipeline)?;
    Ok(Ok(Question { sequences, labels }))
}

/// Tokens that stand behind what is written, at most: each byte may become one.
pub(crate) fn room(rationale: &Rationale, labels: &Labels) -> usize {
    rationale.ending.len() + labels.texts().iter().map(|label| label.len()).max().unwrap_or(0)
}
