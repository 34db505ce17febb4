//! The balance of gold sides, and how much of Platt's offset it explains.
//!
//! An offset is right where the judge leans to the side that it sees first. It is a habit of the file where gold is more
//! often of one side: exchanging the sides of each row at random would take both the balance and that offset away.

use kit::rows::SummaryRow;
use kit::{Z, wilson};

use crate::config::Calibrate;
use crate::fit::{Curve, Fit, Method, Observation, logit};

/// How often gold is of side a.
pub struct Balance {
    /// The mean gold P(a better).
    pub share: f64,
    /// Gold labels.
    pub rows: u64,
}

pub fn of(observations: &[Observation]) -> Balance {
    let rows = observations.len() as u64;
    Balance { share: observations.iter().map(|it| it.gold).sum::<f64>() / rows as f64, rows }
}

/// Refuses gold labels that are all of one side where an offset is fitted.
pub fn check(stage: &Calibrate, side: &Balance) -> Result<(), String> {
    let which = if side.share == 1.0 { "a" } else { "b" };
    if stage.method != Method::Platt || (0.0 < side.share && side.share < 1.0) {
        return Ok(());
    }
    Err(format!(
        "all {} gold labels say that side {which} is better, so the offset of `platt` has no finite value: use \
         `method: temperature`, or exchange the sides of some rows",
        side.rows
    ))
}

/// The offset that the balance of sides alone would give, in log-odds.
fn own_offset(side: &Balance) -> f64 {
    logit(side.share)
}

/// The balance and, of Platt's method, the offset beside what the balance alone would make of it.
pub fn rows(side: &Balance, all: &Fit, observations: &[Observation]) -> Vec<SummaryRow> {
    let interval = wilson(side.share, side.rows);
    let mut rows = vec![SummaryRow {
        metric: "gold/side_a".to_owned(),
        value: side.share,
        low: interval.map(|it| it.0),
        high: interval.map(|it| it.1),
        rows: side.rows,
        note: "mean gold P(a better): the balance of the sides; Wilson interval".to_owned(),
    }];
    if let Some(offset) = offset(all) {
        let half = all.offset_error(observations).map(|error| Z * error);
        rows.push(SummaryRow {
            metric: "offset".to_owned(),
            value: offset,
            low: half.map(|half| offset - half),
            high: half.map(|half| offset + half),
            rows: side.rows,
            note: format!(
                "log-odds added to side a in every row; the balance of gold sides alone gives {:.3}; normal interval",
                own_offset(side)
            ),
        });
    }
    rows
}

/// Names an offset that the balance of the sides explains: of its sign, and at least half as large.
pub fn warning(side: &Balance, all: &Fit) -> Option<String> {
    let (offset, own) = (offset(all)?, own_offset(side));
    let explained = offset * own > 0.0 && own.abs() >= 0.5 * offset.abs();
    explained.then(|| {
        format!(
            "the offset {offset:.3} of `platt` is mostly the balance of sides in the gold labels ({:.1} % say a, log-odds \
             {own:.3}), not a habit of the judge: it would not help where sides are drawn. `method: temperature` has none",
            100.0 * side.share
        )
    })
}

fn offset(fit: &Fit) -> Option<f64> {
    match fit.curve {
        Curve::Logistic { offset, .. } if offset != 0.0 => Some(offset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(offset: f64) -> Fit {
        Fit { curve: Curve::Logistic { scale: 1.0, offset }, rows: 100, steps: 1, converged: true }
    }

    #[test]
    fn an_offset_is_named_where_the_balance_of_sides_explains_it() {
        // 55 of 100 say a: log-odds ln(55/45) = 0.2007.
        let side = Balance { share: 0.55, rows: 100 };
        let text = warning(&side, &fit(0.27)).unwrap();
        assert!(text.contains("0.270") && text.contains("55.0 % say a, log-odds 0.201"), "{text}");
        for offset in [-0.27, 0.9, 0.0] {
            assert_eq!(warning(&side, &fit(offset)), None, "{offset}");
        }
        assert_eq!(warning(&Balance { share: 0.5, rows: 100 }, &fit(0.27)), None);
    }
}
