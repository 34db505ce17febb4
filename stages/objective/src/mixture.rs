//! The `objective` of a training: one objective, or a weighted sum of several.

use std::borrow::Cow;
use std::collections::BTreeSet;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::batch::Batch;
use crate::data_check::Forms;
use crate::error::Result;
use crate::evaluation::{Evaluation, NoStep};
use crate::formula::Reads;
use crate::list::Objective;
use crate::measures::Measures;

/// A sum of objectives, each normalised for itself and times a weight: loss = sum_k weight_k loss_k. In a pipeline file
/// one mapping, `{name: gdpo, beta: 0.1}`, or a list, `[{name: gdpo, beta: 0.1}, {name: sft, weight: 0.2}]`.
///
/// Each part sees what it reads of the batch and nothing else: `sft` in a mixture with `kto` looks at items with labels
/// above 0.5. What the mixture needs is what any of its parts needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    /// The objectives, in the order they are written.
    pub parts: Vec<Part>,
}

/// An objective in a mixture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// The objective.
    pub objective: Objective,
    /// Factor of its loss.
    pub weight: f64,
}

impl From<Objective> for Mixture {
    fn from(objective: Objective) -> Mixture {
        Mixture { parts: vec![Part { objective, weight: 1.0 }] }
    }
}

impl Mixture {
    /// The one objective, where it is one.
    pub fn single(&self) -> Option<&Objective> {
        match &self.parts[..] {
            [Part { objective, weight }] if *weight == 1.0 => Some(objective),
            _ => None,
        }
    }

    fn any(&self, holds: impl Fn(&Objective) -> bool) -> bool {
        self.parts.iter().any(|part| holds(&part.objective))
    }

    fn all(&self, holds: impl Fn(&Objective) -> bool) -> bool {
        self.parts.iter().all(|part| holds(&part.objective))
    }

    /// The words in pipeline files: `gdpo`, or `gdpo + 0.2 sft`.
    pub fn name(&self) -> String {
        self.joined(|objective| objective.name())
    }

    /// The long names, for logs.
    pub fn title(&self) -> String {
        self.joined(|objective| objective.title())
    }

    fn joined(&self, word: impl Fn(&Objective) -> &'static str) -> String {
        let said = |part: &Part| match part.weight {
            1.0 => word(&part.objective).to_owned(),
            weight => format!("{weight} {}", word(&part.objective)),
        };
        self.parts.iter().map(said).collect::<Vec<_>>().join(" + ")
    }

