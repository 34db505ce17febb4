//! Graphs as text: boxes in layers, lines between them.

use std::collections::BTreeSet;

/// Blank columns between boxes of a layer.
const GAP: usize = 3;
/// Arms of a line in a cell.
const UP: u8 = 1;
const DOWN: u8 = 2;
const LEFT: u8 = 4;
const RIGHT: u8 = 8;

/// Draws boxes with lines of text; `edges` lead from a box to one below. The graph has no circles.
pub fn boxes(labels: &[Vec<String>], edges: &[(usize, usize)]) -> String {
    let edges: BTreeSet<(usize, usize)> = edges.iter().copied().collect();
    let mut layout = Layout::new(labels, &edges);
    layout.order();
    layout.place();
    layout.paint()
}

/// Position of a box, or of a bend of a line that passes a layer.
pub struct Placed {
    /// The left end, in characters.
    pub left: usize,
    /// Its width, in characters; a bend has 1.
    pub width: usize,
    /// The layer, from 0.
    pub layer: usize,
    /// Places in the layer above that lines come from.
    pub above: Vec<usize>,
}

/// The same layout for other pens: a place for each box, then one for each bend.
pub fn placed(labels: &[Vec<String>], edges: &[(usize, usize)]) -> Vec<Placed> {
    let edges: BTreeSet<(usize, usize)> = edges.iter().copied().collect();
    let mut layout = Layout::new(labels, &edges);
    layout.order();
    layout.place();
    let placed = |item: Item<'_>| Placed { left: item.left, width: item.width, layer: item.layer, above: item.above };
    layout.items.into_iter().map(placed).collect()
}

/// A box, or a bend of a line that passes a layer.
struct Item<'a> {
    label: Option<&'a [String]>,
    layer: usize,
    above: Vec<usize>,
    below: Vec<usize>,
    left: usize,
    width: usize,
}

impl Item<'_> {
    fn height(&self) -> usize {
        self.label.map_or(1, |lines| lines.len() + 2)
    }
}

struct Layout<'a> {
    items: Vec<Item<'a>>,
    layers: Vec<Vec<usize>>,
}

