//! What the sandbox knows of two responses.

use kit::rows::{Message, Prompt, Response, TruthRow, Utility, Verdict};
use kit::{Context, Fact, Result, Traced, Trail};
use serde_json::Value;

use crate::truth::{Truth, plain};
use crate::utility::{preference, utility};
use crate::words::Request;

/// The prompts of a trail that `mode: world` made.
pub(crate) fn requests(context: &Context<'_>, trail: &Trail) -> Result<Vec<Traced>> {
    let mut traced = Vec::new();
    for port in ["prompts", "holdout_prompts"] {
        let rows: Vec<Prompt> = trail.prompts_in(&[context.port(port)])?;
        traced.extend(rows.into_iter().map(|row| Traced {
            title: format!("prompt {}", row.prompt_id),
            facts: vec![
                Fact::told("text", plain(&row.messages)).because("drawn from the seed; no file holds it"),
                Fact::told("port", port),
            ],
        }));
    }
    Ok(traced)
}

/// The true worth of both sides and the true label.
pub(crate) fn truth(stage: &Truth, context: &Context<'_>, trail: &Trail) -> Result<Vec<Traced>> {
    let paths = |key: &str| context.sources(key).iter().map(|source| source.path.clone()).collect::<Vec<_>>();
    let worth = |prompt: &[Message], answer: &str| Request::parse(&plain(prompt)).map(|it| utility(&it, answer));
    let mut traced = Vec::new();
    if stage.responses.is_some() {
        let read: Vec<Response> = trail.sides_in(&paths("responses"))?;
        for row in trail.sides_in::<Utility, _>(&[context.port("utilities")])? {
            let of = read.iter().find(|it| (&it.prompt_id, &it.response_id) == (&row.prompt_id, &row.response_id));
            let again = of.and_then(|it| worth(&it.prompt, &it.text)).map_or(Value::Null, Value::from);
            let facts = vec![Fact::checked("utility", row.utility, again, "right words counted in the text")];
            traced.push(Traced { title: format!("utility of response {}", row.response_id), facts });
        }
    }
    if stage.verdicts.is_some() {
        let read: Vec<Verdict> = trail.pairs_in(&paths("verdicts"))?;
        let of = |id: &str| read.iter().find(|row| row.comparison_id == id);
        let rows: Vec<TruthRow> =
            kit::find(&[context.port("truth")], &["comparison_id"], |cells| of(cells[0]).is_some())?;
        for row in rows {
            let verdict = of(&row.comparison_id).expect("rows of other verdicts were not looked for");
            let a = worth(&verdict.a_prompt, &plain(&verdict.a_response));
            let b = worth(&verdict.b_prompt, &plain(&verdict.b_response));
            let again = a.zip(b).map_or(Value::Null, |(a, b)| preference(a, b).into());
            let facts = vec![
                Fact::checked("p_hat", row.p_hat, verdict.p_hat, "of the verdict that was read"),
                Fact::checked("p_star", row.p_star, again, "P(a better) in truth, from both utilities"),
            ];
            traced.push(Traced { title: format!("truth of comparison {}", row.comparison_id), facts });
        }
    }
    Ok(traced)
}
