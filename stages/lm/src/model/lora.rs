//! Low-rank adapters: y += scale x A^T B^T beside frozen linear layers, as PEFT has them.

use crate::model::block::Block;
use crate::model::linear::{Adapter, Linear};
use crate::model::parameter::Parameter;
use crate::model::shapes::SCORE;
use crate::random::fnv;
use crate::{Decoder, Error, Result, random};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

// K inputs, N outputs of one matrix.

/// The linear layers of a block, by PEFT's short names. Two of them stand for five in families with fused matrices.
pub const TARGETS: [&str; 9] =
    ["q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj"];

/// Limit of ranks; higher ones are wider than the matrices.
const HIGHEST_RANK: usize = 1 << 14;

/// The form of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// Rows of A.
    pub rank: usize,
    /// The product of A and B is multiplied with alpha / rank; with alpha / sqrt(rank) under `rslora`.
    pub alpha: f64,
    /// Rank-stabilised scaling (arXiv 2312.03732).
    pub rslora: bool,
    /// The share of each layer's inputs that training leaves out of the adapter's part, in [0, 1).
    pub dropout: f64,
    /// The linear layers that have one: short names in the order of [`TARGETS`], which mean those of all blocks, and
    /// whole names of those that some blocks have alone.
    pub targets: Vec<String>,
}

impl Lora {
    /// A form, from short names or `all-linear`.
    ///
    /// Errors: a name that is no linear layer, the same twice, none, or a rank or alpha that is not above 0.
    pub fn new(rank: usize, alpha: f64, targets: &[String]) -> Result<Lora> {
        if rank == 0 {
            return Err(Error::input("rank is 0; wanted at least 1"));
        }
        if rank > HIGHEST_RANK {
            return Err(Error::input(format!("rank is {rank}; wanted at most {HIGHEST_RANK}")));
        }
        if !(alpha > 0.0 && alpha.is_finite()) {
            return Err(Error::input(format!("alpha is {alpha}; wanted a number above 0")));
        }
        if let Some(name) = targets.iter().find(|name| *name != "all-linear" && !TARGETS.contains(&name.as_str())) {
            return Err(Error::input(format!(
                "there is no linear layer `{name}`; there are {} or `all-linear`",
                known()
            )));
        }
        if let Some(twice) = targets.iter().enumerate().find(|(at, name)| targets[..*at].contains(name)) {
            return Err(Error::input(format!("`{}` stands twice", twice.1)));
        }
        let all = targets.iter().any(|name| name == "all-linear");
        if all && targets.len() > 1 {
            return Err(Error::input("`all-linear` names all of them; leave the others out"));
        }
        if targets.is_empty() {
            return Err(Error::input(format!("no linear layer is named; there are {} or `all-linear`", known())));
        }
        let chosen = TARGETS.iter().filter(|name| all || targets.iter().any(|target| target == *name));
        let targets = chosen.map(|name| (*name).to_owned()).collect();
        Ok(Lora { rank, alpha, rslora: false, dropout: 0.0, targets })
    }

    /// True where a module, by its name in model files, has an adapter of this form.
    fn has(&self, module: &str) -> bool {
        self.targets.iter().any(|target| target == short(module) || target == module)
    }

    /// The fault of a dropout that is outside of its range.
    pub fn dropout_fault(&self) -> Option<String> {
        let fits = (0.0..1.0).contains(&self.dropout);
        (!fits).then(|| format!("dropout is {}; wanted 0 up to, but without, 1", self.dropout))
    }

    /// The factor of the product of A and B.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }
}

fn known() -> String {
    TARGETS.map(|name| format!("`{name}`")).join(", ")
}

/// An adapter that belongs to the base of a trained one.
#[derive(Debug, Clone)]
pub(crate) struct BaseAdapter {
    pub lora: Lora,
    /// A and B by their names in PEFT's files, f32.
    pub tensors: BTreeMap<String, Tensor>,
}

/// A place for an adapter: the module's name in model files, its first output in its [`Linear`], N and K.
struct Place {
    module: String,
    start: usize,
    rows: usize,
    inputs: usize,
}

/// The matrices that a linear layer consists of.
fn places(linear: &Linear) -> Result<Vec<Place>> {
    let inputs = linear.weight.inputs()?;
    let mut start = 0;
    let place = |(name, rows): &(String, usize)| {
        start += rows;
        Place { module: name.trim_end_matches(".weight").to_owned(), start: start - rows, rows: *rows, inputs }
    };
    Ok(linear.weight.parts().iter().map(place).collect())
}

/// The short name of a module.
fn short(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or_default()
}

/// The names of A and B in PEFT's files.
pub(crate) fn tensor_names(module: &str) -> [String; 2] {
    ["lora_A", "lora_B"].map(|kind| format!("base_model.model.{module}.{kind}.weight"))
}

