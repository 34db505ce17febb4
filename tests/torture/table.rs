//! The table: a row for each kind of fault, with how often it was made and how often what has to hold did not.

use std::fmt;
use std::time::Instant;

use rayon::prelude::*;

/// Extent of the trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Some points of each kind, for every change.
    Short,
    /// All of them.
    Long,
}

impl Form {
    /// The form that `TORTURE` names.
    pub fn of_environment() -> Form {
        match std::env::var("TORTURE").as_deref() {
            Ok("long") => Form::Long,
            Ok("short") | Err(_) => Form::Short,
            Ok(other) => panic!("TORTURE={other}: it is `short` or `long`"),
        }
    }

    /// One number or the other.
    pub fn pick(self, short: usize, long: usize) -> usize {
        if self == Form::Short { short } else { long }
    }

    /// Of many cases some that are spread evenly, or all of them in the long form.
    pub fn some<T>(self, cases: Vec<T>, short: usize) -> Vec<T> {
        let count = cases.len();
        let spread = |at: usize| match short {
            // The one in the middle; of more the last is one, too.
            1 => at + 1 == count.div_ceil(2),
            _ => (at + 1) * short / count > at * short / count,
        };
        let keep = |at: usize| self == Form::Long || count <= short || spread(at);
        cases.into_iter().enumerate().filter(|(at, _)| keep(*at)).map(|(_, case)| case).collect()
    }
}

struct Row {
    name: String,
    holds: &'static str,
    tried: usize,
    bad: Vec<String>,
}

/// The trials so far.
pub struct Table {
    /// Extent of the trials.
    pub form: Form,
    names: Vec<String>,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

impl Table {
    /// An empty one; `names` are parts of the names of rows that are wanted, all of them if there is none.
    pub fn new(form: Form, names: Vec<String>) -> Table {
        Table { form, names, rows: Vec::new(), left_out: Vec::new() }
    }

    /// True where a row is selected.
    pub fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part.as_str()))
    }

    /// Says why a row cannot be filled here.
    pub fn leave_out(&mut self, name: &str, why: &str) {
        if self.wants(name) {
            self.left_out.push(format!("{name}: {why}"));
        }
    }

    /// Fills a row: `check` tries a case and says what did not hold. Cases are tried side by side.
    pub fn row<C: Sync>(
        &mut self,
        name: &str,
        holds: &'static str,
        cases: impl FnOnce(Form) -> Vec<C>,
        check: impl Fn(&C) -> Result<(), String> + Sync,
    ) {
        if !self.wants(name) {
            return;
        }
        let began = Instant::now();
        let cases = cases(self.form);
        let bad: Vec<String> = cases.par_iter().filter_map(|case| check(case).err()).collect();
        eprintln!("{name}: {} tried, {} bad, {} s", cases.len(), bad.len(), began.elapsed().as_secs());
        bad.iter().take(if self.form == Form::Long { 40 } else { 12 }).for_each(|text| eprintln!("    {text}"));
        self.rows.push(Row { name: name.to_owned(), holds, tried: cases.len(), bad });
    }

    /// True where every check passed.
    pub fn good(&self) -> bool {
        self.rows.iter().all(|row| row.bad.is_empty() && row.tried > 0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| fault | tried | what has to hold | did not |\n| --- | ---: | --- | ---: |")?;
        for row in &self.rows {
            writeln!(f, "| {} | {} | {} | {} |", row.name, row.tried, row.holds, row.bad.len())?;
        }
        self.left_out.iter().try_for_each(|text| writeln!(f, "\nleft out: {text}"))
    }
}
