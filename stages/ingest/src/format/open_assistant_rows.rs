//! Messages of Open Assistant, one a row: the tables on the hub and the files `*.messages.jsonl.gz`.
//!
//! A row says the comparisons of its message with the ranked replies to the same message that stand before it. Other
//! rows are in the prompts of those, or are left out.

use std::collections::HashMap;

use kit::Message;

use super::open_assistant::{compared, said};
use super::{Known, Part};
use crate::bad_row::BadRow;
use crate::column::Column::{MessageId, Model, ParentId, Rank, Role, Text};
use crate::record::{Record, Side};
use crate::row::Row;
use crate::tables::comparisons;

pub const FORMAT: Known = Known {
    // The first rows may all begin a conversation, without a parent.
    detect: |head| {
        let parents = || head.all_names().iter().any(|name| ParentId.names().contains(name));
        head.has(&[MessageId, Text, Role]) && (head.has(&[ParentId]) || parents())
    },
    needs: &[MessageId, ParentId, Text, Role, Rank],
    reads: &[MessageId, ParentId, Text, Role, Rank, Model],
    aside: &["labels"],
    tables: |_| comparisons(true),
    join: Some(join),
    ..Known::NONE
};

/// A message and where it stands.
struct Node {
    id: String,
    parent: Option<String>,
    message: Message,
    rank: Option<f64>,
    model: Option<String>,
}

fn join(rows: &mut [Row<'_>]) -> Vec<Result<Part, BadRow>> {
    let nodes: Vec<Result<Node, BadRow>> = rows.iter_mut().map(node).collect();
    let mut by_id: HashMap<&str, usize> = HashMap::new();
    for (at, node) in nodes.iter().enumerate() {
        if let Ok(node) = node {
            by_id.entry(&node.id).or_insert(at);
        }
    }
    let (mut siblings, mut used): (HashMap<&str, Vec<usize>>, _) = (HashMap::new(), vec![false; nodes.len()]);
    let said: Vec<Result<Vec<Record>, BadRow>> = (0..nodes.len())
        .map(|at| {
            let node = nodes[at].as_ref().map_err(Clone::clone)?;
            if by_id[&*node.id] != at {
                return Err(repeated(&nodes, by_id[&*node.id], node));
            }
            let above = ancestors(&nodes, &by_id, node)?;
            let (Some(parent), Some(rank), "assistant") = (&node.parent, node.rank, &*node.message.role) else {
                return Ok(Vec::new());
            };
            let prompt: Vec<Message> = above.iter().rev().map(|at| message(&nodes, *at).clone()).collect();
            let before = siblings.entry(parent).or_default();
            let records = before.iter().map(|other| {
                let of_other = nodes[*other].as_ref().expect("a sibling was read");
                let ranks = [of_other.rank.expect("a sibling has a rank"), rank];
                compared([side(of_other, &prompt), side(node, &prompt)], ranks)
            });
            let records: Vec<Record> = records.collect();
            if !before.is_empty() {
                before.iter().chain(&above).chain([&at]).for_each(|at| used[*at] = true);
            }
            before.push(at);
            Ok(records)
        })
        .collect();
    let part = |(said, used): (Result<Vec<Record>, BadRow>, bool)| match said {
        Err(bad) => Err(bad),
        Ok(records) if !records.is_empty() => Ok(Part::Says(records)),
        Ok(_) if used => Ok(Part::Elsewhere),
        Ok(_) => {
            let detail = "it is in no comparison: two replies to one message with a rank make one";
            Ok(Part::LeftOut(BadRow::new("nothing_to_compare", detail)))
        }
    };
    said.into_iter().zip(used).map(part).collect()
}

fn node(row: &mut Row<'_>) -> Result<Node, BadRow> {
    let text = row.text(Text)?.ok_or_else(|| row.missing(Text))?;
    let role = row.text(Role)?.ok_or_else(|| row.missing(Role))?;
    Ok(Node {
        id: row.id(MessageId)?.ok_or_else(|| row.missing(MessageId))?,
        parent: row.id(ParentId)?,
        message: said(&role, text),
        rank: row.number(Rank)?,
        model: row.text(Model)?,
    })
}

fn message(nodes: &[Result<Node, BadRow>], at: usize) -> &Message {
    &nodes[at].as_ref().expect("what is above a message was read").message
}

/// The messages above one, the nearest first.
fn ancestors(nodes: &[Result<Node, BadRow>], by_id: &HashMap<&str, usize>, node: &Node) -> Result<Vec<usize>, BadRow> {
    let (mut above, mut here) = (Vec::new(), node);
    while let Some(parent) = &here.parent {
        let Some(&at) = by_id.get(parent.as_str()) else {
            let detail = format!("message `{parent}` above it is not in the files, or cannot be read");
            return Err(BadRow::new("missing_parent", detail));
        };
        if above.len() == nodes.len() {
            return Err(BadRow::new("circle", "the messages above it lead back to one of them"));
        }
        above.push(at);
        here = nodes[at].as_ref().expect("only messages that were read have a number");
    }
    Ok(above)
}

fn side(node: &Node, prompt: &[Message]) -> Side {
    Side {
        prompt: prompt.to_vec(),
        prompt_id: None,
        response: vec![node.message.clone()],
        response_id: Some(node.id.clone()),
        score: None,
        model: node.model.clone(),
    }
}

/// The fault of a message whose id was there before.
fn repeated(nodes: &[Result<Node, BadRow>], first: usize, node: &Node) -> BadRow {
    let earlier = nodes[first].as_ref().expect("only messages that were read have a number");
    let same = (&earlier.parent, &earlier.message, earlier.rank) == (&node.parent, &node.message, node.rank);
    let (reason, what) = if same { ("duplicate", "the same message") } else { ("id_conflict", "another message") };
    BadRow::new(reason, format!("message id `{}` stands for {what} in an earlier row", node.id))
}