/// True for the name of an adapter's parameter.
pub(crate) fn is_adapter(name: &str) -> bool {
    name.starts_with("base_model.model.")
}

/// True for the name of a parameter that is trained and saved with an adapter: its own, and a reward model's head.
pub(crate) fn is_beside(name: &str) -> bool {
    is_adapter(name) || name == SCORE
}

impl Decoder {
    /// Puts a fresh adapter beside the linear layers, as PEFT initialises it: A uniform within 1 / sqrt(K) (Kaiming
    /// with a = sqrt(5)), B 0, so that nothing changes yet. The same seed gives the same numbers.
    pub fn add_adapter(&mut self, lora: &Lora, seed: u64) -> Result<()> {
        self.place_adapter(lora, |name, shape| {
            let (n, inputs) = (shape.0 * shape.1, shape.1 as f64);
            let fresh = if name.ends_with("lora_A.weight") {
                random::uniform(seed, name, n, 1.0 / inputs.sqrt())
            } else {
                vec![0.0; n]
            };
            Ok(Tensor::from_vec(fresh, shape, &candle_core::Device::Cpu)?)
        })
    }

    /// Puts an adapter beside the linear layers, its tensors given by their names and shapes. Where all linear layers
    /// are named, those are meant that there are.
    ///
    /// Errors: a layer that this model has not, a dropout outside [0, 1).
    pub(crate) fn place_adapter(
        &mut self,
        lora: &Lora,
        mut tensor: impl FnMut(&str, (usize, usize)) -> Result<Tensor>,
    ) -> Result<()> {
        if self.lora.is_some() {
            return Err(Error::internal("a second adapter beside the first"));
        }
        if let Some(text) = lora.dropout_fault() {
            return Err(Error::input(text));
        }
        let mut there = Vec::new();
        for linear in self.blocks.iter_mut().flat_map(Block::linears_mut) {
            for Place { module, .. } in places(linear)? {
                there.extend([short(&module).to_owned(), module]);
            }
        }
        let (mut lora, all) = (lora.clone(), lora.targets.len() == TARGETS.len());
        if let Some(absent) = lora.targets.iter().find(|target| !all && !there.contains(target)) {
            let there: Vec<&str> = TARGETS.into_iter().filter(|name| there.iter().any(|own| own == name)).collect();
            let there = there.join(", ");
            return Err(Error::input(format!("this model has no linear layer `{absent}`; it has {there}")));
        }
        lora.targets.retain(|target| there.contains(target));
        let (device, dtype) = (self.device().clone(), self.dtype());
        let mut parameter = |name: String, shape: (usize, usize)| -> Result<Parameter> {
            let value = tensor(&name, shape)?.to_dtype(dtype)?.to_device(&device)?;
            Ok(Parameter { parts: vec![(name, shape.0)], value, gradient: None })
        };
        for block in &mut self.blocks {
            for linear in block.linears_mut() {
                for Place { module, start, rows, inputs } in places(linear)? {
                    if !lora.has(&module) {
                        continue;
                    }
                    let [a, b] = tensor_names(&module);
                    linear.adapters.push(Adapter {
                        start,
                        scale: lora.scale(),
                        dropout: lora.dropout,
                        place: fnv(&module),
                        a: parameter(a, (lora.rank, inputs))?,
                        b: parameter(b, (rows, lora.rank))?,
                    });
                }
            }
        }
        self.lora = Some(lora);
        Ok(())
    }

    /// Checks that an adapter over the same base can hold all that is beside the weights.
    ///
    /// Errors: whole modules of its folder, PEFT's `modules_to_save`.
    pub fn whole_adapter(&self) -> Result<()> {
        match self.saved_modules.first() {
            None => Ok(()),
            Some(name) => Err(Error::input(format!(
                "the adapter holds whole modules (`{name}`); merge it with `halftone export model` and start from there"
            ))),
        }
    }

    /// Takes an adapter as a part of the base: merged into its weights, or frozen beside them. A fresh adapter may then be
    /// added; both are saved as one over the base of the first.
    ///
    /// Errors: no adapter, or one with whole modules.
    pub fn with_base_adapter(mut self, merged: bool) -> Result<Decoder> {
        self.whole_adapter()?;
        let lora = self.lora.clone().ok_or_else(|| Error::internal("a decoder without adapter has none to freeze"))?;
        let mut tensors = BTreeMap::new();
        for parameter in self.parameters().into_iter().filter(|parameter| is_adapter(&parameter.parts[0].0)) {
            for (name, tensor) in parameter.named()? {
                tensors.insert(name.to_owned(), tensor.to_dtype(DType::F32)?.to_device(&candle_core::Device::Cpu)?);
            }
        }
        if merged {
            self = self.merged()?;
        } else {
            // Under another name it is no adapter that is trained or saved; nor is any of it left out.
            for adapter in self.blocks.iter_mut().flat_map(Block::linears_mut).flat_map(|linear| &mut linear.adapters) {
                adapter.dropout = 0.0;
                for (name, _) in [&mut adapter.a, &mut adapter.b].into_iter().flat_map(|p| &mut p.parts) {
                    *name = format!("frozen.{name}");
                }
            }
            self.lora = None;
        }
        self.base_adapter = Some(BaseAdapter { lora, tensors });
        Ok(self)
    }

