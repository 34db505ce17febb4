//! `plan --rows`: what a run over so many rows needs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::engine::forecast::Forecaster;
use crate::engine::growth::{Grown, Growth, Pace};
use crate::engine::machine;
use crate::engine::plan::{Planned, Planner};
use crate::error::{Error, Result};
use crate::pipeline::graph::Graph;
use crate::progress::aligned;
use crate::streams::print;
use crate::units::{grouped, size, spoken};

/// The most rows: up to here a float holds every number.
const MOST: f64 = 9_007_199_254_740_992.0;

/// Reads a number of rows such as `1000000` or `1e9`.
pub fn rows(text: &str) -> std::result::Result<u64, String> {
    let number: f64 = text.parse().map_err(|_| format!("`{text}` is no number of rows, such as 1e9"))?;
    match number.fract() == 0.0 && (1.0..=MOST).contains(&number) {
        true => Ok(number as u64),
        false => Err(format!("`{text}`: wanted a whole number from 1 to 2^53")),
    }
}

/// Prints what a run over so many rows needs.
pub fn grow(
    planner: &Planner<'_>,
    planned: &[Planned],
    forecaster: &mut Forecaster<'_>,
    rows: u64,
    as_json: bool,
) -> Result<()> {
    let growth = Growth::of(planner, planned, forecaster, rows)?;
    if growth.known_rows == 0 {
        let text = "--rows: how many rows the sources read now is unknown, so nothing can be scaled: run a part first";
        return Err(Error::Usage(text.to_owned()));
    }
    print(&if as_json { in_json(planner.graph, &growth) } else { text(planner.graph, &growth) })
}

/// Hours of threads of this machine and of GPUs, as far as times are known.
struct Hours {
    gpu: Option<f64>,
    cpu: Option<f64>,
}

fn threads() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |threads| threads.get() as f64)
}

fn hours(growth: &Growth) -> Hours {
    let of = |gpu: bool| {
        let stages = growth.stages.iter().flatten().filter(|stage| stage.device.starts_with("cuda") == gpu);
        let times = stages.filter_map(|stage| stage.time);
        times.map(|time| time.as_secs_f64() / 3600.0).reduce(|sum, hours| sum + hours)
    };
    Hours { gpu: of(true), cpu: of(false).map(|hours| hours * threads()) }
}

fn assumptions(growth: &Growth, graph: &Graph) -> Vec<String> {
    let mut lines = vec![format!(
        "rows: {} of the sources now, {} then; each stage keeps the part of its rows that it kept before, and texts are \
         as long",
        grouped(growth.known_rows, ' '),
        grouped(growth.rows, ' ')
    )];
    let names = |wanted: fn(&Pace) -> bool| {
        let stages = growth.stages.iter().enumerate();
        let named = stages.filter(|(_, stage)| stage.as_ref().is_some_and(|stage| wanted(&stage.pace)));
        let mut groups: BTreeMap<&str, ()> = BTreeMap::new();
        named.for_each(|(stage, _)| {
            let node = &graph.nodes[stage];
            groups.insert(node.group.as_ref().map_or(&node.name, |group| &group.name), ());
        });
        groups.into_keys().map(str::to_owned).collect::<Vec<_>>().join(", ")
    };
    let measured = names(|pace| matches!(pace, Pace::Measured { .. }));
    if !measured.is_empty() {
        let text = "at the pace of the newest run that computed it; a small run overstates it, since it starts too";
        lines.push(format!("time of {measured}: {text}"));
    }
    let arithmetic = names(|pace| matches!(pace, Pace::Arithmetic));
    if !arithmetic.is_empty() {
        lines.push(format!("time of {arithmetic}: by arithmetic, from the speed of this machine; no run is known"));
    }
    let unknown = names(|pace| matches!(pace, Pace::Unknown));
    if !unknown.is_empty() {
        lines.push(format!("time of {unknown}: unknown; a run over a part of the rows tells it"));
    }
    lines.push(format!("CPU-hours: the time of a stage on this machine, times its {} threads", threads()));
    lines.push(
        "memory: of models, and of what a stage holds of all its rows: ids, labels and vectors, no texts".to_owned(),
    );
    lines
}

