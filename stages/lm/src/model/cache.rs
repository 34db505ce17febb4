//! Keys and values kept between calls, so that a text grows token by token without computing its beginning again.
//!
//! A prompt is computed once by [`Decoder::prefill`] and serves all of its samples: [`KvCache::fork`] gives a sample
//! rows of its own behind the prompt's. [`Decoder::extend`] adds one token to each of several samples.

use crate::model::block::RowContext;
use crate::model::forest::{Span, Want};
use crate::ops::angles::RopeTables;
#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda::steps::Steps;
use crate::ops::new_rows::NewRows;
#[cfg(any(feature = "cuda", test))]
use crate::ops::tiles::Shape;
use crate::ops::tiles::{Tile, Tiles, tiles};
#[cfg(any(feature = "cuda", test))]
use crate::ops::{Kernel, kernel_for};
use crate::ops::{attention, embed, head};
use crate::{Decoder, Error, Result, Sequence};
use candle_core::Tensor;
use std::ops::Range;

// C rows of the cache, G D columns of keys or values, n new tokens, P prompts, H width, V vocabulary.

/// The keys and values of prompts and of the samples that continue them.
#[derive(Debug)]
pub struct KvCache {
    /// For each block, keys and values [C, G D].
    layers: Vec<(Tensor, Tensor)>,
    /// For each prompt, its rows from the root down.
    prompts: Vec<Vec<Span>>,
    samples: Vec<Option<Sample>>,
    /// Rows that no prompt and no sample holds, sorted, neighbours joined.
    free: Vec<Range<usize>>,
    /// True where its texts are rotated as long ones.
    long: bool,
    #[cfg(any(feature = "cuda", test))]
    steps: Steps,
}

/// A sample in a cache. It is given by [`KvCache::fork`] and taken back by [`KvCache::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot(usize);

#[derive(Debug)]
struct Sample {
    /// The rows of its prompt.
    above: Vec<Span>,
    /// Its own rows: those filled so far.
    own: Span,
    /// Number of rows it may fill.
    room: usize,
}

impl KvCache {
    /// A new sample behind a prompt (by its index in the call of [`Decoder::prefill`]), with room for `tokens` tokens.
    /// `None` where the cache has no such stretch of free rows; release a sample, or prefill with more rows.
    pub fn fork(&mut self, prompt: usize, tokens: usize) -> Option<Slot> {
        let at = self.free.iter().position(|range| range.len() >= tokens)?;
        let row = self.free[at].start;
        self.free[at].start += tokens;
        if self.free[at].is_empty() {
            self.free.remove(at);
        }
        let above = self.prompts[prompt].clone();
        let depth = above.iter().map(|span| span.len).sum();
        let sample = Sample { above, own: Span { row, len: 0, depth }, room: tokens };
        let slot = self.samples.iter().position(Option::is_none).unwrap_or(self.samples.len());
        if slot == self.samples.len() {
            self.samples.push(None);
        }
        self.samples[slot] = Some(sample);
        Some(Slot(slot))
    }

    /// Gives the rows of a sample back. The slot must not be used again.
    pub fn release(&mut self, slot: Slot) {
        let Some(sample) = self.samples[slot.0].take() else { return };
        self.free.push(sample.own.row..sample.own.row + sample.room);
        self.free.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<usize>> = Vec::with_capacity(self.free.len());
        for range in self.free.drain(..).filter(|range| !range.is_empty()) {
            match joined.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => joined.push(range),
            }
        }
        self.free = joined;
    }

    /// Tokens of a sample so far, its prompt included.
    pub fn len(&self, slot: Slot) -> usize {
        self.samples[slot.0].as_ref().map_or(0, |sample| sample.own.depth + sample.own.len)
    }
}

