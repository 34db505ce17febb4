//! The decoder: weights, and the states and log-probabilities they give to token sequences.

use crate::model::block::{Block, RowContext};
use crate::model::config::DecoderConfig;
use crate::model::forest::Forest;
use crate::model::linear::Weight;
use crate::model::lora::{BaseAdapter, Lora};
use crate::model::parameter::{Norm, Parameter};
use crate::model::weights;
use crate::ops::angles::{RopeTable, RopeTables};
use crate::ops::indices::Indices;
use crate::ops::pointwise::scaled;
use crate::ops::rounded::Products;
use crate::ops::tiles::tiles;
use crate::ops::{embed, head};
use crate::{DType, Device, Error, Result};
use candle_core::Tensor;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A language model of one of the families that the README of this crate lists.
///
/// One decoder serves all work: it scores sequences here, is trained by [`Training`](crate::Training), and generates.
#[derive(Debug)]
pub struct Decoder {
    pub(super) config: DecoderConfig,
    pub(super) device: Device,
    pub(super) dtype: DType,
    /// The precision of the operands of matrix products. Where they are rounded to bf16, weights are kept in f32.
    pub(crate) products: Products,
    /// [V, H]
    pub(crate) embed: Parameter,
    pub(crate) blocks: Vec<Block>,
    /// [H]
    pub(crate) norm: Norm,
    /// [V, H]; absent where the embedding table serves.
    pub(crate) head: Option<Parameter>,
    /// The head of a reward model [1, H], in place of that of a language model.
    pub(crate) score: Option<Parameter>,
    /// The form of the adapter beside the linear layers, where there is one.
    pub(crate) lora: Option<Lora>,
    /// The adapter of the base that the one beside the linear layers is trained over.
    pub(crate) base_adapter: Option<BaseAdapter>,
    /// The base's tensors that the folder of an adapter replaces, by name (PEFT's `modules_to_save`).
    pub(crate) saved_modules: Vec<String>,
    /// The folder with the tensors that stand beside the decoder, where there are some.
    pub(super) source: Option<PathBuf>,
    /// Of long texts the second ones.
    pub(super) tables: Mutex<[Option<Arc<RopeTables>>; 2]>,
}

impl Decoder {
    /// The form of the model.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Another form of the same body.
    pub(crate) fn set_config(&mut self, config: DecoderConfig) {
        self.config = config;
    }

    /// Device of its weights.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The dtype of its tensors.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The longest sequence, in tokens.
    pub fn max_positions(&self) -> usize {
        self.config.max_positions
    }

