//! Decoders from folders and files, and fresh ones.

use crate::model::adapter_folder::StoredAdapter;
use crate::model::block::Block;
use crate::model::config::DecoderConfig;
use crate::model::family::HeadNorms;
use crate::model::few_bits::{FewBits, Held, Scratch};
use crate::model::folder::{is_gguf, model_part};
use crate::model::gguf;
use crate::model::linear::{Linear, Weight};
use crate::model::parameter::{Norm, Parameter};
use crate::model::shapes::{HEAD, SCORE, shapes};
use crate::model::weights::{self, Holding};
use crate::ops::rounded::Products;
use crate::ops::tiles::Shape;
use crate::{DType, Decoder, Device, Dtype, Error, Precision, Result, random};
use candle_core::Tensor;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

impl Decoder {
    /// Reads a Hugging Face folder, to compute in f32.
    ///
    /// Errors name the file: what is missing, damaged, or of an architecture that is not computed here.
    pub fn load(folder: &Path, device: &Device) -> Result<Decoder> {
        Decoder::load_in(folder, device, Dtype::F32)
    }

    /// Reads a Hugging Face folder, to compute in a precision.
    pub fn load_in(folder: &Path, device: &Device, precision: impl Into<Precision>) -> Result<Decoder> {
        let Precision { dtype, bits } = precision.into();
        Decoder::computing(dtype, device, |dtype| Decoder::load_held(folder, Holding { dtype, device, bits }))
    }

    /// A decoder that computes in a precision, given how one is loaded with tensors of a dtype.
    pub(crate) fn computing(
        dtype: Dtype,
        device: &Device,
        load: impl FnOnce(DType) -> Result<Decoder>,
    ) -> Result<Decoder> {
        match (dtype, device) {
            (Dtype::F32, _) => load(DType::F32),
            (Dtype::Bf16, Device::Cpu) => Ok(load(DType::F32)?.rounded()),
            (Dtype::Bf16, _) => load(DType::BF16),
        }
    }

    /// The same with the numbers of matrix products rounded to bf16.
    fn rounded(mut self) -> Decoder {
        self.products = Products::Rounded;
        for linear in self.blocks.iter_mut().flat_map(Block::linears_mut) {
            linear.products = Products::Rounded;
        }
        self
    }

    /// Reads a Hugging Face folder, with tensors of `dtype`. A PEFT folder is read as its base with the adapter beside
    /// it. The weights of linear layers stay in few bits where they are stored so: in GGUF files, and in NF4.
    pub fn load_as(folder: &Path, device: &Device, dtype: DType) -> Result<Decoder> {
        Decoder::load_held(folder, Holding { dtype, device, bits: None })
    }

    fn load_held(folder: &Path, holding: Holding) -> Result<Decoder> {
        let model = model_part(folder)?;
        let config = DecoderConfig::from_folder(&model)?;
        match model == folder {
            true => Decoder::load_model(config, &model, holding),
            false => Decoder::load_adapter(config.clone(), config, &model, folder, holding),
        }
    }

    /// The base in a folder with the adapter of another beside it. `config` is that of both together.
    pub(crate) fn load_adapter(
        mut config: DecoderConfig,
        of_base: DecoderConfig,
        base: &Path,
        folder: &Path,
        holding: Holding,
    ) -> Result<Decoder> {
        let (of_base, mut tensors) = tensors_of(of_base, base, holding)?;
        let adapter = StoredAdapter::read(folder, &of_base, config.reward)?;
        if config.reward {
            tensors.remove(HEAD);
            if !of_base.reward {
                let zeros = Tensor::zeros((1, config.hidden_size), holding.dtype, holding.device)?;
                tensors.insert(SCORE.to_owned(), Held::Numbers(zeros));
            }
        } else {
            config.tied = of_base.tied;
        }
        adapter.replace_modules(&mut config, &mut tensors, holding)?;
        let mut decoder = Decoder::assemble(config, tensors, holding.device, holding.dtype)?;
        decoder.take_adapter(adapter)?;
        decoder.keep_others(base);
        Ok(decoder)
    }

