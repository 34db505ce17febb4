//! The stage end to end on tables made here.

use harness::Place;
use kit::rows::{ResultRow, SummaryRow};
use kit::{Error, Stage};
use serde_json::{Value, json};
use summarize::Summarize;

/// utility by (objective, beta, seed): on development data, on test data.
fn dev(objective: &str, beta: f64, seed: u32) -> f64 {
    let best = if objective == "gdpo" { 0.3 } else { 0.1 };
    1.0 - (beta - best).abs() + f64::from(seed) / 100.0
}

fn test(objective: &str, beta: f64, seed: u32) -> f64 {
    let gain = if objective == "gdpo" { 0.05 + 0.01 * f64::from(seed % 2) } else { 0.0 };
    dev(objective, beta, seed) - 0.5 + gain
}

fn figure(metric: &str, value: f64) -> SummaryRow {
    SummaryRow { metric: metric.to_owned(), value, low: None, high: None, rows: 10, note: String::new() }
}

struct Grid {
    place: Place,
    labels: Vec<Value>,
}

/// All combinations, each with a table of development figures and, in a second sweep, one of test figures.
fn grid(seeds: &[u32]) -> Grid {
    let mut grid = Grid { place: Place::new(), labels: Vec::new() };
    for metric in ["utility/dev", "utility/test"] {
        for objective in ["dpo", "gdpo"] {
            for beta in [0.1, 0.3] {
                for &seed in seeds {
                    let value = if metric == "utility/dev" { dev } else { test }(objective, beta, seed);
                    grid.place = grid.place.table("from", vec![figure(metric, value), figure("other", 1.0)]);
                    let labels = json!({"objective": objective, "beta": beta.to_string(), "seed": seed.to_string()});
                    grid.labels.push(labels);
                }
            }
        }
    }
    grid
}

fn stage(labels: &[Value], settings: Value) -> Summarize {
    let from: Vec<String> = (0..labels.len()).map(|index| format!("t{index}")).collect();
    let all =
        json!({"from": from, "labels": labels, "over": "seed", "compare": "objective", "metrics": ["utility/test"]});
    serde_json::from_value(harness::with(all, &settings)).unwrap()
}

fn run(grid: &Grid, settings: Value) -> kit::Result<Vec<ResultRow>> {
    let stage = stage(&grid.labels, settings);
    grid.place.stage("out", &stage)?;
    Ok(grid.place.rows("out/results"))
}

#[test]
fn the_best_setting_is_chosen_on_one_figure_and_compared_by_another_seed_by_seed() {
    let grid = grid(&[1, 2, 3, 4]);
    let choose = json!({"choose": {"metric": "utility/dev", "best": "highest"}, "against": ["dpo"]});
    let rows = run(&grid, choose).unwrap();
    let part = |part: &str| rows.iter().filter(|row| row.part == part).collect::<Vec<_>>();
    // Two objectives, two betas, two figures.
    assert_eq!(part("mean").len(), 8);
    let best: Vec<_> = part("best").iter().map(|row| (row.group.as_str(), row.setting.as_str(), row.runs)).collect();
    assert_eq!(best, [("dpo", "beta=0.1", 4), ("gdpo", "beta=0.3", 4)]);
    let difference = part("difference")[0];
    assert_eq!((difference.group.as_str(), difference.against.as_deref()), ("gdpo", Some("dpo")));
    // Differences by seed: 0.06, 0.05, 0.06, 0.05; mean 0.055, standard error 0.0028868, half 3.182446 times that.
    assert!((difference.value - 0.055).abs() < 1e-12, "{difference:?}");
    assert!((difference.low.unwrap() - (0.055 - 0.009_187)).abs() < 1e-5, "{difference:?}");
    assert!(difference.p_value.unwrap() < 1e-3 && difference.note.contains("dpo at beta=0.1"), "{difference:?}");
    assert_eq!(difference.values.len(), 4);
    // The lowest instead: the other beta of each.
    let choose = json!({"choose": {"metric": "utility/dev", "best": "lowest"}});
    let rows = run(&grid, choose).unwrap();
    let best: Vec<_> = rows.iter().filter(|row| row.part == "best").map(|row| row.setting.as_str()).collect();
    assert_eq!(best, ["beta=0.3", "beta=0.1"]);
}