    /// The form of an adapter that holds the base's adapter and the trained one, and its tensors from theirs: A the rows of
    /// both, B the columns of both with their factors. Where only one of them has a layer, the other's part is 0.
    pub(crate) fn joined_adapter(
        &self,
        base: &BaseAdapter,
        trained: &BTreeMap<&str, Tensor>,
    ) -> Result<(Lora, Vec<(String, Tensor)>)> {
        let own = self.lora.as_ref().ok_or_else(|| Error::internal("a decoder without adapter has none to join"))?;
        let rank = base.lora.rank + own.rank;
        let targets = self.named_targets(|module| base.lora.has(module) || own.has(module))?;
        let lora = Lora { rank, alpha: rank as f64, rslora: false, dropout: own.dropout, targets };
        let mut all = Vec::new();
        for place in self.adapter_places(&lora)? {
            let [a, b] = tensor_names(&place.module);
            let zeros =
                |rows: usize, columns: usize| Tensor::zeros((rows, columns), DType::F32, &candle_core::Device::Cpu);
            let part = |of: Option<&Tensor>, shape: (usize, usize)| match of {
                Some(tensor) => tensor.to_dtype(DType::F32),
                None => zeros(shape.0, shape.1),
            };
            let (old, new) = (base.lora.rank, own.rank);
            let rows =
                [part(base.tensors.get(&a), (old, place.inputs))?, part(trained.get(a.as_str()), (new, place.inputs))?];
            let columns = [
                (part(base.tensors.get(&b), (place.rows, old))? * base.lora.scale())?,
                (part(trained.get(b.as_str()), (place.rows, new))? * own.scale())?,
            ];
            all.push((a, Tensor::cat(&rows, 0)?));
            all.push((b, Tensor::cat(&columns, 1)?.contiguous()?));
        }
        all.extend(trained.get(SCORE).map(|score| (SCORE.to_owned(), score.clone())));
        Ok((lora, all))
    }

    /// The places of an adapter of some form, from the lowest block up.
    fn adapter_places(&self, lora: &Lora) -> Result<Vec<Place>> {
        let mut all = Vec::new();
        for linear in self.blocks.iter().flat_map(|block| block.linears()) {
            all.extend(places(linear)?.into_iter().filter(|place| lora.has(&place.module)));
        }
        Ok(all)
    }

    /// The names of some linear layers as [`Lora::targets`] has them.
    pub(crate) fn named_targets(&self, chosen: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut modules = Vec::new();
        for linear in self.blocks.iter().flat_map(|block| block.linears()) {
            modules.extend(places(linear)?.into_iter().map(|place| place.module));
        }
        let names = TARGETS.iter().flat_map(|target| {
            let (some, others): (Vec<&String>, Vec<&String>) =
                modules.iter().filter(|module| short(module) == *target).partition(|module| chosen(module));
            match others.is_empty() {
                true => some.first().map(|_| (*target).to_owned()).into_iter().collect::<Vec<_>>(),
                false => some.into_iter().cloned().collect(),
            }
        });
        Ok(names.collect())
    }

    /// The form of the adapter, where there is one.
    pub fn adapter(&self) -> Option<&Lora> {
        self.lora.as_ref()
    }

    /// The whole names of an adapter's layers: what stands beside the decoder may have layers of the same short names.
    pub(crate) fn adapted(&self, lora: &Lora) -> Result<Vec<String>> {
        Ok(self.adapter_places(lora)?.into_iter().map(|place| place.module).collect())
    }

    /// Takes the adapter away: what is left is the base.
    pub fn without_adapter(mut self) -> Decoder {
        self.lora = None;
        self.blocks.iter_mut().flat_map(|block| block.linears_mut()).for_each(|linear| linear.adapters.clear());
        self
    }

    /// Adds the adapter to the weights, W + (alpha / rank) B A, and takes it away. The sum is computed in f32 at least.
    /// Weights in few bits become numbers, without an adapter too.
    pub fn merged(mut self) -> Result<Decoder> {
        for linear in self.blocks.iter_mut().flat_map(|block| block.linears_mut()) {
            linear.merge()?;
        }
        Ok(self.without_adapter())
    }
}
