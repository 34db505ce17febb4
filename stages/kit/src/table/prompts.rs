//! The distinct prompts that the rows of any table stand on.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::contract::context::Context;
use crate::contract::port::Table;
use crate::error::{Error, Result};
use crate::table::row::Row;
use crate::table::rows::{Comparison, Item, Message, Pair, Prompt, Reject, Response, Verdict};

/// Every prompt of an input once, and which rows stand on which.
#[derive(Debug, Clone, Default)]
pub struct DistinctPrompts {
    /// The prompts by id.
    pub messages: BTreeMap<String, Vec<Message>>,
    /// The rows in the order of the input.
    pub rows: Vec<PromptedRow>,
}

/// A row, reduced to the prompts it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptedRow {
    /// The row's id.
    pub row_id: String,
    /// Its prompts: one, or that of either side.
    pub prompt_ids: Vec<String>,
    /// The file the row came from.
    pub source_file: Option<String>,
    /// Its line there, from 1.
    pub source_line: Option<u64>,
}

impl DistinctPrompts {
    /// The tables that hold prompts, the one that is nothing else first.
    pub const TABLES: [Table; 6] =
        [Table::Prompts, Table::Responses, Table::Comparisons, Table::Verdicts, Table::Pairs, Table::Items];

    /// Reads the prompts of an input.
    ///
    /// # Errors
    /// When the input cannot be read, holds no prompts, or has one id for two prompts.
    pub fn read(context: &Context<'_>, key: &str) -> Result<DistinctPrompts> {
        let mut prompts = DistinctPrompts::default();
        match context.table_of(key) {
            Some(Table::Prompts) => prompts.take(context.rows::<Prompt>(key)?)?,
            Some(Table::Responses) => prompts.take(context.rows::<Response>(key)?)?,
            Some(Table::Comparisons) => prompts.take(context.rows::<Comparison>(key)?)?,
            Some(Table::Verdicts) => prompts.take(context.rows::<Verdict>(key)?)?,
            Some(Table::Pairs) => prompts.take(context.rows::<Pair>(key)?)?,
            Some(Table::Items) => prompts.take(context.rows::<Item>(key)?)?,
            other => {
                let got = other.map_or("nothing", Table::name);
                return Err(Error::Pipeline(format!("`{key}` needs a table with prompts, got {got}")));
            }
        }
        Ok(prompts)
    }

    /// The rejects for the rows that stand on refused prompts, each with the first such prompt. `refused` gives
    /// reason and detail by prompt id.
    pub fn rejects(&self, key: &str, refused: &BTreeMap<String, (String, String)>) -> Vec<(String, Reject)> {
        let rejects = self.rows.iter().filter_map(|row| {
            let prompt_id = row.prompt_ids.iter().find(|id| refused.contains_key(*id))?;
            let (reason, detail) = &refused[prompt_id];
            let reject = Reject {
                input: key.to_owned(),
                row_id: row.row_id.clone(),
                reason: reason.clone(),
                detail: if *prompt_id == row.row_id {
                    detail.clone()
                } else {
                    format!("prompt `{prompt_id}`: {detail}")
                },
                source_file: row.source_file.clone(),
                source_line: row.source_line,
            };
            Some((prompt_id.clone(), reject))
        });
        rejects.collect()
    }

    fn take<R: Prompted>(&mut self, rows: impl Iterator<Item = Result<R>>) -> Result<()> {
        for row in rows {
            let (row, prompts) = row?.prompts();
            for (id, messages) in row.prompt_ids.iter().zip(prompts) {
                match self.messages.entry(id.clone()) {
                    Entry::Vacant(entry) => {
                        entry.insert(messages);
                    }
                    Entry::Occupied(entry) if *entry.get() == messages => {}
                    Entry::Occupied(_) => {
                        let earlier = self.rows.iter().find(|row| row.prompt_ids.contains(id)).unwrap_or(&row);
                        return Err(Error::data(format!(
                            "prompt `{id}` stands for two different texts, in {} and in {}",
                            earlier.place(),
                            row.place()
                        )));
                    }
                }
            }
            self.rows.push(row);
        }
        Ok(())
    }
}

