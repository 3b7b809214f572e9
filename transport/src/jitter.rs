use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// Three quarters to one whole of `wait`, at random, so that many clients of a server that was away do not come back in step.
#[must_use]
pub fn jittered(wait: Duration) -> Duration {
    // Unpredictable enough to spread clients, and all that is asked of it.
    let random = RandomState::new().build_hasher().finish() % 256;
    let quarters = u32::try_from(random).unwrap_or_default();
    wait / 4 * 3 + wait / 1024 * quarters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_between_three_quarters_and_the_whole_and_varies() {
        let wait = Duration::from_secs(8);
        let waits: Vec<_> = (0..64).map(|_| jittered(wait)).collect();
        assert!(
            waits.iter().all(|w| (wait / 4 * 3..=wait).contains(w)),
            "{waits:?}"
        );
        assert!(waits.iter().any(|w| *w != waits[0]));
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
        // The longest there is does not overflow.
        assert!(jittered(Duration::MAX) <= Duration::MAX);
    }
}