    /// Findings about the knobs and the mixture: the path below `objective` and a lowercase fragment.
    pub fn check(&self) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        if self.parts.is_empty() {
            findings.push((String::new(), "an empty list; wanted at least one objective".to_owned()));
        }
        let mut seen = BTreeSet::new();
        for (index, Part { objective, weight }) in self.parts.iter().enumerate() {
            let path = |key: &str| if self.single().is_some() { key.to_owned() } else { format!("{index}.{key}") };
            findings.extend(objective.check().into_iter().map(|(key, text)| (path(key), text)));
            if *weight == 0.0 {
                findings.push((path("weight"), "0 has no effect: leave this objective out".to_owned()));
            } else if !(*weight > 0.0 && weight.is_finite()) {
                findings.push((path("weight"), format!("{weight} is out of range, wanted a number above 0")));
            }
            if !seen.insert(objective.name()) {
                let text = format!("`{}` stands here twice: write it once, with one weight", objective.name());
                findings.push((path("name"), text));
            }
        }
        let rewards = |of: bool| self.parts.iter().find(|part| part.objective.needs_rewards() == of);
        if let (Some(reward), Some(other)) = (rewards(true), rewards(false)) {
            let (reward, other) = (reward.objective.name(), other.objective.name());
            let text = format!("`{reward}` trains a reward model and `{other}` a language model: a mixture trains one");
            findings.push((String::new(), text));
        }
        let of = |reads: Reads| self.parts.iter().find(|part| part.objective.reads() == reads);
        if let (Some(pairs), Some(items)) = (of(Reads::Pairs), of(Reads::Items)) {
            let (pairs, items) = (pairs.objective.name(), items.objective.name());
            let text = format!("`{pairs}` is computed on pairs and `{items}` on items: a mixture reads one table");
            findings.push((String::new(), text));
        }
        findings
    }

    /// True where a part measures against a frozen reference.
    pub fn needs_reference(&self) -> bool {
        self.any(Objective::needs_reference)
    }

    /// True where it trains a reward model.
    pub fn needs_rewards(&self) -> bool {
        self.any(Objective::needs_rewards)
    }

    /// True where a part scores the prompt too.
    pub fn needs_prompt_part(&self) -> bool {
        self.any(Objective::needs_prompt_part)
    }

    /// True where a part weighs by the similarity of prompts.
    pub fn needs_similarities(&self) -> bool {
        self.any(Objective::needs_similarities)
    }

    /// True where a part needs the mismatched sequences of KTO.
    pub fn needs_kl(&self) -> bool {
        self.any(Objective::needs_kl)
    }

    /// The rows that all parts can be computed on.
    pub fn reads(&self) -> Reads {
        let narrow = self.parts.iter().map(|part| part.objective.reads()).find(|reads| *reads != Reads::Both);
        narrow.unwrap_or(Reads::Both)
    }

    /// True where a part reads the rejected side.
    pub fn reads_rejected(&self) -> bool {
        self.any(Objective::reads_rejected)
    }

    /// True where a part reads the degree of a preference, not its direction alone.
    pub fn reads_p_hat(&self) -> bool {
        self.any(Objective::reads_p_hat)
    }

    /// True where weights other than 0 and 1 mean something to every part.
    pub fn reads_weights(&self) -> bool {
        self.all(Objective::reads_weights)
    }

    /// True where swapping an edge's sides together with p_hat -> 1 - p_hat changes nothing.
    pub fn swap_symmetric(&self) -> bool {
        self.all(Objective::swap_symmetric)
    }

    /// True where it can be computed micro-batch by micro-batch.
    pub fn separable(&self) -> bool {
        self.all(Objective::separable)
    }

    /// The loss where the policy still equals the reference and all labels are `p_hat`, where all parts know theirs.
    pub fn value_at_zero(&self, p_hat: f64) -> Option<f64> {
        self.parts.iter().map(|part| Some(part.weight * part.objective.value_at_zero(p_hat)?)).sum()
    }

    /// Checks that the objective means something on pairs of these forms, to each part.
    ///
    /// # Errors
    /// The reason and the remedy, as a lowercase fragment.
    pub fn check_forms(&self, forms: Forms, allow_same_prompt: bool) -> Result<(), String> {
        self.parts.iter().try_for_each(|part| part.objective.check_forms(forms, allow_same_prompt))
    }

    /// Checks that at least one part can take an item with this label.
    ///
    /// # Errors
    /// The first part's reason, where no part can.
    pub fn accepts_label(&self, label: f64) -> Result<(), &'static str> {
        let mut refused = Ok(());
        for part in &self.parts {
            match part.objective.accepts_label(label) {
                Ok(()) => return Ok(()),
                Err(why) => refused = refused.and(Err(why)),
            }
        }
        refused
    }

    /// Why a batch would move nothing: it moves no part.
    pub fn no_step(&self, batch: &Batch) -> Option<NoStep> {
        let reasons = self.parts.iter().map(|part| part.objective.no_step(&part.view(batch)));
        reasons.collect::<Option<Vec<_>>>()?.first().copied()
    }

    /// Divisor of each part's sum of weighted terms. It needs no log-probs.
    pub fn denominators(&self, batch: &Batch) -> Vec<f64> {
        self.parts.iter().map(|part| part.objective.denominator(&part.view(batch))).collect()
    }

    /// The loss of a whole batch and its gradient, and the loss of each part before its weight.
    ///
    /// # Errors
    /// As [`Objective::evaluate`].
    pub fn evaluate(&self, batch: &Batch) -> Result<(Evaluation, Vec<f64>)> {
        self.evaluate_part(batch, &self.denominators(batch))
    }

    /// The share of a part of the batch, `denominators` being those of the whole: see [`Objective::evaluate_part`].
    ///
    /// # Errors
    /// As [`Objective::evaluate_part`].
    pub fn evaluate_part(&self, part_of_batch: &Batch, denominators: &[f64]) -> Result<(Evaluation, Vec<f64>)> {
        let each: Vec<Evaluation> = self
            .parts
            .iter()
            .zip(denominators)
            .map(|(part, denominator)| part.objective.evaluate_part(&part.view(part_of_batch), *denominator))
            .collect::<Result<_>>()?;
        let losses = each.iter().map(|evaluation| evaluation.loss).collect();
        if self.single().is_some() {
            return Ok((each.into_iter().next().expect("one part"), losses));
        }
        // Terms of several parts add up where each has one for every row.
        let rows = part_of_batch.edges.len() + part_of_batch.items.len();
        let whole = each.iter().all(|evaluation| evaluation.terms.len() == rows);
        let mut sum = Evaluation::empty(part_of_batch, if whole { rows } else { 0 });
        for (part, evaluation) in self.parts.iter().zip(&each) {
            sum.loss += part.weight * evaluation.loss;
            for (total, term) in sum.terms.iter_mut().zip(&evaluation.terms) {
                *total += part.weight * term;
            }
            for (total, d) in sum.d_policy.iter_mut().zip(&evaluation.d_policy) {
                total.0 += part.weight * d.0;
                total.1 += part.weight * d.1;
            }
        }
        let reasons: Option<Vec<NoStep>> = each.iter().map(|evaluation| evaluation.no_step).collect();
        sum.no_step = reasons.and_then(|reasons| reasons.first().copied());
        sum.contrasts = each.into_iter().find_map(|evaluation| evaluation.contrasts);
        Ok((sum, losses))
    }

    /// The objective whose rewards and margins are logged: the first part that reads both sides.
    ///
    /// # Panics
    /// When there is no part, which [`Mixture::check`] finds.
    pub fn lead(&self) -> &Objective {
        let both = self.parts.iter().find(|part| part.objective.reads_rejected());
        &both.or(self.parts.first()).expect("a mixture has a part").objective
    }

    /// The figures of a batch. Rewards and margins are those of the first part that looks at both sides.
    pub fn measure(&self, batch: &Batch) -> Measures {
        let (both, one): (Vec<&Part>, Vec<&Part>) = self.parts.iter().partition(|part| part.objective.reads_rejected());
        let mut measures = both.into_iter().chain(one).map(|part| part.objective.measure(&part.view(batch)));
        let mut all = measures.next().unwrap_or_default();
        for other in measures {
            all.mean_token_logp = all.mean_token_logp.or(other.mean_token_logp);
        }
        all
    }
}

