use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls_pki_types::UnixTime;

use crate::Error;

/// The time that certificates are checked against; whole seconds, as in certificates.
#[derive(Clone, Debug)]
pub struct Clock(Arc<dyn TimeProvider>);

impl Clock {
    /// The operating system's wall clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(DefaultTimeProvider))
    }

    /// A clock that the program's `main`, or a test, provides.
    #[must_use]
    pub fn from_fn(now: Arc<dyn Fn() -> SystemTime + Send + Sync>) -> Self {
        Self(Arc::new(FnClock(now)))
    }

    /// # Errors
    /// [`Error::Clock`] when the time cannot be read or lies before 1970; callers then refuse.
    pub fn now(&self) -> Result<SystemTime, Error> {
        let now = self.0.current_time().ok_or(Error::Clock)?;
        system_time(now).ok_or(Error::Clock)
    }

    pub(crate) fn provider(&self) -> Arc<dyn TimeProvider> {
        Arc::clone(&self.0)
    }
}

pub(crate) fn system_time(time: UnixTime) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()))
}

struct FnClock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl fmt::Debug for FnClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FnClock")
    }
}

impl TimeProvider for FnClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = (self.0)().duration_since(UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}
