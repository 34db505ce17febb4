//! Tokens that a server counted, and their price.

use std::collections::BTreeMap;

use kit::{CHARACTERS_PER_TOKEN, Finding, Outcome};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Prices of a model at an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The price of a million tokens that are sent.
    pub input: f64,
    /// The price of a million tokens that are answered; 0 for embeddings.
    #[serde(default)]
    pub output: f64,
    /// The price of a million tokens that are sent and that the server had in its cache; without it they cost `input`.
    #[serde(default)]
    pub cached: Option<f64>,
    /// The word behind an amount.
    #[serde(default = "currency")]
    pub currency: String,
}

fn currency() -> String {
    "USD".to_owned()
}

/// Tokens as a server counts them in `usage`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Usage {
    /// Sent, those from the cache too.
    pub(crate) input: u64,
    /// Answered, those of hidden reasoning too.
    pub(crate) output: u64,
    /// Sent, and found in the server's cache.
    pub(crate) cached: u64,
}

impl Usage {
    /// The usage that a reply states; none is nothing.
    pub(crate) fn of(reply: &Value) -> Usage {
        let number = |place: &str| reply.pointer(place).and_then(Value::as_u64);
        let input = number("/usage/prompt_tokens").or_else(|| number("/usage/total_tokens")).unwrap_or(0);
        Usage {
            input,
            output: number("/usage/completion_tokens").unwrap_or(0),
            cached: number("/usage/prompt_tokens_details/cached_tokens").unwrap_or(0).min(input),
        }
    }

    /// The most that a request can be expected to use before it is sent: [`CHARACTERS_PER_TOKEN`] for each token of its
    /// body, and all tokens that an answer may have.
    pub(crate) fn ahead(request: &str, output: u64) -> Usage {
        let input = (request.chars().count() as f64 / CHARACTERS_PER_TOKEN).ceil() as u64;
        Usage { input, output, cached: 0 }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        *self == Usage::default()
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.cached = self.cached.saturating_add(other.cached);
    }
}

impl Price {
    /// The price of tokens.
    pub(crate) fn of(&self, usage: Usage) -> f64 {
        let cached = usage.cached as f64 * self.cached.unwrap_or(self.input);
        ((usage.input - usage.cached) as f64 * self.input + cached + usage.output as f64 * self.output) / 1e6
    }

    /// An amount for people.
    pub(crate) fn words(&self, amount: f64) -> String {
        format!("{amount:.4} {}", self.currency)
    }

    /// The expected price of so many tokens, with the rule of counting.
    pub fn forecast(&self, input: u64, output: u64) -> String {
        let amount = self.of(Usage { input, output, cached: 0 });
        format!(
            "about {} for {input} tokens sent and at most {output} answered ({CHARACTERS_PER_TOKEN} characters a token \
             where no tokenizer counts them)",
            self.words(amount)
        )
    }

    pub(crate) fn findings(&self) -> Vec<Finding> {
        let all = [("input", Some(self.input)), ("output", Some(self.output)), ("cached", self.cached)];
        let wrong = |value: f64| !(value.is_finite() && value >= 0.0);
        all.into_iter()
            .filter_map(|(key, value)| Some((key, value.filter(|value| wrong(*value))?)))
            .map(|(key, value)| Finding::at(&format!("endpoint.price.{key}"), format!("got {value}, wanted 0 or more")))
            .collect()
    }
}

/// Tokens and cost of a stage's requests, for its outcome.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bill {
    figures: BTreeMap<&'static str, Value>,
    /// With the currency.
    cost: Option<(f64, String)>,
}

impl Bill {
    pub(crate) fn of(usage: Usage, price: Option<&Price>) -> Bill {
        let (mut bill, mut cost) = (BTreeMap::new(), None);
        if !usage.is_nothing() {
            bill.insert("tokens sent", usage.input.into());
            bill.insert("tokens answered", usage.output.into());
            if usage.cached > 0 {
                bill.insert("tokens sent from the cache", usage.cached.into());
            }
            if let Some(price) = price {
                bill.insert("cost", price.words(price.of(usage)).into());
                cost = Some((price.of(usage), price.currency.clone()));
            }
        }
        Bill { figures: bill, cost }
    }

    /// Adds it to the figures of an outcome; a cost is one that people look for first.
    pub fn add_to(self, outcome: Outcome) -> Outcome {
        let outcome = self.figures.into_iter().fold(outcome, |outcome, (name, value)| outcome.figure(name, value));
        match self.cost {
            Some((cost, currency)) => outcome.headline("cost", cost, None, currency),
            None => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn usage_is_read_and_priced() {
        let reply = json!({"usage": {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050,
            "prompt_tokens_details": {"cached_tokens": 600}}});
        let usage = Usage::of(&reply);
        assert_eq!(usage, Usage { input: 1000, output: 50, cached: 600 });
        let price = Price { input: 2.0, output: 8.0, cached: Some(0.5), currency: "EUR".to_owned() };
        // 400 x 2 + 600 x 0.5 + 50 x 8 = 1500 millionths.
        assert!((price.of(usage) - 0.0015).abs() < 1e-12);
        assert!((Price { cached: None, ..price.clone() }.of(usage) - 0.0024).abs() < 1e-12);
        assert_eq!(price.words(1.0 / 3.0), "0.3333 EUR");
        // As embeddings have it, and as some servers do not.
        assert_eq!(Usage::of(&json!({"usage": {"total_tokens": 7}})), Usage { input: 7, output: 0, cached: 0 });
        assert!(Usage::of(&json!({"usage": null})).is_nothing() && Usage::of(&json!({})).is_nothing());
        let wrong = Price { input: -1.0, output: f64::NAN, cached: Some(0.0), currency: String::new() };
        assert_eq!(wrong.findings().len(), 2);
    }
}
