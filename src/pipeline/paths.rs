//! Paths in a pipeline file. One rule: they start from the working folder, where halftone runs, wherever the file lies.

use std::path::{Path, PathBuf};

/// The message about a path that does not exist, with the folder in which it was looked for.
pub fn absent(path: &Path, pipeline: &Path) -> String {
    let text = format!("there is no file or folder `{}`", path.display());
    let Some(folder) = elsewhere(path, pipeline) else { return text };
    match beside(path, pipeline) {
        Some(there) => format!(
            "{text} in the working folder; there is one beside the pipeline file: run from `{}`, or write `{}`",
            folder.display(),
            there.display()
        ),
        None => format!("{text}; paths start from the working folder, not from the folder of the pipeline file"),
    }
}

/// The path from the working folder of what a path means from the folder of the pipeline file, where only that is
/// there.
pub fn beside(path: &Path, pipeline: &Path) -> Option<PathBuf> {
    let there = elsewhere(path, pipeline)?.join(path.strip_prefix(".").unwrap_or(path));
    (there.exists() && !path.exists()).then_some(there)
}

/// The folder of the pipeline file, where a path would mean another place from there.
fn elsewhere<'p>(path: &Path, pipeline: &'p Path) -> Option<&'p Path> {
    let folder = pipeline.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    let same = || folder.canonicalize().ok() == Path::new(".").canonicalize().ok();
    (path.is_relative() && !same()).then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_said_with_where_it_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipeline = folder.path().join("p.yaml");
        std::fs::write(folder.path().join("data.jsonl"), "").unwrap();
        let said = absent(Path::new("./data.jsonl"), &pipeline);
        let wanted = format!("run from `{0}`, or write `{0}/data.jsonl`", folder.path().display());
        assert!(said.ends_with(&wanted), "{said}");
        let said = absent(Path::new("./other.jsonl"), &pipeline);
        assert!(
            said.ends_with("paths start from the working folder, not from the folder of the pipeline file"),
            "{said}"
        );
        for (path, pipeline) in [("./other", "p.yaml"), ("./other", "./p.yaml"), ("/other", pipeline.to_str().unwrap())]
        {
            let said = absent(Path::new(path), Path::new(pipeline));
            assert_eq!(said, format!("there is no file or folder `{path}`"));
        }
    }
}
