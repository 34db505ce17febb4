//! The results as a picture: a dot for each mean with its interval, runs as small dots.

use kit::rows::ResultRow;

const LEFT: f64 = 250.0;
const WIDTH: f64 = 460.0;
const LINE: f64 = 22.0;
const STYLE: &str = "text{font:12px sans-serif;fill:#222}.grid{stroke:#ddd}.zero{stroke:#999}.bar{stroke:#2a6f97;\
stroke-width:2}.dot{fill:#2a6f97}.run{fill:#2a6f97;opacity:.35}.title{font-weight:bold}@media(prefers-color-scheme:dark){\
text{fill:#ddd}.grid{stroke:#444}.zero{stroke:#888}.bar{stroke:#7fb8d8}.dot,.run{fill:#7fb8d8}}";

/// The chosen settings (or all, where none was chosen) and the differences of one figure, as SVG.
pub fn svg(rows: &[ResultRow], metric: &str) -> String {
    let part = if rows.iter().any(|row| row.part == "best") { "best" } else { "mean" };
    let of = |part: &str| -> Vec<&ResultRow> {
        rows.iter().filter(|row| row.part == part && row.metric == metric).collect()
    };
    let (means, differences) = (of(part), of("difference"));
    let mut body = String::new();
    let mut top = 10.0;
    for (title, rows, zero) in
        [(metric.to_owned(), means, false), (format!("{metric}: differences"), differences, true)]
    {
        if !rows.is_empty() {
            top = panel(&mut body, &title, &rows, zero, top) + 24.0;
        }
    }
    let width = LEFT + WIDTH + 30.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {top}\" width=\"{width}\" height=\"{top}\">\
         <style>{STYLE}</style>\n{body}</svg>\n"
    )
}

/// Draws a panel and gives where it ends.
fn panel(body: &mut String, title: &str, rows: &[&ResultRow], zero: bool, top: f64) -> f64 {
    let values = rows
        .iter()
        .flat_map(|row| row.values.iter().copied().chain(row.low).chain(row.high))
        .chain(zero.then_some(0.0));
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), it| (low.min(it), high.max(it)));
    let step = step_of((high - low).max(1e-9));
    let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step + step * 1e-6);
    let at = |value: f64| LEFT + WIDTH * (value - low) / (high - low);
    body.push_str(&format!("<text class=\"title\" x=\"10\" y=\"{:.1}\">{}</text>\n", top + 14.0, escaped(title)));
    let (first, bottom) = (top + 26.0, top + 26.0 + LINE * rows.len() as f64);
    let ticks = ((high - low) / step).round() as i64;
    for tick in 0..=ticks {
        let value = low + step * tick as f64;
        let x = at(value);
        let class = if zero && value.abs() < step * 1e-6 { "zero" } else { "grid" };
        body.push_str(&format!(
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{first:.1}\" y2=\"{bottom:.1}\"/>"
        ));
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let y = bottom + 14.0;
        body.push_str(&format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{value:.digits$}</text>\n"));
    }
    for (index, row) in rows.iter().enumerate() {
        let y = first + LINE * (index as f64 + 0.5);
        let against = row.against.as_ref().map(|against| format!(" - {against}")).unwrap_or_default();
        let within = if row.block.is_empty() { String::new() } else { format!(" ({})", row.block) };
        let name = escaped(&format!("{}{against}{within}", row.group));
        body.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            LEFT - 12.0,
            y + 4.0
        ));
        if let (Some(low), Some(high)) = (row.low, row.high) {
            let (from, to) = (at(low), at(high));
            body.push_str(&format!(
                "<line class=\"bar\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            ));
        }
        for value in &row.values {
            body.push_str(&format!("<circle class=\"run\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>", at(*value)));
        }
        body.push_str(&format!("<circle class=\"dot\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>\n", at(row.value)));
    }
    bottom + 18.0
}

/// A round distance between ticks: about six over the range.
fn step_of(range: f64) -> f64 {
    let power = 10f64.powf((range / 6.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|step| range / step <= 7.0)
        .unwrap_or(10.0 * power)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_few() {
        for (range, wanted) in [(1.0, 0.2), (0.06, 0.01), (10.0, 2.0), (0.003, 0.0005)] {
            assert!((step_of(range) - wanted).abs() < 1e-12, "{range}: {}", step_of(range));
        }
    }
}
