//! `mode: world`: makes the sandbox's data and an untrained model.

use kit::commit::commit_bytes;
use kit::ids::{prompt_id, response_id};
use kit::rows::{Item, Pair, Prompt, Reject};
use kit::{
    Amount, Context, Expected, Finding, Forecast, Message, Outcome, Outlook, Result, Table, TableWriter, canonical,
};
use lm::{Decoder, DecoderConfig, Device};
use rand::Rng;
use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokens::lm_error;

use crate::forms;
use crate::tokenizer::{EOS_ID, PAD_ID, tokenizer_config_json, tokenizer_json, vocabulary};
use crate::utility::{preference, utility};
use crate::words::{Request, answer_text};

/// Positions of the model: no text of the sandbox comes near.
const POSITIONS: usize = 128;
/// The qualities of demonstrations, each as likely.
const QUALITIES: [f64; 3] = [0.3, 0.6, 0.9];
/// Tokens of a request, of an answer, of a question to the judge and of its answers, on average over what is drawn.
const REQUEST_TOKENS: f64 = 5.0;
const ANSWER_TOKENS: f64 = 4.0;
const QUESTION_TOKENS: f64 = 15.0;
const VERDICT_TOKENS: f64 = 4.0;
/// Rows between two looks at the interrupt.
const ROWS_PER_LOOK: u32 = 4096;

/// Sizes beyond any use of a sandbox: what is above would not fit into memory.
const WIDEST: u32 = 8192;
const DEEPEST: u32 = 256;
const MOST_PARAMETERS: u64 = 1 << 28;

/// Makes prompts, demonstrations, training data for a judge and an untrained model, from the run's seed alone.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// Distinct prompts to train on: the port `prompts`.
    pub prompts: u32,
    /// Distinct prompts that nothing else contains, to evaluate on: the port `holdout_prompts`.
    /// Together with `prompts` fewer than 1200, which are all the sandbox has.
    pub holdout_prompts: u32,
    /// Answers of mixed quality to learn from by imitation, with label 1: the port `demonstrations`.
    pub demonstrations: u32,
    /// Rows to train a judge on: the port `judge_data`.
    pub judge_rows: u32,
    /// The share of `judge_data` that goes through an answer word by word, with `ok` or `no` after each. The rest are
    /// verdicts, `A` or `B`, drawn with the true probability. Without checks a small judge does not learn at all.
    #[serde(default = "checks")]
    pub checks: f64,
    /// The share of verdicts in `judge_data` over two answers to two different prompts; 0 where no joint comparison is
    /// to be judged. They take rows from the others, and a judge of both kinds needs about twice the steps to learn.
    #[serde(default)]
    pub joint: f64,
    /// Pairs of answers to one prompt to train a reward model on: the port `preferences`, where it is not 0. The chosen side
    /// is drawn with the true probability, as the verdicts of `judge_data` are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub preferences: u32,
    /// The size of the model.
    #[serde(default)]
    pub model: Shape,
}

fn checks() -> f64 {
    0.3
}

fn is_zero(rows: &u32) -> bool {
    *rows == 0
}

/// The size of a Llama model.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Width of the hidden states.
    pub width: u32,
    /// Blocks.
    pub layers: u32,
    /// Attention heads; they divide the width into even parts.
    pub heads: u32,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { width: 96, layers: 3, heads: 4 }
    }
}

