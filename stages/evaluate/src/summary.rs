//! The table of figures.

use std::collections::BTreeSet;

use kit::rows::SummaryRow;

use crate::interval::{Estimate, correlation, mean, share};

/// Collects figures in the order in which a person reads them.
#[derive(Default)]
pub(crate) struct Summary {
    pub(crate) rows: Vec<SummaryRow>,
}

/// Beginning of the note of a difference.
pub(crate) const DIFFERENCE: &str = "mean difference";

const WILSON: &str = "Wilson interval";
const NORMAL: &str = "normal interval";
const BOOTSTRAP: &str = "bootstrap over prompts";

impl Summary {
    pub(crate) fn share(&mut self, metric: &str, successes: impl Iterator<Item = bool>, note: &str) {
        let (mut yes, mut rows) = (0, 0);
        successes.for_each(|success| {
            rows += 1;
            yes += u64::from(success);
        });
        self.add(metric, share(yes, rows), WILSON, note);
    }

    pub(crate) fn mean(&mut self, metric: &str, values: impl Iterator<Item = f64>, note: &str) {
        self.add(metric, mean(&values.collect::<Vec<_>>()), NORMAL, note);
    }

    /// A figure without an interval.
    pub(crate) fn point(&mut self, metric: &str, value: f64, rows: usize, note: &str) {
        let rows = rows as u64;
        self.add(metric, (rows > 0).then_some(Estimate { value, interval: None, rows }), "", note);
    }

    pub(crate) fn correlation(&mut self, metric: &str, pairs: &[(f64, f64)], note: &str) {
        self.add(metric, correlation(pairs), "Fisher interval", note);
    }

    /// A figure whose interval comes from a bootstrap over prompts.
    pub(crate) fn bootstrapped(&mut self, metric: &str, estimate: Option<Estimate>, note: &str) {
        self.add(metric, estimate, BOOTSTRAP, note);
    }

    /// The main measures, over all forms: accuracy, win rates, differences of utility, errors of labels.
    pub(crate) fn headlines(&self) -> impl Iterator<Item = &SummaryRow> {
        let wanted = |row: &&SummaryRow| {
            let difference = row.metric.starts_with("utility/") && row.note.starts_with(DIFFERENCE);
            difference || ["accuracy", "win_rate", "truth/mean_abs_error"].contains(&row.metric.as_str())
        };
        self.rows.iter().filter(wanted)
    }

    /// A figure without rows is left out: there is nothing to say.
    fn add(&mut self, metric: &str, estimate: Option<Estimate>, kind: &str, note: &str) {
        let Some(Estimate { value, interval, rows }) = estimate else { return };
        self.rows.push(SummaryRow {
            metric: metric.to_owned(),
            value,
            low: interval.map(|(low, _)| low),
            high: interval.map(|(_, high)| high),
            rows,
            note: if interval.is_some() { format!("{note}; {kind}") } else { note.to_owned() },
        });
    }
}

/// The rows of each form apart, where there are several forms: the name's ending and the rows.
pub(crate) fn by_form<'a, T>(rows: &'a [T], form: impl Fn(&'a T) -> &'a str) -> Vec<(String, Vec<&'a T>)> {
    let mut forms: BTreeSet<&str> = BTreeSet::new();
    for row in rows {
        forms.insert(form(row));
    }
    let all = (String::new(), rows.iter().collect());
    let each = forms.iter().filter(|_| forms.len() > 1).map(|&name| {
        let of_form = rows.iter().filter(|row| form(row) == name).collect();
        (format!("/{name}"), of_form)
    });
    std::iter::once(all).chain(each).collect()
}
