//! The rows of TRL's datasets, with columns of ours beside them that its trainers leave alone.

use std::fmt::Display;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::Field;
use kit::rows::{Item, Pair};
use kit::{Cell, JsonText, Message, Row, Table};

use super::reference::Reference;
use super::text::{Json, Text};

/// The result of converting a row.
pub enum Conversion<E> {
    /// A row of the dataset.
    Example(E),
    /// Its label says neither yes nor no, and TRL's labels say one of them.
    Undecided,
    /// The reference did not score it.
    Unscored,
}

/// A row of a table that examples are made of.
pub trait Prompted: Row + Clone {
    /// All its messages.
    fn messages(&self) -> Vec<&Vec<Message>>;
    /// Its prompts.
    fn prompts(&mut self) -> Vec<&mut Vec<Message>>;
}

impl Prompted for Pair {
    fn messages(&self) -> Vec<&Vec<Message>> {
        vec![&self.chosen_prompt, &self.chosen, &self.rejected_prompt, &self.rejected]
    }

    fn prompts(&mut self) -> Vec<&mut Vec<Message>> {
        vec![&mut self.chosen_prompt, &mut self.rejected_prompt]
    }
}

impl Prompted for Item {
    fn messages(&self) -> Vec<&Vec<Message>> {
        vec![&self.prompt, &self.response]
    }

    fn prompts(&mut self) -> Vec<&mut Vec<Message>> {
        vec![&mut self.prompt]
    }
}

/// A row of a dataset, made of a row of a table.
pub trait Example: Row + Clone {
    /// The row it is made from.
    type From: Prompted;
    /// TRL's name for it.
    const NAME: &'static str;
    /// TRL's name for its text.
    const TEXT: &'static str;

    /// The id of a row, for messages.
    fn id(from: &Self::From) -> &str;
    /// The example.
    ///
    /// # Errors
    /// The reason why the row has no such form.
    fn of(from: &Self::From, reference: &Reference) -> Result<Conversion<Self>, String>;
    /// Its columns with their JSON.
    fn members(&self) -> Vec<(&'static str, String)>;
}

/// An example with the tools that its conversation may call, as the JSON text that TRL reads.
#[derive(Debug, Clone, PartialEq)]
pub struct WithTools<E> {
    example: E,
    tools: Option<String>,
}

impl<E: Example> Row for WithTools<E> {
    const TABLE: Table = E::TABLE;

    fn fields() -> Vec<Field> {
        let tools = Field::new("tools", <Option<String> as Cell>::data_type(), true);
        E::fields().into_iter().chain([tools]).collect()
    }

    fn to_arrays(rows: &[Self]) -> Vec<ArrayRef> {
        let examples: Vec<E> = rows.iter().map(|row| row.example.clone()).collect();
        let tools = Option::<String>::to_array(rows.iter().map(|row| &row.tools));
        E::to_arrays(&examples).into_iter().chain([tools]).collect()
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, kit::Missing> {
        let tools = batch.column(batch.num_columns() - 1);
        let tools = |row| Option::<String>::get(tools, row).flatten();
        let examples = E::from_batch(batch)?.into_iter().enumerate();
        Ok(examples.map(|(row, example)| WithTools { example, tools: tools(row) }).collect())
    }
}

impl<E: Example> Example for WithTools<E> {
    type From = E::From;
    const NAME: &'static str = E::NAME;
    const TEXT: &'static str = E::TEXT;

    fn id(from: &E::From) -> &str {
        E::id(from)
    }

    fn of(from: &E::From, reference: &Reference) -> Result<Conversion<Self>, String> {
        let mut from = from.clone();
        let tools: Vec<Option<String>> = from.prompts().into_iter().map(|prompt| take_tools(prompt)).collect();
        if tools.iter().any(|other| *other != tools[0]) {
            return Err(
                "its two prompts have different tools, and TRL has one column for them; leave such rows out".to_owned()
            );
        }
        let tools = tools.into_iter().next().flatten();
        Ok(match E::of(&from, reference)? {
            Conversion::Example(example) => Conversion::Example(WithTools { example, tools }),
            Conversion::Undecided => Conversion::Undecided,
            Conversion::Unscored => Conversion::Unscored,
        })
    }

