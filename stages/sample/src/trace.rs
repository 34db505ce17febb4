//! How a response came about.

use kit::rows::Response;
use kit::{Context, Fact, Result, Traced, Trail, ids};
use serde_json::{Value, json};

/// The responses of a trail.
pub(crate) fn trace(context: &Context<'_>, trail: &Trail) -> Result<Vec<Traced>> {
    let rows: Vec<Response> = trail.sides_in(&[context.port("responses")])?;
    let of_row = |row: Response| {
        let id = ids::response_id(&row.prompt_id, &row.messages);
        let model = row.model.map_or(Value::Null, Value::from);
        let facts = vec![
            Fact::checked("response_id", row.response_id.as_str(), id, "digest of the prompt's id and the text"),
            Fact::told("k", row.k).because("which of the prompt's samples it is, from 0"),
            Fact::told("count", row.count).because("equal samples that it stands for"),
            Fact::told("logp", json!(row.logp)).because("under the model that wrote it, at temperature 1"),
            Fact::told("tokens", json!(row.tokens)),
            Fact::told("finish", json!(row.finish)),
            Fact::told("model", model),
        ];
        Traced { title: format!("response {}", row.response_id), facts }
    };
    Ok(rows.into_iter().map(of_row).collect())
}
