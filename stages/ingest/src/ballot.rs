//! The votes of a row: one value, a list, an object by annotator, or counts.

use serde_json::{Map, Value};

use crate::bad_row::{BadRow, shown};
use crate::column::Column;
use crate::row::Row;
use crate::scale::{Scale, Token, plain_word};
use crate::stored::opened;

/// Names of the vote in an object of a list, besides the names of the column.
const VOTE: [&str; 6] = ["vote", "score", "preference", "label", "choice", "winner"];

/// A vote.
#[derive(Debug, Clone, PartialEq)]
pub struct Ballot {
    /// The annotator, where the data names one.
    pub annotator: Option<String>,
    /// P(the first better).
    pub vote: f64,
    /// Its log-odds, where scores made it.
    pub log_odds: Option<f64>,
    /// Votes that it stands for.
    pub weight: f64,
    /// Lengths of the first and the second response, where the data has them.
    pub lengths: Option<[f64; 2]>,
}

impl Ballot {
    /// The same where the two responses stand the other way round.
    pub fn turn(&mut self) {
        self.vote = 1.0 - self.vote;
        self.log_odds = self.log_odds.map(|log_odds| -log_odds);
        self.lengths = self.lengths.map(|[first, second]| [second, first]);
    }
}

/// The content of a cell.
enum Cell {
    /// A vote.
    One(Value),
    /// Votes, with who gave each where the cell says so.
    Several(Vec<(Option<String>, Value)>),
    /// P(the first better) and how many votes said so.
    Counts(Vec<(f64, f64)>),
}

impl Cell {
    fn of(name: &str, value: &Value) -> Result<Cell, BadRow> {
        match opened(value) {
            Value::Array(items) => {
                let items = items.into_iter().enumerate();
                let one = |(at, item): (usize, Value)| match item {
                    Value::Object(item) => {
                        let vote = VOTE.iter().find_map(|name| item.get(*name)).cloned();
                        let vote = vote.ok_or_else(|| {
                            let wanted = format!("an object with one of `{}`", VOTE.join("`, `"));
                            BadRow::value(&format!("{name}[{at}]"), shown(&Value::Object(item.clone())), &wanted)
                        })?;
                        let who = Column::Annotator.names().iter().find_map(|name| text_of(item.get(*name)?));
                        Ok((who.or(Some((at + 1).to_string())), vote))
                    }
                    item => Ok((Some((at + 1).to_string()), item)),
                };
                items.map(one).collect::<Result<_, BadRow>>().map(Cell::Several)
            }
            Value::Object(fields) => match counts(&fields) {
                Some(counts) => Ok(Cell::Counts(counts)),
                None => Ok(Cell::Several(fields.into_iter().map(|(who, vote)| (Some(who), vote)).collect())),
            },
            one => Ok(Cell::One(one)),
        }
    }
}

/// An id as text.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Numbers by words that all say who is better.
fn counts(fields: &Map<String, Value>) -> Option<Vec<(f64, f64)>> {
    let count = |(word, value): (&String, &Value)| Some((plain_word(word)?, value.as_f64()?));
    fields.iter().map(count).collect()
}

/// The values of votes in the first rows of a file, to find their scale. Counts have none.
pub fn tokens<'a>(names: &'a [String], rows: &'a [Map<String, Value>]) -> Vec<Token> {
    let cells = rows.iter().flat_map(|row| names.iter().filter_map(|name| Some((name, row.get(name)?))));
    let values = cells.flat_map(|(name, value)| match Cell::of(name, value) {
        Ok(Cell::One(one)) => vec![one],
        Ok(Cell::Several(several)) => several.into_iter().map(|(_, value)| value).collect(),
        Ok(Cell::Counts(_)) | Err(_) => Vec::new(),
    });
    values.filter_map(|value| Token::of(&value)).collect()
}

