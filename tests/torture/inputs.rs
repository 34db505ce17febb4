//! Inputs that are nearly right: files of each reader, mutated.

use std::path::Path;

use harness::mutations::mutated;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::place::{Place, TOO_LONG};
use crate::table::Table;

/// Address space of a reader, KiB. Readers of small files need little of it.
const SPACE: usize = 6 << 20;

/// A reader with a good file.
struct Reader {
    name: &'static str,
    place: Place,
    file: &'static str,
    /// The command after `halftone`.
    command: &'static str,
}

struct Mutated<'r> {
    reader: &'r Reader,
    seed: u64,
}

fn readers() -> Vec<Reader> {
    let mut readers = Vec::new();
    let mut add = |name, place: &Place, file, command| {
        readers.push(Reader { name, place: place.copy(), file, command });
    };
    let tables = Place::tables();
    let run = "run pipeline.yaml --device cpu";
    add("JSON Lines", &tables, "data.jsonl", run);
    add("pipeline file", &tables, "pipeline.yaml", run);
    let rows: Vec<String> =
        std::fs::read_to_string(tables.path("data.jsonl")).unwrap().lines().map(str::to_owned).collect();
    let mut csv = "prompt,chosen,rejected,p_hat\n".to_owned();
    for row in rows.iter().take(40) {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        csv.push_str(&format!(
            "{},\"{} \"\"x\"\"\",{},{}\n",
            row["prompt"],
            row["chosen"].as_str().unwrap(),
            row["rejected"],
            row["p_hat"]
        ));
    }
    tables.write("data.csv", &csv);
    tables.write("csv.yaml", "name: csv\nstages:\n  data: {kind: ingest, files: ./data.csv}\n");
    add("CSV", &tables, "data.csv", "run csv.yaml");

    let models = Place::models();
    let ran = models.run();
    assert_eq!(ran.code, 0, "{}", ran.err);
    let good = Place::empty();
    for (from, to) in
        [("pairs/pairs", "pairs"), ("imitation/policy", "model"), ("comparisons/comparisons", "comparisons")]
    {
        let from = models.path(".halftone/runs/torture").join(from);
        std::fs::create_dir(good.path(to)).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let path = file.unwrap().path();
            std::fs::copy(&path, good.path(to).join(path.file_name().unwrap())).unwrap();
        }
    }
    let pipeline = |text: &str| format!("name: one\nseed: 1\nstages:\n{text}");
    good.write("table.yaml", &pipeline("  sorted: {kind: pairs, from: ./pairs, ties: keep}\n"));
    add("Parquet as a table", &good, "pairs/part-00000.parquet", "run table.yaml");
    good.write("ingest.yaml", &pipeline("  data: {kind: ingest, files: ./pairs/part-00000.parquet}\n"));
    add("Parquet as data", &good, "pairs/part-00000.parquet", "run ingest.yaml");
    good.write("reference.yaml", &pipeline("  reference: {kind: reference, from: ./pairs, model: ./model}\n"));
    for (name, file) in [
        ("safetensors", "model/model.safetensors"),
        ("config.json", "model/config.json"),
        ("tokenizer.json", "model/tokenizer.json"),
        ("tokenizer_config.json", "model/tokenizer_config.json"),
    ] {
        add(name, &good, file, "run reference.yaml --device cpu");
    }
    let template = models.path("judge.jinja");
    std::fs::copy(template, good.path("judge.jinja")).unwrap();
    let judge = "  verdicts: {kind: judge, comparisons: ./comparisons, model: MODEL, template: ./judge.jinja, form: text, \
                 labels: {first: [\" A\"], second: [\" B\"]}, debias: probability, least_mass: 0.0}\n";
    good.write("judge.yaml", &pipeline(&judge.replace("MODEL", "./model")));
    add("judge template", &good, "judge.jinja", "run judge.yaml --device cpu");
    std::fs::create_dir(good.path("gguf")).unwrap();
    harness::gguf::write(&good.path("model"), "llama", &good.path("gguf/model.gguf"));
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(good.path("model").join(file), good.path("gguf").join(file)).unwrap();
    }
    good.write("gguf.yaml", &pipeline(&judge.replace("MODEL", "./gguf/model.gguf")));
    add("GGUF", &good, "gguf/model.gguf", "run gguf.yaml --device cpu");
    readers
}

fn check(case: &Mutated<'_>) -> Result<(), String> {
    let Mutated { reader, seed } = case;
    let place = reader.place.copy();
    let path = place.path(reader.file);
    let mut rng = StdRng::seed_from_u64(*seed);
    let bytes = mutated(&std::fs::read(&path).unwrap(), &mut rng);
    std::fs::write(&path, bytes).unwrap();
    let ran = place.shell(&format!("ulimit -v {SPACE}; halftone {}", reader.command));
    let what = format!("{} of seed {seed}", reader.name);
    if ran.code == TOO_LONG {
        return Err(format!("{what}: takes too long"));
    }
    let kept = std::env::var_os("TORTURE_KEEP").map(|folder| Path::new(&folder).join(what.replace(' ', "-")));
    let checked = ran.is_one_of(&[0, 65, 78], &what);
    if let (Err(_), Some(kept)) = (&checked, kept) {
        std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
        std::fs::copy(&path, kept).unwrap();
    }
    checked
}

/// Fills the rows.
pub fn fill(table: &mut Table) {
    const NAME: &str = "mutated";
    let names = [
        "JSON Lines",
        "pipeline file",
        "CSV",
        "Parquet as a table",
        "Parquet as data",
        "safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "judge template",
        "GGUF",
    ];
    if !names.iter().any(|name| table.wants(&format!("{NAME} {name}"))) {
        return;
    }
    let readers = readers();
    assert!(readers.iter().map(|reader| reader.name).eq(names));
    for reader in &readers {
        if !table.wants(&format!("{NAME} {}", reader.name)) {
            continue;
        }
        let good = reader.place.copy().shell(&format!("halftone {}", reader.command));
        assert_eq!(good.code, 0, "{}: {}", reader.name, good.err);
        table.row(
            &format!("{NAME} {}", reader.name),
            "exit code 0, 65 or 78 in time and in 6 GiB; no panic",
            |form| (0..form.pick(6, 400) as u64).map(|seed| Mutated { reader, seed }).collect(),
            check,
        );
    }
}
