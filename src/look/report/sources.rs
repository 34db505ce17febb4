//! Who the labels are from: annotators and judges with their votes, agreement, weights and worth, and models on a
//! leaderboard.

use std::collections::BTreeMap;

use kit::{Result, Table};

use super::ROWS;
use super::files::{self, Found, groups};
use super::view::{Cell, Grid, Part, Section, four, grouped};
use crate::look::inspect::Rows;

/// At most so many lines of a table are shown.
const LINES: usize = 60;

/// The annotators and judges of juries.
pub fn section(found: &[Found]) -> Result<Option<Section>> {
    let parts = files::parts(&groups(found, &[Table::Annotators]), annotators)?;
    Ok((!parts.is_empty()).then_some(Section {
        id: "sources",
        title: "Sources of labels",
        note: "Agreement is the share of the others' votes on the same comparisons that are the same vote. Accuracy, ECE \
               (expected calibration error) and log loss (nats) are against gold, as the source speaks. A weight is the \
               factor of a source's log-odds in the fit to gold; below 0 it speaks against itself. Worth is the log \
               loss (nats) that is added where the source is left out, on rows that the fit has not seen: below 0, the \
               jury is better without it.",
        parts,
    }))
}

fn annotators(table: &Found) -> Result<Part> {
    // Measures by source, in the order of the table.
    let (mut names, mut measures) = (Vec::new(), BTreeMap::<(String, &str), f64>::new());
    for row in table.first(&["annotator", "measure", "fit", "value"], ROWS)? {
        let name = row[0].as_str().unwrap_or_default().to_owned();
        let measure = match (row[1].as_str().unwrap_or_default(), row[2].as_str()) {
            ("votes", _) => "votes",
            ("agreement", _) => "agreement",
            ("weight", Some("all")) => "weight",
            ("without", _) => "worth",
            _ => continue,
        };
        if !names.contains(&name) {
            names.push(name.clone());
        }
        measures.insert((name, measure), row[3].as_f64().unwrap_or(f64::NAN));
    }
    for (name, measure, value) in against_gold(table)? {
        if names.contains(&name) {
            measures.insert((name, measure), value);
        }
    }
    let of = |name: &str, measure| measures.get(&(name.to_owned(), measure)).copied();
    let known: Vec<&str> = ["votes", "agreement", "accuracy", "ECE", "log loss", "weight", "worth"]
        .into_iter()
        .filter(|measure| names.iter().any(|name| of(name, measure).is_some()))
        .collect();
    let mut head = vec!["source".to_owned()];
    for measure in &known {
        head.push(format!("#{measure}"));
        head.extend((*measure == "agreement").then(String::new));
    }
    let mut grid = Grid::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for name in names.iter().take(LINES) {
        let mut cells = vec![Cell::from(name.as_str())];
        for measure in &known {
            let value = of(name, measure);
            let text = match value {
                Some(votes) if *measure == "votes" && votes.fract() == 0.0 => grouped(votes as u64),
                value => value.map(four).unwrap_or_default(),
            };
            cells.push(text.into());
            let track = || value.map(|share| Cell::track(share, share, share)).unwrap_or_default();
            cells.extend((*measure == "agreement").then(track));
        }
        grid.push(cells);
    }
    let facts = match names.len() {
        count if count > LINES => format!("the first {LINES} of {} sources", grouped(count as u64)),
        count => format!("{} sources", grouped(count as u64)),
    };
    Ok(Part { title: table.name(), facts, table: Some(grid), ..Part::default() })
}

/// Figures of sources against gold, from the summary of the same stage: (source, measure, value).
fn against_gold(table: &Found) -> Result<Vec<(String, &'static str, f64)>> {
    let summary = table.path.with_file_name("summary");
    if !summary.is_dir() {
        return Ok(Vec::new());
    }
    let measures = [("accuracy/", "accuracy"), ("ece/", "ECE"), ("log_loss/", "log loss")];
    let rows = Rows::open(&summary)?.first(&["metric", "value"], ROWS)?;
    let figure = |row: Vec<serde_json::Value>| {
        let metric = row[0].as_str()?;
        let of = |(prefix, measure)| Some((metric.strip_prefix(prefix)?.to_owned(), measure, row[1].as_f64()?));
        measures.into_iter().find_map(of)
    };
    Ok(rows.into_iter().filter_map(figure).collect())
}

/// Models by their win rates against a baseline.
pub fn leaderboards(found: &[Found]) -> Result<Option<Section>> {
    let parts = files::parts(&groups(found, &[Table::Leaderboard]), leaderboard)?;
    Ok((!parts.is_empty()).then_some(Section {
        id: "leaderboard",
        title: "Leaderboard",
        note: "The win rate is the mean probability that a model's response is better than the baseline's, with its \
               95\u{a0}% interval on a track from 0 to 1. Behind the first is the difference from it over the items that \
               both have.",
        parts,
    }))
}

fn leaderboard(table: &Found) -> Result<Part> {
    let columns = [
        "rank",
        "model",
        "win_rate",
        "low",
        "high",
        "discrete_win_rate",
        "length_controlled",
        "difference",
        "difference_low",
        "difference_high",
        "items",
    ];
    let rows = table.first(&columns, ROWS)?;
    let mut grid =
        Grid::new(&["#", "model", "#win rate", "", "#discrete", "#at equal lengths", "#behind the first", "#items"]);
    for row in rows.iter().take(LINES) {
        let number = |at: usize| row[at].as_f64();
        let digits = |at: usize| number(at).map(four).unwrap_or_default();
        let with = |at: usize, low: usize, high: usize| match (number(low), number(high)) {
            (Some(low), Some(high)) => format!("{} ({} to {})", digits(at), four(low), four(high)),
            _ => digits(at),
        };
        let track = number(2).map(|rate| Cell::track(rate, number(3).unwrap_or(rate), number(4).unwrap_or(rate)));
        grid.push(vec![
            grouped(row[0].as_u64().unwrap_or_default()).into(),
            row[1].as_str().unwrap_or_default().into(),
            with(2, 3, 4).into(),
            track.unwrap_or_default(),
            digits(5).into(),
            digits(6).into(),
            with(7, 8, 9).into(),
            grouped(row[10].as_u64().unwrap_or_default()).into(),
        ]);
    }
    let facts = match rows.len() {
        count if count > LINES => format!("the first {LINES} of {}", table.read_note(count, "models")),
        count => table.read_note(count, "models"),
    };
    Ok(Part { title: table.name(), facts, table: Some(grid), ..Part::default() })
}
