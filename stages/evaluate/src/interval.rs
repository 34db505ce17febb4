//! Estimates with 95 % intervals.

use kit::{Z, wilson};

/// An estimate and what it rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// The ends of its 95 % interval, where there is one.
    pub interval: Option<(f64, f64)>,
    /// The values it rests on.
    pub rows: u64,
}

/// A share with Wilson's score interval. Nothing for no rows.
pub fn share(successes: u64, rows: u64) -> Option<Estimate> {
    if rows == 0 {
        return None;
    }
    let value = successes as f64 / rows as f64;
    Some(Estimate { value, interval: wilson(value, rows), rows })
}

/// A mean with the normal interval, from the sample's standard deviation. Nothing for no values, no interval for one.
pub fn mean(values: &[f64]) -> Option<Estimate> {
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let half = Z * (squares / (n - 1.0) / n).sqrt();
    let interval = (values.len() > 1).then_some((mean - half, mean + half));
    Some(Estimate { value: mean, interval, rows: values.len() as u64 })
}

/// Pearson's correlation with Fisher's interval. Nothing where a side does not vary.
pub fn correlation(pairs: &[(f64, f64)]) -> Option<Estimate> {
    let n = pairs.len() as f64;
    let (x, y) = pairs.iter().fold((0.0, 0.0), |(x, y), pair| (x + pair.0 / n, y + pair.1 / n));
    let moment = |of: fn(f64, f64) -> f64| pairs.iter().map(|pair| of(pair.0 - x, pair.1 - y)).sum::<f64>();
    let (xx, yy, xy) = (moment(|dx, _| dx * dx), moment(|_, dy| dy * dy), moment(|dx, dy| dx * dy));
    if !(xx > 0.0 && yy > 0.0) {
        return None;
    }
    let r = (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0);
    let half = Z / (n - 3.0).sqrt();
    let interval = (pairs.len() > 3).then(|| ((r.atanh() - half).tanh(), (r.atanh() + half).tanh()));
    Some(Estimate { value: r, interval, rows: pairs.len() as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_share(successes: u64, rows: u64, low: f64, high: f64) {
        let estimate = share(successes, rows).unwrap();
        let (got_low, got_high) = estimate.interval.unwrap();
        assert!((got_low - low).abs() < 5e-5 && (got_high - high).abs() < 5e-5, "{successes}/{rows}: {estimate:?}");
        assert_eq!(estimate.value, successes as f64 / rows as f64);
    }

    #[test]
    fn wilson_by_hand() {
        // z^2 = 3.841459. For 8 of 10: centre (0.8 + 0.192073)/1.384146 = 0.716740,
        // half 1.959964/1.384146 * sqrt(0.016 + 0.00960365) = 0.226577.
        check_share(8, 10, 0.490_16, 0.943_32);
        // For 0 of 10: low 0, high z^2/(n + z^2) = 3.841459/13.841459.
        check_share(0, 10, 0.0, 0.277_53);
        check_share(10, 10, 0.722_47, 1.0);
        // For 1 of 2: symmetric around 1/2, half 1.959964/2.920729 * sqrt(0.125 + 0.24009) = 0.405472.
        check_share(1, 2, 0.094_53, 0.905_47);
        assert_eq!(share(0, 0), None);
    }

    #[test]
    fn means_by_hand() {
        // 1, 2, 3, 4: mean 2.5, s^2 = 5/3, half z sqrt(5/12) = 1.265155.
        let estimate = mean(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        let (low, high) = estimate.interval.unwrap();
        assert_eq!(estimate.value, 2.5);
        assert!((low - 1.234_845).abs() < 1e-5 && (high - 3.765_155).abs() < 1e-5, "{estimate:?}");
        assert_eq!(mean(&[7.0]).unwrap().interval, None);
        assert_eq!(mean(&[]), None);
    }

    #[test]
    fn correlations_by_hand() {
        // x 1..4, y 1, 3, 2, 4: xy 4, xx = yy 5.
        let estimate = correlation(&[(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 4.0)]).unwrap();
        assert!((estimate.value - 0.8).abs() < 1e-12);
        // atanh(0.8) = 1.098612, half z/1: tanh(-0.861352), tanh(3.058576).
        let (low, high) = estimate.interval.unwrap();
        assert!((low + 0.696_96).abs() < 1e-4 && (high - 0.995_60).abs() < 1e-4, "{estimate:?}");
        let line = correlation(&[(1.0, 2.0), (2.0, 4.0), (3.0, 6.0), (4.0, 8.0)]).unwrap();
        assert!((line.value - 1.0).abs() < 1e-12);
        assert_eq!(correlation(&[(1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(correlation(&[]), None);
    }
}
