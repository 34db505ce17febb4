//! Speed of this machine's matrix products.

use serde::{Deserialize, Serialize};

use crate::ops::matrix::{By, Into, Matrix, MatrixMut, multiply};

/// The widths that are tried: of toys, of small models, of large ones.
const WIDTHS: [usize; 3] = [64, 256, 1024];
/// Rows of the tried products: a part of a micro-batch that takes a few milliseconds.
const ROWS: usize = 128;
/// Seconds of a processor for which each width is tried.
const TRY: f64 = 0.03;

/// Floating-point operations a second in matrix products of some widths, by all threads, in f32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// (width, operations a second), by width.
    pub measured: Vec<(u64, f64)>,
    /// The threads that computed.
    pub threads: usize,
}

impl Speed {
    /// Measures it, in about a tenth of a second. What else runs here meanwhile is left out: each thread is held to the
    /// time that it has computed, not to the time that has passed.
    pub fn measure() -> Speed {
        let threads = rayon::current_num_threads();
        Speed { measured: WIDTHS.iter().map(|width| (*width as u64, speed_of_all(*width, threads))).collect(), threads }
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

/// The speeds of some threads that compute side by side, so that those that share a core share its arithmetic.
fn speed_of_all(width: usize, threads: usize) -> f64 {
    let one = || speed_at(width);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|thread| thread.join().expect("a product does not panic")).sum()
    })
}

/// Seconds that this thread has computed.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn computed() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the time into the struct that it is given and nothing else.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Seconds since the first call, where the system tells no time of a thread.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn computed() -> f64 {
    static BEGAN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    BEGAN.get_or_init(std::time::Instant::now).elapsed().as_secs_f64()
}

/// Products [ROWS, width] x [width, 2 width] by one thread.
fn speed_at(width: usize) -> f64 {
    let (a, b) = (vec![0.5_f32; ROWS * width], vec![0.25_f32; width * 2 * width]);
    let mut out = vec![0.0_f32; ROWS * 2 * width];
    let mut product = || {
        let (a, b) = (Matrix::new(&a, ROWS, width, width), Matrix::new(&b, width, 2 * width, 2 * width));
        multiply(a, b, MatrixMut::new(&mut out, ROWS, 2 * width, 2 * width), Into::Fresh, By::One);
    };
    product(); // pages and caches
    let (started, mut done) = (computed(), 0.0);
    loop {
        product();
        done += 2.0 * (ROWS * width * 2 * width) as f64;
        let seconds = computed() - started;
        if seconds >= TRY {
            return done / seconds;
        }
    }
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
