//! The texts that the reward model scores, for people to read before a run.

use kit::rows::Comparison;
use kit::{Context, Rendering, Result};
use tokens::rendering::{of_refusal, of_sequence};

use crate::config::Judge;
use crate::reward::work::{Side, reader};

/// Both sides of the first comparisons as the model sees them.
pub(crate) fn render(stage: &Judge, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
    let reader = reader(stage, context)?;
    let mut renderings = Vec::new();
    for row in context.rows::<Comparison>("comparisons")?.take(rows) {
        let row = row?;
        for side in Side::BOTH {
            let title = format!("comparison {}, {}", row.comparison_id, side.name());
            let (prompt, response) = side.texts(&row);
            renderings.push(match reader.response(&title, prompt, response)? {
                Ok(sequence) => of_sequence(&reader.text, title, &sequence)?,
                Err(refusal) => of_refusal(title, &refusal),
            });
        }
    }
    Ok(renderings)
}
