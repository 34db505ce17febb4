//! Comparisons of the oracles' pairs.

use kit::rows::Comparison;

pub fn comparisons(form: &str) -> Vec<Comparison> {
    let rows = harness::pairs(form, true).into_iter().take(6);
    rows.map(|row| Comparison {
        comparison_id: kit::ids::comparison_id(
            (&row.chosen_prompt_id, &row.chosen_response_id),
            (&row.rejected_prompt_id, &row.rejected_response_id),
        ),
        form: row.form,
        a_prompt_id: row.chosen_prompt_id,
        a_response_id: row.chosen_response_id,
        a_prompt: row.chosen_prompt,
        a_response: row.chosen,
        b_prompt_id: row.rejected_prompt_id,
        b_response_id: row.rejected_response_id,
        b_prompt: row.rejected_prompt,
        b_response: row.rejected,
        source_file: row.source_file,
        source_line: row.source_line,
    })
    .collect()
}

#[allow(dead_code, reason = "not every file of tests exchanges the sides")]
pub fn swapped(row: Comparison) -> Comparison {
    Comparison {
        a_prompt_id: row.b_prompt_id,
        a_response_id: row.b_response_id,
        a_prompt: row.b_prompt,
        a_response: row.b_response,
        b_prompt_id: row.a_prompt_id,
        b_response_id: row.a_response_id,
        b_prompt: row.a_prompt,
        b_response: row.a_response,
        ..row
    }
}
