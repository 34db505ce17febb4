//! The catalogue: one enum with all objectives, and what holds for each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::card::Card;
use crate::rpo::{RpoForm, RpoWeighting};
use crate::side::EdgeObjective;
use crate::{
    Aot, ApoDown, ApoZero, Bco, Cdpo, Cipo, Cjpo, Cpo, Discopop, Dpo, Exo, Gdpo, Gipo, Gjpo, Gropo, Hinge, Ipo,
    IpoNorm, Jpo, Kto, Nca, Orpo, Robust, Ropo, Rpo, Sft, Simpo, Sppo,
};

/// What training makes small, by its `name`. Each name has its own knobs; one that it does not have is an error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is described by its struct")]
pub enum Objective {
    Sft(Sft),
    Dpo(Dpo),
    Cdpo(Cdpo),
    Gdpo(Gdpo),
    Ipo(Ipo),
    Cipo(Cipo),
    Gipo(Gipo),
    IpoNorm(IpoNorm),
    Ropo(Ropo),
    Gropo(Gropo),
    Robust(Robust),
    Hinge(Hinge),
    Exo(Exo),
    Sppo(Sppo),
    Nca(Nca),
    Bco(Bco),
    ApoZero(ApoZero),
    ApoDown(ApoDown),
    Discopop(Discopop),
    Aot(Aot),
    Rpo(Rpo),
    Jpo(Jpo),
    Cjpo(Cjpo),
    Gjpo(Gjpo),
    Kto(Kto),
    Simpo(Simpo),
    Cpo(Cpo),
    Orpo(Orpo),
}

/// The kind of rows an objective is computed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Edges.
    Pairs,
    /// Items with labels.
    Items,
    /// Either.
    Both,
}

impl Reads {
    /// Whether pairs will do.
    pub fn pairs(self) -> bool {
        self != Reads::Items
    }

    /// Whether items will do.
    pub fn items(self) -> bool {
        self != Reads::Pairs
    }
}

