//! Forms of the logistic functions that neither overflow nor cancel.

/// ln(1 + e^x); `softplus(-x)` is -log sigmoid(x).
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// 1 / (1 + e^-x). 1 - sigmoid(x) is written `sigmoid(-x)`, which keeps its digits far out.
pub(crate) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// ln(1 - e^x) for x < 0.
pub(crate) fn log_one_minus_exp(x: f64) -> f64 {
    if x > -std::f64::consts::LN_2 { (-x.exp_m1()).ln() } else { (-x.exp()).ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_out_they_stay_finite_and_exact() {
        assert_eq!(softplus(1000.0), 1000.0);
        assert_eq!(softplus(-1000.0), 0.0);
        assert_eq!(softplus(-50.0), (-50.0f64).exp());
        assert_eq!(softplus(0.0), std::f64::consts::LN_2);
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid(-800.0), 0.0);
        assert!((sigmoid(-50.0) / (-50.0f64).exp() - 1.0).abs() < 1e-15);
        assert!((log_one_minus_exp(-1e-12) - (1e-12f64).ln()).abs() < 1e-11);
        assert!((log_one_minus_exp(-40.0) + (-40.0f64).exp()).abs() < 1e-30);
    }
}