    fn members(&self) -> Vec<(&'static str, String)> {
        self.example.members().into_iter().chain([("tools", self.tools.json())]).collect()
    }
}

/// Takes the tools of a conversation out of its first message, as a JSON list.
fn take_tools(prompt: &mut [Message]) -> Option<String> {
    let first = prompt.first_mut()?;
    let mut fields = first.extra_fields();
    let JsonText(tools) = fields.remove("tools")?;
    let member = |(name, JsonText(value)): (&String, &JsonText)| format!("{}:{value}", name.json());
    let others: Vec<String> = fields.iter().map(member).collect();
    first.extra = (!others.is_empty()).then(|| format!("{{{}}}", others.join(",")));
    Some(tools)
}

macro_rules! examples {
    ($( $(#[$doc:meta])* $name:ident in $table:ident { $($field:ident: $type:ty,)* } )*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name<T> { $(pub $field: $type,)* }

        impl<T: Text> $name<T> {
            fn columns(&self) -> Vec<(&'static str, String)> {
                vec![$((stringify!($field), self.$field.json()),)*]
            }
        }

        impl<T: Text> Row for $name<T> {
            const TABLE: Table = Table::$table;

            fn fields() -> Vec<Field> {
                vec![$(Field::new(stringify!($field), <$type as Cell>::data_type(), <$type as Cell>::NULLABLE),)*]
            }

            fn to_arrays(rows: &[Self]) -> Vec<ArrayRef> {
                vec![$(<$type as Cell>::to_array(rows.iter().map(|row| &row.$field)),)*]
            }

            fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, kit::Missing> {
                (0..batch.num_rows()).map(|row| {
                    let mut columns = batch.columns().iter();
                    Ok($name { $($field: {
                        let column = columns.next().expect("a batch has the columns of its schema");
                        <$type as Cell>::get(column, row).ok_or(kit::Missing { row, column: stringify!($field) })?
                    },)* })
                }).collect()
            }
        }
    )* };
}

examples! {
    /// Preference with an explicit prompt.
    Preference in Pairs {
        prompt: T,
        chosen: T,
        rejected: T,
        p_hat: f64,
        weight: f64,
        pair_id: String,
    }

    /// The same with the log-probs of both sides under the frozen reference, as `DPOTrainer` takes it.
    Scored in Pairs {
        prompt: T,
        chosen: T,
        rejected: T,
        ref_chosen_logps: f32,
        ref_rejected_logps: f32,
        p_hat: f64,
        weight: f64,
        pair_id: String,
    }

    /// Preference with an implicit prompt: both sides begin with theirs.
    Implicit in Pairs {
        chosen: T,
        rejected: T,
        p_hat: f64,
        weight: f64,
        pair_id: String,
    }

    /// One response with a label.
    Unpaired in Items {
        prompt: T,
        completion: T,
        label: bool,
        p_hat: f64,
        weight: f64,
        item_id: String,
    }
}

impl<T: Text> Example for Preference<T> {
    type From = Pair;
    const NAME: &'static str = "preference";
    const TEXT: &'static str = T::NAME;

    fn id(pair: &Pair) -> &str {
        &pair.pair_id
    }

    fn members(&self) -> Vec<(&'static str, String)> {
        self.columns()
    }

    fn of(pair: &Pair, _: &Reference) -> Result<Conversion<Self>, String> {
        if pair.chosen_prompt != pair.rejected_prompt {
            return Err("it has two prompts, and TRL's explicit prompt is one; `--prompt implicit` writes both sides \
                        with the prompts they have"
                .to_owned());
        }
        Ok(Conversion::Example(Preference {
            prompt: written(&pair.chosen_prompt, "prompt")?,
            chosen: written(&pair.chosen, "chosen")?,
            rejected: written(&pair.rejected, "rejected")?,
            p_hat: pair.p_hat,
            weight: pair.weight,
            pair_id: pair.pair_id.clone(),
        }))
    }
}

impl<T: Text> Example for Scored<T> {
    type From = Pair;
    const NAME: &'static str = "preference with reference log-probs";
    const TEXT: &'static str = T::NAME;

    fn id(pair: &Pair) -> &str {
        &pair.pair_id
    }

    fn members(&self) -> Vec<(&'static str, String)> {
        self.columns()
    }

    fn of(pair: &Pair, reference: &Reference) -> Result<Conversion<Self>, String> {
        let Conversion::Example(Preference { prompt, chosen, rejected, p_hat, weight, pair_id }) =
            Preference::of(pair, reference)?
        else {
            return Ok(Conversion::Undecided);
        };
        let Some([ref_chosen_logps, ref_rejected_logps]) = reference.of(pair) else { return Ok(Conversion::Unscored) };
        let scored = Scored { prompt, chosen, rejected, ref_chosen_logps, ref_rejected_logps, p_hat, weight, pair_id };
        Ok(Conversion::Example(scored))
    }
}

impl<T: Text> Example for Implicit<T> {
    type From = Pair;
    const NAME: &'static str = "preference with an implicit prompt";
    const TEXT: &'static str = T::NAME;

    fn id(pair: &Pair) -> &str {
        &pair.pair_id
    }

    fn members(&self) -> Vec<(&'static str, String)> {
        self.columns()
    }

    fn of(pair: &Pair, _: &Reference) -> Result<Conversion<Self>, String> {
        let side = |prompt, response, name| -> Result<T, String> {
            Ok(written::<T>(prompt, "prompt")?.joined(written(response, name)?))
        };
        Ok(Conversion::Example(Implicit {
            chosen: side(&pair.chosen_prompt, &pair.chosen, "chosen")?,
            rejected: side(&pair.rejected_prompt, &pair.rejected, "rejected")?,
            p_hat: pair.p_hat,
            weight: pair.weight,
            pair_id: pair.pair_id.clone(),
        }))
    }
}

impl<T: Text> Example for Unpaired<T> {
    type From = Item;
    const NAME: &'static str = "unpaired preference";
    const TEXT: &'static str = T::NAME;

    fn id(item: &Item) -> &str {
        &item.item_id
    }

    fn members(&self) -> Vec<(&'static str, String)> {
        self.columns()
    }

    fn of(item: &Item, _: &Reference) -> Result<Conversion<Self>, String> {
        if item.label == 0.5 {
            return Ok(Conversion::Undecided);
        }
        Ok(Conversion::Example(Unpaired {
            prompt: written(&item.prompt, "prompt")?,
            completion: written(&item.response, "response")?,
            label: item.label > 0.5,
            p_hat: item.label,
            weight: item.weight,
            item_id: item.item_id.clone(),
        }))
    }
}

/// Messages as text of one form; where they have the other, the dataset would have both.
fn written<T: Text>(messages: &[Message], what: impl Display) -> Result<T, String> {
    T::of(messages).ok_or_else(|| {
        format!(
            "its {what} is {}, the first row's text is {}; TRL reads one form: export each by itself",
            if T::NAME == <String as Text>::NAME { "a conversation" } else { "raw text" },
            if T::NAME == <String as Text>::NAME { "raw" } else { "a conversation" },
        )
    })
}