impl PromptedRow {
    fn place(&self) -> String {
        match (&self.source_file, self.source_line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            _ => format!("row `{}`", self.row_id),
        }
    }
}

/// A row with prompts.
trait Prompted: Row {
    fn prompts(self) -> (PromptedRow, Vec<Vec<Message>>);
}

macro_rules! prompted {
    ($row:ident, $id:ident, $($prompt_id:ident: $messages:ident),+) => {
        impl Prompted for $row {
            fn prompts(self) -> (PromptedRow, Vec<Vec<Message>>) {
                let row_id = self.$id.clone();
                let prompt_ids = vec![$(self.$prompt_id),+];
                let (source_file, source_line) = (self.source_file, self.source_line);
                (PromptedRow { row_id, prompt_ids, source_file, source_line }, vec![$(self.$messages),+])
            }
        }
    };
}

prompted!(Prompt, prompt_id, prompt_id: messages);
prompted!(Response, response_id, prompt_id: prompt);
prompted!(Comparison, comparison_id, a_prompt_id: a_prompt, b_prompt_id: b_prompt);
prompted!(Verdict, comparison_id, a_prompt_id: a_prompt, b_prompt_id: b_prompt);
prompted!(Pair, pair_id, chosen_prompt_id: chosen_prompt, rejected_prompt_id: rejected_prompt);
prompted!(Item, item_id, prompt_id: prompt);

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(number: u64, chosen: (&str, &str), rejected: (&str, &str)) -> Pair {
        let response = |text: &str| vec![Message::new("assistant", text)];
        Pair {
            pair_id: format!("pair{number}"),
            comparison_id: None,
            form: "joint".to_owned(),
            chosen_prompt_id: chosen.0.to_owned(),
            chosen_response_id: "c".to_owned(),
            chosen_prompt: vec![Message::new("user", chosen.1)],
            chosen: response("c"),
            rejected_prompt_id: rejected.0.to_owned(),
            rejected_response_id: "r".to_owned(),
            rejected_prompt: vec![Message::new("user", rejected.1)],
            rejected: response("r"),
            p_hat: 0.7,
            weight: 1.0,
            source_file: Some("data.jsonl".to_owned()),
            source_line: Some(number),
        }
    }

    fn distinct(rows: Vec<Pair>) -> Result<DistinctPrompts> {
        let mut prompts = DistinctPrompts::default();
        prompts.take(rows.into_iter().map(Ok)).map(|()| prompts)
    }

    #[test]
    fn each_prompt_is_there_once_and_each_row_knows_its_own() {
        let prompts = distinct(vec![
            pair(1, ("p0", "zero"), ("p1", "one")),
            pair(2, ("p1", "one"), ("p1", "one")),
            pair(3, ("p2", "two"), ("p0", "zero")),
        ])
        .unwrap();
        assert_eq!(prompts.messages.keys().collect::<Vec<_>>(), ["p0", "p1", "p2"]);
        let refused = BTreeMap::from([("p1".to_owned(), ("too_long".to_owned(), "9 tokens".to_owned()))]);
        let rejects = prompts.rejects("from", &refused);
        let ids: Vec<_> = rejects.iter().map(|(prompt, reject)| (prompt.as_str(), reject.row_id.as_str())).collect();
        assert_eq!(ids, [("p1", "pair1"), ("p1", "pair2")]);
        assert_eq!(rejects[0].1.detail, "prompt `p1`: 9 tokens");
    }

    #[test]
    fn one_id_for_two_prompts_is_an_error_that_names_both_lines() {
        let rows = vec![pair(1, ("p0", "zero"), ("p1", "one")), pair(2, ("p1", "other"), ("p0", "zero"))];
        let error = distinct(rows).unwrap_err().to_string();
        assert_eq!(error, "prompt `p1` stands for two different texts, in data.jsonl:1 and in data.jsonl:2");
    }
}
