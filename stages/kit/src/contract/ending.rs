//! The steps that stand for the end of a training.

/// Fewer steps than these say little: a batch may be small, and its pairs unlike others.
const LEAST: usize = 10;

/// Number of last steps that the figures of an end are means over: a tenth of all, at least 10, at most all.
pub fn last_steps(steps: usize) -> usize {
    (steps / 10).max(LEAST).min(steps)
}

/// The mean of the last [`last_steps`] of some values, and how many these are. Values stand in the order of the steps;
/// steps without one are left out before.
pub fn end_mean(values: &[f64]) -> Option<(f64, usize)> {
    let last = last_steps(values.len());
    let end = &values[values.len() - last..];
    (last > 0).then(|| (end.iter().sum::<f64>() / last as f64, last))
}

/// True where the end of a column of `metrics` is a mean over the last steps. Evaluations are of all held-out pairs,
/// and counts and settings keep their value at the last step.
pub fn is_mean_at_end(column: &str) -> bool {
    !column.starts_with("eval_") && !["step", "epoch", "num_tokens", "learning_rate"].contains(&column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_a_tenth_of_the_steps_and_at_least_ten() {
        assert_eq!([0, 3, 10, 73, 100, 110, 2000].map(last_steps), [0, 3, 10, 10, 10, 11, 200]);
    }

    #[test]
    fn a_small_last_batch_does_not_speak_for_the_end() {
        let mut losses = vec![0.68; 72];
        losses.push(0.58);
        let (end, steps) = end_mean(&losses).unwrap();
        assert_eq!(steps, 10);
        assert!((end - 0.67).abs() < 1e-12, "{end}");
        assert_eq!(end_mean(&[]), None);
    }
}
