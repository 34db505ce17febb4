//! Log-probs of responses under the frozen reference, as TRL takes them in place of scoring again.

use std::collections::BTreeMap;
use std::path::Path;

use kit::rows::{Pair, ReferenceRow};
use kit::{Result, RowReader};

/// Log-probs by prompt id and response id: the first token of the completion, and the sum from there on.
#[derive(Debug, Default)]
pub struct Reference {
    logps: BTreeMap<(String, String), Vec<(u32, f64)>>,
}

impl Reference {
    /// Reads a table of the kind `reference`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path) -> Result<Reference> {
        let mut logps: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for row in RowReader::<ReferenceRow>::open(&[path])? {
            let row = row?;
            logps.entry((row.prompt_id, row.response_id)).or_default().push((row.completion_start, row.logp));
        }
        Ok(Reference { logps })
    }

    /// The log-probs of both sides of a pair under one prompt; nothing where the reference did not score both. The two
    /// completions begin at one token: a response has several rows where its pairs begin at several.
    pub fn of(&self, pair: &Pair) -> Option<[f32; 2]> {
        let rows = |prompt: &str, response: &str| self.logps.get(&(prompt.to_owned(), response.to_owned()));
        let chosen = rows(&pair.chosen_prompt_id, &pair.chosen_response_id)?;
        let rejected = rows(&pair.rejected_prompt_id, &pair.rejected_response_id)?;
        let both = chosen.iter().flat_map(|one| rejected.iter().map(move |other| (one, other)));
        let same = both.filter(|(one, other)| one.0 == other.0).max_by_key(|(one, _)| one.0)?;
        Some([same.0.1 as f32, same.1.1 as f32])
    }
}