fn text(graph: &Graph, growth: &Growth) -> String {
    let titles = ["stage", "kind", "rows", "shards", "bytes", "memory", "time", "pace"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for &stage in &graph.order {
        let (node, Some(grown)) = (&graph.nodes[stage], &growth.stages[stage]) else { continue };
        let pace = match &grown.pace {
            Pace::Measured { run, rows, seconds } => format!("run {run}: {rows} rows in {seconds:.1} s"),
            Pace::Arithmetic => "arithmetic".to_owned(),
            Pace::Unknown => "unknown".to_owned(),
        };
        let place = if grown.device == "cpu" { String::new() } else { format!(" on {}", grown.device) };
        rows.push(vec![
            node.name.clone(),
            node.kind.to_owned(),
            grouped(grown.rows.value, ' '),
            grouped(grown.shards, ' '),
            grown.bytes.map(size).unwrap_or_default(),
            grown.memory.map(size).unwrap_or_default(),
            grown.time.map(|time| format!("{}{place}", spoken(time))).unwrap_or_default(),
            pace,
        ]);
    }
    let hours = hours(growth);
    let mut all = Vec::new();
    all.extend(hours.gpu.map(|hours| format!("{hours:.1} GPU-hours")));
    all.extend(hours.cpu.map(|hours| format!("{hours:.1} CPU-hours")));
    let bytes = growth.stages.iter().flatten().filter_map(|stage| stage.bytes).reduce(u64::saturating_add);
    all.extend(bytes.map(|bytes| format!("{} of tables before compression", size(bytes))));
    let memory = growth.stages.iter().flatten().filter_map(|stage| stage.memory).max();
    all.extend(memory.map(|memory| format!("at most {} of memory for a stage", size(memory))));
    all.extend(machine::memory().map(|memory| format!("this machine has {}", size(memory))));
    let lines: String = assumptions(growth, graph).iter().map(|line| format!("{line}\n")).collect();
    format!("{}in all: {}\n{lines}", aligned(&rows, &[2, 3, 4, 5]), all.join(", "))
}

fn in_json(graph: &Graph, growth: &Growth) -> String {
    let stage = |stage: &usize| {
        let grown = growth.stages[*stage].as_ref()?;
        let node = &graph.nodes[*stage];
        Some(of_stage(&node.name, node.kind, grown))
    };
    let hours = hours(growth);
    let bytes = growth.stages.iter().flatten().filter_map(|stage| stage.bytes).reduce(u64::saturating_add);
    let value = json!({
        "pipeline": graph.name, "rows": growth.rows, "known_rows": growth.known_rows,
        "stages": graph.order.iter().filter_map(stage).collect::<Vec<_>>(),
        "total": {
            "gpu_hours": hours.gpu, "cpu_hours": hours.cpu, "threads": threads(), "bytes": bytes,
            "memory": growth.stages.iter().flatten().filter_map(|stage| stage.memory).max(),
            "assumptions": assumptions(growth, graph),
        },
    });
    format!("{value}\n")
}

fn of_stage(name: &str, kind: &str, grown: &Grown) -> Value {
    let pace = match &grown.pace {
        Pace::Measured { run, rows, seconds } => {
            json!({"from": "measured", "run": run, "rows": rows, "seconds": seconds})
        }
        Pace::Arithmetic => json!({"from": "arithmetic"}),
        Pace::Unknown => json!({"from": "unknown"}),
    };
    json!({
        "stage": name, "kind": kind, "rows": grown.rows, "tokens": grown.tokens, "bytes": grown.bytes,
        "shards": grown.shards, "memory": grown.memory, "device": grown.device,
        "seconds": grown.time.map(|time| time.as_secs_f64()), "pace": pace,
    })
}

#[cfg(test)]
mod tests {
    use super::rows;

    #[test]
    fn numbers_of_rows() {
        assert_eq!((rows("1e9"), rows("300"), rows("2.5e3")), (Ok(1_000_000_000), Ok(300), Ok(2500)));
        for text in ["", "x", "0", "-3", "1.5", "1e30", "nan", "inf"] {
            assert!(rows(text).is_err(), "{text}");
        }
    }
}
