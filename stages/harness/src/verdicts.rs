//! Verdicts the other way round.

use kit::rows::Verdict;

/// The same label with sides a and b exchanged.
pub fn exchanged(row: &Verdict) -> Verdict {
    let row = row.clone();
    Verdict {
        a_prompt_id: row.b_prompt_id,
        a_response_id: row.b_response_id,
        a_prompt: row.b_prompt,
        a_response: row.b_response,
        b_prompt_id: row.a_prompt_id,
        b_response_id: row.a_response_id,
        b_prompt: row.a_prompt,
        b_response: row.a_response,
        p_hat: 1.0 - row.p_hat,
        ..row
    }
}
