//! Two responses to be compared, or compared already.

use super::Known;
use crate::bad_row::BadRow;
use crate::column::Column::{self, *};
use crate::column::words;
use crate::record::Record;
use crate::row::Row;
use crate::tables::comparisons;

/// The labels of a comparison, the finest first; of several the first is taken.
pub const LABELS: [Column; 5] = [PHat, Preference, Strength, Feedback, FirstIsBetter];

pub const FORMAT: Known = Known {
    detect: |head| head.has(&[Response0, Response1]),
    needs: &[Response0, Response1],
    needs_one_of: &[&[Prompt], &[Prompt0, Prompt1]],
    reads: &[
        Prompt,
        Prompt0,
        Prompt1,
        Input,
        System,
        Tools,
        Response0,
        Response1,
        Feedback,
        Preference,
        FirstIsBetter,
        Strength,
        PHat,
        Weight,
        Judge,
        ComparisonId,
        PromptId,
        PromptId0,
        PromptId1,
        ResponseId0,
        ResponseId1,
        Score0,
        Score1,
        Model0,
        Model1,
    ],
    row_id: Some(ComparisonId),
    // SHP's ratio of the scores; votes of single annotators behind HelpSteer's preferences.
    aside: &[
        "score_ratio",
        "individual_preference",
        "preference_statement",
        "preference_elaboration",
        "three_most_similar_preferences",
        "all_preferences_unprocessed",
    ],
    settle: |_, places| {
        let found: Vec<_> = LABELS.into_iter().filter(|label| places.contains_key(label)).skip(1).collect();
        found.iter().for_each(|label| _ = places.remove(label));
    },
    tables: |places| comparisons(LABELS.iter().any(|label| places.contains_key(label))),
    read,
    ..Known::NONE
};

fn read(row: &mut Row<'_>) -> Result<Vec<Record>, BadRow> {
    let mut comparison = sides(row)?;
    if let Record::Comparison { p_hat: p_hat @ None, .. } = &mut comparison {
        *p_hat = label(row)?;
    }
    Ok(vec![comparison])
}

/// The two responses of a row, without a label.
pub fn sides(row: &mut Row<'_>) -> Result<Record, BadRow> {
    let (a, b) = (row.said(Response0)?, row.said(Response1)?);
    let prompts = if row.columns.has(Prompt) {
        let (prompt, id) = (row.whole_prompt(Prompt)?, row.id(PromptId)?);
        [(prompt.clone(), id.clone()), (prompt, id)]
    } else {
        [(row.said(Prompt0)?, row.id(PromptId0)?), (row.said(Prompt1)?, row.id(PromptId1)?)]
    };
    let before = row.before()?;
    let [(prompt_a, id_a), (prompt_b, id_b)] = prompts;
    let [prompt_a, a] = row.exchange(&before, prompt_a, a)?;
    let [prompt_b, b] = row.exchange(&before, prompt_b, b)?;
    row.comparison([(prompt_a, id_a), (prompt_b, id_b)], [a, b], None)
}

/// P(the first better), where the file says it.
fn label(row: &mut Row<'_>) -> Result<Option<f64>, BadRow> {
    let wanted = "0 (the first), 1 (the second) or 2 (equal)";
    let p_hat = match row.number_of_all(Feedback, 0.0, 2.0, wanted)? {
        Some(0.0) => Some(1.0),
        Some(1.0) => Some(0.0),
        // A column of ids of the better response has none for neither: there 1 and 2 are the places.
        Some(2.0) if words(row.name(Feedback)).any(|word| word == "id") => {
            let name = row.name(Feedback);
            let wanted =
                format!("0 (the first) or 1 (the second); for 1 and 2 name it `columns: {{preference: {name}}}`");
            return Err(BadRow::value(name, 2, &wanted));
        }
        Some(2.0) => Some(0.5),
        Some(other) => return Err(BadRow::value(row.name(Feedback), other, wanted)),
        None => None,
    };
    let preference = row.number_of_all(Preference, 1.0, 2.0, "from 1 (the first) to 2 (the second)")?;
    let strength = row.number_of_all(Strength, -3.0, 3.0, "from -3 (the first) to 3 (the second)")?;
    let first = row.number_of_all(FirstIsBetter, 0.0, 1.0, "1 (the first) or 0 (the second)")?;
    let given = row.p_hat()?;
    let finest = given.or(preference.map(|it| 2.0 - it)).or(strength.map(|it| (3.0 - it) / 6.0));
    Ok(finest.or(p_hat).or(first))
}
