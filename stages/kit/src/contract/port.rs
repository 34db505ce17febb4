//! Ports: the tables and models that flow between stages.

use serde::{Deserialize, Serialize};

/// Content of a port: a table with known columns, or a model folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is described by its row type in `rows`")]
pub enum Table {
    Prompts,
    Responses,
    Comparisons,
    Votes,
    Verdicts,
    Ratings,
    Answers,
    Pairs,
    Items,
    Embeddings,
    Reference,
    Metrics,
    Steps,
    Contrasts,
    Splits,
    Scores,
    Summary,
    Utilities,
    Truth,
    Calibration,
    Reliability,
    Annotators,
    Leaderboard,
    Results,
    Rejects,
    /// A folder in the Hugging Face format, not a table.
    Model,
    /// A folder of files for people, such as Markdown and SVG, not a table.
    Pages,
}

impl Table {
    /// The word for it in pipeline files, folders and messages.
    pub fn name(self) -> &'static str {
        match self {
            Table::Prompts => "prompts",
            Table::Responses => "responses",
            Table::Comparisons => "comparisons",
            Table::Votes => "votes",
            Table::Verdicts => "verdicts",
            Table::Ratings => "ratings",
            Table::Answers => "answers",
            Table::Pairs => "pairs",
            Table::Items => "items",
            Table::Embeddings => "embeddings",
            Table::Reference => "reference",
            Table::Metrics => "metrics",
            Table::Steps => "steps",
            Table::Contrasts => "contrasts",
            Table::Splits => "splits",
            Table::Scores => "scores",
            Table::Summary => "summary",
            Table::Utilities => "utilities",
            Table::Truth => "truth",
            Table::Calibration => "calibration",
            Table::Reliability => "reliability",
            Table::Annotators => "annotators",
            Table::Leaderboard => "leaderboard",
            Table::Results => "results",
            Table::Rejects => "rejects",
            Table::Model => "model",
            Table::Pages => "pages",
        }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Sources of an input: `stage.port`, `stage`, a path (it contains a `/`), or a list of these, read in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Input(pub Vec<String>);

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Input, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Input;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`stage.port`, `stage`, a path with a `/`, or a list of these")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Input, E> {
                Ok(Input(vec![text.to_owned()]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Input, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                if list.is_empty() {
                    return Err(serde::de::Error::custom("an empty list names no input"));
                }
                Ok(Input(list))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl schemars::JsonSchema for Input {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Input".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "`stage.port`, `stage`, a path with a `/`, or a list of these, read in order",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
        })
    }
}

/// An input as a configured stage asks for it.
#[derive(Debug, Clone)]
pub struct InputPort {
    /// The key in the stage's configuration, such as `from`.
    pub key: &'static str,
    /// The source that the configuration names.
    pub from: Input,
    /// The tables that will do, the preferred one first.
    pub accepts: Vec<Table>,
    /// Optional columns of the table that this stage cannot do without.
    pub columns: Vec<&'static str>,
    /// The remedy for a table without these columns: a lowercase fragment.
    pub fix: Option<String>,
    /// Settings that the stage which writes the table has to share with this one: key and value.
    pub shares: Vec<(&'static str, String)>,
    /// Settings of the stage which writes it that this one cannot go with: key, value and the reason, a whole message.
    pub refuses: Vec<(&'static str, String, String)>,
    /// True where a GGUF file is accepted in place of a model folder.
    pub gguf: bool,
    /// The reason why the stage does not read this input under this configuration. An idle input is outside the
    /// fingerprint, and stages that feed only idle inputs do not run.
    pub idle: Option<String>,
}

impl InputPort {
    /// A required input with one possible table.
    pub fn new(key: &'static str, from: &Input, accepts: Table) -> InputPort {
        InputPort {
            key,
            from: from.clone(),
            accepts: vec![accepts],
            columns: Vec::new(),
            fix: None,
            shares: Vec::new(),
            refuses: Vec::new(),
            gguf: false,
            idle: None,
        }
    }

    /// Another table that will do too.
    pub fn or(mut self, table: Table) -> InputPort {
        self.accepts.push(table);
        self
    }

    /// A GGUF file will do where a model folder would.
    pub fn or_gguf(mut self) -> InputPort {
        self.gguf = true;
        self
    }

    /// An optional column that this stage needs.
    pub fn needs(mut self, column: &'static str) -> InputPort {
        self.columns.push(column);
        self
    }

    /// Says how a table comes by the optional columns that this stage needs.
    pub fn fixed_by(mut self, how: impl Into<String>) -> InputPort {
        self.fix = Some(how.into());
        self
    }

    /// A setting that the stage which writes the table has to share.
    pub fn shares(mut self, key: &'static str, value: impl Into<String>) -> InputPort {
        self.shares.push((key, value.into()));
        self
    }

    /// A setting of the stage which writes it that this one cannot go with, and the reason.
    pub fn refuses(mut self, key: &'static str, value: impl Into<String>, why: impl Into<String>) -> InputPort {
        self.refuses.push((key, value.into(), why.into()));
        self
    }

    /// Marks the input as not read, with the reason.
    pub fn idle(mut self, why: impl Into<String>) -> InputPort {
        self.idle = Some(why.into());
        self
    }
}

/// An output of a configured stage.
#[derive(Debug, Clone)]
pub struct OutputPort {
    /// The port's name; its files lie in a folder of that name.
    pub name: String,
    /// The table it carries.
    pub table: Table,
    /// The optional columns of the table that this stage leaves empty.
    pub without: Vec<&'static str>,
    /// Settings that its readers have to share: key and value.
    pub settings: Vec<(&'static str, String)>,
    /// True for a port that the stage's plain name never means.
    pub aside: bool,
}

impl OutputPort {
    /// A port named like its table.
    pub fn new(table: Table) -> OutputPort {
        OutputPort { name: table.name().to_owned(), table, without: Vec::new(), settings: Vec::new(), aside: false }
    }

    /// A port with a name of its own.
    pub fn named(name: impl Into<String>, table: Table) -> OutputPort {
        OutputPort { name: name.into(), table, without: Vec::new(), settings: Vec::new(), aside: false }
    }

    /// Makes it a port that readers name in full, `stage.port`.
    pub fn aside(mut self) -> OutputPort {
        self.aside = true;
        self
    }

    /// Says that an optional column will be empty.
    pub fn without(mut self, column: &'static str) -> OutputPort {
        self.without.push(column);
        self
    }
    /// Tells a setting that readers have to share.
    pub fn setting(mut self, key: &'static str, value: impl Into<String>) -> OutputPort {
        self.settings.push((key, value.into()));
        self
    }
}
