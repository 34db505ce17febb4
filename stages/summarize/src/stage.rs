//! The stage contract of `summarize`: ports, checks, forecast, run.

use std::collections::BTreeMap;

use kit::commit::commit_bytes;
use kit::rows::{Reject, ResultRow};
use kit::{
    Amount, Context, Error, Finding, Forecast, ForecastInputs, InputPort, Job, Outcome, Outlook, OutputPort, Result,
    Stage, Table,
};

use crate::cells::{Cells, Figures, Setting};
use crate::config::{Best, Summarize};
use crate::student::{Estimate, estimate};
use crate::{pages, plot};

impl Summarize {
    /// The figures that are read.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &str> {
        self.metrics.iter().chain(self.choose.iter().map(|choose| &choose.metric)).map(String::as_str)
    }

    /// The setting that some labels mean, and the label of the repetition.
    pub(crate) fn setting(&self, labels: &BTreeMap<String, String>) -> std::result::Result<(Setting, String), String> {
        let label = |axis: &String| {
            let known: Vec<&str> = labels.keys().map(String::as_str).collect();
            labels
                .get(axis)
                .cloned()
                .ok_or_else(|| format!("a table has no label `{axis}`; it has {}", known.join(", ")))
        };
        let mut block: Vec<(&String, String)> = Vec::new();
        for axis in &self.within {
            block.push((axis, label(axis)?));
        }
        let mut rest = Vec::new();
        for (axis, value) in labels {
            if *axis != self.over && *axis != self.compare && !self.within.contains(axis) {
                // Without a choice, all other labels separate comparisons too.
                if self.choose.is_some() { &mut rest } else { &mut block }.push((axis, value.clone()));
            }
        }
        let text = |labels: &[(&String, String)]| {
            labels.iter().map(|(axis, value)| format!("{axis}={value}")).collect::<Vec<_>>().join(", ")
        };
        let setting = Setting { block: text(&block), group: label(&self.compare)?, rest: text(&rest) };
        Ok((setting, label(&self.over)?))
    }
}

impl Summarize {
    fn compute(&self, context: &Context<'_>) -> Result<Outcome> {
        let cells = Cells::read(self, context)?;
        let mut outcome = Outcome::default().balance("from", cells.rows, cells.rows, 0);
        let mut rows = self.means(&cells);
        let chosen = self.chosen(&cells);
        if self.choose.is_some() {
            rows.extend(self.best(&cells, &chosen));
        }
        let differences = self.differences(&cells, &chosen);
        if let Some(metric) = self.metrics.first() {
            for row in differences.iter().filter(|row| row.metric == *metric) {
                let block = if row.block.is_empty() { String::new() } else { format!(" ({})", row.block) };
                let against = row.against.as_deref().unwrap_or_default();
                let name = format!("{metric}: {} - {against}{block}", row.group);
                outcome = outcome.figure(&name, (row.value * 1e6).round() / 1e6);
                outcome = outcome.headline(name, row.value, row.low.zip(row.high), format!("over {} runs", row.runs));
            }
        }
        rows.extend(differences);
        if let Some(row) = rows.iter().find(|row| row.runs < 2) {
            context.warn(format!(
                "`{}` has one run only, so there is no interval; give `{}` more values",
                row.group, self.over
            ));
        }
        let pages = context.port("pages");
        std::fs::create_dir_all(&pages).map_err(Error::io(&pages))?;
        let page = |name: &str, text: String| commit_bytes(&pages.join(name), text.as_bytes());
        page("results.md", pages::markdown(&rows, &self.compare))?;
        page("results.csv", pages::csv(&rows))?;
        for metric in &self.metrics {
            let name: String = metric.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect();
            page(&format!("{name}.svg"), plot::svg(&rows, metric))?;
        }
        let mut writer = context.writer::<ResultRow>("results")?;
        writer.extend(rows)?;
        writer.finish()?;
        context.write_rejects(Vec::<Reject>::new())?;
        Ok(outcome)
    }
}

impl Summarize {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        Ok(Forecast::of_rows(Amount::exact(context.count_rows_of(&["from"])?)))
    }
}

impl Stage for Summarize {
    fn version(&self) -> String {
        "1".to_owned()
    }

    fn inputs(&self) -> Vec<InputPort> {
        vec![InputPort::new("from", &self.from, Table::Summary)]
    }

    fn outputs(&self) -> Vec<OutputPort> {
        vec![OutputPort::new(Table::Results), OutputPort::new(Table::Pages), OutputPort::new(Table::Rejects)]
    }

