//! The request, and the content of the data.

use train::Objective;

/// The content of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Two responses to one prompt, one of them better.
    Pairs,
    /// Two prompts, each with its response, one better.
    JointPairs,
    /// Two responses to one prompt, without a label.
    Comparisons,
    /// Two prompts, each with its response, without a label.
    JointComparisons,
    /// Several responses to each prompt, without a label.
    Responses,
    /// Responses with labels of their own.
    Items,
    /// Responses to imitate.
    Demonstrations,
    /// Prompts alone.
    Prompts,
}

impl Holds {
    /// True where the sides of a row have prompts of their own.
    pub fn joint(self) -> bool {
        matches!(self, Holds::JointPairs | Holds::JointComparisons)
    }

    /// True where rows are single responses.
    pub fn items(self) -> bool {
        matches!(self, Holds::Items | Holds::Demonstrations)
    }

    /// True where rows come with the label of a pair.
    pub fn labelled(self) -> bool {
        matches!(self, Holds::Pairs | Holds::JointPairs)
    }

    /// True where a judge has to label the data before anything can be trained on it.
    pub fn needs_judge(self) -> bool {
        matches!(self, Holds::Comparisons | Holds::JointComparisons | Holds::Responses | Holds::Prompts)
    }

    /// It in words.
    pub fn words(self) -> &'static str {
        match self {
            Holds::Pairs => "pairs",
            Holds::JointPairs => "pairs of two prompts",
            Holds::Comparisons => "pairs without a label",
            Holds::JointComparisons => "pairs of two prompts without a label",
            Holds::Responses => "several responses to a prompt, without a label",
            Holds::Items => "responses with a label each",
            Holds::Demonstrations => "demonstrations",
            Holds::Prompts => "prompts",
        }
    }
}

/// The requested pipeline.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// The data file, and what was found in it.
    pub data: String,
    /// Its content.
    pub holds: Holds,
    /// The format and rows that were found, where there is a file.
    pub found: Option<String>,
    /// The number of rows that may have votes; none where nobody voted.
    pub votes: Option<u64>,
    /// True where scores of responses become labels.
    pub scored: bool,
    /// True where only prompts are to be read.
    pub prompts_only: bool,
    /// True where plain strings are messages that models see through their chat template.
    pub chat: bool,
    /// The model to train.
    pub policy: String,
    /// The judge, where there is one.
    pub judge: Option<String>,
    /// True where the judge has a chat template.
    pub judge_chat: bool,
    /// The sentence encoder.
    pub encoder: String,
    /// The objective.
    pub objective: Objective,
}

impl Wish {
    /// The content of the data in words.
    pub fn holds_words(&self) -> &'static str {
        match self.holds {
            Holds::Comparisons if self.votes.is_some() => "pairs with people's votes",
            Holds::JointComparisons if self.votes.is_some() => "pairs of two prompts with people's votes",
            Holds::Pairs if self.scored => "responses with scores",
            other => other.words(),
        }
    }

    /// True where a judge's labels can be held against people's: `calibrate` wants at least 30 comparisons, and some
    /// are held out.
    pub fn calibrates(&self) -> bool {
        self.judge.is_some() && self.votes.is_some_and(|rows| rows >= 40)
    }

    /// The objective as YAML.
    pub fn objective_yaml(&self) -> String {
        self.objective.facts().yaml(self.holds.items())
    }
}
