//! BERT and its kin: blocks with a norm behind each part. It is tested against candle-transformers.

use std::path::Path;

use candle_core::Tensor;
use candle_transformers::models::bert::{Config, HiddenAct};

use crate::encode::parts::{Affine, Attention, Named, Norm, Source, Texts, activated, attended};
use crate::ops::embed;
use crate::ops::rounded::Products;
use crate::{DType, Device, Error, Result};

// T tokens of all texts, H hidden width, A heads, F feed-forward width.

/// An architecture of this form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kin {
    /// BERT: positions from 0, token types.
    Bert,
    /// RoBERTa, XLM-RoBERTa, CamemBERT: positions from behind that of padding.
    Roberta,
    /// MPNet: as RoBERTa, no token types, and a bias of attention by distance.
    Mpnet,
}

impl Kin {
    /// The architecture of a `model_type`.
    pub fn named(model_type: &str) -> Option<Kin> {
        match model_type {
            "bert" => Some(Kin::Bert),
            "roberta" | "xlm-roberta" | "camembert" => Some(Kin::Roberta),
            "mpnet" => Some(Kin::Mpnet),
            _ => None,
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Kin::Bert => "bert.",
            Kin::Roberta => "roberta.",
            Kin::Mpnet => "mpnet.",
        }
    }

    /// Tokens of the longest text, special tokens included.
    pub fn positions(self, config: &Config) -> usize {
        match self {
            Kin::Bert => config.max_position_embeddings,
            _ => config.max_position_embeddings.saturating_sub(self.padding(config) + 1),
        }
    }

    /// The padding token by which positions are counted; transformers fixes that of MPNet.
    fn padding(self, config: &Config) -> usize {
        if self == Kin::Mpnet { 1 } else { config.pad_token_id }
    }
}

/// An encoder without its pooler.
pub(crate) struct Bert {
    heads: usize,
    eps: f64,
    act: HiddenAct,
    /// The padding token, where positions are counted from behind it.
    padding: Option<u32>,
    /// [V, H]
    words: Tensor,
    /// [P, H], to which the embedding of the only token type used here is added.
    positions: Tensor,
    /// Bias of attention by head and distance, and the number of distances to one side.
    by_distance: Option<(Tensor, usize)>,
    norm: Norm,
    layers: Vec<Layer>,
    /// Of the linear layers.
    products: Products,
}

struct Layer {
    /// q | k | v: [3 H, H]
    qkv: Affine,
    output: Affine,
    attention_norm: Norm,
    /// [F, H]
    up: Affine,
    /// [H, F]
    down: Affine,
    norm: Norm,
}

impl Bert {
    /// Builds the encoder from the tensors of `file`.
    ///
    /// Errors name the file and a tensor that is missing or of another shape than the config says.
    pub fn new(
        kin: Kin,
        config: &Config,
        tensors: Source,
        file: &Path,
        (device, dtype, products): (&Device, DType, Products),
    ) -> Result<Bert> {
        let (hidden, inner, heads) = (config.hidden_size, config.intermediate_size, config.num_attention_heads);
        if heads == 0 || hidden % heads != 0 {
            return Err(Error::file(file, format!("{heads} heads do not divide a width of {hidden}")));
        }
        let named = Named { tensors, file, prefix: kin.prefix(), device, dtype };
        let table =
            |name: &str, rows: usize| named.get(&[format!("embeddings.{name}_embeddings.weight")], &[rows, hidden]);
        let mut positions = table("position", config.max_position_embeddings)?;
        if kin != Kin::Mpnet {
            positions = positions.broadcast_add(&table("token_type", config.type_vocab_size)?.narrow(0, 0, 1)?)?;
        }
        let parts = match kin {
            Kin::Mpnet => ["attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o", "attention"],
            _ => {
                let [query, key, value] = ["attention.self.query", "attention.self.key", "attention.self.value"];
                [query, key, value, "attention.output.dense", "attention.output"]
            }
        };
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for index in 0..config.num_hidden_layers {
            let name = |part: &str| format!("encoder.layer.{index}.{part}");
            let part = |part: &str| named.affine(&name(part), hidden, hidden);
            let [query, key, value] = [part(parts[0])?, part(parts[1])?, part(parts[2])?];
            let joined = [&query, &key, &value];
            let biases: Vec<&Tensor> = joined.iter().filter_map(|part| part.bias.as_ref()).collect();
            layers.push(Layer {
                qkv: Affine {
                    weight: Tensor::cat(&joined.map(|part| &part.weight), 0)?,
                    bias: Some(Tensor::cat(&biases, 0)?),
                },
                output: part(parts[3])?,
                attention_norm: named.norm(&name(&format!("{}.LayerNorm", parts[4])), hidden)?,
                up: named.affine(&name("intermediate.dense"), inner, hidden)?,
                down: named.affine(&name("output.dense"), hidden, inner)?,
                norm: named.norm(&name("output.LayerNorm"), hidden)?,
            });
        }
        let by_distance = match kin {
            Kin::Mpnet => {
                let bias = named.get(&["encoder.relative_attention_bias.weight".to_owned()], &[BUCKETS, heads])?;
                let distances = config.max_position_embeddings;
                let bias = by_distance(&bias.to_vec2::<f32>()?, heads, distances);
                Some((Tensor::from_vec(bias, (heads, 2 * distances - 1), device)?, distances))
            }
            _ => None,
        };
        let padding = u32::try_from(kin.padding(config)).map_err(Error::at(file))?;
        Ok(Bert {
            heads,
            eps: config.layer_norm_eps,
            act: config.hidden_act,
            padding: (kin != Kin::Bert).then_some(padding),
            words: named.placed(&table("word", config.vocab_size)?)?,
            positions: named.placed(&positions)?,
            by_distance,
            norm: named.norm("embeddings.LayerNorm", hidden)?,
            layers,
            products,
        })
    }

