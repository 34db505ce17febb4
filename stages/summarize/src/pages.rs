//! The results as Markdown and CSV.

use kit::rows::ResultRow;

/// The chosen settings and the differences as tables, one per figure; without a choice, all settings.
pub fn markdown(rows: &[ResultRow], compare: &str) -> String {
    let part = if rows.iter().any(|row| row.part == "best") { "best" } else { "mean" };
    let mut metrics: Vec<&str> = Vec::new();
    let shown = rows.iter().filter(|row| row.part == part || row.part == "difference");
    shown.for_each(|row| {
        if !metrics.contains(&row.metric.as_str()) {
            metrics.push(&row.metric)
        }
    });
    let mut text = String::new();
    for metric in metrics {
        let of = |part: &'static str| rows.iter().filter(move |row| row.part == part && row.metric == metric);
        text.push_str(&format!("### {metric}\n\n"));
        let blocks = rows.iter().any(|row| !row.block.is_empty());
        let head = |columns: &[&str]| {
            let columns: Vec<&str> = columns.iter().copied().filter(|column| blocks || *column != "within").collect();
            format!("| {} |\n|{}\n", columns.join(" | "), " --- |".repeat(columns.len()))
        };
        let within = |row: &ResultRow| if blocks { format!("| {} ", row.block) } else { String::new() };
        text.push_str(&head(&["within", compare, "setting", "mean", "95 % interval", "runs"]));
        for row in of(part) {
            let (name, setting) = (&row.group, &row.setting);
            text.push_str(&format!(
                "{}| {name} | {setting} | {:.4} | {} | {} |\n",
                within(row),
                row.value,
                interval(row),
                row.runs
            ));
        }
        text.push('\n');
        if of("difference").next().is_some() {
            text.push_str(&head(&["within", "difference", "mean", "95 % interval", "p (paired t)", "runs"]));
            for row in of("difference") {
                let against = row.against.as_deref().unwrap_or_default();
                let p = row
                    .p_value
                    .map(|p| if p < 1e-3 { "< 0.001".to_owned() } else { format!("{p:.3}") })
                    .unwrap_or_default();
                let ends = interval(row);
                text.push_str(&format!(
                    "{}| {} - {against} | {:+.4} | {ends} | {p} | {} |\n",
                    within(row),
                    row.group,
                    row.value,
                    row.runs
                ));
            }
            text.push('\n');
        }
    }
    text
}

fn interval(row: &ResultRow) -> String {
    row.low.zip(row.high).map(|(low, high)| format!("[{low:.4}, {high:.4}]")).unwrap_or_default()
}

/// Every row, with its values.
pub fn csv(rows: &[ResultRow]) -> String {
    let mut text = "part,block,metric,group,setting,against,value,low,high,p_value,runs,values\n".to_owned();
    for row in rows {
        let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let values: Vec<String> = row.values.iter().map(f64::to_string).collect();
        let cells = [
            quoted(&row.part),
            quoted(&row.block),
            quoted(&row.metric),
            quoted(&row.group),
            quoted(&row.setting),
            quoted(row.against.as_deref().unwrap_or_default()),
            row.value.to_string(),
            number(row.low),
            number(row.high),
            number(row.p_value),
            row.runs.to_string(),
            values.join(" "),
        ];
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
