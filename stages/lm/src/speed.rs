//! How fast this machine multiplies matrices.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::ops::matrix::{By, Into, Matrix, MatrixMut, multiply};

/// The widths that are tried: of toys, of small models, of large ones.
const WIDTHS: [usize; 3] = [64, 256, 1024];
/// Rows of the tried products, as in a micro-batch.
const ROWS: usize = 512;
/// How long each width is tried.
const TRY: Duration = Duration::from_millis(30);

/// Floating-point operations a second in matrix products of some widths, by all threads, in f32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// (width, operations a second), by width.
    pub measured: Vec<(u64, f64)>,
    /// The threads that computed.
    pub threads: usize,
}

impl Speed {
    /// Measures it, in about a tenth of a second.
    pub fn measure() -> Speed {
        Speed {
            measured: WIDTHS.iter().map(|width| (*width as u64, speed_at(*width))).collect(),
            threads: rayon::current_num_threads(),
        }
    }

    /// Operations a second at a width: that of the next narrower one that was measured, and between two of them the
    /// share of the way in doublings.
    pub fn at(&self, width: u64) -> f64 {
        let after = self.measured.partition_point(|(measured, _)| *measured <= width);
        match (self.measured.get(after.wrapping_sub(1)), self.measured.get(after)) {
            (Some((low, slow)), Some((high, fast))) => {
                let share = (width as f64 / *low as f64).ln() / (*high as f64 / *low as f64).ln();
                slow + share * (fast - slow)
            }
            (Some((_, speed)), None) | (None, Some((_, speed))) => *speed,
            (None, None) => 1.0,
        }
    }
}

/// The fastest of some products [ROWS, width] x [width, 2 width].
fn speed_at(width: usize) -> f64 {
    let (a, b) = (vec![0.5_f32; ROWS * width], vec![0.25_f32; width * 2 * width]);
    let mut out = vec![0.0_f32; ROWS * 2 * width];
    let operations = 2.0 * (ROWS * width * 2 * width) as f64;
    let started = Instant::now();
    let mut best = f64::INFINITY;
    while started.elapsed() < TRY {
        let one = Instant::now();
        let (a, b) = (Matrix::new(&a, ROWS, width, width), Matrix::new(&b, width, 2 * width, 2 * width));
        multiply(a, b, MatrixMut::new(&mut out, ROWS, 2 * width, 2 * width), Into::Fresh, By::All);
        best = best.min(one.elapsed().as_secs_f64());
    }
    operations / best.max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_of_other_widths_lies_between_those_measured() {
        let speed = Speed { measured: vec![(64, 2e9), (256, 4e9)], threads: 1 };
        assert_eq!((speed.at(16), speed.at(64), speed.at(128), speed.at(4096)), (2e9, 2e9, 3e9, 4e9));
        let here = Speed::measure();
        assert!(here.measured.iter().all(|(_, speed)| *speed > 1e6), "{here:?}");
    }
}
