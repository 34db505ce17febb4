//! The pages that people read name what is there: files, kinds, objectives, formats, commands and their options.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use harness::Project;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Markdown page of the project with its text.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if entry.file_type().unwrap().is_dir() {
                let ours = !name.starts_with('.') && path != root().join("target");
                folders.extend(ours.then_some(path));
            } else if name.ends_with(".md") {
                let text = std::fs::read_to_string(&path).unwrap();
                pages.insert(path.strip_prefix(root()).unwrap().to_owned(), text);
            }
        }
    }
    assert!(pages.len() >= 10, "{:?}", pages.keys());
    pages
}

/// The text of one page.
fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// The blocks of code of one language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).map(|rest| rest.split_once("```").expect("a block ends").0).collect()
}

#[test]
fn the_readme_is_short_and_lines_have_at_most_120_columns() {
    let size = page("README.md").len();
    assert!(size <= 9000, "README.md has {size} bytes; details belong to the READMEs of the rooms");
    for (page, text) in pages() {
        for (number, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            assert!(columns <= 120, "{}:{}: {columns} columns", page.display(), number + 1);
        }
    }
}

/// The anchor that a heading gets on code forges.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for (page, text) in pages() {
        let folder = root().join(page.parent().unwrap());
        for rest in text.split("](").skip(1) {
            let link = rest.split_once(')').unwrap().0;
            if link.starts_with("http") {
                continue;
            }
            count += 1;
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root().join(&page) } else { folder.join(file) };
            assert!(target.exists(), "{}: ({link}) leads nowhere", page.display());
            if !section.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                let found = text.lines().any(|line| line.starts_with('#') && anchor(line) == section);
                assert!(found, "{}: ({link}): there is no such heading", page.display());
            }
        }
    }
    assert!(count >= 30, "{count} links");
}

/// True where a page names something as code.
fn names(text: &str, word: &str) -> bool {
    text.split(&format!("`{word}")).skip(1).any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn every_kind_objective_format_command_and_pipeline_has_its_place() {
    let project = Project::new(&[]);
    let missing = |name: &str, words: &BTreeSet<String>| -> Vec<String> {
        let text = page(name);
        words.iter().filter(|word| !names(&text, word)).cloned().collect()
    };
    let first_words = |text: &str| -> BTreeSet<String> {
        text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    };
    let kinds = first_words(&project.done(&["kinds"]));
    assert!(kinds.contains("train") && kinds.len() >= 12, "{kinds:?}");
    assert_eq!(missing("stages/README.md", &kinds), [""; 0]);

    let help = project.done(&["--help"]);
    let commands = help.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let mut commands = first_words(commands);
    commands.remove("help");
    assert!(commands.contains("run") && commands.len() >= 15, "{commands:?}");
    assert_eq!(missing("src/README.md", &commands), [""; 0]);

    let schema: Value = serde_json::from_str(&project.done(&["schema"])).unwrap();
    let mut objectives = BTreeSet::new();
    words_of(&schema["$defs"]["train.Objective"], "name", &mut objectives);
    assert!(objectives.contains("gdpo") && objectives.len() >= 28, "{objectives:?}");
    assert_eq!(missing("stages/objective/README.md", &objectives), [""; 0]);
    let mut formats = BTreeSet::new();
    constants(&schema["$defs"]["ingest.Format"], &mut formats);
    formats.remove("auto");
    assert!(formats.contains("preference") && formats.len() >= 9, "{formats:?}");
    assert_eq!(missing("stages/ingest/README.md", &formats), [""; 0]);

    let files = std::fs::read_dir(root().join("pipelines")).unwrap();
    let files = files.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let files: BTreeSet<String> = files.filter(|name| name.ends_with(".yaml")).collect();
    assert_eq!(missing("pipelines/README.md", &files), [""; 0]);
}

/// The values that a key of the objects in a schema can have.
fn words_of(schema: &Value, key: &str, into: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(values) = map.get("properties").and_then(|properties| properties.get(key)) {
                constants(values, into);
            }
            map.values().for_each(|value| words_of(value, key, into));
        }
        Value::Array(values) => values.iter().for_each(|value| words_of(value, key, into)),
        _ => {}
    }
}

