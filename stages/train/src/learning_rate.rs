//! The learning rate of each step.

use crate::config::{Optimizer, Schedule};

impl Optimizer {
    /// The learning rate of a step (from 1) of `total`.
    pub(crate) fn learning_rate(&self, step: u64, total: u64) -> f64 {
        let (done, warmup) = ((step - 1) as f64, self.warmup_steps as f64);
        if done < warmup {
            return self.lr * (done + 1.0) / (warmup + 1.0);
        }
        let course = (done - warmup) / (total as f64 - warmup).max(1.0); // 0 at the first step after the warmup
        match self.schedule {
            Schedule::Constant => self.lr,
            Schedule::Linear => self.lr * (1.0 - course),
            Schedule::Cosine => self.lr * 0.5 * (1.0 + (std::f64::consts::PI * course).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule, warmup_steps: u64, total: u64) -> Vec<f64> {
        let text = r#"{"lr": 2.0}"#;
        let optimizer = Optimizer { schedule, warmup_steps, ..serde_json::from_str(text).unwrap() };
        (1..=total).map(|step| optimizer.learning_rate(step, total)).collect()
    }

    #[test]
    fn warmup_then_the_schedule() {
        assert_eq!(rates(Schedule::Constant, 3, 5), [0.5, 1.0, 1.5, 2.0, 2.0]);
        assert_eq!(rates(Schedule::Linear, 1, 5), [1.0, 2.0, 1.5, 1.0, 0.5]);
        assert_eq!(rates(Schedule::Linear, 0, 2), [2.0, 1.0]);
        let cosine = rates(Schedule::Cosine, 0, 4);
        assert!((cosine[0] - 2.0).abs() < 1e-12 && (cosine[2] - 1.0).abs() < 1e-12 && cosine[3] > 0.0, "{cosine:?}");
        assert_eq!(rates(Schedule::Cosine, 4, 2), [0.4, 0.8]);
    }
}