    /// Writes `config.json`, `model.safetensors` and `generation_config.json` into an existing folder, in the format
    /// that transformers reads. The dtype is that of its tensors; a tied head is not written twice.
    ///
    /// Errors: an adapter, which has a form of its own; see [`save_adapter`](Decoder::save_adapter) and
    /// [`merged`](Decoder::merged).
    pub fn save(&self, to: &Path) -> Result<()> {
        if self.in_few_bits() {
            return Err(Error::input("weights in few bits are not saved; an adapter over them is"));
        }
        if self.lora.is_some() {
            return Err(Error::internal("a decoder with an adapter is saved merged, or as its adapter"));
        }
        self.config.save(to, self.dtype)?;
        let mut tensors = Vec::new();
        for parameter in self.parameters() {
            tensors.extend(parameter.named()?);
        }
        let others = self.others()?;
        tensors.extend(others.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())));
        weights::save_model(&to.join("model.safetensors"), &self.config, &tensors)
    }

    /// The tensors of its folder that stand beside the decoder, as they are stored there.
    pub(crate) fn others(&self) -> Result<Vec<(String, Tensor)>> {
        self.source.as_ref().map_or_else(|| Ok(Vec::new()), |folder| weights::others(folder, &self.config))
    }

    /// The states after the last block, before the last norm: of all rows [T, H], or of some of them [R, H].
    pub(crate) fn states_of(&self, forest: &Forest, rows: Option<&[u32]>) -> Result<Tensor> {
        let tables = self.tables_for(forest)?;
        let context =
            RowContext { tables: &tables, depths: (&forest.depths).into(), tiles: &tiles(forest), keys: None };
        let mut x = self.embedded(&forest.ids)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, &context, rows.filter(|_| self.is_last(layer)))?;
        }
        Ok(x)
    }

    /// The states below the first block [T, H].
    pub(crate) fn embedded<'a>(&self, ids: impl Into<Indices<'a>>) -> Result<Tensor> {
        scaled(&embed::forward(&self.embed.value, ids)?, self.config.embedding_scale(self.dtype))
    }

    /// States after the last norm [R, H] of those before it, and 1 / rms of these [R].
    pub(crate) fn last_norm(&self, rows: &Tensor) -> Result<(Tensor, Tensor)> {
        self.norm.forward(rows)
    }

    /// The same as the LM head takes them: divided by what logits are divided by.
    pub(crate) fn head_input(&self, rows: &Tensor) -> Result<(Tensor, Tensor)> {
        let (normed, rms) = self.last_norm(rows)?;
        Ok((scaled(&normed, self.head_scale())?, rms))
    }

    /// How logits are computed from what the LM head takes.
    pub(crate) fn head_form(&self) -> head::Form {
        head::Form { products: self.products, cap: self.config.logits_cap }
    }

    /// Factor of the states between the last norm and the LM head.
    pub(crate) fn head_scale(&self) -> f64 {
        1.0 / self.config.multipliers.logits
    }

    /// True where weights of linear layers are held in few bits: they are frozen.
    pub fn in_few_bits(&self) -> bool {
        self.few_bits().next().is_some()
    }

    /// The names of the weights that are held in few bits.
    pub(crate) fn few_bits(&self) -> impl Iterator<Item = &str> {
        let linears = self.blocks.iter().flat_map(Block::linears);
        let few = linears.filter(|linear| linear.weight.parameter().is_none());
        few.flat_map(|linear| linear.weight.parts()).map(|(name, _)| name.as_str())
    }

    /// True where a block is the last one, which computes only the requested rows.
    pub(crate) fn is_last(&self, layer: usize) -> bool {
        layer + 1 == self.config.layers
    }

    /// The parameter of the LM head, tied or not.
    pub(crate) fn head(&self) -> &Parameter {
        self.head.as_ref().unwrap_or(&self.embed)
    }

    /// The matrix of the LM head [V, H], tied or not.
    pub(crate) fn head_weight(&self) -> &Tensor {
        &self.head().value
    }

    /// Rotary tables that cover a forest.
    pub(crate) fn tables_for(&self, forest: &Forest) -> Result<Arc<RopeTables>> {
        self.tables(forest.depths.iter().max().map_or(1, |&depth| depth as usize + 1), forest.long)
    }

    /// Rotary tables for at least `positions` positions, of long texts or of others.
    pub(crate) fn tables(&self, positions: usize, long: bool) -> Result<Arc<RopeTables>> {
        let mut tables = self.tables.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = &mut tables[usize::from(long)];
        match known {
            Some(tables) if tables.every.positions() >= positions => Ok(tables.clone()),
            _ => {
                let positions = positions.next_power_of_two().max(256);
                let DecoderConfig { rope, windowed_rope, head_dim, .. } = &self.config;
                let table = |rope| RopeTable::new(rope, *head_dim, long, positions, self.dtype, &self.device);
                let windowed = windowed_rope.as_ref().filter(|windowed| *windowed != rope).map(table).transpose()?;
                let fresh = Arc::new(RopeTables { every: table(rope)?, windowed });
                *known = Some(fresh.clone());
                Ok(fresh)
            }
        }
    }

    /// The same model in f64, with biases and norms moved off 0 and 1 so that mistakes show.
    #[cfg(test)]
    pub(crate) fn for_checks(mut self) -> Decoder {
        self.dtype = DType::F64;
        self.few_bits_as(DType::F64);
        for parameter in self.parameters_mut() {
            let value = parameter.value.to_dtype(DType::F64).expect("a cast");
            let jitter = crate::random::normal(1, &parameter.parts[0].0, value.elem_count(), 0.1);
            let jitter = Tensor::from_vec(jitter, value.shape(), value.device()).expect("as many numbers");
            parameter.value = (value + jitter.to_dtype(DType::F64).expect("a cast")).expect("the same shape");
        }
        self
    }

    /// A copy of its own.
    #[cfg(test)]
    pub(crate) fn duplicate(&self) -> Decoder {
        use crate::model::few_bits::Held;
        let mut tensors = std::collections::HashMap::new();
        for parameter in self.parameters() {
            for (name, tensor) in parameter.named().expect("parts of a parameter") {
                tensors.insert(name.to_owned(), Held::Numbers(tensor.copy().expect("a copy")));
            }
        }
        Decoder::assemble(self.config.clone(), tensors, &self.device, self.dtype).expect("the same tensors")
    }

    /// The same model in another dtype.
    pub(crate) fn cast(mut self, dtype: DType) -> Result<Decoder> {
        for parameter in self.parameters_mut() {
            parameter.value = parameter.value.to_dtype(dtype)?;
        }
        self.few_bits_as(dtype);
        Ok(Decoder { dtype, tables: Mutex::default(), ..self })
    }

    /// Makes numbers of a dtype of the weights in few bits.
    fn few_bits_as(&mut self, dtype: DType) {
        for linear in self.blocks.iter_mut().flat_map(Block::linears_mut) {
            if let Weight::Few(few) = &mut linear.weight {
                few.dtype = dtype;
            }
        }
    }

    /// All parameters, in a fixed order. Weights in few bits are none.
    pub(crate) fn parameters(&self) -> Vec<&Parameter> {
        let mut all = vec![&self.embed];
        all.extend(self.blocks.iter().flat_map(|block| block.parameters()));
        all.push(&self.norm.weight);
        all.extend(&self.head);
        all.extend(&self.score);
        all
    }

    /// The same in the same order, to change.
    pub(crate) fn parameters_mut(&mut self) -> Vec<&mut Parameter> {
        let mut all = vec![&mut self.embed];
        all.extend(self.blocks.iter_mut().flat_map(|block| block.parameters_mut()));
        all.push(&mut self.norm.weight);
        all.extend(&mut self.head);
        all.extend(&mut self.score);
        all
    }
}
