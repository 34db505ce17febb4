//! Problems of a pipeline file, with their places.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Place of a problem. The order is that of the report: the file as a whole, its lines, those of its bases, then the
/// command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// The file as a whole.
    File,
    /// A place in a file.
    Place(Place),
    /// A `--set` of the command line.
    Set(Arc<str>),
}

/// A place in a file, line and column from 1; columns count characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The base that it is in; none for the pipeline file itself.
    pub file: Option<Arc<Path>>,
    pub line: usize,
    pub column: usize,
}

/// One thing that is wrong with a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Its place.
    pub at: At,
    /// The stage it concerns.
    pub stage: Option<String>,
    /// The problem and the remedy: a lowercase fragment.
    pub text: String,
    /// The origin of the fault.
    pub fault: Fault,
}

/// The origin of a problem with a pipeline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The pipeline file or the command line.
    #[default]
    Pipeline,
    /// A file that the pipeline names rightly and that cannot be read.
    Data,
    /// The system, which could not read a file: a broken device, missing rights.
    System,
}

impl Fault {
    /// The origin of the fault where a table or a model outside the store cannot be read.
    pub fn of(error: &kit::Error) -> Fault {
        match error {
            kit::Error::Io { source, .. } => Fault::of_system(source),
            kit::Error::Data(_) => Fault::Data,
            _ => Fault::Pipeline,
        }
    }

    /// The origin of the fault where the system refuses a file that the pipeline names.
    pub fn of_system(error: &std::io::Error) -> Fault {
        use std::io::ErrorKind::{InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound};
        match error.kind() {
            NotFound | IsADirectory | NotADirectory | InvalidFilename | InvalidInput => Fault::Pipeline,
            _ => Fault::System,
        }
    }
}

impl Problem {
    /// One line: `file:line:column: stage: text`.
    pub fn line(&self, file: &Path) -> String {
        let place = match &self.at {
            At::File => format!("{}: ", file.display()),
            At::Place(Place { file: base, line, column }) => {
                format!("{}:{line}:{column}: ", base.as_deref().unwrap_or(file).display())
            }
            At::Set(text) => format!("--set {text}: "),
        };
        let stage = self.stage.as_ref().map(|stage| format!("{stage}: ")).unwrap_or_default();
        format!("{place}{stage}{}", self.text)
    }
}

/// Takes out of `later` what stands at the place of something in `first`: a value that could not be replaced is not
/// also one that is wrong.
pub fn without_consequences(first: &[Problem], later: &mut Vec<Problem>) {
    let placed: BTreeSet<&At> =
        first.iter().map(|problem| &problem.at).filter(|at| matches!(at, At::Place(_))).collect();
    later.retain(|problem| !placed.contains(&problem.at));
}

/// Sorts problems and says each once: what is wrong with a variable at its first place, with how many there are.
pub fn once(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort();
    problems.dedup();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let unset = |problem: &Problem| [UNSET, UNKNOWN, TOO_MUCH].iter().any(|begin| problem.text.starts_with(begin));
    problems.iter().filter(|it| unset(it)).for_each(|it| *places.entry(it.text.clone()).or_default() += 1);
    let mut said = BTreeSet::new();
    problems.retain(|problem| !unset(problem) || said.insert(problem.text.clone()));
    for problem in problems.iter_mut().filter(|it| unset(it)) {
        if let Some(count) = places.get(&problem.text).filter(|count| **count > 1) {
            problem.text.push_str(&format!(" ({count} values need it)"));
        }
    }
    problems
}

/// Beginning of the problem of an undeclared variable.
pub const UNKNOWN: &str = "unknown variable `";

/// Beginning of the problem of references that stand for too much.
pub const TOO_MUCH: &str = "the references of this file stand for";

/// Beginning of the problem of an unset variable of the environment.
pub const UNSET: &str = "the environment variable `";

/// `; did you mean ...?` where one of the names is near, else nothing.
pub fn did_you_mean<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, names).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

/// The nearest of some names, if it is near enough to be a typing mistake.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (length, letters) = length_and_letters(name);
    let near = names.into_iter().filter_map(|other| {
        let (other_length, other_letters) = length_and_letters(other);
        let allowed = ((length.max(other_length) + 1) / 3).max(1);
        let begins = other.starts_with(name) || name.starts_with(other);
        // An edit changes the length by one at most, and takes away or adds one letter: that separates most names.
        let missing = (letters & !other_letters).count_ones().max((other_letters & !letters).count_ones());
        if !begins && length.abs_diff(other_length).max(missing as usize) > allowed {
            return None;
        }
        let distance = strsim::damerau_levenshtein(name, other);
        (begins || distance <= allowed).then_some((distance, other))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, other)| other)
}

/// The number of a name's characters, and a bit for each of them that occurs; some share one.
fn length_and_letters(name: &str) -> (usize, u64) {
    name.chars().fold((0, 0), |(length, letters), letter| (length + 1, letters | 1 << (u32::from(letter) % 64)))
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["optimizer", "objective", "epochs", "lr"];
        assert_eq!(nearest("optimiser", names), Some("optimizer"));
        assert_eq!(nearest("epoch", names), Some("epochs"));
        assert_eq!(nearest("seed", names), None);
        assert_eq!(nearest("x", []), None);
        assert_eq!(nearest("tua", ["beta", "tau"]), Some("tau"));
        assert_eq!(nearest("schedule_steps", ["warmup_steps", "schedule"]), Some("schedule"));
        // Characters that share a bit are no reason to leave a name out.
        assert_eq!(nearest("a!b", ["aab", "c"]), Some("aab"));
    }
}
