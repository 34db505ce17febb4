//! The next batch prepared while this one computes.

use std::sync::mpsc::sync_channel;

use kit::{Error, Result};
use rayon::{ThreadPoolBuilder, current_num_threads};

/// Batches that are ready before the one in work is done: those of one are memory enough.
const READY: usize = 1;
/// Threads that prepare, at most.
const THREADS: usize = 4;

/// Uses batches in their order on this thread, while another one prepares those that follow: words, tokens, the tree of
/// a micro-batch. What is computed does not depend on it. The threads that prepare are not those that compute: where all
/// of these wait for batches, as a single one does, none would be left to prepare them.
///
/// # Errors
/// The first error in the order of the batches, of their preparation or their use; later batches are not used. When no
/// thread can be started.
pub fn prepared_ahead<T: Send>(
    batches: impl Iterator<Item = Result<T>> + Send,
    mut used: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let threads = current_num_threads().min(THREADS);
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|at| format!("prepare {at}")).build();
    let pool = pool.map_err(|error| Error::io("threads that prepare batches")(std::io::Error::other(error)))?;
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(READY);
        let prepare = move || {
            for batch in batches {
                let failed = batch.is_err();
                // Nobody receives any more where a batch could not be used.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        scope.spawn(|| pool.install(prepare));
        receiver.iter().try_for_each(|batch| used(batch?))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use rayon::prelude::*;

    use super::*;

    #[test]
    fn batches_are_used_in_order_and_prepared_before_the_one_in_work_ends() {
        let prepared = AtomicUsize::new(0);
        let batches = (0..5).map(|batch| {
            prepared.fetch_add(1, SeqCst);
            Ok(batch)
        });
        let mut used = Vec::new();
        let all = prepared_ahead(batches, |batch| {
            used.push(batch);
            // It ends only once the next one is there.
            while prepared.load(SeqCst) < (batch + 2).min(5) {
                std::thread::yield_now();
            }
            // At most the one that waits and the one that cannot be sent yet.
            assert!(prepared.load(SeqCst) <= batch + 3);
            Ok(())
        });
        assert!(all.is_ok());
        assert_eq!(used, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn batches_are_prepared_while_every_thread_waits_for_them() {
        let sums = rayon::broadcast(|_| {
            let batches = (1..4_u64).map(|batch| Ok((0..1000 * batch).into_par_iter().sum::<u64>()));
            let mut used = Vec::new();
            prepared_ahead(batches, |sum| {
                used.push(sum);
                Ok(())
            })?;
            Ok::<_, Error>(used)
        });
        for sum in sums {
            assert_eq!(sum.unwrap(), [499_500, 1_999_000, 4_498_500]);
        }
    }

    #[test]
    fn the_first_error_ends_it() {
        let run = |bad: usize, fails: usize| {
            let mut used = Vec::new();
            let batches = (0..9).map(|at| if at == bad { Err(Error::data(format!("bad {at}"))) } else { Ok(at) });
            let all = prepared_ahead(batches, |at| {
                if at == fails {
                    return Err(Error::data(format!("failed {at}")));
                }
                used.push(at);
                Ok(())
            });
            (used.len(), all.unwrap_err().to_string())
        };
        assert_eq!(run(3, 9), (3, "bad 3".to_owned()));
        assert_eq!(run(9, 2), (2, "failed 2".to_owned()));
        assert_eq!(run(4, 3), (3, "failed 3".to_owned()));
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_while_preparing_is_one() {
        let batches = (0..2).map(|at| if at == 1 { panic!("at 1") } else { Ok(at) });
        let _ = prepared_ahead(batches, |_| Ok(()));
    }
}