impl Decoder {
    /// Computes prompts, shared prefixes once, all at one time, and keeps their keys and values in a cache with
    /// `sample_rows` further rows for samples. Gives the logits after the last token of each prompt, [P, V] in f32
    /// (f64 where the model is).
    ///
    /// Errors: an empty prompt, one longer than the model's positions, or tokens outside the vocabulary.
    pub fn prefill(&self, prompts: &[&[u32]], sample_rows: usize) -> Result<(KvCache, Tensor)> {
        self.speaking()?;
        let owned: Vec<Sequence> = prompts.iter().map(|ids| Sequence::new(ids.to_vec(), ids.len())).collect();
        let mut forests = self.forests(&owned.iter().collect::<Vec<_>>(), Want::States, usize::MAX)?;
        let forest = forests.pop().ok_or_else(|| Error::input("no prompt to continue"))?;
        if !forests.is_empty() {
            return Err(Error::internal("prompts with two kinds of rotation in one cache"));
        }
        let rows = forest.ids.len();
        let tables = self.tables_for(&forest)?;
        let context =
            RowContext { tables: &tables, depths: (&forest.depths).into(), tiles: &tiles(&forest), keys: None };
        let mut x = self.embedded(&forest.ids)?;
        let mut layers = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let shape = &block.shape;
            let qkv = block.queries_keys_values(&x, &context)?;
            let columns = |start: usize| -> Result<Tensor> {
                let cached = Tensor::zeros((rows + sample_rows, shape.key_width()), self.dtype(), self.device())?;
                cached.slice_set(&qkv.narrow(1, start, shape.key_width())?.contiguous()?, 0, 0)?;
                Ok(cached)
            };
            layers.push((columns(shape.query_width())?, columns(shape.query_width() + shape.key_width())?));
            let (attended, _) = attention::forward(&qkv, context.tiles, shape, false)?;
            x = block.rest(&x, &attended, None)?;
        }
        let mut ends = vec![0u32; prompts.len()];
        let mut paths = vec![Vec::new(); prompts.len()];
        for &(index, row) in &forest.ends {
            ends[index] = row as u32;
            paths[index] = forest.path(row);
        }
        let cache = KvCache {
            layers,
            prompts: paths,
            samples: Vec::new(),
            free: std::iter::once(rows..rows + sample_rows).filter(|range| !range.is_empty()).collect(),
            long: forest.long,
            #[cfg(any(feature = "cuda", test))]
            steps: Steps::default(),
        };
        Ok((cache, self.logits(&embed::forward(&x, &ends)?, None)?))
    }

    /// Adds one token to each of several distinct samples and gives the logits after each, [n, V] in f32 (f64 where
    /// the model is), in the order given.
    ///
    /// Errors: a slot that is named twice, released, or full; a token outside the vocabulary; a text that would be
    /// longer than the model's positions.
    pub fn extend(&self, cache: &mut KvCache, tokens: &[(Slot, u32)]) -> Result<Tensor> {
        let (limit, vocab) = (self.max_positions(), self.config().vocab_size);
        let (mut rows, mut depths, mut new_tiles) = (Vec::new(), Vec::new(), Vec::new());
        for (i, &(slot, id)) in tokens.iter().enumerate() {
            if id as usize >= vocab {
                return Err(Error::input(format!("token id {id} is outside the model's vocabulary of {vocab}")));
            }
            let sample = cache.samples.get(slot.0).and_then(Option::as_ref);
            let sample = sample.ok_or_else(|| Error::internal("a released sample was extended"))?;
            let Span { row, len, depth } = sample.own;
            if len == sample.room {
                return Err(Error::internal(format!("a sample with room for {len} tokens was extended beyond")));
            }
            if depth + len >= limit {
                return Err(Error::input(format!("the text would grow beyond the model's {limit} positions")));
            }
            if let Some(beyond) = self.config().long_beyond().filter(|&beyond| !cache.long && depth + len >= beyond) {
                let text = "from where on this model rotates all of it in another way";
                return Err(Error::input(format!("the text would grow beyond {beyond} tokens, {text}")));
            }
            let mut keys = sample.above.clone();
            keys.push(Span { row, len: len + 1, depth });
            rows.push((row + len) as u32);
            depths.push((depth + len) as u32);
            new_tiles.push(Tile { queries: Span { row: i, len: 1, depth: depth + len }, keys });
        }
        let mut distinct = rows.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() < rows.len() {
            return Err(Error::internal("a sample was extended twice in one call"));
        }
        let tables = self.tables(depths.iter().max().map_or(1, |&depth| depth as usize + 1), cache.long)?;
        let ids: Vec<u32> = tokens.iter().map(|&(_, id)| id).collect();
        let tiles = Tiles::new(new_tiles);
        let new =
            NewRows { ids: (&ids).into(), rows: (&rows).into(), depths: (&depths).into(), tiles: &tiles, logits: None };
        let layers = &cache.layers;
        let step = |new: &NewRows| self.step(layers, new, &tables);
        #[cfg(any(feature = "cuda", test))]
        let logits = match self.repeats(&tables) {
            Some(shapes) => cache.steps.run(&new, &shapes, &tables, (vocab, self.device()), step)?,
            None => step(&new)?,
        };
        #[cfg(not(any(feature = "cuda", test)))]
        let logits = step(&new)?;
        for &(slot, _) in tokens {
            if let Some(sample) = &mut cache.samples[slot.0] {
                sample.own.len += 1;
            }
        }
        Ok(logits)
    }

    /// The logits of new rows over the keys and values of each block, to which theirs are added.
    fn step(&self, layers: &[(Tensor, Tensor)], new: &NewRows, tables: &RopeTables) -> Result<Tensor> {
        let context = RowContext { tables, depths: new.depths, tiles: new.tiles, keys: None };
        let mut x = self.embedded(new.ids)?;
        for (block, (keys, values)) in self.blocks.iter().zip(layers) {
            let shape = &block.shape;
            let qkv = block.queries_keys_values(&x, &context)?;
            embed::put(keys, new.rows, &qkv, shape.query_width())?;
            embed::put(values, new.rows, &qkv, shape.query_width() + shape.key_width())?;
            let attended = attention::forward_cached(&qkv, keys, values, context.tiles, shape)?;
            x = block.rest(&x, &attended, None)?;
        }
        self.logits(&x, new.logits)
    }

    /// The forms of attention, each once, where a GPU's kernels do all of a step, so that it can be recorded.
    #[cfg(any(feature = "cuda", test))]
    fn repeats(&self, tables: &RopeTables) -> Option<Vec<Shape>> {
        let mut shapes: Vec<Shape> = Vec::new();
        for block in &self.blocks {
            if !shapes.contains(&block.shape) {
                shapes.push(block.shape);
            }
        }
        let all = kernel_for(&[self.head_weight()]) == Kernel::Cuda && !self.in_few_bits();
        (all && self.blocks.iter().all(|block| block.repeats(tables))).then_some(shapes)
    }

    /// The logits of states before the last norm: [n, V] of [n, H], in f32 at least. On a GPU they are left in `room`,
    /// where there is some.
    fn logits(&self, states: &Tensor, room: Option<&Tensor>) -> Result<Tensor> {
        let (h, _) = self.head_input(states)?;
        head::logits(&h, self.head_weight(), self.head_form(), room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::test_device;
    use crate::ops::cuda::emulator::{calls, emulated, unrecorded};
    use crate::{Bits, DType, DecoderConfig, Device, Dtype, Precision};
    use serde_json::{Value, json};

    fn decoder(form: Value, dtype: DType) -> Decoder {
        let mut json = json!({"vocab_size": 11, "hidden_size": 8, "intermediate_size": 10, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "initializer_range": 0.3,
            "max_position_embeddings": 64});
        json.as_object_mut().unwrap().extend(form.as_object().unwrap().clone());
        let config = DecoderConfig::from_json(json.as_object().unwrap().clone()).unwrap();
        Decoder::init(config, 5, &Device::Cpu).unwrap().cast(dtype).unwrap()
    }

    /// With windows in every other block, and norms that have factors 1 + w.
    fn gemma(dtype: DType) -> Decoder {
        let form = json!({"model_type": "gemma3_text", "sliding_window": 9, "sliding_window_pattern": 2,
            "query_pre_attn_scalar": 2, "rope_local_base_freq": 10.0});
        decoder(form, dtype)
    }

    /// The logits of 24 samples of two texts that come, grow and end at different times; and for each step its kernels
    /// and products, where a GPU is emulated.
    fn grown(decoder: &Decoder) -> (Vec<Vec<f32>>, Vec<Vec<String>>) {
        let (mut cache, _) = decoder.prefill(&[&[1, 2, 3, 4, 5, 6, 7], &[1, 2, 9]], 20 * 12).unwrap();
        let (mut slots, mut logits, mut kernels) = (vec![None; 24], Vec::new(), Vec::new());
        for step in 0..16 {
            let mut tokens = Vec::new();
            for (i, slot) in slots.iter_mut().enumerate() {
                let (begins, ends) = if i < 20 { (0, 4 + i / 3) } else { (5 + i % 20, 16) };
                if step == ends {
                    slot.take().into_iter().for_each(|slot| cache.release(slot));
                }
                if step == begins {
                    *slot = Some(cache.fork(i % 2, ends - begins).unwrap());
                }
                tokens.extend(slot.map(|slot| (slot, (3 * i + 5 * step) as u32 % 11)));
            }
            calls();
            let next = decoder.extend(&mut cache, &tokens).unwrap();
            kernels.push(calls());
            assert_eq!(next.dims(), [tokens.len(), 11]);
            logits.push(next.flatten_all().unwrap().to_vec1().unwrap());
        }
        (logits, kernels)
    }

    /// Steps of a GPU are recorded from the second of a form on. What changes from one to the next is read each time
    /// that they run: the bits are those of steps that are not recorded, and the numbers those of the CPU.
    #[test]
    fn recorded_steps_are_steps() {
        let wide = gemma(DType::F32);
        let (on_cpu, _) = grown(&wide);
        for decoder in [wide, gemma(DType::BF16)] {
            let Some((got, kernels)) = emulated(|| grown(&decoder)) else { return };
            let (want, one_by_one) = emulated(|| unrecorded(|| grown(&decoder))).unwrap();
            assert_eq!(got, want);
            if decoder.dtype() == DType::F32 {
                for (got, want) in got.iter().flatten().zip(on_cpu.iter().flatten()) {
                    assert!((got - want).abs() < 1e-4, "{got}, {want}");
                }
            }
            // Behind the graph, and what is tried once of a device.
            let graph = |calls: &Vec<String>| calls.iter().rposition(|call| call == "graph");
            assert_eq!(kernels.iter().filter_map(graph).count(), 9, "{:?}", decoder.dtype());
            assert_eq!(one_by_one.iter().find_map(graph), None);
            for (calls, step) in kernels.iter().zip(&one_by_one) {
                assert_eq!(&calls[graph(calls).map_or(0, |at| at + 1)..], step);
            }
        }
    }

    /// A launch for each of these where steps are not recorded, and one for all of them where they are.
    #[test]
    fn launches_of_a_step() {
        let calls_of = |layers: usize| {
            let decoder = decoder(json!({"model_type": "qwen2", "num_hidden_layers": layers}), DType::BF16);
            emulated(|| {
                let (mut cache, _) = decoder.prefill(&[&[1, 2, 3]], 1).unwrap();
                let slot = cache.fork(0, 1).unwrap();
                calls();
                decoder.extend(&mut cache, &[(slot, 4)]).unwrap();
                calls()
            })
        };
        let Some(one) = calls_of(1) else { return };
        let words = "gather_rows_bf16 \
            norm_forward_bf16 product rope_turn_bf16 put_rows_bf16 put_rows_bf16 \
            attention_parts_bf16_32 attention_joined_bf16 product \
            norm_forward_bf16 product swiglu_forward_bf16 product \
            norm_forward_bf16 product";
        assert_eq!(one, words.split_whitespace().collect::<Vec<_>>());
        assert_eq!(calls_of(24).unwrap().len(), 24 * 12 + 3);
    }

    /// Weights in few bits become numbers as they are used, so that their steps are not recorded.
    #[test]
    fn steps_of_few_bits() {
        let folder = tempfile::tempdir().unwrap();
        gemma(DType::F32).save(folder.path()).unwrap();
        let grown_on = |device: &Device| {
            let precision = Precision { dtype: Dtype::F32, bits: Some(Bits::Four) };
            grown(&Decoder::load_in(folder.path(), device, precision).unwrap())
        };
        let (want, _) = grown_on(&Device::Cpu);
        let emulated = emulated(|| grown_on(&Device::Cpu)).into_iter();
        for (got, kernels) in emulated.chain(test_device().map(grown_on)) {
            for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
                assert!((got - want).abs() < 1e-4, "{got}, {want}");
            }
            assert!(!kernels.iter().flatten().any(|call| call == "graph"));
        }
    }
}
