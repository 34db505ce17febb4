//! Digests of what lies outside the store: files, tables and model folders that a pipeline names by path.

use std::path::{Path, PathBuf};

use kit::{Digest, Error, Result, Table};

use super::statcache::StatCache;

/// Digests content through the stat cache.
#[derive(Debug)]
pub struct Digests<'a> {
    stats: &'a StatCache,
}

impl Digests<'_> {
    /// Digests that remember in `stats`.
    pub fn new(stats: &StatCache) -> Digests<'_> {
        Digests { stats }
    }

    /// The digest of an input given as a path. A copy of a port has the digest of the port.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn input(&self, path: &Path, table: Table) -> Result<Digest> {
        if table == Table::Model {
            return self.model(path);
        }
        let parts = kit::parts_of(path)?;
        self.named(parts.into_iter().map(|part| {
            let name = part.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, part)
        }))
    }

    /// The digest of a file or folder that a configuration names. Of a model folder only what a model is made of
    /// counts.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(&self, path: &Path) -> Result<Digest> {
        if path.is_file() {
            return self.stats.digest(path);
        }
        if models::is_model(path) {
            return self.model(path);
        }
        let mut files = Vec::new();
        walk(path, "", &|_| true, &|_| true, &mut files)?;
        self.named(files.into_iter())
    }

    /// Weights, configuration, tokenizer, template and the pooling folders of sentence encoders (`1_Pooling`); for an
    /// adapter those of its base too.
    fn model(&self, folder: &Path) -> Result<Digest> {
        let own = self.own_model(folder)?;
        match models::base_of(folder).map_err(Error::of_base)? {
            Some(base) => {
                let base = self.own_model(&base)?;
                Ok(Digest::of_named([("adapter", own), ("base", base)]))
            }
            None => Ok(own),
        }
    }

    fn own_model(&self, folder: &Path) -> Result<Digest> {
        let is_part = |name: &str| {
            ["json", "safetensors", "jinja", "txt", "model"].iter().any(|kind| name.ends_with(&format!(".{kind}")))
        };
        let is_module = |name: &str| name.split_once('_').is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        let mut files = Vec::new();
        if folder.is_file() {
            // A GGUF file, with the tokenizer and the template that stand beside it.
            let beside = folder.parent().unwrap_or(folder);
            let is_text = |name: &str| is_part(name) && !name.ends_with(".safetensors");
            walk(beside, "", &is_text, &|_| false, &mut files)?;
            files.push(("model.gguf".to_owned(), folder.to_owned()));
            return self.named(files.into_iter());
        }
        walk(folder, "", &is_part, &is_module, &mut files)?;
        self.named(files.into_iter())
    }

    fn named(&self, files: impl Iterator<Item = (String, PathBuf)>) -> Result<Digest> {
        let digests: Vec<(String, Digest)> =
            files.map(|(name, path)| Ok((name, self.stats.digest(&path)?))).collect::<Result<_>>()?;
        Ok(Digest::of_named(digests.iter().map(|(name, digest)| (name.as_str(), *digest))))
    }
}

/// The files below a folder by relative name; hidden ones are left out.
fn walk(
    folder: &Path,
    prefix: &str,
    file: &dyn Fn(&str) -> bool,
    below: &dyn Fn(&str) -> bool,
    out: &mut Vec<(String, PathBuf)>,
) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            if below(&name) {
                walk(&path, &format!("{prefix}{name}/"), file, below, out)?;
            }
        } else if file(&name) {
            out.push((format!("{prefix}{name}"), path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_model_folder_only_the_model_counts() {
        let folder = tempfile::tempdir().unwrap();
        let stats = StatCache::open(folder.path().join("cache"));
        let digests = Digests::new(&stats);
        let model = folder.path().join("model");
        std::fs::create_dir_all(model.join("1_Pooling")).unwrap();
        std::fs::create_dir_all(model.join("onnx")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(model.join(name), text).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "w");
        let before = digests.file(&model).unwrap();
        write("README.md", "hello");
        write("pytorch_model.bin", "pickle");
        write("onnx/config.json", "{}");
        write(".cache.json", "{}");
        assert_eq!(digests.input(&model, Table::Model).unwrap(), before);
        write("1_Pooling/config.json", "{}");
        let pooled = digests.file(&model).unwrap();
        assert_ne!(pooled, before);
        write("chat_template.jinja", "x");
        let templated = digests.file(&model).unwrap();
        assert_ne!(templated, pooled);

        // An adapter is itself and its base.
        let adapter = folder.path().join("adapter");
        std::fs::create_dir_all(&adapter).unwrap();
        let config = serde_json::json!({"base_model_name_or_path": model}).to_string();
        std::fs::write(adapter.join("adapter_config.json"), config).unwrap();
        let adapted = digests.input(&adapter, Table::Model).unwrap();
        assert_eq!(digests.file(&adapter).unwrap(), adapted);
        write("tokenizer.json", "{}");
        assert_ne!(digests.input(&adapter, Table::Model).unwrap(), adapted);
        std::fs::remove_dir_all(&model).unwrap();
        assert!(digests.input(&adapter, Table::Model).unwrap_err().to_string().contains("is not there"));
    }
}
