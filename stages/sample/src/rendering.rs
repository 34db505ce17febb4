//! The prompts that will be answered, before any is.

use kit::{Context, DistinctPrompts, Rendering, Result, Tokenised};
use lm::Turn;

use crate::lm_error;
use crate::stage::Sample;
use crate::work::Tokens;

/// The first distinct prompts, by id.
pub(crate) fn render(stage: &Sample, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
    let Tokens { text, limit } = Tokens::open(stage, context)?;
    let distinct = DistinctPrompts::read(context, "from")?;
    let mut renderings = Vec::new();
    for (id, messages) in distinct.messages.iter().take(rows) {
        let turns: Vec<Turn<'_>> = messages
            .iter()
            .map(|message| Turn { role: &message.role, content: &message.content, extra: message.extra.as_deref() })
            .collect();
        let title = format!("prompt {id}, {} answers of at most {} tokens", stage.k, stage.max_tokens);
        renderings.push(match text.prompt(&turns, &stage.text_rules(), limit).map_err(lm_error)? {
            Ok(sequence) => {
                let pieces = text.pieces(&sequence).map_err(lm_error)?;
                Rendering::of_tokens(
                    title,
                    Tokenised {
                        ids: &sequence.ids,
                        start: sequence.start,
                        pieces: &pieces,
                        displaced: false,
                        bos: text.count_bos(&sequence),
                        escaped: sequence.escaped,
                        cut: sequence.cut,
                    },
                )
            }
            Err(refusal) => Rendering::refused(title, refusal.reason(), &refusal.to_string()),
        });
    }
    Ok(renderings)
}