impl Part {
    /// The batch as the objective reads it: of its items, those with a label that the objective takes.
    fn view<'a>(&self, batch: &'a Batch) -> Cow<'a, Batch> {
        let takes = |label: f64| self.objective.accepts_label(label).is_ok();
        if batch.items.iter().all(|item| takes(item.label)) {
            return Cow::Borrowed(batch);
        }
        let items = batch.items.iter().copied().filter(|item| takes(item.label)).collect();
        Cow::Owned(Batch { items, ..batch.clone() })
    }
}

impl Serialize for Mixture {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.single() {
            Some(objective) => objective.serialize(serializer),
            None => serializer.collect_seq(self.parts.iter().map(|part| {
                let mut value = serde_json::to_value(part.objective).expect("an objective is plain JSON");
                value["weight"] = part.weight.into();
                value
            })),
        }
    }
}

impl<'de> Deserialize<'de> for Mixture {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Mixture, D::Error> {
        let part = |mut value: Value| {
            let weight = match value.as_object_mut().and_then(|map| map.remove("weight")) {
                Some(weight) => weight.as_f64().ok_or_else(|| D::Error::custom("`weight` is not a number"))?,
                None => 1.0,
            };
            Ok(Part { objective: Objective::deserialize(value).map_err(D::Error::custom)?, weight })
        };
        match Value::deserialize(deserializer)? {
            Value::Array(values) => Ok(Mixture { parts: values.into_iter().map(part).collect::<Result<_, _>>()? }),
            value => Ok(Objective::deserialize(value).map_err(D::Error::custom)?.into()),
        }
    }
}

