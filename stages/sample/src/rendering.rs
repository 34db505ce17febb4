//! The prompts that will be answered, before any is.

use kit::{Context, DistinctPrompts, Rendering, Result};
use tokens::rendering::{of_refusal, of_sequence};

use crate::config::Sample;
use crate::work::reader;

/// The first distinct prompts, by id.
pub(crate) fn render(stage: &Sample, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
    let reader = reader(stage, context)?;
    let distinct = DistinctPrompts::read(context, "from")?;
    let rendered = distinct.messages.iter().take(rows).map(|(id, messages)| {
        let title = format!("prompt {id}, {} answers of at most {} tokens", stage.k, stage.max_tokens);
        match reader.prompt(id, messages)? {
            Ok(sequence) => of_sequence(&reader.text, title, &sequence),
            Err(refusal) => Ok(of_refusal(title, &refusal)),
        }
    });
    rendered.collect()
}
