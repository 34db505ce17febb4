//! The corrected verdicts: their other columns are passed on as they were read.

use arrow_array::ArrayRef;
use kit::rows::{CalibratedVerdict, ScoredVerdict, VerdictLabels};
use kit::{Cell, Context, Result, Row, TableBatch};

use crate::fits::Fits;
use crate::margin::Margins;

/// The columns that calibration makes, for some rows.
#[derive(Default)]
struct Columns {
    p_hat: Vec<f64>,
    log_odds: Vec<Option<f64>>,
    uncalibrated_p_hat: Vec<f64>,
    uncalibrated_log_odds: Vec<Option<f64>>,
    calibrator: Vec<String>,
}

/// Writes the port `verdicts`: each row by the fit that saw no gold label of its prompts.
pub(crate) fn write(context: &Context<'_>, margins: &Margins, fits: &mut Fits) -> Result<()> {
    let mut writer = context.column_writer::<CalibratedVerdict>("verdicts")?;
    // Labels that scores made have log-odds; others leave that column out.
    for batch in context.batches::<ScoredVerdict>(&["verdicts"])? {
        context.interrupt.check()?;
        let batch = batch?;
        let mut columns = Columns::default();
        for verdict in batch.rows::<VerdictLabels>()? {
            let margin = margins.of(verdict)?;
            let left_out = fits.folds.of(&margin.verdict.a_prompt_id, &margin.verdict.b_prompt_id);
            let made = fits.without(&left_out)?;
            let label = made.fit.apply(margin.z);
            columns.p_hat.push(label.p);
            columns.log_odds.push(label.log_odds);
            columns.uncalibrated_p_hat.push(margin.before);
            columns.uncalibrated_log_odds.push(Some(margin.z));
            columns.calibrator.push(made.name.clone());
        }
        writer.push(columns.beside(&batch))?;
    }
    writer.finish()
}

impl Columns {
    /// All columns of the output.
    fn beside(&self, batch: &TableBatch) -> Vec<ArrayRef> {
        let columns = CalibratedVerdict::fields().into_iter().map(|field| match field.name().as_str() {
            "p_hat" => <f64 as Cell>::to_array(self.p_hat.iter()),
            "log_odds" => <Option<f64> as Cell>::to_array(self.log_odds.iter()),
            "uncalibrated_p_hat" => <f64 as Cell>::to_array(self.uncalibrated_p_hat.iter()),
            "uncalibrated_log_odds" => <Option<f64> as Cell>::to_array(self.uncalibrated_log_odds.iter()),
            "calibrator" => <String as Cell>::to_array(self.calibrator.iter()),
            name => batch.column(name).clone(),
        });
        columns.collect()
    }
}
