//! The threads that compute.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{EngineOptions, LoadError};

/// A model's own pool.
///
/// # Errors
/// The system gives no thread, or pinned threads are asked for where there are fewer processors, or none to be told apart.
pub(crate) fn pool(options: &EngineOptions) -> Result<ThreadPool, LoadError> {
    let builder = ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .thread_name(|index| format!("engine-{index}"));
    let builder = match options.pin_threads {
        true => {
            let places = places(options.threads)?;
            builder.start_handler(move |index| {
                if let Some(place) = places.get(index)
                    && let Err(error) = place.take()
                {
                    tracing::warn!(%error, index, "a thread could not be bound to its processor");
                }
            })
        }
        false => builder,
    };
    builder
        .build()
        .map_err(|error| LoadError::Threads(error.into()))
}

#[cfg(target_os = "linux")]
mod processor {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// One processor.
    pub(super) struct Place(CpuSet);

    impl Place {
        /// Those that this process may use.
        pub(super) fn all() -> std::io::Result<Vec<Self>> {
            let allowed = sched_getaffinity(None)?;
            let one = |number: usize| {
                let mut set = CpuSet::new();
                set.set(number);
                Self(set)
            };
            let numbers = (0..CpuSet::MAX_CPU).filter(|number| allowed.is_set(*number));
            Ok(numbers.map(one).collect())
        }

        /// Binds the calling thread to it.
        pub(super) fn take(&self) -> std::io::Result<()> {
            Ok(sched_setaffinity(None, &self.0)?)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod processor {
    /// There is none.
    pub(super) enum Place {}

    impl Place {
        pub(super) fn all() -> std::io::Result<Vec<Self>> {
            Err(std::io::ErrorKind::Unsupported.into())
        }

        pub(super) fn take(&self) -> std::io::Result<()> {
            match *self {}
        }
    }
}

use processor::Place;

/// One for each thread.
fn places(threads: usize) -> Result<Vec<Place>, LoadError> {
    let problem = |problem| LoadError::Option {
        field: "pin_threads",
        problem,
    };
    let places = Place::all().map_err(|_error| problem("works on Linux only"))?;
    if places.len() < threads {
        return Err(problem("needs a processor for each of `threads`"));
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fixtures::options;

    fn allowed() -> BTreeSet<usize> {
        let set = rustix::thread::sched_getaffinity(None).unwrap();
        (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|number| set.is_set(*number))
            .collect()
    }

    #[test]
    fn a_pinned_thread_stays_on_a_processor_of_its_own() {
        let pinned = EngineOptions {
            threads: allowed().len(),
            pin_threads: true,
            ..options()
        };
        let mine = allowed();
        let each = pool(&pinned).unwrap().broadcast(|_| allowed());
        assert!(each.iter().all(|own| own.len() == 1));
        assert_eq!(each.into_iter().flatten().collect::<BTreeSet<_>>(), mine);
        assert_eq!(allowed(), mine, "whoever makes the pool is not bound");
    }

    #[test]
    fn threads_are_not_pinned_unless_asked() {
        let each = pool(&options()).unwrap().broadcast(|_| allowed());
        assert!(each.into_iter().all(|own| own == allowed()));
    }

    #[test]
    fn refuses_more_pinned_threads_than_processors() {
        let refused = pool(&EngineOptions {
            threads: allowed().len() + 1,
            pin_threads: true,
            ..options()
        });
        assert!(matches!(
            refused.unwrap_err(),
            LoadError::Option {
                field: "pin_threads",
                ..
            }
        ));
    }
}
