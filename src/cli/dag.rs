//! `dag`: a pipeline as a picture, with the state of each stage and the reason.

use std::path::Path;

use clap::Args;
use clap::ValueEnum;
use kit::Interrupt;

use super::file::{PipelineFile, load, store_of};
use super::shown::{Shown, sentences, shown};
use crate::engine::plan::{Decision, Planner, Selection};
use crate::error::Result;
use crate::look::draw::boxes;
use crate::pipeline::graph::{Graph, Origin};
use crate::store::{Access, Records, StageState};
use crate::streams::print;

#[derive(Debug, Args)]
pub struct Dag {
    #[command(flatten)]
    pub file: PipelineFile,
    /// Format of the drawing
    #[arg(long, value_enum, default_value_t = DagForm::Ascii)]
    pub format: DagForm,
}

/// Format of a drawn graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DagForm {
    /// Boxes and lines
    Ascii,
    /// For Markdown
    Mermaid,
    /// For Graphviz
    Dot,
}

/// The longest line in a box.
const WIDTH: usize = 34;

/// A connection: from, to, the port or table it carries, and whether nobody reads it.
#[derive(PartialEq)]
struct Link {
    from: usize,
    to: usize,
    port: String,
    idle: Option<String>,
}

/// Draws a pipeline.
pub fn dag(work: &Path, args: Dag) -> Result<()> {
    let graph = load(&args.file)?;
    let store = store_of(work, &graph, Access::Look, &Interrupt::default())?;
    let records = Records::new(work);
    let planned = Planner::new(&graph, &store, &records, None)?.plan(&Selection::default())?;
    let latest = records.latest(&graph.name)?.filter(|record| records.alive(&graph.name, record.run));
    let state_of = |stage: usize| {
        let (node, plan) = (&graph.nodes[stage], &planned[stage]);
        let now = latest.as_ref().and_then(|record| Some(record.stages.get(&node.name)?.state));
        match (now, &plan.decision) {
            (Some(StageState::Running), _) => ("running", "running".to_owned()),
            (_, Decision::Reuse(manifest)) => ("reuse", format!("reuse, {} rows", manifest.rows(&node.outputs))),
            (_, Decision::Fetch(manifest)) => {
                ("reuse", format!("reuse (remote), {} rows", manifest.rows(&node.outputs)))
            }
            (_, Decision::Skip(_)) => ("skip", plan.decision.sentence()),
            (_, Decision::Run(_)) => ("run", plan.decision.sentence()),
            _ => ("depends", sentences(&graph, [&plan.decision])),
        }
    };
    let nodes = shown(&graph, 0..graph.nodes.len());
    let states: Vec<(&str, String)> = nodes
        .iter()
        .map(|node| match node.members[..] {
            [one] => state_of(one),
            _ => {
                // The state that says most about what is still to be done stands for all.
                let states: Vec<&str> = node.members.iter().map(|stage| state_of(*stage).0).collect();
                let order = ["running", "run", "depends", "reuse", "skip"];
                let class = *order.iter().find(|class| states.contains(class)).expect("each has a state");
                (class, sentences(&graph, node.members.iter().map(|stage| &planned[*stage].decision)))
            }
        })
        .collect();
    let links = links(&graph, &nodes);
    print(&match args.format {
        DagForm::Ascii => ascii(&nodes, &states, &links),
        DagForm::Mermaid => mermaid(&nodes, &states, &links),
        DagForm::Dot => dot(&graph.name, &nodes, &states, &links),
    })
}

fn links(graph: &Graph, nodes: &[Shown]) -> Vec<Link> {
    let mut place = vec![0; graph.nodes.len()];
    for (number, node) in nodes.iter().enumerate() {
        node.members.iter().for_each(|stage| place[*stage] = number);
    }
    let mut links: Vec<Link> = Vec::new();
    for (to, node) in graph.nodes.iter().enumerate() {
        for edge in &node.inputs {
            for origin in &edge.sources {
                if let Origin::Port { stage, port, .. } = origin {
                    let link = Link { from: place[*stage], to: place[to], port: port.clone(), idle: edge.idle.clone() };
                    if !links.contains(&link) {
                        links.push(link);
                    }
                }
            }
        }
    }
    links
}

fn ascii(nodes: &[Shown], states: &[(&str, String)], links: &[Link]) -> String {
    let label = |(node, (_, state)): (&Shown, &(&str, String))| {
        let title = if node.name == node.kind { node.name.clone() } else { format!("{} ({})", node.name, node.kind) };
        let mut lines = vec![title];
        lines.extend(node.axes.clone());
        lines.extend(wrapped(state));
        lines
    };
    let labels: Vec<Vec<String>> = nodes.iter().zip(states).map(label).collect();
    let read: Vec<(usize, usize)> =
        links.iter().filter(|link| link.idle.is_none()).map(|link| (link.from, link.to)).collect();
    let mut text = boxes(&labels, &read);
    for link in links {
        if let Some(why) = &link.idle {
            let (from, to) = (&nodes[link.from].name, &nodes[link.to].name);
            text.push_str(&format!("idle: {from}.{} -> {to}: {why}\n", link.port));
        }
    }
    text
}

/// At most three lines of a box's width.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a first line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= WIDTH {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    if lines.len() > 3 {
        lines.truncate(3);
        lines[2].push_str(" ...");
    }
    lines
}

fn mermaid(nodes: &[Shown], states: &[(&str, String)], links: &[Link]) -> String {
    let mut text = "flowchart TD\n".to_owned();
    for (number, (node, (class, state))) in nodes.iter().zip(states).enumerate() {
        let state = state.replace('"', "#quot;").replace('`', "");
        text.push_str(&format!("  s{number}[\"<b>{}</b><br/>{}<br/>{state}\"]:::{class}\n", node.title(), node.kind));
    }
    for link in links {
        let arrow = if link.idle.is_some() { "-.->" } else { "-->" };
        text.push_str(&format!("  s{} {arrow}|{}| s{}\n", link.from, link.port, link.to));
    }
    for (class, colour) in COLOURS {
        text.push_str(&format!("  classDef {class} fill:{colour},stroke:#555,color:#111\n"));
    }
    text
}

const COLOURS: [(&str, &str); 5] =
    [("reuse", "#e4e4e4"), ("run", "#ffe0a3"), ("depends", "#fff4d6"), ("skip", "#ffffff"), ("running", "#b8e0b8")];

fn dot(name: &str, nodes: &[Shown], states: &[(&str, String)], links: &[Link]) -> String {
    let mut text =
        format!("digraph \"{}\" {{\n  node [shape=box, style=\"filled,rounded\", fontname=\"sans-serif\"];\n", name);
    for (number, (node, (class, state))) in nodes.iter().zip(states).enumerate() {
        let colour = COLOURS.iter().find(|(name, _)| name == class).map_or("#ffffff", |(_, colour)| colour);
        let state = state.replace('\\', "\\\\").replace('"', "\\\"");
        text.push_str(&format!(
            "  s{number} [label=\"{}\\n{}\\n{state}\", fillcolor=\"{colour}\"];\n",
            node.title(),
            node.kind
        ));
    }
    for link in links {
        let style = if link.idle.is_some() { ", style=dashed" } else { "" };
        text.push_str(&format!("  s{} -> s{} [label=\"{}\"{style}];\n", link.from, link.to, link.port));
    }
    text + "}\n"
}
