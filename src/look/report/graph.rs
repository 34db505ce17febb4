//! The pipeline as a picture: layers of boxes, from what is read to what is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use kit::Table;

use crate::kinds::KINDS;
use crate::look::draw::placed;
use crate::pipeline::groups::parts_of;
use crate::pipeline::{Declared, Pipeline};
use crate::store::{RunRecord, StageState, Store};
use crate::units::spoken;

/// A character of the layout, the height of a box and of a layer, in pixels.
const CHARACTER: f64 = 7.2;
const HEIGHT: f64 = 40.0;
const LAYER: f64 = 68.0;
/// Rows of boxes without lines are no wider.
const WIDTH: f64 = 1000.0;

/// A box of the picture: a stage, or all stages of a matrix.
struct Place {
    name: String,
    count: usize,
    state: StageState,
    seconds: f64,
    from: Vec<usize>,
}

/// The graph of a run as SVG. Who reads from whom stands in the pipeline as it was resolved, and where that cannot be
/// read, follows from the content that was read.
pub fn svg(store: &Store, record: &RunRecord, run: &Path) -> String {
    drawing(&places(store, record, &declared(record, run)))
}

fn drawing(places: &[Place]) -> String {
    let read: BTreeSet<usize> = places.iter().flat_map(|place| place.from.iter().copied()).collect();
    let (joined, alone): (Vec<usize>, Vec<usize>) =
        (0..places.len()).partition(|place| read.contains(place) || !places[*place].from.is_empty());
    let number = |place: &usize| joined.iter().position(|other| other == place).expect("a place with a line is joined");
    let lines = |place: &usize| vec![places[*place].title(), places[*place].state_line()];
    let labels: Vec<Vec<String>> = joined.iter().map(lines).collect();
    let edges: Vec<(usize, usize)> =
        joined.iter().flat_map(|to| places[*to].from.iter().map(move |from| (number(from), number(to)))).collect();
    let mut picture = Picture::default();
    let placed = if joined.is_empty() { Vec::new() } else { placed(&labels, &edges) };
    let left = |item: usize| placed[item].left as f64 * CHARACTER + 1.0;
    let top = |item: usize| placed[item].layer as f64 * LAYER + 1.0;
    let wide = |item: usize| placed[item].width as f64 * CHARACTER;
    let middle = |item: usize| left(item) + wide(item) / 2.0;
    for (item, place) in placed.iter().enumerate() {
        let (x, y) = (middle(item), top(item));
        for &from in &place.above {
            picture.line(middle(from), top(from) + HEIGHT, x, y);
        }
        if item >= joined.len() {
            picture.line(x, y, x, y + HEIGHT);
        }
    }
    for (item, place) in joined.iter().enumerate() {
        picture.node(&places[*place], left(item), top(item), wide(item));
    }
    // Stages without any edge stand in rows of their own.
    let bottom = placed.iter().map(|place| place.layer + 1).max().unwrap_or(0) as f64 * LAYER + 1.0;
    let (mut x, mut y) = (1.0, bottom);
    for place in alone {
        let width = lines(&place).iter().map(|line| line.chars().count() + 4).max().unwrap_or(0) as f64 * CHARACTER;
        if x > 1.0 && x + width > WIDTH {
            (x, y) = (1.0, y + LAYER);
        }
        picture.node(&places[place], x, y, width);
        x += width + 3.0 * CHARACTER;
    }
    let Picture { body, width, height } = picture;
    format!(
        "<svg class=\"graph\" role=\"img\" aria-label=\"the stages of the run\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\">{body}</svg>"
    )
}

/// The drawing, and the room it takes.
#[derive(Default)]
struct Picture {
    body: String,
    width: f64,
    height: f64,
}

impl Picture {
    /// Makes room for what ends there.
    fn reach(&mut self, right: f64, bottom: f64) {
        (self.width, self.height) = (self.width.max(right), self.height.max(bottom));
    }

    fn line(&mut self, from_x: f64, from_y: f64, x: f64, y: f64) {
        let half = (from_y + y) / 2.0;
        self.reach(from_x.max(x) + 1.0, from_y.max(y) + 1.0);
        self.body
            .push_str(&format!("<path class=\"edge\" d=\"M{from_x} {from_y}C{from_x} {half} {x} {half} {x} {y}\"/>"));
    }

    fn node(&mut self, place: &Place, x: f64, y: f64, width: f64) {
        self.reach(x + width + 1.0, y + HEIGHT + 1.0);
        self.body.push_str(&format!(
            "<g class=\"node {word}\"><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{HEIGHT}\" rx=\"5\"/>\
             <text x=\"{tx}\" y=\"{y1}\" class=\"name\">{name}</text>\
             <text x=\"{tx}\" y=\"{y2}\" class=\"state\">{state}</text></g>",
            word = place.state.word(),
            tx = x + 11.0,
            y1 = y + 17.0,
            y2 = y + 32.0,
            name = escaped(&place.title()),
            state = escaped(&place.state_line()),
        ));
    }
}

impl Place {
    fn title(&self) -> String {
        if self.count > 1 { format!("{} × {}", self.name, self.count) } else { self.name.clone() }
    }