impl JsonSchema for Mixture {
    fn schema_name() -> Cow<'static, str> {
        "Mixture".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Objective>();
        let mut part = Objective::json_schema(generator).to_value();
        for variant in part["oneOf"].as_array_mut().into_iter().flatten() {
            variant["properties"]["weight"] = json!({
                "description": "Factor of the loss of this part; 1 if left out.",
                "type": "number"
            });
        }
        if let Some(map) = part.as_object_mut() {
            map.remove("description");
        }
        let description = "One objective, or a list of objectives whose losses, each normalised for itself, are \
                           multiplied with their `weight` and added.";
        Schema::try_from(json!({
            "description": description,
            "anyOf": [one, {"type": "array", "items": part}],
        }))
        .expect("an object is a schema")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Mixture, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn one_or_several() {
        let one = parse(r#"{"name": "gdpo", "beta": 0.3}"#).unwrap();
        assert_eq!(parse(r#"[{"name": "gdpo", "beta": 0.3}]"#).unwrap(), one);
        assert_eq!(serde_json::to_value(&one).unwrap(), json!({"name": "gdpo", "beta": 0.3}));
        let two = parse(r#"[{"name": "gdpo", "beta": 0.3}, {"name": "sft", "weight": 0.2}]"#).unwrap();
        assert_eq!((two.name().as_str(), two.reads(), two.separable()), ("gdpo + 0.2 sft", Reads::Pairs, true));
        assert_eq!(serde_json::from_value::<Mixture>(serde_json::to_value(&two).unwrap()).unwrap(), two);
        assert!(two.needs_reference() && two.reads_rejected() && !two.swap_symmetric());
        for wrong in [
            r#"{"name": "gdpo", "beta": 0.3, "weight": 1}"#,
            r#"[{"name": "sft", "beta": 0.3}]"#,
            r#"[{"name": "sft", "weight": "much"}]"#,
            r#"["sft"]"#,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn parts_that_make_no_sense_are_found() {
        let check = |text: &str, path: &str, said: &str| {
            let findings = parse(text).unwrap().check();
            assert!(findings.iter().any(|(key, text)| key == path && text.contains(said)), "{text}: {findings:?}");
        };
        check("[]", "", "at least one");
        check(r#"[{"name": "sft"}, {"name": "sft", "weight": 2}]"#, "1.name", "twice");
        check(r#"[{"name": "dpo", "beta": 1}, {"name": "sft", "weight": 0}]"#, "1.weight", "no effect");
        check(r#"[{"name": "sft", "weight": -1}]"#, "0.weight", "above 0");
        check(r#"[{"name": "sft"}, {"name": "dpo", "beta": 0}]"#, "1.beta", "above 0");
        check(r#"[{"name": "kto", "beta": 1}, {"name": "dpo", "beta": 1}]"#, "", "one table");
        check(
            r#"[{"name": "reward"}, {"name": "sft"}]"#,
            "",
            "`reward` trains a reward model and `sft` a language model",
        );
        check(r#"{"name": "reward", "center_rewards_coefficient": 0}"#, "center_rewards_coefficient", "above 0");
        assert_eq!(parse(r#"[{"name": "kto", "beta": 1}, {"name": "sft", "weight": 0.5}]"#).unwrap().check(), []);
    }
}