impl Row<'_> {
    /// The votes of the row, each of some weight; none where all cells are null.
    ///
    /// # Errors
    /// A value that is no vote on the scale, no count, or no name of an annotator.
    pub fn ballots(&mut self, weight: f64) -> Result<Vec<Ballot>, BadRow> {
        let who = self.annotator()?;
        let mut ballots = self.counted(weight)?;
        let several = self.columns.votes.len() > 1;
        for name in &self.columns.votes {
            let Some(value) = self.fields.get(name).filter(|value| !value.is_null()) else { continue };
            let named = |own: Option<String>| {
                let parts = [who.clone(), several.then(|| name.clone()), own];
                let parts: Vec<String> = parts.into_iter().flatten().collect();
                (!parts.is_empty()).then(|| parts.join("/"))
            };
            match Cell::of(name, value)? {
                Cell::One(value) => {
                    let vote = read(self.columns.scale.as_ref(), name, &value)?;
                    ballots.extend(vote.map(|vote| Ballot {
                        annotator: named(None),
                        vote,
                        log_odds: None,
                        weight,
                        lengths: None,
                    }));
                }
                Cell::Several(_) if who.is_some() => {
                    let annotator = self.name(Column::Annotator);
                    let wanted = format!("one vote beside `{annotator}`");
                    return Err(BadRow::value(name, shown(value), &wanted));
                }
                Cell::Several(votes) => {
                    for (own, value) in votes {
                        let place = format!("{name}[{}]", own.as_deref().unwrap_or_default());
                        let vote = read(self.columns.scale.as_ref(), &place, &value)?;
                        ballots.extend(vote.map(|vote| Ballot {
                            annotator: named(own),
                            vote,
                            log_odds: None,
                            weight,
                            lengths: None,
                        }));
                    }
                }
                Cell::Counts(counts) => {
                    for (vote, count) in counts {
                        ballots.extend(of_count(name, vote, count, weight)?);
                    }
                }
            }
        }
        Ok(ballots)
    }

    /// Who voted, where a column says so.
    ///
    /// # Errors
    /// Where it has no name.
    pub fn annotator(&mut self) -> Result<Option<String>, BadRow> {
        let who = self.id(Column::Annotator)?;
        if self.columns.has(Column::Annotator) && who.is_none() {
            return Err(self.missing(Column::Annotator));
        }
        Ok(who)
    }

    /// P(the first better) and its log-odds by the scores of both responses.
    ///
    /// # Errors
    /// Where a score is missing or no number.
    pub fn scores_of_both(&mut self) -> Result<(f64, f64), BadRow> {
        let mut score = |column| self.number(column)?.ok_or_else(|| self.missing(column));
        let difference = score(Column::Score0)? - score(Column::Score1)?;
        let (vote, log_odds) = self.columns.scaled().expect("it is asked for with a scale").label(difference);
        Ok((vote, log_odds.expect("a scale makes log-odds")))
    }

    /// Lengths of both responses, where columns say them.
    ///
    /// # Errors
    /// Where one is missing or no length.
    pub fn lengths(&mut self) -> Result<Option<[f64; 2]>, BadRow> {
        if !self.columns.has(Column::Length0) && !self.columns.has(Column::Length1) {
            return Ok(None);
        }
        let mut length = |column| match self.number(column)? {
            Some(length) if length >= 0.0 && length.is_finite() => Ok(length),
            Some(length) => Err(BadRow::value(self.name(column), length, "a length of at least 0")),
            None => Err(self.missing(column)),
        };
        Ok(Some([length(Column::Length0)?, length(Column::Length1)?]))
    }

    /// The votes that columns count.
    fn counted(&mut self, weight: f64) -> Result<Vec<Ballot>, BadRow> {
        let mut ballots = Vec::new();
        for (column, vote) in [(Column::VotesA, 1.0), (Column::VotesTie, 0.5), (Column::VotesB, 0.0)] {
            if let Some(count) = self.number(column)? {
                ballots.extend(of_count(self.name(column), vote, count, weight)?);
            }
        }
        Ok(ballots)
    }
}

fn of_count(name: &str, vote: f64, count: f64, weight: f64) -> Result<Option<Ballot>, BadRow> {
    if !(count >= 0.0 && count.is_finite()) {
        return Err(BadRow::value(name, count, "a number of votes, at least 0"));
    }
    Ok((count > 0.0).then_some(Ballot { annotator: None, vote, log_odds: None, weight: weight * count, lengths: None }))
}

fn read(scale: Option<&Scale>, place: &str, value: &Value) -> Result<Option<f64>, BadRow> {
    let Some(scale) = scale else {
        let wanted = "counts or nothing, as in the first rows; `votes:` says what other values mean";
        return Err(BadRow::value(place, shown(value), wanted));
    };
    let outside = |got: String| {
        BadRow::new("outside_scale", format!("column `{place}` is {got}, which is not on the scale: {scale}"))
    };
    scale.read(value).map_err(outside)
}
