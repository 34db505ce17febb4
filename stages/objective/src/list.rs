//! The list of objectives, and what all of them answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Finding, Formula, Reads, Score, Terms, above_0};
use crate::*;

macro_rules! objectives {
    ($($kind:ident)*) => {
        /// The objective that training minimises, by its `name`. Each name has its own knobs; a knob of another
        /// objective is an error.
        #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "name", rename_all = "snake_case")]
        #[expect(missing_docs, reason = "each is described by its struct")]
        pub enum Objective {
            $($kind($kind),)*
        }

        impl Objective {
            /// The facts of every objective.
            pub fn all() -> Vec<&'static Facts> {
                vec![$($kind::facts(),)*]
            }

            /// Facts of the objective, in words and for its callers.
            pub fn facts(&self) -> &'static Facts {
                match self {
                    $(Objective::$kind(_) => $kind::facts(),)*
                }
            }

            pub(crate) fn formula(&self) -> &dyn Formula {
                match self {
                    $(Objective::$kind(formula) => formula,)*
                }
            }
        }
    };
}

objectives! {
    Sft
    Dpo Cdpo Gdpo
    DpoNorm CdpoNorm GdpoNorm
    Ipo Cipo Gipo IpoNorm
    Ropo Gropo
    Robust
    Hinge
    Exo
    Sppo
    Nca
    Bco
    ApoZero ApoDown
    Discopop
    Aot
    Rpo
    Jpo Cjpo Gjpo
    Kto
    Simpo
    Cpo
    Orpo
    Reward
}

impl Objective {
    /// The objective of these facts, with the knobs to begin with on pairs or on items.
    ///
    /// # Panics
    /// Where its `knobs` are not its own.
    pub fn begin(facts: &Facts, on_items: bool) -> Objective {
        let yaml = facts.yaml(on_items);
        let knobs = yaml.trim_matches(['{', '}']).split(", ").map(|knob| {
            let (key, value) = knob.split_once(": ").expect("a knob is `key: value`");
            (key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into()))
        });
        serde_json::from_value(serde_json::Value::Object(knobs.collect())).expect("the knobs are the objective's")
    }

    /// How strongly the reference holds the policy back: the factor from scores to rewards. `sft` has none.
    pub fn beta(&self) -> Option<f64> {
        self.formula().beta()
    }

    /// The word in pipeline files.
    pub fn name(&self) -> &'static str {
        self.facts().name
    }

    /// The long name, for logs: short ones mean several things in this field.
    pub fn title(&self) -> &'static str {
        self.facts().title
    }

    /// Findings about the knobs: the key and a lowercase fragment.
    pub fn check(&self) -> Vec<Finding> {
        let beta = self.beta().and_then(|beta| above_0("beta", beta));
        beta.into_iter().chain(self.formula().check()).collect()
    }

    /// True where it measures against a frozen reference.
    pub fn needs_reference(&self) -> bool {
        self.facts().reference
    }

    /// True where it trains a reward model: the reward of a sequence stands in place of its response's log-prob.
    pub fn needs_rewards(&self) -> bool {
        self.facts().score == Score::Reward
    }

    /// True where it scores the prompt too.
    pub fn needs_prompt_part(&self) -> bool {
        self.facts().prompt_part
    }

    /// True where it weighs by the similarity of prompts.
    pub fn needs_similarities(&self) -> bool {
        self.formula().needs_similarities()
    }

    /// True where it needs the mismatched sequences of KTO.
    pub fn needs_kl(&self) -> bool {
        self.facts().mismatched
    }

    /// Rows that it is computed on.
    pub fn reads(&self) -> Reads {
        self.formula().reads().unwrap_or(self.facts().reads)
    }

    /// True where it reads the rejected side.
    pub fn reads_rejected(&self) -> bool {
        self.facts().rejected
    }

    /// True where it reads the degree of a preference, not its direction alone.
    pub fn reads_p_hat(&self) -> bool {
        self.formula().reads_p_hat().unwrap_or(self.facts().p_hat)
    }

    /// True where weights other than 0 and 1 mean something. AOT refuses unequal ones.
    pub fn reads_weights(&self) -> bool {
        self.facts().weights
    }

    /// True where it divides by numbers of tokens.
    pub fn reads_length(&self) -> bool {
        self.facts().tokens
    }

    /// True where swapping an edge's sides together with p_hat -> 1 - p_hat changes nothing. The others want p_hat >=
    /// 0.5.
    pub fn swap_symmetric(&self) -> bool {
        self.facts().mirrored
    }

    /// True where beta times the margin is a log-odds, so that its sigmoid is P(chosen better).
    pub fn margin_is_log_odds(&self) -> bool {
        self.facts().log_odds
    }

    /// True for a sum over edges or items whose denominator is known before any log-prob is: it can be computed
    /// micro-batch by micro-batch. RPO's matrix, AOT's sorting and KTO's anchor need the whole batch.
    pub fn separable(&self) -> bool {
        match self.formula().terms() {
            Terms::Edges(_) => true,
            Terms::Batch(batch) => batch.separable(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Objective, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_knob_that_the_objective_ignores_is_an_error() {
        assert_eq!(parse(r#"{"name": "gdpo", "beta": 1}"#), Ok(Objective::Gdpo(Gdpo { beta: 1.0 })));
        for wrong in [
            r#"{"name": "gdpo", "beta": 0.1, "tau": 0.5}"#,
            r#"{"name": "gdpo"}"#,
            r#"{"name": "sft", "beta": 0.1}"#,
            r#"{"name": "dpo", "beta": 0.1, "label_smoothing": 0.1}"#,
            r#"{"name": "gpo", "beta": 0.1}"#,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let findings = |text| parse(text).unwrap().check();
        assert_eq!(findings(r#"{"name": "rpo", "beta": 0.1, "tau": 0.5}"#), vec![]);
        assert_eq!(findings(r#"{"name": "rpo", "beta": 0.1}"#)[0].0, "tau");
        assert_eq!(findings(r#"{"name": "rpo", "beta": 0.1, "tau": 1, "weighting": "uniform"}"#)[0].0, "tau");
        assert_eq!(findings(r#"{"name": "rpo", "beta": 0.1, "weighting": "diagonal"}"#)[0].0, "diagonal_weight");
        assert_eq!(findings(r#"{"name": "robust", "beta": -1, "epsilon": 0.5}"#).len(), 2);
    }

    #[test]
    fn each_begins_with_knobs_that_are_its_own() {
        for facts in Objective::all() {
            for on_items in [false, true] {
                let objective = Objective::begin(facts, on_items);
                assert_eq!((objective.name(), objective.check()), (facts.name, vec![]));
                assert!(facts.reads == Reads::Both || objective.reads() == facts.reads || on_items, "{facts:?}");
            }
            assert!(!facts.remark.is_empty(), "{}", facts.name);
        }
    }

    #[test]
    fn names_in_files_are_names_on_cards() {
        for value in serde_json::to_value(schemars::schema_for!(Objective)).unwrap()["oneOf"].as_array().unwrap() {
            let name = value["properties"]["name"]["const"].as_str().unwrap();
            let mut knobs = serde_json::Map::new();
            knobs.insert("name".into(), name.into());
            for key in value["required"].as_array().unwrap().iter().filter(|key| *key != "name") {
                knobs.insert(key.as_str().unwrap().into(), 0.25.into());
            }
            let objective: Objective = serde_json::from_value(knobs.into()).unwrap();
            assert_eq!(objective.name(), name);
            assert_eq!(value["additionalProperties"], false, "{value}");
        }
    }
}
