//! The figures of all runs, by what they are runs of.

use std::collections::{BTreeMap, BTreeSet};

use kit::rows::SummaryRow;
use kit::{Context, Error, Result, RowReader};

use crate::config::Summarize;

/// One setting within a block: what is compared, and the rest of its labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    /// The labels of `within`, such as `data=stairs`.
    pub block: String,
    /// The label of `compare`.
    pub group: String,
    /// All other labels but that of `over`, such as `beta=0.3`.
    pub rest: String,
}

/// A setting's figures: by metric, by the label of `over`.
pub type Figures = BTreeMap<String, BTreeMap<String, f64>>;

/// The settings in the order of the labels.
pub struct Cells {
    /// Each setting with its figures.
    pub settings: Vec<(Setting, Figures)>,
    /// Rows read.
    pub rows: u64,
}

impl Cells {
    /// Reads all tables.
    ///
    /// # Errors
    /// When tables and labels do not fit together, or one run has two values of one figure.
    pub fn read(stage: &Summarize, context: &Context<'_>) -> Result<Cells> {
        let sources = context.sources("from");
        if sources.len() != stage.labels.len() {
            return Err(Error::Pipeline(format!(
                "`from` has {} tables and `labels` {} entries; write `labels: ${{labels.STAGE}}` with the stage of `from`",
                sources.len(),
                stage.labels.len()
            )));
        }
        let mut cells = Cells { settings: Vec::new(), rows: 0 };
        let wanted: BTreeSet<&str> = stage.wanted().collect();
        for (source, labels) in sources.iter().zip(&stage.labels) {
            let (setting, run) = stage.setting(labels).map_err(Error::Pipeline)?;
            let place = match cells.settings.iter().position(|(known, _)| *known == setting) {
                Some(place) => place,
                None => {
                    cells.settings.push((setting, Figures::new()));
                    cells.settings.len() - 1
                }
            };
            for row in RowReader::<SummaryRow>::open(&[&source.path])? {
                let row = row?;
                cells.rows += 1;
                if !wanted.contains(row.metric.as_str()) {
                    continue;
                }
                let figures = &mut cells.settings[place].1;
                let before = figures.entry(row.metric.clone()).or_default().insert(run.clone(), row.value);
                if before.is_some() {
                    let name = &source.name;
                    return Err(Error::Pipeline(format!(
                        "`{name}`: a second value of `{}` for the labels {labels:?}; give runs that differ a label",
                        row.metric
                    )));
                }
            }
        }
        for metric in wanted {
            if !cells.settings.iter().any(|(_, figures)| figures.contains_key(metric)) {
                return Err(Error::Pipeline(format!(
                    "no table has the figure `{metric}`; they have {}",
                    known_metrics(context)?
                )));
            }
        }
        Ok(cells)
    }
}

fn known_metrics(context: &Context<'_>) -> Result<String> {
    let mut names = BTreeSet::new();
    for source in context.sources("from") {
        for row in RowReader::<SummaryRow>::open(&[&source.path])? {
            names.insert(format!("`{}`", row?.metric));
        }
    }
    Ok(names.into_iter().collect::<Vec<_>>().join(", "))
}
