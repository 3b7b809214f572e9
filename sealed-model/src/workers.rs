use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Beyond this many threads memory bandwidth, not AES, is the limit; each also holds a buffer of one run.
const MAX_THREADS: usize = 8;

/// Lets a caller borrow further threads for one piece of work. All callers share one budget, so many readers at once do not
/// multiply threads and buffers: the calling thread always works, others join while the budget lasts.
pub(crate) struct Workers {
    spare: AtomicUsize,
}

impl Workers {
    pub(crate) fn new() -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self {
            spare: AtomicUsize::new(threads.min(MAX_THREADS) - 1),
        }
    }

    /// Runs `work` on every task, with one `context` per thread, until all are done or one has failed.
    pub(crate) fn run<T, C, E>(
        &self,
        tasks: Vec<T>,
        context: impl Fn() -> C + Sync,
        work: impl Fn(&mut C, T) -> Result<(), E> + Sync,
    ) -> Result<(), E>
    where
        T: Send,
        E: Send,
    {
        // A thread is worth starting for two tasks or more.
        let borrowed = self.borrow(tasks.len().saturating_sub(1) / 2);
        let queue = Mutex::new(tasks.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let failure = Mutex::new(None);
        let failed = AtomicBool::new(false);
        let drain = || {
            let mut context = context();
            while !failed.load(Ordering::Relaxed) {
                let Some(task) = next() else { break };
                if let Err(error) = work(&mut context, task) {
                    failed.store(true, Ordering::Relaxed);
                    failure
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(error);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..borrowed.count {
                // Where no thread can be had, those that run do its share.
                if thread::Builder::new().spawn_scoped(scope, drain).is_err() {
                    break;
                }
            }
            drain();
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn borrow(&self, wanted: usize) -> Borrowed<'_> {
        let before = self
            .spare
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spare| {
                Some(spare - spare.min(wanted))
            })
            .unwrap_or_default();
        Borrowed {
            workers: self,
            count: before.min(wanted),
        }
    }
}

/// Threads taken from the budget; given back when dropped.
struct Borrowed<'a> {
    workers: &'a Workers,
    count: usize,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.workers.spare.fetch_add(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_and_the_budget_comes_back() {
        let workers = Workers::new();
        let before = workers.spare.load(Ordering::Relaxed);
        let sum = AtomicUsize::new(0);
        let outcome: Result<(), ()> = workers.run(
            (1..=100).collect(),
            || (),
            |(), n| {
                sum.fetch_add(n, Ordering::Relaxed);
                Ok(())
            },
        );
        assert_eq!((outcome, sum.into_inner()), (Ok(()), 5050));
        assert_eq!(workers.spare.load(Ordering::Relaxed), before);
    }

    #[test]
    fn a_failure_stops_the_rest_and_comes_out() {
        let workers = Workers::new();
        let ran = AtomicUsize::new(0);
        let outcome = workers.run(
            (0..10_000).collect::<Vec<_>>(),
            || (),
            |(), n| {
                ran.fetch_add(1, Ordering::Relaxed);
                if n == 3 { Err(n) } else { Ok(()) }
            },
        );
        assert_eq!(outcome, Err(3));
        assert!(ran.into_inner() <= 10_000);
    }
}
