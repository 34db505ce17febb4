//! The correction of a label, made again from the stored fit.

use kit::rows::{CalibratedVerdict, CalibrationRow, Verdict};
use kit::{Context, Fact, Result, Traced, Trail};
use serde_json::Value;

use crate::fit::{Curve, Fit};

/// The corrected labels of a trail.
pub(crate) fn trace(context: &Context<'_>, trail: &Trail) -> Result<Vec<Traced>> {
    let rows: Vec<CalibratedVerdict> = trail.pairs_in(&[context.port("verdicts")])?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let paths: Vec<_> = context.sources("verdicts").iter().map(|source| &source.path).collect();
    let read: Vec<Verdict> = trail.pairs_in(&paths)?;
    let fits: Vec<CalibrationRow> = kit::read_rows(&context.port("calibration"))?;
    let traced = rows.into_iter().map(|row| {
        let before = read.iter().find(|verdict| verdict.comparison_id == row.comparison_id);
        let before = before.map_or(Value::Null, |verdict| verdict.p_hat.into());
        let mut facts = vec![
            Fact::checked("uncalibrated_p_hat", row.uncalibrated_p_hat, before, "the verdict that was read"),
            Fact::told("calibrator", row.calibrator.as_str()).because("the fit that saw no gold label of its prompts"),
        ];
        match fits.iter().find(|fit| fit.calibrator == row.calibrator) {
            Some(stored) => {
                let fit = Fit::stored(stored);
                facts.push(Fact::told("gold labels of the fit", stored.rows));
                let p_hat = fit.apply(row.uncalibrated_p_hat);
                facts.push(Fact::checked("p_hat", row.p_hat, p_hat, &words(&stored.method, &fit.curve)));
            }
            None => facts.push(Fact::checked("p_hat", row.p_hat, Value::Null, "its fit is not in `calibration`")),
        }
        Traced { title: format!("corrected verdict {}", row.comparison_id), facts }
    });
    Ok(traced.collect())
}

fn words(method: &str, curve: &Curve) -> String {
    match curve {
        Curve::Logistic { scale, offset } if *offset == 0.0 => {
            format!("{method}: sigmoid({scale} z), z the log-odds of uncalibrated_p_hat")
        }
        Curve::Logistic { scale, offset } => {
            format!("{method}: sigmoid({scale} z + {offset}), z the log-odds of uncalibrated_p_hat")
        }
        Curve::Knots(knots) => format!("{method}: between {} knots", knots.len()),
    }
}