    /// The final states of all tokens of the texts, one text after the other: [T, H].
    ///
    /// Errors: a token outside the vocabulary, or more tokens in a text than there are positions.
    pub fn states(&self, texts: &[&[u32]]) -> Result<Tensor> {
        let vocabulary = self.words.dim(0)?;
        let longest = texts.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let positions = self.positions.dim(0)? - self.padding.map_or(0, |padding| padding as usize + 1);
        if longest > positions {
            return Err(Error::input(format!("{longest} tokens; the encoder has {positions} positions")));
        }
        let ids: Vec<u32> = texts.iter().flat_map(|ids| ids.iter().copied()).collect();
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(Error::input(format!("token id {id} is outside the encoder's vocabulary of {vocabulary}")));
        }
        let depths: Vec<u32> = texts.iter().flat_map(|ids| depths(ids, self.padding)).collect();
        let mut x = (embed::forward(&self.words, &ids)? + embed::forward(&self.positions, &depths)?)?;
        self.norm.apply(&x, self.eps)?;
        let by_distance = self.by_distance.as_ref().map(|(bias, distances)| (bias, *distances));
        let texts = &Texts::new(texts, &x)?;
        let rules = Attention { by_distance, ..Attention::default() };
        for layer in &self.layers {
            let qkv = layer.qkv.forward(&x, None, self.products)?;
            x = layer.output.forward(&attended(&qkv, texts, self.heads, rules)?, Some(&x), self.products)?;
            layer.attention_norm.apply(&x, self.eps)?;
            let inner = activated(layer.up.forward(&x, None, self.products)?, self.act)?;
            x = layer.down.forward(&inner, Some(&x), self.products)?;
            layer.norm.apply(&x, self.eps)?;
        }
        Ok(x)
    }
}

/// The positions of a text's tokens: from 0, or from behind that of padding, which itself has its own and counts none.
fn depths(ids: &[u32], padding: Option<u32>) -> Vec<u32> {
    let Some(padding) = padding else { return (0..ids.len() as u32).collect() };
    let mut last = padding;
    let depth = |id: &u32| {
        if *id == padding {
            return padding;
        }
        last += 1;
        last
    };
    ids.iter().map(depth).collect()
}

/// Rows of MPNet's table of biases; transformers fixes it.
const BUCKETS: usize = 32;
/// The distance from which on all have one bucket.
const FAR: f32 = 128.0;

/// The biases [`BUCKETS`, A] by head and distance from a query to a key, -(n - 1) to n - 1.
fn by_distance(bias: &[Vec<f32>], heads: usize, distances: usize) -> Vec<f32> {
    let last = distances as isize - 1;
    (0..heads).flat_map(|head| (-last..=last).map(move |distance| bias[bucket(distance)][head])).collect()
}