impl Objective {
    /// The objective in words: equation, paper, orientation, length, behaviour at p_hat = 0.5.
    pub fn card(&self) -> &'static Card {
        match self {
            Objective::Sft(_) => &Sft::CARD,
            Objective::Dpo(_) => &Dpo::CARD,
            Objective::Cdpo(_) => &Cdpo::CARD,
            Objective::Gdpo(_) => &Gdpo::CARD,
            Objective::Ipo(_) => &Ipo::CARD,
            Objective::Cipo(_) => &Cipo::CARD,
            Objective::Gipo(_) => &Gipo::CARD,
            Objective::IpoNorm(_) => &IpoNorm::CARD,
            Objective::Ropo(_) => &Ropo::CARD,
            Objective::Gropo(_) => &Gropo::CARD,
            Objective::Robust(_) => &Robust::CARD,
            Objective::Hinge(_) => &Hinge::CARD,
            Objective::Exo(_) => &Exo::CARD,
            Objective::Sppo(_) => &Sppo::CARD,
            Objective::Nca(_) => &Nca::CARD,
            Objective::Bco(_) => &Bco::CARD,
            Objective::ApoZero(_) => &ApoZero::CARD,
            Objective::ApoDown(_) => &ApoDown::CARD,
            Objective::Discopop(_) => &Discopop::CARD,
            Objective::Aot(_) => &Aot::CARD,
            Objective::Rpo(_) => &Rpo::CARD,
            Objective::Jpo(_) => &Jpo::CARD,
            Objective::Cjpo(_) => &Cjpo::CARD,
            Objective::Gjpo(_) => &Gjpo::CARD,
            Objective::Kto(_) => &Kto::CARD,
            Objective::Simpo(_) => &Simpo::CARD,
            Objective::Cpo(_) => &Cpo::CARD,
            Objective::Orpo(_) => &Orpo::CARD,
        }
    }

    /// The objective as a sum over edges, where it is one.
    pub(crate) fn edge_objective(&self) -> Option<&dyn EdgeObjective> {
        match self {
            Objective::Sft(_) | Objective::Aot(_) | Objective::Rpo(_) | Objective::Kto(_) => None,
            Objective::Dpo(edges) => Some(edges),
            Objective::Cdpo(edges) => Some(edges),
            Objective::Gdpo(edges) => Some(edges),
            Objective::Ipo(edges) => Some(edges),
            Objective::Cipo(edges) => Some(edges),
            Objective::Gipo(edges) => Some(edges),
            Objective::IpoNorm(edges) => Some(edges),
            Objective::Ropo(edges) => Some(edges),
            Objective::Gropo(edges) => Some(edges),
            Objective::Robust(edges) => Some(edges),
            Objective::Hinge(edges) => Some(edges),
            Objective::Exo(edges) => Some(edges),
            Objective::Sppo(edges) => Some(edges),
            Objective::Nca(edges) => Some(edges),
            Objective::Bco(edges) => Some(edges),
            Objective::ApoZero(edges) => Some(edges),
            Objective::ApoDown(edges) => Some(edges),
            Objective::Discopop(edges) => Some(edges),
            Objective::Jpo(edges) => Some(edges),
            Objective::Cjpo(edges) => Some(edges),
            Objective::Gjpo(edges) => Some(edges),
            Objective::Simpo(edges) => Some(edges),
            Objective::Cpo(edges) => Some(edges),
            Objective::Orpo(edges) => Some(edges),
        }
    }

    /// How strongly the reference holds the policy back; `sft` has none.
    pub fn beta(&self) -> Option<f64> {
        Some(match self {
            Objective::Sft(_) => return None,
            Objective::Dpo(Dpo { beta })
            | Objective::Cdpo(Cdpo { beta })
            | Objective::Gdpo(Gdpo { beta })
            | Objective::Ipo(Ipo { beta })
            | Objective::Cipo(Cipo { beta })
            | Objective::Gipo(Gipo { beta })
            | Objective::IpoNorm(IpoNorm { beta })
            | Objective::Ropo(Ropo { beta, .. })
            | Objective::Gropo(Gropo { beta, .. })
            | Objective::Robust(Robust { beta, .. })
            | Objective::Hinge(Hinge { beta })
            | Objective::Exo(Exo { beta, .. })
            | Objective::Sppo(Sppo { beta })
            | Objective::Nca(Nca { beta })
            | Objective::Bco(Bco { beta })
            | Objective::ApoZero(ApoZero { beta })
            | Objective::ApoDown(ApoDown { beta })
            | Objective::Discopop(Discopop { beta, .. })
            | Objective::Aot(Aot { beta })
            | Objective::Rpo(Rpo { beta, .. })
            | Objective::Jpo(Jpo { beta })
            | Objective::Cjpo(Cjpo { beta })
            | Objective::Gjpo(Gjpo { beta })
            | Objective::Kto(Kto { beta })
            | Objective::Simpo(Simpo { beta, .. })
            | Objective::Cpo(Cpo { beta, .. })
            | Objective::Orpo(Orpo { beta }) => *beta,
        })
    }

    /// The word in pipeline files.
    pub fn name(&self) -> &'static str {
        self.card().name
    }

    /// The long name, for logs: short ones mean several things in this field.
    pub fn title(&self) -> &'static str {
        self.card().title
    }

    /// What is wrong with the knobs: the key and a lowercase fragment.
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut findings = Vec::new();
        let mut want = |ok: bool, key, got: f64, wanted: &str| {
            if !ok {
                findings.push((key, format!("{got} is out of range, wanted {wanted}")));
            }
        };
        let above_zero = |value: f64| value > 0.0 && value.is_finite();
        let at_least_zero = |value: f64| value >= 0.0 && value.is_finite();
        if let Some(beta) = self.beta() {
            want(above_zero(beta), "beta", beta, "a number above 0");
        }
        match *self {
            Objective::Ropo(Ropo { alpha, gamma, .. }) | Objective::Gropo(Gropo { alpha, gamma, .. }) => {
                want(at_least_zero(alpha), "alpha", alpha, "a number of at least 0");
                want(at_least_zero(gamma), "gamma", gamma, "a number of at least 0");
                want(alpha != 0.0 || gamma != 0.0, "gamma", gamma, "a number above 0 where alpha is 0");
            }
            Objective::Robust(Robust { epsilon, .. }) => {
                want((0.0..0.5).contains(&epsilon), "epsilon", epsilon, "0 up to, but without, 0.5");
            }
            Objective::Exo(Exo { clip, .. }) => {
                want(clip > 0.0 && clip < 0.5, "clip", clip, "a number between 0 and 0.5");
            }
            Objective::Discopop(Discopop { tau, .. }) => want(above_zero(tau), "tau", tau, "a number above 0"),
            Objective::Simpo(Simpo { gamma, .. }) => {
                want(at_least_zero(gamma), "gamma", gamma, "a number of at least 0");
            }
            Objective::Cpo(Cpo { alpha, .. }) => want(at_least_zero(alpha), "alpha", alpha, "a number of at least 0"),
            Objective::Rpo(rpo) => {
                if let Some(tau) = rpo.tau {
                    want(above_zero(tau), "tau", tau, "a number above 0");
                }
                if let Some(share) = rpo.diagonal_weight {
                    want((0.0..=1.0).contains(&share), "diagonal_weight", share, "0 to 1");
                }
                findings.extend(rpo.check_keys());
            }
            _ => {}
        }
        findings
    }

    /// Whether it measures against a frozen reference.
    pub fn needs_reference(&self) -> bool {
        !matches!(self, Objective::Sft(_) | Objective::Simpo(_) | Objective::Cpo(_) | Objective::Orpo(_))
    }

    /// Whether it scores the prompt too.
    pub fn needs_prompt_part(&self) -> bool {
        matches!(self, Objective::Jpo(_) | Objective::Cjpo(_) | Objective::Gjpo(_))
    }

    /// Whether it weighs by how alike prompts are.
    pub fn needs_similarities(&self) -> bool {
        matches!(self, Objective::Rpo(Rpo { weighting: RpoWeighting::Embedding, .. }))
    }

    /// Whether it needs the mismatched sequences of KTO.
    pub fn needs_kl(&self) -> bool {
        matches!(self, Objective::Kto(_))
    }

    /// What it is computed on.
    pub fn reads(&self) -> Reads {
        match self {
            Objective::Sft(_) => Reads::Both,
            Objective::Kto(_) | Objective::Rpo(Rpo { form: RpoForm::Unpaired, .. }) => Reads::Items,
            _ => Reads::Pairs,
        }
    }

    /// Whether it looks at the rejected side at all.
    pub fn reads_rejected(&self) -> bool {
        !matches!(self, Objective::Sft(_))
    }

    /// Whether the degree of a preference matters, beyond which side is better.
    pub fn reads_p_hat(&self) -> bool {
        matches!(
            self,
            Objective::Cdpo(_)
                | Objective::Gdpo(_)
                | Objective::Cipo(_)
                | Objective::Gipo(_)
                | Objective::Gropo(_)
                | Objective::Exo(_)
                | Objective::Sppo(_)
                | Objective::Nca(_)
                | Objective::Cjpo(_)
                | Objective::Gjpo(_)
                | Objective::Kto(_)
        )
    }

    /// Whether weights other than 0 and 1 mean something. AOT refuses unequal ones.
    pub fn reads_weights(&self) -> bool {
        !matches!(self, Objective::Aot(_))
    }

    /// Whether it divides by numbers of tokens.
    pub fn reads_length(&self) -> bool {
        matches!(
            self,
            Objective::Sft(_) | Objective::IpoNorm(_) | Objective::Simpo(_) | Objective::Cpo(_) | Objective::Orpo(_)
        )
    }

    /// Whether swapping an edge's sides together with p_hat -> 1 - p_hat changes nothing. The others want p_hat >= 0.5.
    pub fn swap_symmetric(&self) -> bool {
        self.reads_p_hat() && !matches!(self, Objective::Gipo(_))
    }

    /// Whether it is a sum over edges or items whose denominator is known before any log-prob is: then it can go
    /// micro-batch by micro-batch. RPO's matrix, AOT's sorting and KTO's anchor want the whole batch.
    pub fn separable(&self) -> bool {
        self.edge_objective().is_some() || matches!(self, Objective::Sft(_))
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
