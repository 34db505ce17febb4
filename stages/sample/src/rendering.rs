//! The prompts that will be answered, before any is.

use endpoint::Endpoint;
use kit::{Context, DistinctPrompts, Rendering, Result};
use tokens::rendering::{of_refusal, of_sequence};

use crate::config::Sample;
use crate::remote;
use crate::work::reader;

/// The first distinct prompts, by id.
pub(crate) fn render(stage: &Sample, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
    if let Some(endpoint) = &stage.endpoint {
        return of_endpoint(stage, endpoint, context, rows);
    }
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

/// The first request of each prompt; where the endpoint takes `n`, it asks for several answers at once.
fn of_endpoint(stage: &Sample, endpoint: &Endpoint, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
    let (prompts, refused, _) = remote::read(context)?;
    let protocol = stage.completions();
    let asked = prompts.iter().take(rows).filter_map(|prompt| {
        let (_, draw) = prompt.draws(stage, endpoint, context).into_iter().next()?;
        let title = format!("prompt {}, {} answers of at most {} tokens", prompt.id, stage.k, stage.max_tokens);
        Some(Rendering::of_text(title, endpoint.known_by(&protocol, &draw)))
    });
    let refused = refused.iter().map(|row| Rendering::refused(format!("row {}", row.row_id), &row.reason, &row.detail));
    Ok(asked.chain(refused).take(rows).collect())
}
