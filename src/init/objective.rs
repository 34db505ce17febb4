//! The objectives that `init` writes, with settings to begin with.

use super::Holds;

/// An objective with its settings.
#[derive(Debug, Clone, Copy)]
pub struct Objective {
    /// Its name.
    pub name: &'static str,
    /// Its settings as YAML.
    settings: &'static str,
    /// What a reader should know.
    pub about: &'static str,
    /// Whether it reads the reference's log-probs.
    pub reference: bool,
    /// Whether it reads embeddings of the prompts.
    pub embeddings: bool,
    /// Whether it counts the prompts' log-probs too, so that pairs may have two prompts.
    pub prompts: bool,
    /// What it is computed on where the data holds pairs.
    pub items: bool,
    /// Whether items need the mismatched responses that estimate a KL term.
    pub kl: bool,
}

const PLAIN: Objective = Objective {
    name: "",
    settings: "beta: 0.1",
    about: "",
    reference: true,
    embeddings: false,
    prompts: false,
    items: false,
    kl: false,
};

/// All of them; `halftone schema train` has the others.
pub const OBJECTIVES: [Objective; 13] = [
    Objective { name: "gdpo", about: "a pair pulls as far as its label is certain; with p_hat = 1 it is DPO", ..PLAIN },
    Objective { name: "dpo", about: "labels count as certain", ..PLAIN },
    Objective { name: "cdpo", about: "p_hat is the chance that the label is right", ..PLAIN },
    Objective { name: "ipo", about: "pulls to a margin of 1 / (2 beta)", ..PLAIN },
    Objective {
        name: "rpo",
        settings: "beta: 0.1, tau: 0.5",
        about: "also sets answers to similar prompts against each other",
        embeddings: true,
        ..PLAIN
    },
    Objective { name: "gjpo", about: "as gdpo, over prompts and responses together", prompts: true, ..PLAIN },
    Objective { name: "jpo", about: "as dpo, over prompts and responses together", prompts: true, ..PLAIN },
    Objective { name: "cjpo", about: "as cdpo, over prompts and responses together", prompts: true, ..PLAIN },
    Objective { name: "kto", about: "each side by itself, good or bad", items: true, kl: true, ..PLAIN },
    Objective {
        name: "simpo",
        settings: "beta: 2.0, gamma: 1.0",
        about: "log-probs per token, no reference",
        reference: false,
        ..PLAIN
    },
    Objective {
        name: "cpo",
        settings: "beta: 0.1, alpha: 1.0",
        about: "no reference, with a likelihood term",
        reference: false,
        ..PLAIN
    },
    Objective { name: "orpo", about: "odds ratios, no reference", reference: false, ..PLAIN },
    Objective { name: "sft", settings: "", about: "imitates", reference: false, items: true, ..PLAIN },
];

impl Objective {
    /// The objective of a name.
    pub fn named(name: &str) -> Option<Objective> {
        OBJECTIVES.into_iter().find(|objective| objective.name == name)
    }

    /// Those that can be computed on some data, the one that suggests itself first.
    pub fn of(holds: Holds) -> Vec<Objective> {
        let names: &[&str] = match holds {
            Holds::Items => &["rpo", "kto", "sft"],
            Holds::Demonstrations => &["sft"],
            _ if holds.joint() => &["gjpo", "jpo", "cjpo"],
            _ => &["gdpo", "dpo", "cdpo", "ipo", "rpo", "gjpo", "jpo", "cjpo", "kto", "simpo", "cpo", "orpo"],
        };
        names.iter().filter_map(|name| Objective::named(name)).collect()
    }

    /// It as YAML, for data of some kind.
    pub fn yaml(&self, holds: Holds) -> String {
        let name = format!("name: {}", self.name);
        let unpaired = if self.embeddings && holds == Holds::Items { "form: unpaired" } else { "" };
        let parts = [name.as_str(), unpaired, self.settings];
        format!("{{{}}}", parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "))
    }
}