#[test]
fn people_get_a_page_a_file_for_their_tool_and_a_picture() {
    let grid = grid(&[1, 2, 3, 4]);
    let rows = run(&grid, json!({"choose": {"metric": "utility/dev", "best": "highest"}, "against": ["dpo"]})).unwrap();
    let text = |name: &str| std::fs::read_to_string(grid.place.folder.path().join("out/pages").join(name)).unwrap();
    let wanted = "\
### utility/test

| objective | setting | mean | 95 % interval | runs |
| --- | --- | --- | --- | --- |
| dpo | beta=0.1 | 0.5250 | [0.5045, 0.5455] | 4 |
| gdpo | beta=0.3 | 0.5800 | [0.5616, 0.5984] | 4 |

| difference | mean | 95 % interval | p (paired t) | runs |
| --- | --- | --- | --- | --- |
| gdpo - dpo | +0.0550 | [0.0458, 0.0642] | < 0.001 | 4 |

";
    assert_eq!(text("results.md"), wanted);
    let csv = text("results.csv");
    assert_eq!(csv.lines().count(), 1 + rows.len());
    assert!(csv.contains("best,,utility/test,gdpo,beta=0.3,,0.58"), "{csv}");
    let svg = text("utility_test.svg");
    // Two means and a difference, each with its interval and its four runs.
    assert_eq!(svg.matches("class=\"bar\"").count(), 3);
    assert_eq!(svg.matches("class=\"run\"").count(), 12);
    assert!(svg.contains(">gdpo - dpo</text>") && svg.ends_with("</svg>\n"), "{svg}");
}

#[test]
fn without_a_choice_settings_are_compared_at_the_same_other_labels() {
    let grid = grid(&[1, 2]);
    let rows = run(&grid, json!({"against": ["dpo"]})).unwrap();
    let differences: Vec<_> = rows.iter().filter(|row| row.part == "difference").collect();
    assert_eq!(differences.iter().map(|row| row.block.as_str()).collect::<Vec<_>>(), ["beta=0.1", "beta=0.3"]);
    assert!((differences[0].value - (0.055 - 0.2)).abs() < 1e-12, "{:?}", differences[0]);
    assert!(rows.iter().all(|row| row.part != "best"));
}

#[test]
fn what_does_not_fit_is_said() {
    let grid = grid(&[1]);
    let rows = run(&grid, json!({})).unwrap();
    assert!(rows.iter().all(|row| row.low.is_none()), "one run has no interval");
    let error = run(&grid, json!({"metrics": ["utility/tset"]})).unwrap_err();
    assert!(
        matches!(&error, Error::Pipeline(text) if text.contains("`other`, `utility/dev`, `utility/test`")),
        "{error}"
    );
    let mut twice = Grid { place: grid.place, labels: grid.labels };
    twice.labels[1] = twice.labels[0].clone();
    let error = run(&twice, json!({"metrics": ["utility/dev"]})).unwrap_err().to_string();
    assert!(error.contains("a second value of `utility/dev`"), "{error}");
    let findings = stage(&twice.labels, json!({"over": "sed", "against": ["kto"], "metrics": []})).check();
    let texts: Vec<_> = findings.iter().map(|finding| (finding.path.join("."), finding.text.as_str())).collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert!(texts[1].1.contains("no label `sed`; the tables have `beta`, `objective`, `seed`"), "{texts:?}");
}

#[test]
fn the_output_is_what_the_version_says() {
    let grid = grid(&[1, 2, 3]);
    let settings = json!({"choose": {"metric": "utility/dev", "best": "highest"}, "against": ["dpo"]});
    let rows = run(&grid, settings.clone()).unwrap();
    let lines = rows.iter().map(|row| {
        let p = row.p_value.map(|p| format!("{p:.6}")).unwrap_or_default();
        let low = row.low.map(|low| format!("{low:.6}")).unwrap_or_default();
        format!("{} {} {} {} {:.6} {low} {p} {}", row.part, row.metric, row.group, row.setting, row.value, row.note)
    });
    harness::check_golden(&stage(&grid.labels, settings), lines, "1", "49ca20286ee6");
}
