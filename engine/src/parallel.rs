//! Work on all threads: rayon's, or those that multiply quantized matrices.
//!
//! candle multiplies quantized matrices on threads of its own, which stay awake between two products, for half a millisecond. Work
//! for rayon's threads meanwhile would run on processors that are already busy waiting. So a model of quantized matrices has all of its
//! work done where its products are.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use candle_core::utils::barrier_pool;
use rayon::prelude::*;

/// Whose threads a model works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The pool that the caller runs in.
    Rayon,
    /// The process's one pool for products of quantized matrices, of as many threads as `RAYON_NUM_THREADS` says.
    Quantized,
}

thread_local! {
    static THREADS: Cell<Threads> = const { Cell::new(Threads::Rayon) };
}

/// What the calling thread hands out from now on.
pub(crate) fn set_threads(threads: Threads) {
    THREADS.set(threads);
}

/// Calls `work` with each of `items`, on all threads.
///
/// # Errors
/// One of those that `work` returned.
///
/// # Panics
/// Where `work` does.
pub(crate) fn try_for_each<T: Send, E: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    if items.len() < 2 {
        return items.into_iter().try_for_each(work);
    }
    match THREADS.get() {
        Threads::Rayon => items.into_par_iter().try_for_each(&work),
        Threads::Quantized => {
            let items: Vec<_> = items
                .into_iter()
                .map(|item| Mutex::new(Some(item)))
                .collect();
            let take = |index: usize| items.get(index).and_then(|item| locked(item).take());
            let (failed, panicked) = (Mutex::new(None), AtomicBool::new(false));
            barrier_pool().execute_chunked(items.len(), |range| {
                // A panic would leave candle's pool locked for good.
                let done = catch_unwind(AssertUnwindSafe(|| {
                    range.into_iter().filter_map(take).try_for_each(&work)
                }));
                match done {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => *locked(&failed) = Some(error),
                    // Its message may hold text.
                    Err(_payload) => panicked.store(true, Ordering::Relaxed),
                }
            });
            assert!(!panicked.into_inner(), "work on another thread panicked");
            match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
                Some(error) => Err(error),
                None => Ok(()),
            }
        }
    }
}

/// As [`try_for_each`], where nothing can fail.
pub(crate) fn for_each<T: Send>(items: Vec<T>, work: impl Fn(T) + Sync) {
    let done = try_for_each(items, |item| {
        work(item);
        Ok::<(), std::convert::Infallible>(())
    });
    match done {
        Ok(()) => {}
        Err(never) => match never {},
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_both(test: impl Fn() + Send + Sync + Copy) {
        for threads in [Threads::Rayon, Threads::Quantized] {
            // What one test chooses, no other sees.
            std::thread::scope(|scope| {
                let chosen = scope.spawn(move || {
                    set_threads(threads);
                    test();
                });
                assert!(chosen.join().is_ok(), "{threads:?}");
            });
        }
    }

    #[test]
    fn every_item_is_worked_on_once() {
        on_both(|| {
            for count in [0, 1, 2, 7, 1000] {
                let mut numbers = vec![0; count];
                for_each(
                    numbers.iter_mut().enumerate().collect(),
                    |(index, number)| {
                        *number += index + 1;
                    },
                );
                assert!(numbers.into_iter().eq(1..=count));
            }
        });
    }

    #[test]
    fn an_error_comes_back() {
        on_both(|| {
            let work = |number: usize| if number == 70 { Err("seventy") } else { Ok(()) };
            assert_eq!(try_for_each((0..100).collect(), work), Err("seventy"));
            assert_eq!(try_for_each((0..70).collect(), work), Ok(()));
        });
    }

    #[test]
    fn a_panic_comes_back_and_leaves_the_threads_at_work() {
        on_both(|| {
            let caught = catch_unwind(|| {
                for_each((0..100).collect(), |number: usize| assert!(number != 70));
            });
            assert!(caught.is_err());
            for_each((0..100).collect(), |_: usize| {});
        });
    }
}