impl World {
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut wrong = |path: &str, text: String| findings.push(Finding::at(path, text));
        let all = Request::all().len() as u64;
        if u64::from(self.prompts) + u64::from(self.holdout_prompts) >= all {
            wrong(
                "prompts",
                format!(
                    "{} prompts and {} held-out ones are more than the sandbox has: together less than {all}",
                    self.prompts, self.holdout_prompts
                ),
            );
        }
        if self.prompts == 0 {
            wrong("prompts", "0 prompts make no world; at least 1".to_owned());
        }
        for (path, share) in [("checks", self.checks), ("joint", self.joint)] {
            if !(0.0..=1.0).contains(&share) {
                wrong(path, format!("{share} is no share; from 0 to 1"));
            }
        }
        let Shape { width, layers, heads } = self.model;
        if layers == 0 {
            wrong("model.layers", "a model needs at least 1 layer".to_owned());
        }
        if width > WIDEST || layers > DEEPEST || self.parameters() > MOST_PARAMETERS {
            let most = MOST_PARAMETERS >> 20;
            let text = format!(
                "{layers} layers of width {width} are more than a sandbox's model has: at most {most} Mi parameters, {DEEPEST} \
                 layers and width {WIDEST}"
            );
            wrong("model", text);
        }
        if heads == 0 || width == 0 || width % heads != 0 || (width / heads) % 2 != 0 {
            wrong("model.heads", format!("width {width} cannot be divided into {heads} heads of even width"));
        }
        findings
    }

    /// About how many numbers the model has.
    fn parameters(&self) -> u64 {
        let (width, layers) = (u64::from(self.model.width), u64::from(self.model.layers));
        layers.saturating_mul(width.saturating_mul(width).saturating_mul(12))
    }

    pub(crate) fn rows(&self) -> u64 {
        let rows = [self.prompts, self.holdout_prompts, self.demonstrations, self.judge_rows, self.preferences];
        rows.map(u64::from).iter().sum()
    }

    /// The expected content of the ports: the number of rows exactly, their lengths about.
    pub(crate) fn estimate(&self) -> Outlook {
        let prompts = |rows: u32| {
            let rows = Amount::exact(rows.into());
            let prompt_tokens = Some(REQUEST_TOKENS);
            Expected { prompts: Some(rows), prompt_tokens, ..Expected::of_rows(Table::Prompts, rows) }
        };
        let items = |rows: u32, distinct: u64, prompt: f64, response: f64| Expected {
            prompts: Some(Amount::about(distinct.min(rows.into()))),
            responses: Some(Amount::at_most(rows.into())),
            prompt_tokens: Some(prompt),
            response_tokens: Some(response),
            ..Expected::of_rows(Table::Items, Amount::exact(rows.into()))
        };
        let requests = Request::all().len() as u64 - u64::from(self.holdout_prompts);
        let judged = u64::from(self.judge_rows);
        let mut outlook = Outlook::of(Forecast::of_rows(Amount::exact(self.rows())));
        if self.preferences > 0 {
            let pairs = items(self.preferences, requests, REQUEST_TOKENS, ANSWER_TOKENS);
            outlook = outlook.port("preferences", pairs.turned_into(Table::Pairs, pairs.rows));
        }
        outlook
            .port("prompts", prompts(self.prompts))
            .port("holdout_prompts", prompts(self.holdout_prompts))
            .port("demonstrations", items(self.demonstrations, requests, REQUEST_TOKENS, ANSWER_TOKENS))
            .port("judge_data", items(self.judge_rows, judged, QUESTION_TOKENS, VERDICT_TOKENS))
            .port("model", Expected::of_model(Some(self.config_json())))
    }

    pub(crate) fn run(&self, context: &Context<'_>) -> Result<Outcome> {
        let mut requests = Request::all();
        requests.shuffle(&mut context.seed.generator("sandbox", "requests", 0));
        // Held-out prompts are in no other table; demonstrations and judge data draw from the rest.
        let (holdout, rest) = requests.split_at(self.holdout_prompts as usize);
        write_prompts(context, "holdout_prompts", holdout)?;
        write_prompts(context, "prompts", &rest[..self.prompts as usize])?;
        self.write_demonstrations(context, rest)?;
        let verdicts = self.write_judge_data(context, rest)?;
        if self.preferences > 0 {
            self.write_preferences(context, rest)?;
        }
        let parameters = self.write_model(context)?;
        context.writer::<Reject>("rejects")?.finish()?;
        Ok(Outcome::default()
            .figure("prompts", self.prompts)
            .figure("held-out prompts", self.holdout_prompts)
            .figure("demonstrations", self.demonstrations)
            .figure("judge rows", self.judge_rows)
            .figure("verdicts among them", verdicts)
            .figure("model parameters", parameters))
    }

    fn write_demonstrations(&self, context: &Context<'_>, requests: &[Request]) -> Result<()> {
        let mut writer = context.writer("demonstrations")?;
        for index in 0..self.demonstrations {
            let rng = &mut row_generator(context, "demonstrations", index)?;
            let request = requests[rng.random_range(0..requests.len())];
            let quality = QUALITIES[rng.random_range(0..QUALITIES.len())];
            let answer = answer_text(&request.answer(quality, rng));
            push_item(&mut writer, format!("demonstration-{index:06}"), request.text(), answer)?;
        }
        writer.finish()
    }

    /// Gives the number of verdicts.
    fn write_judge_data(&self, context: &Context<'_>, requests: &[Request]) -> Result<u32> {
        let mut writer = context.writer("judge_data")?;
        let mut verdicts = 0;
        for index in 0..self.judge_rows {
            let rng = &mut row_generator(context, "judge_data", index)?;
            let request = requests[rng.random_range(0..requests.len())];
            let (prompt, response) = if rng.random_bool(self.checks) {
                // Words of two answers: the count does not matter here.
                let mut words = request.answer(rng.random(), rng);
                words.extend(request.answer(rng.random(), rng));
                forms::check_row(&request, &words)
            } else {
                verdicts += 1;
                let other = rng.random_bool(self.joint).then(|| requests[rng.random_range(0..requests.len())]);
                let (request_a, request_b) = (request, other.unwrap_or(request));
                let a = answer_text(&request_a.answer(rng.random(), rng));
                let b = answer_text(&request_b.answer(rng.random(), rng));
                let p_star = preference(utility(&request_a, &a), utility(&request_b, &b));
                let prompt = match other {
                    None => forms::same(&request.text(), &a, &b),
                    Some(_) => forms::joint(&request_a.text(), &a, &request_b.text(), &b),
                };
                let label = if rng.random_bool(p_star) { forms::FIRST } else { forms::SECOND };
                (prompt, label.to_owned())
            };
            push_item(&mut writer, format!("judge-{index:06}"), prompt, response)?;
        }
        writer.finish()?;
        Ok(verdicts)
    }

    fn write_preferences(&self, context: &Context<'_>, requests: &[Request]) -> Result<()> {
        let mut writer = context.writer("preferences")?;
        for index in 0..self.preferences {
            let rng = &mut row_generator(context, "preferences", index)?;
            let request = requests[rng.random_range(0..requests.len())];
            let mut answer = || answer_text(&request.answer(rng.random(), rng));
            let (a, mut b) = (answer(), answer());
            while a == b {
                b = answer();
            }
            let first = rng.random_bool(preference(utility(&request, &a), utility(&request, &b)));
            let (chosen, rejected) = if first { (a, b) } else { (b, a) };
            let (prompt, chosen, rejected) = (raw(request.text()), raw(chosen), raw(rejected));
            let prompt_id = prompt_id(&prompt);
            writer.push(Pair {
                pair_id: format!("preference-{index:06}"),
                comparison_id: None,
                form: "same".to_owned(),
                chosen_prompt_id: prompt_id.clone(),
                chosen_response_id: response_id(&prompt_id, &chosen),
                chosen_prompt: prompt.clone(),
                chosen,
                rejected_response_id: response_id(&prompt_id, &rejected),
                rejected_prompt_id: prompt_id,
                rejected_prompt: prompt,
                rejected,
                p_hat: 1.0,
                weight: 1.0,
                source_file: None,
                source_line: None,
            })?;
        }
        writer.finish()
    }

    /// Writes the model folder and gives the number of parameters.
    fn write_model(&self, context: &Context<'_>) -> Result<u64> {
        let folder = context.port("model");
        let write = |name: &str, text: String| commit_bytes(&folder.join(name), text.as_bytes());
        write("tokenizer.json", canonical(&tokenizer_json()))?;
        write("tokenizer_config.json", canonical(&tokenizer_config_json(POSITIONS)))?;
        write("config.json", canonical(&self.config_json()))?;
        let config = DecoderConfig::from_folder(&folder).map_err(lm_error)?;
        let parameters = config.parameter_count() as u64;
        let seed = context.seed.derive("sandbox", "model", 0);
        let decoder = Decoder::init(config, seed, &Device::Cpu).map_err(lm_error)?;
        decoder.save(&folder).map_err(lm_error)?;
        Ok(parameters)
    }

    /// The model's shape in the words of Hugging Face's `config.json`.
    fn config_json(&self) -> serde_json::Value {
        let Shape { width, layers, heads } = self.model;
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": vocabulary().len(),
            "hidden_size": width,
            // 8/3 of the width, as in Llama, in steps of 8.
            "intermediate_size": (width * 8 / 3).div_ceil(8) * 8,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "head_dim": width / heads,
            "hidden_act": "silu",
            "max_position_embeddings": POSITIONS,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "initializer_range": 0.02,
            "tie_word_embeddings": true,
            "attention_bias": false,
            "mlp_bias": false,
            "bos_token_id": null,
            "eos_token_id": EOS_ID,
            "pad_token_id": PAD_ID,
            "dtype": "float32"
        })
    }
}

