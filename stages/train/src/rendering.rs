//! The sequences that will be trained on, with what is learned of each, before anything is.

use kit::rows::{Item, Pair};
use kit::{Context, Message, Rendering, Result, Table, Tokenised};
use lm::{Refusal, Sequence, Text, Turn};

use crate::config::Train;
use crate::lm_error;
use crate::read::{kl_response, turns};

/// The sequences of the first rows, in the order of the table.
pub(crate) fn render(stage: &Train, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
    let (text, limit) = stage.text(context)?;
    let rules = stage.rules();
    let mut renderings = Vec::new();
    if context.table_of("from") == Some(Table::Items) {
        for row in context.rows::<Item>("from")?.take(rows) {
            let row = row?;
            let prompt = turns(&row.prompt);
            let mut show = |part: &str, response: &[Message]| -> Result<()> {
                let title = format!("item {}, {part}, label {}, weight {}", row.item_id, row.label, row.weight);
                let response: Vec<Turn<'_>> = turns(response);
                renderings.push(match text.single(&prompt, &response, &rules, limit).map_err(lm_error)? {
                    Ok(sequence) => of_sequence(&text, title, &sequence)?,
                    Err(refusal) => refused(title, &refusal),
                });
                Ok(())
            };
            show("response", &row.response)?;
            if let Some((message, _)) = kl_response(&row).filter(|_| stage.objective.needs_kl()) {
                show("mismatched response", &[message])?;
            }
        }
        return Ok(renderings);
    }
    for row in context.rows::<Pair>("from")?.take(rows) {
        let row = row?;
        let title = |side: &str| format!("pair {}, {side}, p_hat {}, weight {}", row.pair_id, row.p_hat, row.weight);
        let chosen = (&*turns(&row.chosen_prompt), &*turns(&row.chosen));
        let rejected = (&*turns(&row.rejected_prompt), &*turns(&row.rejected));
        match text.pair(chosen, rejected, &rules, limit).map_err(lm_error)? {
            Ok((chosen, rejected)) => {
                renderings.push(of_sequence(&text, title("chosen"), &chosen)?);
                if stage.objective.reads_rejected() {
                    renderings.push(of_sequence(&text, title("rejected"), &rejected)?);
                }
            }
            Err(refusal) => {
                renderings.push(refused(title("both sides"), &refusal));
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