/// The strings that a schema allows.
fn constants(schema: &Value, into: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            into.extend(map.get("const").and_then(Value::as_str).map(str::to_owned));
            let listed = map.get("enum").and_then(Value::as_array).into_iter().flatten();
            into.extend(listed.filter_map(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| constants(value, into));
        }
        Value::Array(values) => values.iter().for_each(|value| constants(value, into)),
        _ => {}
    }
}

/// Every call of the program on a page: lines of shell blocks, and code within a sentence.
fn calls(text: &str) -> Vec<String> {
    let mut calls = Vec::new();
    for block in blocks(text, "sh") {
        let whole = block.replace("\\\n", " ");
        let lines = whole.lines().map(|line| line.split(" #").next().unwrap().trim().to_owned());
        let parts = lines.flat_map(|line| line.split(" && ").map(str::to_owned).collect::<Vec<_>>());
        calls.extend(parts.filter_map(|line| line.strip_prefix("halftone ").map(str::to_owned)));
    }
    // Between the blocks, every second part that a backtick bounds is code.
    for prose in text.split("```").step_by(2) {
        let code = prose.split('`').skip(1).step_by(2);
        calls.extend(code.filter_map(|code| code.strip_prefix("halftone ").map(|call| call.replace('\n', " "))));
    }
    calls
}

#[test]
fn commands_on_pages_exist_with_their_options() {
    let project = Project::new(&[]);
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut count = 0;
    for (page, text) in pages() {
        for call in calls(&text) {
            let words: Vec<&str> = call.split_whitespace().collect();
            // `export` has commands of its own; words in capitals stand for any.
            let depth = if words[0] == "export" { 2 } else { 1 };
            let command = words[..depth.min(words.len())].join(" ");
            if words[0] == "help" || words[0].starts_with("--") || command.chars().all(|c| c.is_uppercase() || c == ' ')
            {
                continue;
            }
            count += 1;
            let help = helps.entry(command.clone()).or_insert_with(|| {
                let args: Vec<&str> = command.split(' ').chain(["--help"]).collect();
                project.done(&args)
            });
            let options = words.iter().filter(|word| word.starts_with("--"));
            for option in options.map(|option| option.split('=').next().unwrap()) {
                let known = help.split(|c: char| !c.is_alphanumeric() && c != '-').any(|word| word == option);
                assert!(known, "{}: `halftone {call}`: there is no {option}", page.display());
            }
        }
    }
    assert!(count >= 15, "{count} calls");
}

#[test]
fn the_pipelines_on_pages_are_right() {
    let mut count = 0;
    for (page, text) in pages() {
        let whole = |block: &&str| block.starts_with("name:") || block.starts_with("base:");
        for block in blocks(&text, "yaml").into_iter().filter(whole) {
            let pair = r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#;
            let project = Project::new(&[("pipeline.yaml", block)]);
            std::fs::create_dir(project.path("data")).unwrap();
            project.write("data/helpful.jsonl", &format!("{pair}\n"));
            std::os::unix::fs::symlink(root().join("pipelines"), project.path("pipelines")).unwrap();
            std::fs::create_dir(project.path("models")).unwrap();
            let model = harness::oracle("llama");
            for name in ["models/policy", "models/judge"] {
                std::os::unix::fs::symlink(&model, project.path(name)).unwrap();
            }
            let output = project.halftone(&["check", "pipeline.yaml"]);
            assert!(output.status.success(), "{}: {}", page.display(), String::from_utf8_lossy(&output.stderr));
            count += 1;
        }
    }
    assert_eq!(count, 3, "README.md shows one, pipelines/README.md two");
}
