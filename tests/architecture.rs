//! Rules of architecture: allowed dependencies, and the place of each thing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Rooms that stages share; everything else under `stages/` is a stage kind.
const SHARED: [&str; 6] = ["endpoint", "kit", "lm", "models", "objective", "tokens"];

/// Rooms that tests alone depend on.
const TEST_ONLY: [&str; 1] = ["harness"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The dependencies of a crate by section, read from its manifest.
fn dependencies(folder: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if section.ends_with("dependencies") && !section.starts_with("workspace") {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if !name.is_empty() && !name.starts_with('#') {
                sections.entry(section.clone()).or_default().insert(name.to_owned());
            }
        }
    }
    sections
}

fn rooms() -> BTreeMap<String, PathBuf> {
    let entries = std::fs::read_dir(root().join("stages")).unwrap();
    let rooms = entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("Cargo.toml").is_file());
    rooms.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), path)).collect()
}

fn of(folder: &Path, section: &str) -> BTreeSet<String> {
    dependencies(folder).remove(section).unwrap_or_default()
}

#[test]
fn stages_know_only_the_shared_rooms() {
    let rooms = rooms();
    assert!(rooms.len() >= 13, "{rooms:?}");
    for (name, folder) in &rooms {
        for (section, dependencies) in dependencies(folder) {
            for other in dependencies.iter().filter(|other| rooms.contains_key(*other)) {
                if section.ends_with("dev-dependencies") && TEST_ONLY.contains(&other.as_str()) {
                    continue;
                }
                assert!(
                    SHARED.contains(&other.as_str()),
                    "{name}: [{section}] {other}: stages meet in columns, not in code"
                );
                let below: &[&str] = match name.as_str() {
                    "tokens" => &["kit", "lm"],
                    "endpoint" => &["kit"],
                    "kit" | "lm" => &["models"],
                    _ => &[],
                };
                let below = below.contains(&other.as_str());
                assert!(below || !SHARED.contains(&name.as_str()), "{name} depends on {other}");
            }
            assert!(!dependencies.contains("halftone-rl"), "{name} depends on the engine");
        }
    }
}

#[test]
fn heavy_libraries_stay_in_their_rooms() {
    for (name, folder) in rooms() {
        let dependencies = of(&folder, "dependencies");
        let has = |prefix: &str| dependencies.iter().any(|dependency| dependency.starts_with(prefix));
        assert!(!has("polars") || name == "compare", "polars in {name}");
        assert!(
            !has("candle") || name == "lm" || dependencies.contains("lm") || TEST_ONLY.contains(&name.as_str()),
            "candle in {name}, which holds no model"
        );
        assert!(!has("serde_yaml") && !has("saphyr"), "YAML in {name}");
        for client in ["reqwest", "ureq", "hyper"] {
            assert!(!has(client) || name == "endpoint", "an HTTP client in {name}");
        }
    }
}

#[test]
fn the_engine_knows_no_tensors_and_no_frames() {
    let dependencies = of(&root(), "dependencies");
    for name in &dependencies {
        assert!(!name.starts_with("candle") && !name.starts_with("polars"), "the engine depends on {name}");
        assert!(!["lm", "objective"].contains(&name.as_str()), "the engine reaches past the stages to {name}");
        assert!(!TEST_ONLY.contains(&name.as_str()), "{name} is for tests alone");
    }
    // Each kind is in the list, and nothing else in the engine names a stage crate, but for those that find GPUs, export
    // and describe models, look at data and list objectives.
    let kinds = std::fs::read_to_string(root().join("src/kinds.rs")).unwrap();
    let shared = |name: &&String| SHARED.contains(&name.as_str()) || TEST_ONLY.contains(&name.as_str());
    for name in rooms().keys().filter(|name| !shared(name)) {
        assert!(dependencies.contains(name), "the engine does not know {name}");
        let offered = std::fs::read_to_string(rooms()[name].join("src/lib.rs")).unwrap().contains("pub const KIND");
        assert!(!offered || kinds.contains(&format!("{name}::KIND")), "{name} is not in src/kinds.rs");
        for (path, text) in sources(&root().join("src")) {
            let named = text.contains(&format!("{name}::")) && !text.contains(&format!("mod {name};"));
            let allowed = [
                "kinds.rs",
                "engine/device.rs",
                "cli/export.rs",
                "cli/init.rs",
                "cli/models.rs",
                "init/objective.rs",
                "init/plan.rs",
            ]
            .iter()
            .any(|file| path.ends_with(file));
            let allowed = allowed || own_module(&text, name);
            assert!(!named || allowed, "{} names the stage crate {name}", path.display());
        }
    }
}

