//! Models that stages name, looked at before anything runs: a judge of hours may stand before one that cannot be used.

use kit::Table;

use crate::error::{Error, Result};
use crate::pipeline::graph::{Graph, Origin};
use crate::pipeline::problem::{Fault, Problem};

/// Checks the models that some stages read and that are there: everything but their weights. Gives what is not wrong
/// and hardly meant.
///
/// # Errors
/// All that these stages would stop at, sorted by place.
pub fn check(graph: &Graph, wanted: impl Fn(usize) -> bool) -> Result<Vec<Problem>> {
    let (mut problems, mut remarks) = (Vec::new(), graph.remarks.clone());
    for (stage, node) in graph.nodes.iter().enumerate().filter(|(stage, _)| wanted(*stage)) {
        for edge in node.inputs.iter().filter(|edge| edge.idle.is_none()) {
            for origin in &edge.sources {
                let Origin::Path { path, table: Table::Model } = origin else { continue };
                let problem =
                    |text, fault| Problem { at: edge.at.clone(), stage: Some(node.name.clone()), text, fault };
                match node.stage.check_model(edge.key, path) {
                    Ok(None) => {}
                    Ok(Some(text)) if reads_conversations(graph, stage) => problems.push(problem(text, Fault::Data)),
                    Ok(Some(text)) => remarks.push(problem(text, Fault::Data)),
                    Err(error) => {
                        // The pipeline names it rightly, whatever is wrong with it.
                        let fault = Fault::of(&error);
                        let fault = if fault == Fault::System { fault } else { Fault::Data };
                        problems.push(problem(error.to_string(), fault));
                    }
                }
            }
        }
    }
    remarks.sort();
    remarks.dedup();
    problems.sort();
    problems.dedup();
    match problems.is_empty() {
        true => Ok(remarks),
        false => Err(Error::Problems { file: graph.file.clone(), problems }),
    }
}

/// True where data that a stage reads, also by way of other stages, are read as conversations because of their `form`.
fn reads_conversations(graph: &Graph, stage: usize) -> bool {
    let mut seen = vec![false; graph.nodes.len()];
    let mut waiting = vec![stage];
    while let Some(stage) = waiting.pop() {
        if std::mem::replace(&mut seen[stage], true) {
            continue;
        }
        let node = &graph.nodes[stage];
        if node.kind == "ingest" && node.settings["form"] == "chat" {
            return true;
        }
        // The training data of a model does not matter here.
        let tables = node.inputs.iter().filter(|edge| edge.idle.is_none()).flat_map(|edge| &edge.sources);
        waiting.extend(tables.filter_map(|origin| match origin {
            Origin::Port { table: Table::Model, .. } => None,
            Origin::Port { stage, .. } => Some(*stage),
            _ => None,
        }));
    }
    false
}
