//! References to some stages of a matrix: `policy[objective=dpo|gdpo]`.

use crate::pipeline::problem::did_you_mean;

/// A combination: the label of each axis.
pub type Labels = Vec<(String, String)>;

/// Some stages of a matrix: `stage[axis=label|label, axis=label].port`.
#[derive(Debug, PartialEq, Eq)]
pub struct Selection<'t> {
    /// The stage that has the matrix.
    pub stage: &'t str,
    /// The labels of each axis that is given.
    pub axes: Vec<(&'t str, Vec<&'t str>)>,
    /// The port after the brackets.
    pub port: Option<&'t str>,
}

impl<'t> Selection<'t> {
    /// Reads a reference with brackets; nothing where it has none.
    pub fn read(text: &'t str) -> Option<Result<Selection<'t>, String>> {
        let (stage, rest) = text.split_once('[')?;
        let wrong = || format!("`{text}`: write `{stage}[axis=label|label, axis=label]`");
        let Some((inner, port)) = rest.split_once(']') else { return Some(Err(wrong())) };
        let axis = |part: &'t str| {
            let (axis, labels) = part.split_once('=')?;
            Some((axis.trim(), labels.split('|').map(str::trim).collect()))
        };
        let axes: Option<Vec<_>> = inner.split(',').map(axis).collect();
        let port = match port.strip_prefix('.') {
            None if port.is_empty() => None,
            Some(port) if !port.is_empty() => Some(port),
            _ => return Some(Err(wrong())),
        };
        Some(axes.map(|axes| Selection { stage, axes, port }).ok_or_else(wrong))
    }

    /// Checks it against the combinations there are: which of them it means.
    ///
    /// # Errors
    /// An axis or label that there is not.
    pub fn of(&self, combinations: &[Labels]) -> Result<Vec<bool>, String> {
        for (axis, labels) in &self.axes {
            let there: Vec<&str> =
                combinations.iter().flatten().filter(|it| it.0 == *axis).map(|it| it.1.as_str()).collect();
            if there.is_empty() {
                let known = combinations.first().into_iter().flatten().map(|it| it.0.as_str());
                return Err(format!("`{}` has no axis `{axis}`{}", self.stage, did_you_mean(axis, known)));
            }
            if let Some(label) = labels.iter().find(|label| !there.contains(label)) {
                let near = did_you_mean(label, there.iter().copied());
                return Err(format!("`{}` has no `{label}` on its axis `{axis}`{near}", self.stage));
            }
        }
        let means = |combination: &Labels| {
            let fits = |(axis, labels): &(&str, Vec<&str>)| {
                combination.iter().any(|(own, label)| own == axis && labels.contains(&label.as_str()))
            };
            self.axes.iter().all(fits)
        };
        let meant: Vec<bool> = combinations.iter().map(means).collect();
        if !meant.contains(&true) {
            return Err(format!("no stage of `{}` has all of these labels", self.stage));
        }
        Ok(meant)
    }
}