/// True where a file means its own module of that name, as `crate::check` or `super::pairs` would.
fn own_module(text: &str, name: &str) -> bool {
    let path = format!("{name}::");
    text.match_indices(&path).all(|(at, _)| text[..at].ends_with(|c: char| c == ':' || c == '_' || c.is_alphanumeric()))
}

#[test]
fn the_gpu_feature_reaches_the_binary() {
    // A feature of a dev-dependency would be accepted and do nothing.
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let line = manifest.lines().find(|line| line.starts_with("cuda = ")).unwrap();
    let room = line.trim_start_matches("cuda = [\"").split('/').next().unwrap();
    assert!(of(&root(), "dependencies").contains(room), "{line}");
    let text = std::fs::read_to_string(root().join("stages").join(room).join("Cargo.toml")).unwrap();
    assert!(text.contains("cuda = [\"lm/cuda\"]"), "{room} does not pass `cuda` on to lm");
}

#[test]
fn yaml_is_read_in_one_place() {
    for (path, text) in sources(&root().join("src")) {
        let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        assert!(relative == "src/pipeline/yaml.rs" || !code.contains("saphyr_parser"), "{relative} reads YAML");
        assert!(!code.contains("serde_yaml"), "{relative} knows a second reader of YAML");
    }
}

#[test]
fn the_engine_speaks_http_in_the_hub_and_to_shared_stores() {
    for (path, text) in sources(&root().join("src")) {
        let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let remote = relative.starts_with("src/remote/");
        assert!(remote || relative.starts_with("src/hub/") || !text.contains("ureq::"), "{relative} speaks HTTP");
        for library in ["object_store::", "tokio::", "futures_util::"] {
            assert!(remote || !text.contains(library), "{relative} knows {library}");
        }
    }
    // What lies in a shared store is known without a network: by whoever implements `Objects`.
    for (path, text) in sources(&root().join("src/store")).into_iter().chain(sources(&root().join("src/engine"))) {
        assert!(!text.contains("crate::remote"), "{} knows where a shared store lies", path.display());
    }
}

#[test]
fn nobody_prints_below_the_reporters() {
    for (name, folder) in rooms() {
        for (path, text) in sources(&folder.join("src")) {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let prints = ["println!(", "eprintln!(", "print!("].iter().any(|print| line.contains(print));
                assert!(!prints, "{name}: {}: {}", path.display(), line.trim());
            }
        }
    }
}

#[test]
fn the_top_level_stays_as_it_is() {
    let folders = ["pipelines", "src", "stages", "tests", "target"];
    let manifests = ["Cargo.toml", "Cargo.lock", "build.rs", "pyproject.toml"];
    let pages = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE-APACHE", "LICENSE-MIT"];
    let known = [&folders[..], &manifests, &pages].concat();
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || known.contains(&name.as_str()), "{name} lies at the top level");
    }
}

#[test]
fn the_instruction_set_is_chosen_when_the_program_starts() {
    assert!(!root().join(".cargo").exists(), "a cargo configuration can fix the CPU");
    for file in ["Cargo.toml", "pyproject.toml", ".ci/run", ".ci/release"] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        assert!(!text.contains("target-cpu") && !text.contains("target-feature"), "{file} fixes the CPU");
    }
}

#[test]
fn versions_and_lints_stand_once() {
    for (name, folder) in rooms() {
        let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{name} does not take the workspace's lints");
        let mut section = "";
        for line in text.lines() {
            section = line.strip_prefix('[').unwrap_or(section);
            if section.contains("dependencies") && line.contains('=') && !line.starts_with('[') {
                assert!(line.contains("workspace = true"), "{name}: `{line}`: versions stand in the root manifest");
            }
        }
    }
}

