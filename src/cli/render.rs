//! `render`: the tokens that a stage will feed its model.

use std::io::IsTerminal;
use std::path::Path;

use clap::Args;
use kit::{Context, ForecastInputs, Interrupt, Rendering, Seed};
use serde_json::json;

use super::file::{PipelineFile, load, one};
use crate::engine::inputs::Missing;
use crate::engine::plan::{Planner, Selection};
use crate::error::{Error, Result};
use crate::store::{Records, Store};
use crate::streams::visible;
use crate::streams::{print, print_coloured};

#[derive(Debug, Args)]
pub struct Render {
    #[command(flatten)]
    pub file: PipelineFile,
    /// A stage that feeds a model: judge, train, reference, sample
    pub stage: String,
    /// Rows of its input to show, from the first on
    #[arg(short = 'n', long, default_value_t = 2)]
    pub rows: usize,
    /// Texts with token ids as JSON
    #[arg(long)]
    pub json: bool,
}

/// Shows the first rows of a stage as its model will see them.
pub fn render(work: &Path, args: Render) -> Result<()> {
    let graph = load(&args.file)?;
    let (store, records) = (Store::open(work), Records::new(work));
    let planner = Planner::new(&graph, &store, &records, None)?;
    let stage = one(&graph, &args.stage)?;
    let node = &graph.nodes[stage];
    let keys = node.stage.rendered_inputs();
    if keys.is_empty() {
        let able: Vec<&str> = graph
            .nodes
            .iter()
            .filter(|node| !node.stage.rendered_inputs().is_empty())
            .map(|node| node.name.as_str())
            .collect();
        let able = if able.is_empty() { "none here does".to_owned() } else { able.join(", ") };
        return Err(Error::Usage(format!(
            "`{}` ({}) feeds nothing to a model that could be shown; stages that do: {able}",
            node.name, node.kind
        )));
    }
    let planned = planner.plan(&Selection { until: Some(node.name.clone()), ..Selection::default() })?;
    let inputs =
        planner.inputs.some_sources(stage, keys, &|stage| planned[stage].decision.manifest())?.map_err(|missing| {
            let lines: Vec<String> = missing.iter().map(|missing| first(&args, missing)).collect();
            Error::Usage(format!("`{}` reads what is not there yet\n{}", node.name, lines.join("\n")))
        })?;
    let silent = |_: kit::Event| {};
    let context = Context {
        seed: Seed(node.seed.unwrap_or_default()),
        device: "cpu",
        folder: &work.join("render"),
        inputs,
        events: &silent,
        interrupt: Interrupt::default(),
    };
    let failed = |source| Error::Stage { stage: node.name.clone(), source };
    let renderings = node.stage.render(&context, args.rows).map_err(failed)?;
    if args.json {
        let shown = json!({"pipeline": graph.name, "stage": node.name, "kind": node.kind, "rows": renderings});
        return print(&format!("{shown}\n"));
    }
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut text: String = renderings.iter().map(|rendering| shown(rendering, colour)).collect();
    if renderings.is_empty() {
        text.push_str("no rows\n");
    }
    // The whole input, where a forecast needs nothing that is missing.
    let count = |context: &Context<'_>| node.stage.forecast(&ForecastInputs::of(context));
    let counted = planner.surroundings(stage, &planned, "cpu", count).and_then(|outlook| outlook.ok()?.forecast);
    if let Some(forecast) = counted {
        text.push_str(&format!("all of it: {}\n", super::forecasts::Sum::of(&forecast, None).words()));
    }
    print_coloured(&text)
}

/// The command to run first for a missing input.
fn first(args: &Render, missing: &Missing) -> String {
    let file = args.file.pipeline.display();
    let sets: String = args.file.set.iter().map(|set| format!(" --set '{set}'")).collect();
    match missing {
        Missing::Stage(stage) => {
            format!("stage `{stage}` has no result that fits: `halftone run {file} --until {stage}{sets}`")
        }
        Missing::Model(name) => format!("the model `{name}` is not here: a run of the stage fetches it"),
    }
}

/// A rendering with its mask: what comes before is dim, what is scored coloured; without colour `[` and `]` around it.
fn shown(rendering: &Rendering, colour: bool) -> String {
    let mut text = format!("--- {}\n", visible(&rendering.title));
    for piece in &rendering.pieces {
        let (open, close) = match (piece.scored, colour) {
            (true, true) => ("\u{1b}[32m", "\u{1b}[0m"),
            (false, true) => ("\u{1b}[2m", "\u{1b}[0m"),
            (true, false) => ("[", "]"),
            (false, false) => ("", ""),
        };
        text.push_str(&format!("{open}{}{close}", visible(&piece.text)));
    }
    if !rendering.pieces.is_empty() {
        text.push('\n');
    }
    rendering.facts.iter().for_each(|fact| text.push_str(&format!("  {}\n", visible(fact))));
    let (red, plain) = if colour { ("\u{1b}[31m", "\u{1b}[0m") } else { ("", "") };
    rendering
        .warnings
        .iter()
        .for_each(|warning| text.push_str(&format!("  {red}warning{plain}: {}\n", visible(warning))));
    text + "\n"
}

#[cfg(test)]
mod tests {
    use kit::Piece;

    use super::*;

    fn rendering() -> Rendering {
        let piece = |text: &str, ids: &[u32], scored| Piece { text: text.to_owned(), ids: ids.to_vec(), scored };
        Rendering {
            title: "pair x".to_owned(),
            pieces: vec![piece("<s><s>ask", &[1, 1, 5], false), piece(" answer", &[6], true)],
            facts: vec!["4 tokens: 3 before, 1 scored".to_owned()],
            warnings: vec!["2 BOS tokens".to_owned()],
        }
    }

    #[test]
    fn the_mask_is_seen_with_and_without_colour() {
        let plain = shown(&rendering(), false);
        assert!(plain.starts_with("--- pair x\n<s><s>ask[ answer]\n  4 tokens: 3 before, 1 scored\n"), "{plain}");
        assert!(plain.contains("  warning: 2 BOS tokens\n"), "{plain}");
        let colour = shown(&rendering(), true);
        assert!(colour.contains("\u{1b}[2m<s><s>ask\u{1b}[0m\u{1b}[32m answer\u{1b}[0m"), "{colour:?}");
    }
}