impl<'a> Layout<'a> {
    fn new(labels: &'a [Vec<String>], edges: &BTreeSet<(usize, usize)>) -> Layout<'a> {
        let mut layer = vec![0; labels.len()];
        // The longest way from a source; as many rounds as there are layers at most.
        for _ in 0..labels.len() {
            edges.iter().for_each(|&(from, to)| layer[to] = layer[to].max(layer[from] + 1));
        }
        let width = |lines: &[String]| lines.iter().map(|line| line.chars().count()).max().unwrap_or(0) + 4;
        let mut items: Vec<Item<'a>> = labels
            .iter()
            .zip(&layer)
            .map(|(lines, &layer)| Item {
                label: Some(lines),
                layer,
                above: Vec::new(),
                below: Vec::new(),
                left: 0,
                width: width(lines),
            })
            .collect();
        for &(from, to) in edges {
            let mut last = from;
            for layer in layer[from] + 1..layer[to] {
                items.push(Item { label: None, layer, above: vec![last], below: Vec::new(), left: 0, width: 1 });
                let bend = items.len() - 1;
                items[last].below.push(bend);
                last = bend;
            }
            items[last].below.push(to);
            items[to].above.push(last);
        }
        let mut layers = vec![Vec::new(); layer.iter().max().map_or(0, |last| last + 1)];
        (0..items.len()).for_each(|item| layers[items[item].layer].push(item));
        Layout { items, layers }
    }

    /// Orders each layer by the mean place of what an item is connected to; a few sweeps down and up.
    fn order(&mut self) {
        for sweep in 0..6 {
            let down = sweep % 2 == 0;
            let numbers: Vec<usize> =
                if down { (0..self.layers.len()).collect() } else { (0..self.layers.len()).rev().collect() };
            for number in numbers {
                let mut place = vec![0.0; self.items.len()];
                for layer in &self.layers {
                    layer.iter().enumerate().for_each(|(index, item)| place[*item] = index as f64);
                }
                let mean = |item: usize| {
                    let near = if down { &self.items[item].above } else { &self.items[item].below };
                    if near.is_empty() {
                        place[item]
                    } else {
                        near.iter().map(|near| place[*near]).sum::<f64>() / near.len() as f64
                    }
                };
                let mut layer = self.layers[number].clone();
                layer.sort_by(|a, b| mean(*a).total_cmp(&mean(*b)));
                self.layers[number] = layer;
            }
        }
    }

    fn centre(&self, item: usize) -> usize {
        self.items[item].left + self.items[item].width / 2
    }

    /// Columns: each item as near to what it is connected to as its neighbours allow.
    fn place(&mut self) {
        let mut start = 0_i64;
        let mut lefts = vec![0_i64; self.items.len()];
        for round in 0..4 {
            let down = round % 2 == 0;
            let numbers: Vec<usize> =
                if down { (0..self.layers.len()).collect() } else { (0..self.layers.len()).rev().collect() };
            for number in numbers {
                let mut free = i64::MIN;
                for &item in &self.layers[number].clone() {
                    let width = self.items[item].width as i64;
                    let near = if down || round == 0 { &self.items[item].above } else { &self.items[item].below };
                    let wanted = match near.is_empty() {
                        true => lefts[item],
                        false => {
                            let centre = |other: &usize| lefts[*other] + self.items[*other].width as i64 / 2;
                            near.iter().map(centre).sum::<i64>() / near.len() as i64 - width / 2
                        }
                    };
                    lefts[item] = wanted.max(free);
                    free = lefts[item] + width + GAP as i64;
                }
            }
        }
        start = lefts.iter().copied().min().unwrap_or(start);
        lefts.iter().enumerate().for_each(|(item, left)| self.items[item].left = (left - start) as usize);
    }

    fn paint(&self) -> String {
        let width = self.items.iter().map(|item| item.left + item.width).max().unwrap_or(0);
        let mut canvas = Canvas { width, rows: Vec::new() };
        for (number, layer) in self.layers.iter().enumerate() {
            let top = canvas.rows.len();
            let height = layer.iter().map(|item| self.items[*item].height()).max().unwrap_or(0);
            canvas.grow(top + height);
            for &item in layer {
                self.paint_item(&mut canvas, item, top, height);
            }
            if number + 1 < self.layers.len() {
                self.paint_lines(&mut canvas, number);
            }
        }
        canvas.text()
    }

    fn paint_item(&self, canvas: &mut Canvas, item: usize, top: usize, height: usize) {
        let Item { label, left, width, .. } = &self.items[item];
        let Some(lines) = label else {
            return (top..top + height).for_each(|row| canvas.line(row, *left, UP | DOWN));
        };
        let right = left + width - 1;
        let bottom = top + lines.len() + 1;
        for column in left + 1..right {
            canvas.put(top, column, '─');
            canvas.put(bottom, column, '─');
        }
        for row in top + 1..bottom {
            canvas.put(row, *left, '│');
            canvas.put(row, right, '│');
            lines[row - top - 1].chars().enumerate().for_each(|(index, c)| canvas.put(row, left + 2 + index, c));
        }
        for (row, column, corner) in [(top, *left, '┌'), (top, right, '┐'), (bottom, *left, '└'), (bottom, right, '┘')]
        {
            canvas.put(row, column, corner);
        }
        // Lower boxes of a layer with taller ones reach its end with a line.
        if !self.items[item].below.is_empty() {
            let column = self.centre(item);
            canvas.put(bottom, column, '┬');
            (bottom + 1..top + height).for_each(|row| canvas.line(row, column, UP | DOWN));
        }
    }

    /// The lines from one layer to the next: down from each box, along a row of its own where rows would touch, down.
    fn paint_lines(&self, canvas: &mut Canvas, number: usize) {
        let mut entries: Vec<(usize, usize, usize)> = Vec::new();
        let leaving: Vec<(usize, usize)> = self.layers[number].iter().map(|item| (*item, self.centre(*item))).collect();
        for &item in &self.layers[number + 1] {
            let Item { left, width, above, .. } = &self.items[item];
            let mut above = above.clone();
            above.sort_by_key(|item| self.centre(*item));
            for (index, &from) in above.iter().enumerate() {
                // Lines into one box arrive side by side, and not where another box's line goes down.
                let mut column = match above.len() {
                    1 => self.centre(item),
                    several => left + (index + 1) * width / (several + 1),
                };
                while column + 2 < left + width && leaving.iter().any(|(other, out)| *other != from && *out == column) {
                    column += 1;
                }
                entries.push((from, item, column));
            }
        }
        let mut rows: Vec<Vec<(usize, usize)>> = Vec::new();
        let mut nets: Vec<(usize, usize)> = Vec::new();
        let mut sources: Vec<usize> =
            self.layers[number].iter().copied().filter(|item| !self.items[*item].below.is_empty()).collect();
        sources.sort_by_key(|item| self.centre(*item));
        for source in sources {
            let columns: Vec<usize> = entries
                .iter()
                .filter(|(from, ..)| *from == source)
                .map(|(.., column)| *column)
                .chain([self.centre(source)])
                .collect();
            let (low, high) = (*columns.iter().min().expect("its own"), *columns.iter().max().expect("its own"));
            // A line down into a column where another comes down from above has to turn off below it.
            let crosses = |row: &Vec<(usize, usize)>| row.iter().any(|(from, to)| low <= to + 1 && *from <= high + 1);
            let row = if low == high { 0 } else { rows.iter().position(|row| !crosses(row)).unwrap_or(rows.len()) };
            if low != high {
                if row == rows.len() {
                    rows.push(Vec::new());
                }
                rows[row].push((low, high));
            }
            nets.push((source, row));
        }
        let first = canvas.rows.len();
        let last = first + rows.len().max(1);
        canvas.grow(last + 1);
        for (source, row) in nets {
            let out = self.centre(source);
            let turn = first + row;
            for &(_, to, column) in entries.iter().filter(|(from, ..)| *from == source) {
                (first..turn).for_each(|row| canvas.line(row, out, UP | DOWN));
                canvas.line(turn, out, UP);
                let (low, high) = (out.min(column), out.max(column));
                for across in low..=high {
                    let left = if across > low { LEFT } else { 0 };
                    let right = if across < high { RIGHT } else { 0 };
                    canvas.line(turn, across, left | right);
                }
                canvas.line(turn, column, DOWN);
                (turn + 1..=last).for_each(|row| canvas.line(row, column, UP | DOWN));
                if self.items[to].label.is_some() {
                    canvas.put(last, column, '▼');
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Cell {
    Empty,
    Char(char),
    Line(u8),
}

struct Canvas {
    width: usize,
    rows: Vec<Vec<Cell>>,
}

impl Canvas {
    fn grow(&mut self, rows: usize) {
        self.rows.resize(rows.max(self.rows.len()), vec![Cell::Empty; self.width]);
    }

    fn put(&mut self, row: usize, column: usize, c: char) {
        self.rows[row][column] = Cell::Char(c);
    }

    fn line(&mut self, row: usize, column: usize, arms: u8) {
        let cell = &mut self.rows[row][column];
        *cell = match *cell {
            Cell::Line(before) => Cell::Line(before | arms),
            Cell::Empty => Cell::Line(arms),
            Cell::Char(c) => Cell::Char(c),
        };
    }

    fn text(&self) -> String {
        const LINES: [char; 16] = [' ', '╵', '╷', '│', '╴', '╯', '╮', '┤', '╶', '╰', '╭', '├', '─', '┴', '┬', '┼'];
        let mut text = String::new();
        for row in &self.rows {
            let line: String = row
                .iter()
                .map(|cell| match cell {
                    Cell::Empty => ' ',
                    Cell::Char(c) => *c,
                    Cell::Line(arms) => LINES[*arms as usize],
                })
                .collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::boxes;

    #[test]
    fn graphs_are_drawn() {
        let labels: Vec<Vec<String>> = [
            vec!["data", "reuse"],
            vec!["judge", "run: never run"],
            vec!["pairs", "depends on judge"],
            vec!["reference", "depends on pairs"],
            vec!["policy", "depends on pairs, reference"],
        ]
        .map(|lines| lines.into_iter().map(str::to_owned).collect())
        .to_vec();
        insta::assert_snapshot!(boxes(&labels, &[(0, 1), (1, 2), (2, 3), (2, 4), (3, 4), (0, 4)]), @r"
                               ┌───────┐
                               │ data  │
                               │ reuse │
                               └───┬───┘
                             ╭─────┴──────╮
                             ▼            │
                    ┌────────────────┐    │
                    │ judge          │    │
                    │ run: never run │    │
                    └────────┬───────┘    │
                             │            │
                             ▼            │
                   ┌──────────────────┐   │
                   │ pairs            │   │
                   │ depends on judge │   │
                   └─────────┬────────┘   │
                       ╭─────┴──────╮   ╭─╯
                       ▼            │   │
             ┌──────────────────┐   │   │
             │ reference        │   │   │
             │ depends on pairs │   │   │
             └─────────┬────────┘   │   │
               ╭───────╯       ╭────┼───╯
               │        ╭──────┼────╯
               ▼        ▼      ▼
        ┌─────────────────────────────┐
        │ policy                      │
        │ depends on pairs, reference │
        └─────────────────────────────┘
        ");
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(boxes(&[], &[]), "");
        assert_eq!(boxes(&[vec!["a".to_owned()]], &[]), "┌───┐\n│ a │\n└───┘\n");
    }
}