/// The files of a crate by module path, with the files that each names by `crate::` or `super::`, or by a module that it
/// imports so.
fn files_named(src: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let module = |path: &Path| {
        let path = path.strip_prefix(src).unwrap().with_extension("");
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        parts.join("::").trim_end_matches("::mod").to_owned()
    };
    let code = |text: &str| text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    let whole = |name: &str, text: String| match name.rsplit_once("::") {
        Some((above, _)) => text.replace("super::", &format!("crate::{above}::")),
        None => text.replace("super::", "crate::"),
    };
    let texts = sources(src).into_iter().map(|(path, text)| (module(&path), code(&text)));
    let texts = texts.map(|(name, text)| (name.clone(), whole(&name, text)));
    let files: BTreeMap<String, String> = texts.filter(|(name, _)| !is_test(name)).collect();
    let file = |path: &str| {
        let parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
        (1..=parts.len()).rev().map(|n| parts[..n].join("::")).find(|name| files.contains_key(name))
    };
    let named = |text: &str| -> BTreeSet<String> {
        let mut paths = Vec::new();
        for path in text.split("crate::").skip(1) {
            let end = path.find(|c: char| !c.is_alphanumeric() && !"_:".contains(c)).unwrap_or(path.len());
            let (stem, rest) = path.split_at(end);
            match rest.strip_prefix('{') {
                Some(list) => {
                    let list = list.split('}').next().unwrap_or_default();
                    paths.extend(list.split(',').map(|name| format!("{stem}{}", name.trim())));
                }
                None => paths.push(stem.to_owned()),
            }
        }
        let modules: Vec<String> = paths.iter().map(|path| path.trim_end_matches("::self").to_owned()).collect();
        for path in modules.iter().filter(|path| files.contains_key(*path)) {
            let name = path.rsplit("::").next().unwrap_or_default();
            for (at, _) in text.match_indices(&format!("{name}::")) {
                let of_another = text[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c));
                let rest = &text[at + name.len()..];
                let end = rest.find(|c: char| !c.is_alphanumeric() && !"_:".contains(c)).unwrap_or(rest.len());
                paths.extend((!of_another).then(|| format!("{path}{}", &rest[..end])));
            }
        }
        paths.iter().filter_map(|path| file(path)).collect()
    };
    files.iter().map(|(name, text)| (name.clone(), &named(text) - &BTreeSet::from([name.clone()]))).collect()
}

fn is_test(module: &str) -> bool {
    module.split("::").any(|part| part == "tests" || part.ends_with("_tests"))
}

#[test]
fn files_know_each_other_one_way_only() {
    let crates = rooms().into_values().chain([root()]);
    for src in crates.map(|folder| folder.join("src")) {
        let mut files = files_named(&src);
        assert!(!files.is_empty(), "{}", src.display());
        // Files that name none that is left are taken away, until only circles are left.
        loop {
            let known: BTreeSet<String> = files.keys().cloned().collect();
            files.retain(|_, named| !named.is_disjoint(&known));
            if files.len() == known.len() {
                break;
            }
        }
        assert!(files.is_empty(), "{}: circles among {files:#?}", src.display());
    }
}

/// The program or module that a file of tests belongs to has to name it: else it would not be compiled.
#[test]
fn every_file_of_tests_is_compiled() {
    for folder in rooms().into_values().chain([root()]).filter(|folder| folder.join("tests").exists()) {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        for (path, _) in sources(&folder.join("tests")) {
            let part = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
            let (named, of) = match part(&path).as_str() {
                "main" => continue,
                "mod" => (part(path.parent().unwrap()), path.parent().unwrap().parent().unwrap()),
                name => (name.to_owned(), path.parent().unwrap()),
            };
            let Some(text) = ["main.rs", "mod.rs"].iter().find_map(|it| std::fs::read_to_string(of.join(it)).ok())
            else {
                continue;
            };
            let program = path.strip_prefix(&folder).unwrap().display();
            let known = text.contains(&format!("mod {named};")) || manifest.contains(&format!("path = \"{program}\""));
            assert!(known, "{}: `mod {named};` is in no program of tests", path.display());
        }
    }
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    found
}