    fn check(&self) -> Vec<Finding> {
        self.findings()
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(Ok(Outlook::default()), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(Job::whole(move || self.compute(context)))
    }
}

const OVER_RUNS: &str = "mean over runs, t interval";

impl Summarize {
    fn row(&self, part: &str, metric: &str, setting: &Setting, values: Vec<f64>, note: String) -> ResultRow {
        let Estimate { mean, interval, .. } = estimate(&values);
        ResultRow {
            part: part.to_owned(),
            block: setting.block.clone(),
            metric: metric.to_owned(),
            group: setting.group.clone(),
            setting: setting.rest.clone(),
            against: None,
            value: mean,
            low: interval.map(|(low, _)| low),
            high: interval.map(|(_, high)| high),
            p_value: None,
            runs: values.len() as u64,
            values,
            note,
        }
    }

    /// The mean of each figure of each setting.
    fn means(&self, cells: &Cells) -> Vec<ResultRow> {
        let mut rows = Vec::new();
        let mut wanted: Vec<&str> = Vec::new();
        self.wanted().for_each(|metric| {
            if !wanted.contains(&metric) {
                wanted.push(metric)
            }
        });
        for metric in wanted {
            for (setting, figures) in &cells.settings {
                if let Some(runs) = figures.get(metric) {
                    rows.push(self.row(
                        "mean",
                        metric,
                        setting,
                        runs.values().copied().collect(),
                        OVER_RUNS.to_owned(),
                    ));
                }
            }
        }
        rows
    }

    /// The settings that are compared: the chosen one of each group, or all.
    fn chosen(&self, cells: &Cells) -> Vec<usize> {
        let Some(choose) = &self.choose else { return (0..cells.settings.len()).collect() };
        let mut best: Vec<(usize, f64)> = Vec::new();
        for (index, (setting, figures)) in cells.settings.iter().enumerate() {
            let Some(runs) = figures.get(&choose.metric) else { continue };
            let mean = runs.values().sum::<f64>() / runs.len() as f64;
            let score = if choose.best == Best::Highest { mean } else { -mean };
            let same = |(other, _): &&mut (usize, f64)| {
                let other = &cells.settings[*other].0;
                other.block == setting.block && other.group == setting.group
            };
            match best.iter_mut().find(same) {
                // Of equals the first stays.
                Some(one) if score > one.1 => *one = (index, score),
                Some(_) => {}
                None => best.push((index, score)),
            }
        }
        best.into_iter().map(|(index, _)| index).collect()
    }

    fn best(&self, cells: &Cells, chosen: &[usize]) -> Vec<ResultRow> {
        let metric = self.choose.as_ref().map(|choose| choose.metric.as_str()).unwrap_or_default();
        let mut rows = Vec::new();
        for wanted in &self.metrics {
            for &index in chosen {
                let (setting, figures) = &cells.settings[index];
                let same =
                    |other: &&(Setting, Figures)| other.0.block == setting.block && other.0.group == setting.group;
                let of = cells.settings.iter().filter(same).count();
                if let Some(runs) = figures.get(wanted) {
                    let note = format!("best of {of} by the mean of {metric}; {OVER_RUNS}");
                    rows.push(self.row("best", wanted, setting, runs.values().copied().collect(), note));
                }
            }
        }
        rows
    }

    /// Each chosen setting less the one it is compared with, over the runs that both have.
    fn differences(&self, cells: &Cells, chosen: &[usize]) -> Vec<ResultRow> {
        let mut rows = Vec::new();
        for metric in &self.metrics {
            for against in &self.against {
                for &index in chosen {
                    let (setting, figures) = &cells.settings[index];
                    let other = chosen.iter().map(|index| &cells.settings[*index]);
                    let mut other = other.filter(|(other, _)| other.block == setting.block && other.group == *against);
                    let (Some((base, base_figures)), false) = (other.next(), setting.group == *against) else {
                        continue;
                    };
                    let (Some(own), Some(base_runs)) = (figures.get(metric), base_figures.get(metric)) else {
                        continue;
                    };
                    let paired: Vec<f64> =
                        own.iter().filter_map(|(run, value)| Some(value - base_runs.get(run)?)).collect();
                    if paired.is_empty() {
                        continue;
                    }
                    let p_value = estimate(&paired).p_value;
                    let base = if base.rest.is_empty() { String::new() } else { format!(" at {}", base.rest) };
                    let note = format!("less {against}{base}, run by run; paired t");
                    let row = self.row("difference", metric, setting, paired, note);
                    rows.push(ResultRow { against: Some(against.clone()), p_value, ..row });
                }
            }
        }
        rows
    }
}
