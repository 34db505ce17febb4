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
            Schedule::Linear => self.above_min(1.0 - course),
            Schedule::Cosine => self.above_min(0.5 * (1.0 + (std::f64::consts::PI * course).cos())),
        }
    }

    /// A share of the way from `min_lr` to `lr`.
    fn above_min(&self, share: f64) -> f64 {
        self.min_lr + (self.lr - self.min_lr) * share
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

    #[test]
    fn schedules_end_above_the_least_rate() {
        let optimizer: Optimizer = serde_json::from_str(r#"{"lr": 2.0, "min_lr": 0.5, "schedule": "linear"}"#).unwrap();
        let rates = |schedule| -> Vec<f64> {
            let optimizer = Optimizer { schedule, ..optimizer };
            (1..=3).map(|step| optimizer.learning_rate(step, 3)).collect()
        };
        assert_eq!(rates(Schedule::Linear), [2.0, 1.5, 1.0]);
        // transformers' get_cosine_with_min_lr_schedule_with_warmup at steps 0, 1 and 2 of 3, min_lr_rate 0.25.
        for (got, wanted) in rates(Schedule::Cosine).into_iter().zip([2.0, 1.625, 0.875]) {
            assert!((got - wanted).abs() < 1e-12, "{got} {wanted}");
        }
    }
}