/// The bucket of a distance as in T5: one for each near distance, then by its logarithm.
fn bucket(distance: isize) -> usize {
    let side = BUCKETS / 2;
    let (after, far) = (if distance > 0 { side } else { 0 }, distance.unsigned_abs());
    let exact = side / 2;
    if far < exact {
        return after + far;
    }
    let log = (far as f32 / exact as f32).ln() / (f64::from(FAR) / exact as f64).ln() as f32;
    after + (exact + (log * (side - exact) as f32) as usize).min(side - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_nn::VarBuilder;
    use candle_transformers::models::bert::BertModel;
    use std::collections::HashMap;

    fn bert(config: &Config, tensors: HashMap<String, Tensor>, products: Products) -> Result<Bert> {
        Bert::new(Kin::Bert, config, Source::Read(tensors), Path::new("here"), (&Device::Cpu, DType::F32, products))
    }

    fn random(name: &str, shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        Tensor::from_vec(crate::random::normal(7, name, n, 0.2), shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn packed_texts_have_the_states_that_candle_gives_them_one_by_one() {
        for act in [HiddenAct::Gelu, HiddenAct::GeluApproximate, HiddenAct::Relu] {
            let config = Config {
                vocab_size: 50,
                hidden_size: 24,
                num_hidden_layers: 2,
                num_attention_heads: 3,
                intermediate_size: 40,
                hidden_act: act,
                max_position_embeddings: 70,
                ..Config::default()
            };
            let mut tensors = HashMap::new();
            let mut add = |name: String, shape: &[usize]| {
                let tensor = random(&name, shape);
                tensors.insert(name, tensor);
            };
            for (name, rows) in [("word", 50), ("position", 70), ("token_type", 2)] {
                add(format!("embeddings.{name}_embeddings.weight"), &[rows, 24]);
            }
            let mut affine = vec![("embeddings.LayerNorm".to_owned(), vec![24])];
            for layer in 0..2 {
                for (name, shape) in [
                    ("attention.self.query", vec![24, 24]),
                    ("attention.self.key", vec![24, 24]),
                    ("attention.self.value", vec![24, 24]),
                    ("attention.output.dense", vec![24, 24]),
                    ("attention.output.LayerNorm", vec![24]),
                    ("intermediate.dense", vec![40, 24]),
                    ("output.dense", vec![24, 40]),
                    ("output.LayerNorm", vec![24]),
                ] {
                    affine.push((format!("encoder.layer.{layer}.{name}"), shape));
                }
            }
            for (name, shape) in affine {
                add(format!("{name}.weight"), &shape);
                add(format!("{name}.bias"), &shape[..1]);
            }
            let builder = VarBuilder::from_tensors(tensors.clone(), DType::F32, &Device::Cpu);
            let candle = BertModel::load(builder, &config).unwrap();
            let rounded = bert(&config, tensors.clone(), Products::Rounded).unwrap();
            let exact = bert(&config, tensors, Products::Exact).unwrap();
            let texts: Vec<Vec<u32>> =
                [5, 1, 70, 33].iter().map(|&n| (0..n).map(|i| (i * 7 + n) % 50).collect()).collect();
            let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let packed = exact.states(&slices).unwrap().to_vec2::<f32>().unwrap();
            let rounded = rounded.states(&slices).unwrap().to_vec2::<f32>().unwrap();
            let off = packed.iter().flatten().zip(rounded.iter().flatten()).map(|(a, b)| (a - b).abs());
            let off = off.fold(0_f32, f32::max);
            assert!(off > 1e-4 && off < 0.05, "{act:?}: states in bf16 are {off} off");
            let mut row = 0;
            for ids in &texts {
                let ids = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
                let want = candle.forward(&ids, &ids.zeros_like().unwrap(), None).unwrap().squeeze(0).unwrap();
                for want in want.to_vec2::<f32>().unwrap() {
                    for (got, want) in packed[row].iter().zip(want) {
                        assert!((got - want).abs() < 2e-5, "{act:?} row {row}: {got}, want {want}");
                    }
                    row += 1;
                }
            }
            assert_eq!(row, packed.len());
            assert!(exact.states(&[&[50]]).unwrap_err().to_string().contains("outside"));
            assert!(exact.states(&[&[1; 71]]).unwrap_err().to_string().contains("70 positions"));
        }
    }
}
