//! The comparison of two responses.

use kit::rows::Comparison;
use kit::{Context, Fact, Result, Traced, Trail, ids};

/// The comparisons of a trail.
pub(crate) fn trace(context: &Context<'_>, trail: &Trail) -> Result<Vec<Traced>> {
    let rows: Vec<Comparison> = trail.pairs_in(&[context.port("comparisons")])?;
    let of_row = |row: Comparison| {
        let id = ids::comparison_id((&row.a_prompt_id, &row.a_response_id), (&row.b_prompt_id, &row.b_response_id));
        let form = if row.a_prompt_id == row.b_prompt_id { "same" } else { "joint" };
        let facts = vec![
            Fact::checked("comparison_id", row.comparison_id.as_str(), id, "digest of both sides' ids"),
            Fact::checked("form", row.form.as_str(), form, "whether both sides have one prompt"),
            Fact::told("a", row.a_response_id.as_str()).because("which side is a was drawn from the seed"),
            Fact::told("b", row.b_response_id.as_str()),
        ];
        Traced { title: format!("comparison {}", row.comparison_id), facts }
    };
    Ok(rows.into_iter().map(of_row).collect())
}