    pub(crate) fn load_model(config: DecoderConfig, folder: &Path, holding: Holding) -> Result<Decoder> {
        let (config, tensors) = tensors_of(config, folder, holding)?;
        let mut decoder = Decoder::assemble(config, tensors, holding.device, holding.dtype)?;
        decoder.keep_others(folder);
        Ok(decoder)
    }

    /// Notes where the tensors are that stand beside the decoder.
    fn keep_others(&mut self, folder: &Path) {
        self.source = Some(folder.to_owned()).filter(|_| self.config.wrapped);
    }

    /// A fresh model in f32, initialised as transformers does: weights and embeddings normal with the config's
    /// deviation, norms so that they multiply with 1, biases and the padding token's embedding 0. The same seed gives
    /// the same weights.
    pub fn init(config: DecoderConfig, seed: u64, device: &Device) -> Result<Decoder> {
        let mut tensors = HashMap::new();
        for (name, shape) in shapes(&config) {
            let n = shape.iter().product();
            let mut numbers = match () {
                () if name.ends_with(".bias") => vec![0.0; n],
                () if name.ends_with("norm.weight") => vec![config.family.norm.fresh(); n],
                () => random::normal(seed, &name, n, config.initializer_range),
            };
            if let Some(pad) = config.pad_token_id
                && name.ends_with("embed_tokens.weight")
                && (pad as usize) < config.vocab_size
            {
                numbers[pad as usize * config.hidden_size..][..config.hidden_size].fill(0.0);
            }
            tensors.insert(name, Held::Numbers(Tensor::from_vec(numbers, shape, device)?));
        }
        Decoder::assemble(config, tensors, device, DType::F32)
    }

    /// A model with normal weights that are made on the device, for measurements.
    #[cfg(feature = "cuda")]
    pub(crate) fn random(config: DecoderConfig, device: &Device, dtype: DType) -> Result<Decoder> {
        let mut tensors = HashMap::new();
        for (name, shape) in shapes(&config) {
            let tensor = match name.ends_with("norm.weight") {
                true => (Tensor::zeros(shape, dtype, device)? + f64::from(config.family.norm.fresh()))?,
                false => Tensor::randn(0f32, 0.02, shape, device)?.to_dtype(dtype)?,
            };
            tensors.insert(name, Held::Numbers(tensor));
        }
        Decoder::assemble(config, tensors, device, dtype)
    }

    pub(super) fn assemble(
        config: DecoderConfig,
        tensors: HashMap<String, Held>,
        device: &Device,
        dtype: DType,
    ) -> Result<Decoder> {
        let mut tensors = Tensors { tensors, dtype, device, scratch: Scratch::default() };
        let blocks = (0..config.layers).map(|layer| block_of(&config, layer, &mut tensors)).collect::<Result<_>>()?;
        let mut take = |name: String| tensors.parameter(&[name]);
        Ok(Decoder {
            embed: take(format!("{}embed_tokens.weight", config.body()))?,
            norm: norm_of(&config, config.states_eps(), take(format!("{}norm.weight", config.body()))?),
            head: if config.tied { None } else { Some(take(HEAD.to_owned())?) },
            score: if config.reward { Some(take(SCORE.to_owned())?) } else { None },
            blocks,
            config,
            device: device.clone(),
            dtype,
            products: Products::Exact,
            lora: None,
            base_adapter: None,
            saved_modules: Vec::new(),
            source: None,
            tables: Mutex::default(),
        })
    }
}

/// The tensors of a folder or a GGUF file, and the form that they fit.
fn tensors_of(
    mut config: DecoderConfig,
    model: &Path,
    holding: Holding,
) -> Result<(DecoderConfig, HashMap<String, Held>)> {
    if is_gguf(model) {
        return gguf::load(model, holding);
    }
    let tensors = weights::load(model, &mut config, holding)?;
    Ok((config, tensors))
}

/// Tensors by their names in model files, of which a decoder is put together.
struct Tensors<'d> {
    tensors: HashMap<String, Held>,
    dtype: DType,
    device: &'d Device,
    scratch: Scratch,
}

