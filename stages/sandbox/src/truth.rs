//! `mode: truth`: the true utilities of responses and the true labels of verdicts.

use kit::rows::{Reject, Response, TruthRow, Utility, Verdict};
use kit::{
    Amount, Context, Expected, Finding, Forecast, ForecastInputs, Input, InputPort, Message, Outcome, Outlook,
    OutputPort, Result, Table, read_port,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::utility::{preference, utility};
use crate::words::Request;

/// Gives the true utility of responses and the true probability behind verdicts. At least one of the two inputs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Truth {
    /// `responses` to prompts of the sandbox; gives the port `utilities`.
    #[serde(default)]
    pub responses: Option<Input>,
    /// `verdicts` over such responses; gives the port `truth` with the judge's `p_hat` beside the true `p_star`.
    #[serde(default)]
    pub verdicts: Option<Input>,
}

impl Truth {
    pub(crate) fn inputs(&self) -> Vec<InputPort> {
        let responses = self.responses.iter().map(|from| InputPort::new("responses", from, Table::Responses));
        let verdicts = self.verdicts.iter().map(|from| InputPort::new("verdicts", from, Table::Verdicts));
        responses.chain(verdicts).collect()
    }

    pub(crate) fn outputs(&self) -> Vec<OutputPort> {
        let utilities = self.responses.iter().map(|_| OutputPort::new(Table::Utilities));
        let truth = self.verdicts.iter().map(|_| OutputPort::new(Table::Truth));
        utilities.chain(truth).chain([OutputPort::new(Table::Rejects)]).collect()
    }

    pub(crate) fn check(&self) -> Vec<Finding> {
        if self.responses.is_none() && self.verdicts.is_none() {
            return vec![Finding::at("", "`mode: truth` needs `responses`, `verdicts` or both")];
        }
        Vec::new()
    }

    pub(crate) fn rows(&self, context: &Context<'_>) -> Result<u64> {
        let mut rows = 0;
        for source in ["responses", "verdicts"].iter().flat_map(|key| context.sources(key)) {
            rows += read_port(&source.path, source.table)?.rows;
        }
        Ok(rows)
    }

    pub(crate) fn estimate(&self, ahead: &ForecastInputs<'_>) -> Outlook {
        let (responses, verdicts) = (ahead.rows("responses"), ahead.rows("verdicts"));
        let Some(rows) = responses.into_iter().chain(verdicts).reduce(Amount::plus) else { return Outlook::default() };
        let outlook = Outlook::of(Forecast::of_rows(rows));
        [(Table::Utilities, responses), (Table::Truth, verdicts)].into_iter().fold(outlook, |outlook, (table, rows)| {
            let Some(rows) = rows else { return outlook };
            outlook.port(table.name(), Expected::of_rows(table, rows.bounded()))
        })
    }

    pub(crate) fn run(&self, context: &Context<'_>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut rejects = Vec::new();
        if self.responses.is_some() {
            outcome = write_utilities(context, outcome, &mut rejects)?;
        }
        if self.verdicts.is_some() {
            outcome = write_truth(context, outcome, &mut rejects)?;
        }
        context.write_rejects(rejects)?;
        Ok(outcome)
    }
}

/// The utility of each response. The mean in the figures counts every sample, equal ones too.
fn write_utilities(context: &Context<'_>, outcome: Outcome, rejects: &mut Vec<Reject>) -> Result<Outcome> {
    let mut writer = context.writer("utilities")?;
    let (mut read, mut rejected) = (0, 0);
    let (mut sum, mut samples) = (0.0, 0_u64);
    for row in context.rows::<Response>("responses")? {
        let row = row?;
        read += 1;
        match Request::parse(&plain(&row.prompt)) {
            Some(request) => {
                let utility = utility(&request, &row.text);
                sum += utility * f64::from(row.count);
                samples += u64::from(row.count);
                writer.push(Utility {
                    response_id: row.response_id,
                    prompt_id: row.prompt_id,
                    utility,
                    count: row.count,
                    model: row.model,
                })?;
            }
            None => {
                rejected += 1;
                let detail = not_a_request(&row.prompt);
                rejects.push(reject("responses", row.response_id, detail, row.source_file, row.source_line));
            }
        }
    }
    writer.finish()?;
    let outcome = outcome.balance("responses", read, read - rejected, rejected).figure("samples", samples);
    Ok(if samples > 0 { outcome.figure("mean utility", sum / samples as f64) } else { outcome })
}

/// The true preference behind each verdict.
fn write_truth(context: &Context<'_>, outcome: Outcome, rejects: &mut Vec<Reject>) -> Result<Outcome> {
    let mut writer = context.writer("truth")?;
    let (mut read, mut rejected) = (0, 0);
    let mut error = 0.0;
    for row in context.rows::<Verdict>("verdicts")? {
        let row = row?;
        read += 1;
        let sides = [(&row.a_prompt, &row.a_response), (&row.b_prompt, &row.b_response)];
        let utilities =
            sides.map(|(prompt, answer)| Request::parse(&plain(prompt)).map(|it| utility(&it, &plain(answer))));
        match utilities {
            [Some(a), Some(b)] => {
                let p_star = preference(a, b);
                error += (row.p_hat - p_star).abs();
                writer.push(TruthRow { comparison_id: row.comparison_id, form: row.form, p_hat: row.p_hat, p_star })?;
            }
            [a, _] => {
                rejected += 1;
                let detail = not_a_request(if a.is_none() { &row.a_prompt } else { &row.b_prompt });
                rejects.push(reject("verdicts", row.comparison_id, detail, row.source_file, row.source_line));
            }
        }
    }
    writer.finish()?;
    let kept = read - rejected;
    let outcome = outcome.balance("verdicts", read, kept, rejected);
    Ok(if kept > 0 { outcome.figure("mean |p_hat - p_star|", error / kept as f64) } else { outcome })
}

pub(crate) fn plain(messages: &[Message]) -> String {
    messages.iter().map(|message| message.content.as_str()).collect()
}

fn not_a_request(prompt: &[Message]) -> String {
    format!("{:?} is no prompt of the sandbox; wanted one like \"name three fruits:\"", plain(prompt))
}

fn reject(
    input: &str,
    row_id: String,
    detail: String,
    source_file: Option<String>,
    source_line: Option<u64>,
) -> Reject {
    let reason = "not_of_the_sandbox".to_owned();
    Reject { input: input.to_owned(), row_id, reason, detail, source_file, source_line }
}
