//! Logistic regression with soft targets and a ridge.

use kit::probability::{cross_entropy, sigmoid};

/// Newton's method ends when no entry of the mean gradient is above this.
pub const TOLERANCE: f64 = 1e-11;
/// Or after so many steps.
pub const MAX_STEPS: u32 = 200;

/// Factors of the columns and how they were found.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// A factor for each column.
    pub factors: Vec<f64>,
    /// Rows it rests on.
    pub rows: usize,
    /// Newton's steps.
    pub steps: u32,
    /// True where the optimum was found.
    pub converged: bool,
}

impl Fit {
    /// The log-odds of a row.
    pub fn log_odds(&self, row: &[f64]) -> f64 {
        self.factors.iter().zip(row).map(|(factor, value)| factor * value).sum()
    }
}

/// The factors of least sum of cross-entropies + 1/2 sum_j ridge_j factor_j^2, by Newton's method with halved steps
/// where a whole one does not descend. A column that is 0 everywhere keeps the factor 0.
pub fn fit(rows: &[&[f64]], targets: &[f64], ridge: &[f64]) -> Fit {
    let n = rows.len() as f64;
    let width = ridge.len();
    let loss = |factors: &[f64]| {
        let of = |(row, y): (&&[f64], &f64)| cross_entropy(dot(factors, row), *y);
        let data: f64 = rows.iter().zip(targets).map(of).sum();
        (data + penalty(factors, ridge)) / n
    };
    let mut factors = vec![0.0; width];
    for step in 1..=MAX_STEPS {
        let mut gradient: Vec<f64> = factors.iter().zip(ridge).map(|(factor, ridge)| factor * ridge / n).collect();
        let mut hessian: Vec<Vec<f64>> = (0..width).map(|_| vec![0.0; width]).collect();
        for (row, y) in rows.iter().zip(targets) {
            let p = sigmoid(dot(&factors, row));
            let (residual, weight) = ((p - y) / n, p * (1.0 - p) / n);
            for i in 0..width {
                gradient[i] += residual * row[i];
                for j in 0..=i {
                    hessian[i][j] += weight * row[i] * row[j];
                }
            }
        }
        if gradient.iter().all(|it| it.abs() < TOLERANCE) {
            return Fit { factors, rows: rows.len(), steps: step, converged: true };
        }
        for i in 0..width {
            // Columns that are 0 everywhere, or that others say already, do not stop the others.
            hessian[i][i] += ridge[i] / n + 1e-12;
        }
        let direction = solved(hessian, &gradient);
        let here = loss(&factors);
        let halves = (0..40).map(|halvings| 0.5f64.powi(halvings));
        let mut tried = halves.map(|share| -> Vec<f64> {
            factors.iter().zip(&direction).map(|(factor, step)| factor - share * step).collect()
        });
        match tried.find(|next| loss(next) < here) {
            Some(next) => factors = next,
            // No descent is left in the numbers.
            None => {
                let converged = gradient.iter().all(|it| it.abs() < 1e-7);
                return Fit { factors, rows: rows.len(), steps: step, converged };
            }
        }
    }
    Fit { factors, rows: rows.len(), steps: MAX_STEPS, converged: false }
}

fn dot(factors: &[f64], row: &[f64]) -> f64 {
    factors.iter().zip(row).map(|(factor, value)| factor * value).sum()
}

fn penalty(factors: &[f64], ridge: &[f64]) -> f64 {
    factors.iter().zip(ridge).map(|(factor, ridge)| 0.5 * ridge * factor * factor).sum()
}

/// The solution of a positive definite system of which the lower half is given, by Cholesky's factors.
fn solved(mut matrix: Vec<Vec<f64>>, right: &[f64]) -> Vec<f64> {
    let width = right.len();
    for i in 0..width {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| matrix[i][k] * matrix[j][k]).sum();
            let rest = matrix[i][j] - sum;
            matrix[i][j] = if i == j { rest.max(1e-18).sqrt() } else { rest / matrix[j][j] };
        }
    }
    let mut solution = right.to_vec();
    for i in 0..width {
        let sum: f64 = (0..i).map(|k| matrix[i][k] * solution[k]).sum();
        solution[i] = (solution[i] - sum) / matrix[i][i];
    }
    for i in (0..width).rev() {
        let sum: f64 = (i + 1..width).map(|k| matrix[k][i] * solution[k]).sum();
        solution[i] = (solution[i] - sum) / matrix[i][i];
    }
    solution
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> (Vec<Vec<f64>>, Vec<f64>) {
        let rows = (0..40).map(|at| {
            let at = f64::from(at);
            vec![(at * 0.7).sin() * 2.0, (at * 1.3).cos(), 1.0]
        });
        let rows: Vec<Vec<f64>> = rows.collect();
        let targets = rows.iter().map(|row| sigmoid(0.8 * row[0] - 0.5 * row[1] + 0.3)).collect();
        (rows, targets)
    }

    fn fitted(rows: &[Vec<f64>], targets: &[f64], ridge: &[f64]) -> Fit {
        fit(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), targets, ridge)
    }

    #[test]
    fn known_factors_are_recovered() {
        let (rows, targets) = rows();
        let found = fitted(&rows, &targets, &[0.0; 3]);
        assert!(found.converged && found.steps < 12, "{found:?}");
        for (got, wanted) in found.factors.iter().zip([0.8, -0.5, 0.3]) {
            assert!((got - wanted).abs() < 1e-8, "{found:?}");
        }
    }

    #[test]
    fn a_ridge_pulls_to_zero_and_its_gradient_is_none() {
        let (rows, targets) = rows();
        let found = fitted(&rows, &targets, &[2.0, 2.0, 0.0]);
        assert!(found.converged && found.factors[0] < 0.8 && found.factors[0] > 0.4, "{found:?}");
        for column in 0..3 {
            let data: f64 =
                rows.iter().zip(&targets).map(|(row, y)| (sigmoid(found.log_odds(row)) - y) * row[column]).sum();
            let ridge = [2.0, 2.0, 0.0][column] * found.factors[column];
            assert!((data + ridge).abs() < 1e-8, "{column}: {data} {ridge}");
        }
    }

    #[test]
    fn what_cannot_be_told_apart_and_what_has_no_optimum() {
        // The same column twice shares its factor; a column of zeros gets none.
        let rows: Vec<Vec<f64>> = (0..20).map(|at| vec![f64::from(at) - 9.5, f64::from(at) - 9.5, 0.0]).collect();
        let targets: Vec<f64> = rows.iter().map(|row| sigmoid(0.2 * row[0])).collect();
        let found = fitted(&rows, &targets, &[0.0; 3]);
        assert!((found.factors[0] + found.factors[1] - 0.2).abs() < 1e-6 && found.factors[2] == 0.0, "{found:?}");
        // Gold that always agrees has no finite optimum without a ridge, and one with it.
        let hard: Vec<f64> = rows.iter().map(|row| f64::from(u8::from(row[0] > 0.0))).collect();
        assert!(!fitted(&rows, &hard, &[0.0; 3]).converged || fitted(&rows, &hard, &[0.0; 3]).factors[0] > 5.0);
        assert!(fitted(&rows, &hard, &[1.0; 3]).converged);
    }
}