impl Tensors<'_> {
    fn take(&mut self, names: &[String]) -> Result<Vec<Held>> {
        let mut taken = Vec::new();
        for name in names {
            let held = self.tensors.remove(name);
            taken.push(held.ok_or_else(|| Error::internal(format!("tensor {name} was not prepared")))?);
        }
        Ok(taken)
    }

    /// Tensors of numbers that are held as one.
    fn parameter(&mut self, names: &[String]) -> Result<Parameter> {
        let mut values = self.take(names)?.into_iter().map(Held::whole).collect::<Result<Vec<_>>>()?;
        let parts = names.iter().cloned().zip(values.iter().map(|value| value.dims()[0])).collect();
        let value = if values.len() == 1 { values.remove(0) } else { Tensor::cat(&values, 0)? };
        Ok(Parameter { parts, value: value.contiguous()?, gradient: None })
    }

    /// Matrices that are held as one: numbers, or where some are in few bits, frozen.
    fn weight(&mut self, names: &[String]) -> Result<Weight> {
        let few = |name: &String| self.tensors.get(name).is_some_and(|held| !matches!(held, Held::Numbers(_)));
        match names.iter().any(few) {
            false => self.parameter(names).map(Weight::Numbers),
            true => {
                let held = self.take(names)?;
                Ok(Weight::Few(FewBits::new(names, held, self.dtype, self.device, &self.scratch)?))
            }
        }
    }
}

/// A block of tensors with the names that model files have for them.
fn block_of(config: &DecoderConfig, layer: usize, tensors: &mut Tensors) -> Result<Block> {
    let name = |name: &str| format!("{}layers.{layer}.{name}", config.body());
    let mut linear = |names: &[&str], bias: bool| -> Result<Linear> {
        let of = |kind: &str| names.iter().map(|n| name(&format!("{n}_proj.{kind}"))).collect::<Vec<_>>();
        let weight = tensors.weight(&of("weight"))?;
        let bias = if bias { Some(tensors.parameter(&of("bias"))?) } else { None };
        Ok(Linear { weight, bias, adapters: Vec::new(), products: Products::Exact })
    };
    let (qkv, gate_up): (&[&str], &[&str]) = match config.family.fused {
        false => (&["self_attn.q", "self_attn.k", "self_attn.v"], &["mlp.gate", "mlp.up"]),
        true => (&["self_attn.qkv"], &["mlp.gate_up"]),
    };
    let qkv = linear(qkv, config.qkv_bias)?;
    let output = linear(&["self_attn.o"], config.output_bias)?;
    let gate_up = linear(gate_up, config.mlp_bias)?;
    let down = linear(&["mlp.down"], config.mlp_bias)?;
    let mut take = |names: &[String]| tensors.parameter(names);
    let mut head_norm = |of: &str| -> Result<Option<Norm>> {
        let names = [name(&format!("self_attn.{of}_norm.weight"))];
        let there = config.head_norm != HeadNorms::None;
        there.then(|| Ok(norm_of(config, config.rms_norm_eps, take(&names)?))).transpose()
    };
    let (query_norm, key_norm) = (head_norm("q")?, head_norm("k")?);
    // What is added to the states after a norm is not divided by what multiplies that; no family has both.
    let mut states_norm = |of: Option<&str>, eps: f64| -> Result<Option<Norm>> {
        of.map(|of| Ok(norm_of(config, eps, take(&[name(&format!("{of}.weight"))])?))).transpose()
    };
    let [before, after, before_mlp, after_mlp] = config.family.norms.names();
    Ok(Block {
        shape: Shape::of(config, layer),
        rotated: config.rotated[layer],
        query_scale: config.query_scale,
        activation: config.family.activation,
        input_norm: states_norm(before, config.states_eps())?,
        qkv,
        head_norms: config.head_norm,
        query_norm,
        key_norm,
        output,
        output_norm: states_norm(after, config.rms_norm_eps)?,
        post_norm: states_norm(before_mlp, config.states_eps())?,
        gate_up,
        down,
        down_norm: states_norm(after_mlp, config.rms_norm_eps)?,
    })
}

fn norm_of(config: &DecoderConfig, eps: f64, weight: Parameter) -> Norm {
    Norm { weight, kind: config.family.norm, eps }
}
