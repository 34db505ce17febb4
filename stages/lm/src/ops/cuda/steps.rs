//! Steps of decoding: new rows over a cache, again and again.
//!
//! All numbers that a step takes from the host lie in one tensor, which one copy fills, and its logits are left in one
//! that stays. Steps of one form are therefore the same kernels with the same arguments: the first is run as it is, the
//! second is recorded, and from then on one launch does them all. Rows and lists are filled up, so that there are few
//! forms: a row beyond the last is a token that nothing is kept of, a part beyond the last is seen by no row.

use super::decode::{PART, Plan, Planned, planned};
use super::fresh;
use super::graph::{self, Graph, overwrite};
use crate::ops::angles::RopeTables;
use crate::ops::indices::Indices;
use crate::ops::new_rows::NewRows;
use crate::ops::tiles::{Shape, Tiles};
use crate::{DType, Device, Error, Result};
use candle_core::Tensor;
use std::collections::VecDeque;
use std::fmt::{self, Debug, Formatter};
use std::ops::Range;
use std::sync::Arc;

// n new rows, V vocabulary.

/// Forms that are kept at a time.
const KEPT: usize = 16;

/// The steps behind one cache, by a decoder that stays as it is.
#[derive(Default)]
pub(crate) struct Steps {
    /// The last one used first.
    forms: VecDeque<Form>,
    /// For logits [n, V], and for what parts leave and their log-sum-exps: forms use them in turn.
    logits: Room,
    parts: Room,
    sums: Room,
}

impl Debug for Steps {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "steps of {} forms", self.forms.len())
    }
}

impl Steps {
    /// Runs a step, which `work` asks a device for: the logits [n, V], in a tensor of their own. `shapes` are the forms
    /// of the decoder's blocks, each once.
    pub fn run(
        &mut self,
        new: &NewRows,
        shapes: &[Shape],
        tables: &Arc<RopeTables>,
        (vocab, device): (usize, &Device),
        work: impl Fn(&NewRows) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let input = Input::new(new, shapes)?;
        let alike = |form: &Form| form.input.sizes == input.sizes && Arc::ptr_eq(&form.tables, tables);
        let known = self.forms.iter().position(alike);
        let mut form = match known.and_then(|at| self.forms.remove(at)) {
            Some(form) => form.with(input)?,
            None => self.form(input, shapes, tables, (vocab, device))?,
        };
        for (plan, shape) in form.plans.iter().zip(shapes) {
            planned(new.tiles, shape, device, || Ok(plan.clone()))?;
        }
        if known.is_some() && form.graph.is_none() && graph::is_there(device) {
            let graph = Graph::record(device, || work(&form.step(new.tiles)).map(drop));
            form.graph = Some(graph.map_err(|error| unrecorded(&error))?);
        }
        match &form.graph {
            Some(graph) => graph.run()?,
            None => drop(work(&form.step(new.tiles))?),
        }
        let logits = form.logits.narrow(0, 0, new.ids.len())?.force_contiguous()?;
        self.forms.push_front(form);
        self.forms.truncate(KEPT);
        Ok(logits)
    }

    /// The form of a first step with this input.
    fn form(
        &mut self,
        input: Input,
        shapes: &[Shape],
        tables: &Arc<RopeTables>,
        (vocab, device): (usize, &Device),
    ) -> Result<Form> {
        let numbers = Tensor::new(input.numbers.as_slice(), device)?;
        let part = |range: &Range<usize>| numbers.narrow(0, range.start, range.len());
        let (ids, rows, depths) = (part(&input.ids)?, part(&input.rows)?, part(&input.depths)?);
        let mut plans = Vec::new();
        for (lists, shape) in input.lists.iter().zip(shapes) {
            let [parts, spans, starts, slots] = lists.each_ref().map(part);
            let count = lists[3].len();
            let out = self.parts.of(&[count, shape.query_width()], device)?;
            let sums = self.sums.of(&[count, shape.heads], device)?;
            plans.push([parts?, spans?, starts?, slots?, depths.clone(), out, sums]);
        }
        let logits = self.logits.of(&[input.sizes.rows, vocab], device)?;
        Ok(Form { input, numbers, ids, rows, depths, plans, logits, tables: tables.clone(), graph: None })
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        let device = self.forms.front().map(|form| form.numbers.device().clone());
        self.forms.clear();
        device.iter().for_each(graph::trim);
    }
}

/// Room for numbers in f32: as many as were asked for at most. Who has some of it keeps it where it grows.
#[derive(Default)]
struct Room(Option<Tensor>);