    fn state_line(&self) -> String {
        match self.seconds > 0.0 {
            true => format!("{} · {}", self.state.word(), spoken(Duration::from_secs_f64(self.seconds))),
            false => self.state.word().to_owned(),
        }
    }
}

/// The stages that each stage reads from, as `resolved.yaml` in the folder of the run has it; also of stages that never
/// came to read anything.
fn declared(record: &RunRecord, run: &Path) -> BTreeMap<String, Vec<String>> {
    let Ok((pipeline, _)) = Pipeline::load(&run.join("resolved.yaml"), &[]) else { return BTreeMap::new() };
    let read = |declared: Declared| {
        let kind = KINDS.iter().find(|kind| declared.kind.as_deref() == Some(kind.name))?;
        let (stage, _) = (kind.configure)(declared.config).ok()?;
        let inputs = stage.inputs();
        let texts = inputs.iter().filter(|input| input.idle.is_none()).flat_map(|input| &input.from.0);
        let stages = texts.filter(|text| !text.contains('/'));
        let stages = stages.map(|text| parts_of(text, |name| record.stages.contains_key(name)).0.to_owned());
        Some((declared.name, stages.collect()))
    };
    pipeline.stages.into_iter().filter_map(read).collect()
}

fn places(store: &Store, record: &RunRecord, declared: &BTreeMap<String, Vec<String>>) -> Vec<Place> {
    let group_of = |name: &str| name.split('@').next().unwrap_or(name).to_owned();
    let mut places: Vec<Place> = Vec::new();
    let mut of: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrote: BTreeMap<String, usize> = BTreeMap::new();
    for (name, stage) in record.order.iter().filter_map(|name| record.stages.get_key_value(name)) {
        let place = *of.entry(group_of(name)).or_insert_with(|| {
            places.push(Place { name: group_of(name), count: 0, state: stage.state, seconds: 0.0, from: Vec::new() });
            places.len() - 1
        });
        places[place].count += 1;
        places[place].seconds += stage.seconds.unwrap_or(0.0);
        if urgency(stage.state) > urgency(places[place].state) {
            places[place].state = stage.state;
        }
        // An unreadable record ended the report before this point.
        if let Some(manifest) = stage.entry.as_ref().and_then(|entry| store.manifest(entry).ok()?) {
            for files in manifest.ports.values().filter(|files| files.rows > 0 || files.table == Table::Model) {
                wrote.entry(files.digest().to_string()).or_insert(place);
            }
        }
    }
    for (name, stage) in &record.stages {
        let place = of[&group_of(name)];
        let inputs = stage.recipe.iter().flat_map(|recipe| recipe.inputs.values()).flatten();
        let from: Vec<usize> = match declared.get(name) {
            Some(names) => names.iter().filter_map(|name| of.get(&group_of(name)).copied()).collect(),
            None => inputs.filter_map(|input| wrote.get(&input.digest.to_string()).copied()).collect(),
        };
        for from in from.into_iter().filter(|from| *from != place) {
            if !places[place].from.contains(&from) {
                places[place].from.push(from);
            }
        }
    }
    places
}

/// Order of states: of a matrix, the most urgent state stands for all.
fn urgency(state: StageState) -> usize {
    let order = [StageState::Skipped, StageState::Reused, StageState::Ran, StageState::Interrupted, StageState::Failed];
    order.iter().position(|known| *known == state).unwrap_or(2)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers after some attribute, or in the way of an edge.
    fn numbers(text: &str) -> Vec<f64> {
        text.split(|letter: char| !letter.is_ascii_digit() && letter != '.').filter_map(|it| it.parse().ok()).collect()
    }

    #[test]
    fn lines_that_pass_beside_the_boxes_are_inside_the_picture() {
        // A line from the first to the last box goes around all that is between them.
        let place = |name: &str, from: &[usize]| Place {
            name: name.to_owned(),
            count: 1,
            state: StageState::Ran,
            seconds: 0.0,
            from: from.to_vec(),
        };
        let long = "a stage with a long name indeed";
        let places: Vec<Place> =
            [("a", &[][..]), (long, &[0]), (long, &[0, 1]), (long, &[0, 1, 2]), ("e", &[0, 1, 2, 3])]
                .map(|(name, from)| place(name, from))
                .into();
        let svg = drawing(&places);
        let width: f64 = numbers(svg.split_once(" width=").unwrap().1)[0];
        let height: f64 = numbers(svg.split_once(" height=").unwrap().1)[0];
        let ways: Vec<&str> = svg.split(" d=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(ways.len() > 10);
        let right = ways.iter().flat_map(|way| numbers(way).into_iter().step_by(2)).fold(0.0, f64::max);
        let boxes = svg.split("<rect x=").skip(1).map(|rest| numbers(rest.split(" rx=").next().unwrap()));
        let boxed = boxes.map(|it| it[0] + it[2]).fold(0.0, f64::max);
        assert!(right > boxed, "no line goes around the boxes: {right} {boxed}");
        assert!(right < width, "{right} of {width}");
        let bottom = ways.iter().flat_map(|way| numbers(way).into_iter().skip(1).step_by(2)).fold(0.0, f64::max);
        assert!(bottom < height, "{bottom} of {height}");
    }
}
