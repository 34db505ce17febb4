//! Keys and values kept between calls, so that a text grows token by token without computing its beginning again.
//!
//! A prompt is computed once by [`Decoder::prefill`] and serves all of its samples: [`KvCache::fork`] gives a sample
//! rows of its own behind the prompt's. [`Decoder::extend`] adds one token to each of several samples.

use crate::model::block::RowContext;
use crate::model::forest::{Span, Want};
use crate::ops::tiles::{Tile, Tiles, tiles};
use crate::ops::{attention, embed, head, linear};
use crate::{DType, Decoder, Error, Result, Sequence};
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
        let context = RowContext { tables: &tables, depths: &forest.depths, tiles: &tiles(&forest), keys: None };
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
        };
        Ok((cache, self.logits(&embed::forward(&x, &ends)?)?))
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
        let context = RowContext { tables: &tables, depths: &depths, tiles: &Tiles::new(new_tiles), keys: None };
        let ids: Vec<u32> = tokens.iter().map(|&(_, id)| id).collect();
        let mut x = self.embedded(&ids)?;
        for (block, (keys, values)) in self.blocks.iter().zip(&cache.layers) {
            let shape = &block.shape;
            let qkv = block.queries_keys_values(&x, &context)?;
            embed::put(keys, &rows, &qkv, shape.query_width())?;
            embed::put(values, &rows, &qkv, shape.query_width() + shape.key_width())?;
            let attended = attention::forward_cached(&qkv, keys, values, context.tiles, shape)?;
            x = block.rest(&x, &attended, None)?;
        }
        for &(slot, _) in tokens {
            if let Some(sample) = &mut cache.samples[slot.0] {
                sample.own.len += 1;
            }
        }
        self.logits(&x)
    }

    /// The logits of states before the last norm: [n, V] of [n, H], in f32 at least.
    fn logits(&self, states: &Tensor) -> Result<Tensor> {
        let (h, _) = self.head_input(states)?;
        let logits = linear::forward(&h, self.head_weight(), None, None, self.products)?;
        let logits = if logits.dtype() == DType::F64 { logits } else { logits.to_dtype(DType::F32)? };
        head::capped(logits, self.config().logits_cap)
    }
}