impl Room {
    fn of(&mut self, shape: &[usize], device: &Device) -> Result<Tensor> {
        let count = shape.iter().product();
        let all = match self.0.take() {
            Some(all) if all.elem_count() >= count => all,
            _ => fresh(count, DType::F32, device)?,
        };
        let part = all.narrow(0, 0, count)?.reshape(shape)?;
        self.0 = Some(all);
        Ok(part)
    }
}

fn unrecorded(error: &Error) -> Error {
    let text =
        format!("a step of decoding cannot be recorded: {error}; HALFTONE_CUDA_GRAPHS=0 runs it kernel by kernel");
    Error::from(candle_core::Error::Msg(text))
}

/// The sizes that all arguments of a step's kernels follow from.
#[derive(Debug, Clone, PartialEq)]
struct Sizes {
    rows: usize,
    /// Numbers in the lists of each plan.
    lists: Vec<[usize; 4]>,
}

/// All numbers that a step takes from the host, in one list, and where in it the parts are.
struct Input {
    sizes: Sizes,
    numbers: Vec<u32>,
    ids: Range<usize>,
    rows: Range<usize>,
    depths: Range<usize>,
    lists: Vec<[Range<usize>; 4]>,
}

/// Parts, spans and slots that a form has places for at least: those of a few short texts, however they grow.
const LEAST: usize = 16;

/// Places of a step that needs `n`: exact up to 8, then an eighth more at most.
fn places(n: usize) -> usize {
    n.next_multiple_of((n.next_power_of_two() / 8).max(1))
}

impl Input {
    fn new(new: &NewRows, shapes: &[Shape]) -> Result<Input> {
        let rows = places(new.ids.len());
        let mut numbers = Vec::new();
        // Each part begins where a GPU reads it well.
        let mut add = |list: &[u32], size: usize, filler: u32| {
            let start = numbers.len();
            numbers.extend_from_slice(list);
            numbers.resize(start + size, filler);
            numbers.resize((start + size).next_multiple_of(4), 0);
            start..start + size
        };
        let (ids, places) = (add(&new.ids, rows, 0), add(&new.rows, rows, u32::MAX));
        let depths = add(&new.depths, rows, 0);
        let mut lists = Vec::new();
        for shape in shapes {
            let Plan { parts, spans, starts, slots } = Plan::new(new.tiles, shape)?;
            let room = |list: &[u32], each: usize| (list.len() / each).next_power_of_two().max(LEAST) * each;
            lists.push([
                add(&parts, room(&parts, PART), 0),
                add(&spans, room(&spans, 2), 0),
                add(&starts, rows + 1, slots.len() as u32),
                add(&slots, room(&slots, 1), 0),
            ]);
        }
        let sizes = lists.iter().map(|lists| lists.each_ref().map(Range::len)).collect();
        Ok(Input { sizes: Sizes { rows, lists: sizes }, numbers, ids, rows: places, depths, lists })
    }
}

/// Steps of one form: the tensors that its kernels read and write.
struct Form {
    /// That of the last step, which the device may be reading yet.
    input: Input,
    /// The numbers of the input on the device, u32; then parts of them.
    numbers: Tensor,
    ids: Tensor,
    rows: Tensor,
    depths: Tensor,
    /// For each form of blocks.
    plans: Vec<Planned>,
    logits: Tensor,
    tables: Arc<RopeTables>,
    graph: Option<Graph>,
}

impl Form {
    /// The same for another step.
    fn with(self, input: Input) -> Result<Form> {
        overwrite(&self.numbers, &input.numbers)?;
        Ok(Form { input, ..self })
    }

    /// A step by these tensors.
    fn step<'a>(&'a self, tiles: &'a Tiles) -> NewRows<'a> {
        let resident = |range: &Range<usize>, there| Indices::resident(&self.input.numbers[range.clone()], there);
        NewRows {
            ids: resident(&self.input.ids, &self.ids),
            rows: resident(&self.input.rows, &self.rows),
            depths: resident(&self.input.depths, &self.depths),
            tiles,
            logits: Some(&self.logits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn few_forms_of_few_rows_too_many() {
        assert_eq!(
            [1, 2, 7, 8, 9, 16, 17, 33, 64, 65, 100, 255].map(places),
            [1, 2, 7, 8, 10, 16, 20, 40, 64, 80, 112, 256]
        );
        let mut all: Vec<usize> = (1..=64).map(places).collect();
        all.dedup();
        assert_eq!(all.len(), 20);
    }
}
