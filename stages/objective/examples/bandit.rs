//! Draws the policies that DPO, conservative DPO and GDPO learn in the bandit of GDPO's section 3.3 (figure 1, right):
//!
//! ```sh
//! cargo run -p objective --example bandit -- pipelines/claims/bandit.svg
//! ```

#[path = "../tests/common/world.rs"]
mod world;

use std::error::Error;

use plotters::prelude::*;
use world::{ACTIONS, data, learned, policy};

const SIZE: (u32, u32) = (760, 380);

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("give the SVG file to write")?;
    let curves = [
        ("data", data(), BLACK.mix(0.45)),
        ("dpo", policy(&learned(r#"{"name": "dpo", "beta": 1.0}"#)), RGBColor(200, 85, 61).mix(1.0)),
        ("cdpo", policy(&learned(r#"{"name": "cdpo", "beta": 1.0}"#)), RGBColor(85, 128, 60).mix(1.0)),
        ("gdpo", policy(&learned(r#"{"name": "gdpo", "beta": 1.0}"#)), RGBColor(42, 111, 151).mix(1.0)),
    ];
    let top = curves.iter().flat_map(|(_, shares, _)| shares).copied().fold(0.0, f64::max);
    let area = SVGBackend::new(&path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(1.0..ACTIONS as f64, 0.0..top * 1.08)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("action, its reward growing from left to right")
        .y_desc("probability")
        .y_label_formatter(&|share| format!("{share:.2}"))
        .draw()?;
    for (name, shares, colour) in curves {
        let points: Vec<(f64, f64)> =
            shares.iter().enumerate().map(|(action, share)| (action as f64 + 1.0, *share)).collect();
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(TRANSPARENT)
        .draw()?;
    area.present()?;
    Ok(())
}
