//! The sequences that will be scored, before any is.

use kit::rows::{Item, Pair};
use kit::{Context, Rendering, Result, Table, Tokenised};
use lm::{Refusal, Sequence, Text};

use crate::lm_error;
use crate::stage::Reference;
use crate::work::{kl_response, turns};

/// The sequences of the first rows.
pub(crate) fn render(stage: &Reference, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
    let (text, limit) = stage.text(context)?;
    let rules = stage.rules();
    let mut renderings = Vec::new();
    if context.table_of("from") == Some(Table::Items) {
        for row in context.rows::<Item>("from")?.take(rows) {
            let row = row?;
            let prompt = turns(&row.prompt);
            let mut show = |part: &str, response: &[kit::Message]| -> Result<()> {
                let title = format!("item {}, {part}", row.item_id);
                let tokenised = text.single(&prompt, &turns(response), &rules, limit).map_err(lm_error)?;
                renderings.push(match tokenised {
                    Ok(sequence) => of_sequence(&text, title, &sequence)?,
                    Err(refusal) => refused(title, &refusal),
                });
                Ok(())
            };
            show("response", &row.response)?;
            if let Some((message, _)) = kl_response(&row) {
                show("mismatched response", &[message])?;
            }
        }
        return Ok(renderings);
    }
    for row in context.rows::<Pair>("from")?.take(rows) {
        let row = row?;
        let chosen = (&*turns(&row.chosen_prompt), &*turns(&row.chosen));
        let rejected = (&*turns(&row.rejected_prompt), &*turns(&row.rejected));
        match text.pair(chosen, rejected, &rules, limit).map_err(lm_error)? {
            Ok((chosen, rejected)) => {
                renderings.push(of_sequence(&text, format!("pair {}, chosen", row.pair_id), &chosen)?);
                renderings.push(of_sequence(&text, format!("pair {}, rejected", row.pair_id), &rejected)?);
            }
            Err(refusal) => {
                let title = format!("pair {}", row.pair_id);
                renderings.push(refused(title, &refusal));
            }
        }
    }
    Ok(renderings)
}

fn refused(title: String, refusal: &Refusal) -> Rendering {
    match refusal {
        Refusal::Displaced { .. } => Rendering::stopped(title, &refusal.to_string()),
        other => Rendering::refused(title, other.reason(), &other.to_string()),
    }
}

fn of_sequence(text: &Text, title: String, sequence: &Sequence) -> Result<Rendering> {
    let pieces = text.pieces(sequence).map_err(lm_error)?;
    let tokens = Tokenised {
        ids: &sequence.ids,
        start: sequence.start,
        pieces: &pieces,
        displaced: sequence.displaced,
        bos: text.count_bos(sequence),
        escaped: sequence.escaped,
        cut: sequence.cut,
    };
    Ok(Rendering::of_tokens(title, tokens))
}