fn row_generator(context: &Context<'_>, port: &str, index: u32) -> Result<impl Rng + use<>> {
    if index.is_multiple_of(ROWS_PER_LOOK) {
        context.interrupt.check()?;
    }
    Ok(context.seed.generator("sandbox", port, u64::from(index)))
}

fn write_prompts(context: &Context<'_>, port: &str, requests: &[Request]) -> Result<()> {
    let row = |request: &Request| {
        let messages = raw(request.text());
        Prompt { prompt_id: prompt_id(&messages), messages, source_file: None, source_line: None }
    };
    let mut rows: Vec<Prompt> = requests.iter().map(row).collect();
    rows.sort_by(|a, b| a.prompt_id.cmp(&b.prompt_id));
    let mut writer = context.writer(port)?;
    writer.extend(rows)?;
    writer.finish()
}

fn push_item(writer: &mut TableWriter<Item>, item_id: String, prompt: String, response: String) -> Result<()> {
    let (prompt, response) = (raw(prompt), raw(response));
    let prompt_id = prompt_id(&prompt);
    writer.push(Item {
        response_id: response_id(&prompt_id, &response),
        item_id,
        prompt_id,
        prompt,
        response,
        label: 1.0,
        weight: 1.0,
        kl_response_id: None,
        kl_response: None,
        kl_group: None,
        source_file: None,
        source_line: None,
    })
}

/// Raw text: no chat template touches it.
fn raw(text: String) -> Vec<Message> {
    vec![Message::new("text", text)]
}
