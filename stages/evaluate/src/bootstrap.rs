//! The bootstrap over clusters: whole clusters, such as the verdicts of a prompt, are drawn with replacement. For rows
//! that are alike within a cluster, which other intervals take as independent.

use kit::Result;
use rayon::prelude::*;

/// The sums over each resample: as many clusters as there are, drawn with replacement. Each is drawn from a seed of its
/// own, so that it is the same on any number of threads; `check` is asked before each.
///
/// # Errors
/// That of `check`.
pub fn resampled<C: Sync, S: Default + Send>(
    clusters: &[C],
    seeds: &[u64],
    add: impl Fn(&mut S, &C) + Sync,
    check: impl Fn() -> Result<()> + Sync,
) -> Result<Vec<S>> {
    let one = |seed: &u64| {
        check()?;
        let mut draws = Draws(*seed);
        let mut sum = S::default();
        for _ in clusters {
            add(&mut sum, &clusters[draws.below(clusters.len())]);
        }
        Ok(sum)
    };
    seeds.par_iter().map(one).collect()
}

/// The 2.5 % and the 97.5 % point of some values; none without values.
pub fn percentiles(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let at = |share: f64| values[(share * last as f64).round() as usize];
    Some((at(0.025), at(0.975)))
}

/// SplitMix64 (Steele, Lea and Flood 2014): a resample of ten million clusters is ten million draws.
struct Draws(u64);

impl Draws {
    /// A number from 0 to below `n`, all equally likely up to n / 2^64.
    #[inline(always)]
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(word ^ (word >> 31)) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::mean;

    /// The interval of the mean of values of some clusters, each a sum and a count.
    fn interval(clusters: &[(f64, f64)], threads: usize) -> (f64, f64) {
        let seeds: Vec<u64> = (0..4000).map(|number| kit::Seed(17).derive("test", "", number)).collect();
        let add = |sum: &mut (f64, f64), one: &(f64, f64)| *sum = (sum.0 + one.0, sum.1 + one.1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let sums = pool.install(|| resampled(clusters, &seeds, add, || Ok(()))).unwrap();
        percentiles(sums.into_iter().map(|(sum, count)| sum / count).collect()).unwrap()
    }

    #[test]
    fn it_agrees_with_the_normal_interval_and_sees_clusters() {
        let values: Vec<f64> = (0..400).map(|row: u32| f64::from(u8::from(row.is_multiple_of(4)))).collect();
        let (normal_low, normal_high) = mean(&values).unwrap().interval.unwrap();
        let alone: Vec<(f64, f64)> = values.iter().map(|value| (*value, 1.0)).collect();
        let (low, high) = interval(&alone, 2);
        assert!((low - normal_low).abs() < 6e-3 && (high - normal_high).abs() < 6e-3, "{low} {high}");
        // The same rows four times over tell no more than once: the interval stays as wide.
        let fourfold: Vec<(f64, f64)> = values.iter().map(|value| (4.0 * value, 4.0)).collect();
        let (low, high) = interval(&fourfold, 2);
        assert!(((high - low) / (normal_high - normal_low) - 1.0).abs() < 0.08, "{low} {high}");
        assert_eq!(percentiles(Vec::new()), None);
    }

    #[test]
    fn threads_decide_nothing() {
        let clusters: Vec<(f64, f64)> = (0..1000).map(|row| (f64::from(row).sqrt(), f64::from(row % 3 + 1))).collect();
        assert_eq!(interval(&clusters, 1), interval(&clusters, 5));
    }

    #[test]
    fn draws_are_even_and_stay_below() {
        let (mut counts, mut draws) = ([0_u32; 7], Draws(3));
        (0..70_000).for_each(|_| counts[draws.below(7)] += 1);
        // Five standard deviations of a count of 10,000.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 465), "{counts:?}");
    }

    #[test]
    fn a_stop_is_heard() {
        let stopped = resampled(&[1.0], &[1, 2], |sum: &mut f64, one| *sum += one, || Err(kit::Error::Interrupted));
        assert!(matches!(stopped, Err(kit::Error::Interrupted)));
    }
}
