//! The columns by which the rows of any table are about a response, a pair, an item or a comparison.

use std::collections::BTreeSet;

use kit::Message;
use serde::Serialize;
use serde_json::Value;

use crate::look::inspect::{Row, Rows};

/// The columns that hold a row's own id, the most telling first.
pub const OWN: [&str; 4] = ["pair_id", "item_id", "comparison_id", "response_id"];
/// The columns that hold the id of a row elsewhere.
const OTHER: [&str; 2] = ["row_id", "rejected_pair_id"];

/// A side of a row: where its ids and its texts stand.
struct SideColumns {
    role: &'static str,
    prompt_id: &'static str,
    response_id: &'static str,
    prompt: &'static str,
    response: &'static str,
}

const SIDES: [SideColumns; 6] = [
    SideColumns {
        role: "a",
        prompt_id: "a_prompt_id",
        response_id: "a_response_id",
        prompt: "a_prompt",
        response: "a_response",
    },
    SideColumns {
        role: "b",
        prompt_id: "b_prompt_id",
        response_id: "b_response_id",
        prompt: "b_prompt",
        response: "b_response",
    },
    SideColumns {
        role: "chosen",
        prompt_id: "chosen_prompt_id",
        response_id: "chosen_response_id",
        prompt: "chosen_prompt",
        response: "chosen",
    },
    SideColumns {
        role: "rejected",
        prompt_id: "rejected_prompt_id",
        response_id: "rejected_response_id",
        prompt: "rejected_prompt",
        response: "rejected",
    },
    SideColumns {
        role: "response",
        prompt_id: "prompt_id",
        response_id: "response_id",
        prompt: "prompt",
        response: "response",
    },
    // The table of responses calls them messages.
    SideColumns {
        role: "response",
        prompt_id: "prompt_id",
        response_id: "response_id",
        prompt: "prompt",
        response: "messages",
    },
];

/// A response by the ids of its prompt and its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Side {
    /// The prompt.
    pub prompt_id: String,
    /// The response.
    pub response_id: String,
}

/// A side in full.
#[derive(Debug, Clone, Serialize)]
pub struct Text {
    /// `a` and `b`, `chosen` and `rejected`, or `response`.
    pub role: &'static str,
    /// Its ids.
    #[serde(flatten)]
    pub side: Side,
    pub prompt: Vec<Message>,
    pub response: Vec<Message>,
}

/// The columns of one table that hold ids.
pub struct Ids {
    names: Vec<&'static str>,
}

impl Ids {
    /// Those of a table; nothing where it has none.
    pub fn of(rows: &Rows) -> Option<Ids> {
        let has = |name: &&str| rows.columns.iter().any(|(column, _)| column == name);
        let sides = SIDES.iter().flat_map(|side| [side.prompt_id, side.response_id]);
        let mut names: Vec<&'static str> = OWN.into_iter().chain(OTHER).chain(sides).filter(has).collect();
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then_some(Ids { names })
    }

    /// The columns to read.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// The table's own id: the name of its column and the cell in a row's cells.
    pub fn own<'c>(&self, cells: &[&'c str]) -> Option<(&'static str, &'c str)> {
        OWN.into_iter().find_map(|name| Some((name, self.cell(cells, name)?)))
    }

    /// The ids that a row gives to rows about the same sides.
    pub fn rows<'c>(&self, cells: &[&'c str]) -> Vec<&'c str> {
        let own = OWN.into_iter().filter(|name| *name != "response_id");
        own.filter_map(|name| self.cell(cells, name)).filter(|id| !id.is_empty()).collect()
    }

    /// The sides of a row; two for a comparison or a pair, one for an item or a response.
    pub fn sides(&self, cells: &[&str]) -> Vec<Side> {
        let mut sides: Vec<Side> = Vec::new();
        for columns in &SIDES[..5] {
            if let (Some(prompt), Some(response)) =
                (self.cell(cells, columns.prompt_id), self.cell(cells, columns.response_id))
            {
                sides.push(Side { prompt_id: prompt.to_owned(), response_id: response.to_owned() });
            }
        }
        sides
    }

    /// The id of another row, or of a response, that a row without sides is about.
    pub fn about<'c>(&self, cells: &[&'c str]) -> Vec<&'c str> {
        OWN.into_iter().chain(OTHER).filter_map(|name| self.cell(cells, name)).collect()
    }

    /// The prompt of a row without sides.
    pub fn prompt<'c>(&self, cells: &[&'c str]) -> Option<&'c str> {
        self.cell(cells, "prompt_id")
    }

    fn cell<'c>(&self, cells: &[&'c str], name: &str) -> Option<&'c str> {
        self.names.iter().position(|other| *other == name).map(|place| cells[place])
    }
}

/// The texts of a row's sides.
pub fn texts(rows: &Rows, row: &Row) -> Vec<Text> {
    let cell = |name: &str| rows.columns.iter().position(|(column, _)| column == name).map(|place| &row.cells[place]);
    let id = |name: &str| cell(name).and_then(Value::as_str).map(str::to_owned);
    let messages = |name: &str| serde_json::from_value::<Vec<Message>>(cell(name)?.clone()).ok();
    let mut seen = BTreeSet::new();
    let text = |columns: &SideColumns| {
        Some(Text {
            role: columns.role,
            side: Side { prompt_id: id(columns.prompt_id)?, response_id: id(columns.response_id)? },
            prompt: messages(columns.prompt)?,
            response: messages(columns.response)?,
        })
    };
    SIDES.iter().filter_map(text).filter(|text| seen.insert(text.role)).collect()
}
