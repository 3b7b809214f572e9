//! What is remembered between two requests: sessions of the handshake, and challenges for an SVID. All of it in memory,
//! bounded in number and time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use attestation::Nonce;
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Counted from the challenge, as stock brokers do.
pub(crate) const SESSION_LIFETIME: Duration = Duration::from_secs(300);
/// Long enough to make a key and evidence.
pub(crate) const CHALLENGE_LIFETIME: Duration = Duration::from_secs(60);

/// Keys to values that end by themselves.
struct Expiring<K, V> {
    held: Mutex<HashMap<K, (SystemTime, V)>>,
    max: usize,
}

impl<K: Hash + Eq, V> Expiring<K, V> {
    fn new(max: usize) -> Self {
        Self {
            held: Mutex::default(),
            max,
        }
    }

    /// Says no when full of what has not ended.
    fn insert(&self, key: K, value: V, until: SystemTime, now: SystemTime) -> bool {
        let mut held = self.lock();
        if held.len() >= self.max {
            held.retain(|_, (until, _)| now < *until);
            if held.len() >= self.max {
                return false;
            }
        }
        held.insert(key, (until, value));
        true
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, (SystemTime, V)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 32 lower hex digits, as in a UUID without dashes.
pub(crate) type SessionId = String;

enum State {
    Challenged { nonce: String },
    Attested { token: String },
}

pub(crate) struct Sessions(Expiring<SessionId, State>);

/// A challenge that is being answered. Nobody else can answer it any more.
pub(crate) struct Taken {
    id: SessionId,
    pub(crate) nonce: String,
    pub(crate) until: SystemTime,
}

pub(crate) struct Opened {
    pub(crate) id: SessionId,
    pub(crate) nonce: String,
    pub(crate) until: SystemTime,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("no such session, or it ended, or its challenge was answered before")]
    Unknown,
    #[error("the session is attested already")]
    Attested,
    #[error("as many sessions are open as may be")]
    Full,
    #[error("no randomness")]
    Random,
}

impl Sessions {
    pub(crate) fn new(max: usize) -> Self {
        Self(Expiring::new(max))
    }

    pub(crate) fn open(&self, now: SystemTime) -> Result<Opened, SessionError> {
        let (mut id, mut nonce) = ([0; 16], [0; 32]);
        if rand::fill(&mut id).is_err() || rand::fill(&mut nonce).is_err() {
            return Err(SessionError::Random);
        }
        // Version 4, variant 1 (RFC 9562 §5.4): stock tools may parse it as a UUID.
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        let (id, nonce) = (hex::encode(id), STANDARD.encode(nonce));
        let until = now + SESSION_LIFETIME;
        let state = State::Challenged {
            nonce: nonce.clone(),
        };
        if !self.0.insert(id.clone(), state, until, now) {
            return Err(SessionError::Full);
        }
        Ok(Opened { id, nonce, until })
    }

    /// Takes the challenge out, so that one answer to it is all there will be, right or wrong.
    pub(crate) fn take(&self, id: &str, now: SystemTime) -> Result<Taken, SessionError> {
        let mut held = self.0.lock();
        match held.get(id) {
            Some((until, State::Attested { .. })) if now < *until => {
                return Err(SessionError::Attested);
            }
            _ => {}
        }
        match held.remove(id) {
            Some((until, State::Challenged { nonce })) if now < until => Ok(Taken {
                id: id.to_owned(),
                nonce,
                until,
            }),
            _ => Err(SessionError::Unknown),
        }
    }

    /// The answer was right. The session ends when it would have.
    pub(crate) fn attested(&self, taken: Taken, token: String, now: SystemTime) -> bool {
        self.0
            .insert(taken.id, State::Attested { token }, taken.until, now)
    }

    pub(crate) fn token(&self, id: &str, now: SystemTime) -> Option<String> {
        match self.0.lock().get(id) {
            Some((until, State::Attested { token })) if now < *until => Some(token.clone()),
            _ => None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Challenges for an SVID; the nonce is its own name.
pub(crate) struct Challenges(Expiring<[u8; 32], ()>);

impl Challenges {
    pub(crate) fn new(max: usize) -> Self {
        Self(Expiring::new(max))
    }

    pub(crate) fn open(&self, now: SystemTime) -> Option<Nonce> {
        let nonce = Nonce::random();
        let until = now + CHALLENGE_LIFETIME;
        self.0
            .insert(*nonce.as_bytes(), (), until, now)
            .then_some(nonce)
    }

    /// Whether it was open; it is not any more.
    pub(crate) fn take(&self, nonce: &Nonce, now: SystemTime) -> bool {
        let taken = self.0.lock().remove(nonce.as_bytes());
        taken.is_some_and(|(until, ())| now < until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const NOW: SystemTime = UNIX_EPOCH;

    fn later(seconds: u64) -> SystemTime {
        NOW + Duration::from_secs(seconds)
    }

    #[test]
    fn nonce_and_cookie_have_the_stock_form() {
        let opened = Sessions::new(1).open(NOW).unwrap();
        assert_eq!(opened.nonce.len(), 44);
        assert_eq!(STANDARD.decode(&opened.nonce).unwrap().len(), 32);
        assert_eq!(opened.id.len(), 32);
        assert_eq!(&opened.id[12..13], "4");
    }

    #[test]
    fn a_challenge_is_answered_once() {
        let sessions = Sessions::new(8);
        let opened = sessions.open(NOW).unwrap();
        assert_eq!(sessions.take(&opened.id, NOW).unwrap().nonce, opened.nonce);
        assert_eq!(
            sessions.take(&opened.id, NOW).err(),
            Some(SessionError::Unknown)
        );
    }

    #[test]
    fn an_attested_session_keeps_its_token_and_takes_no_second_answer() {
        let sessions = Sessions::new(8);
        let opened = sessions.open(NOW).unwrap();
        let taken = sessions.take(&opened.id, later(10)).unwrap();
        assert_eq!(sessions.token(&opened.id, later(10)), None);
        assert!(sessions.attested(taken, "token".to_owned(), later(10)));
        assert_eq!(
            sessions.take(&opened.id, later(10)).err(),
            Some(SessionError::Attested)
        );
        assert_eq!(
            sessions.token(&opened.id, later(299)).as_deref(),
            Some("token")
        );
        assert_eq!(sessions.token(&opened.id, later(300)), None);
    }

    #[test]
    fn a_session_ends_five_minutes_after_its_challenge() {
        let sessions = Sessions::new(8);
        let opened = sessions.open(NOW).unwrap();
        assert_eq!(
            sessions.take(&opened.id, later(300)).err(),
            Some(SessionError::Unknown)
        );
    }

    #[test]
    fn a_full_store_says_so_until_something_ends() {
        let sessions = Sessions::new(2);
        sessions.open(NOW).unwrap();
        sessions.open(later(100)).unwrap();
        assert_eq!(sessions.open(later(200)).err(), Some(SessionError::Full));
        assert_eq!(sessions.len(), 2);
        sessions.open(later(300)).unwrap();
    }

    #[test]
    fn an_svid_challenge_is_good_once_and_for_a_minute() {
        let challenges = Challenges::new(8);
        let nonce = challenges.open(NOW).unwrap();
        assert!(challenges.take(&nonce, later(59)));
        assert!(!challenges.take(&nonce, later(59)));
        let nonce = challenges.open(NOW).unwrap();
        assert!(!challenges.take(&nonce, later(60)));
        assert!(!challenges.take(&Nonce::random(), NOW));
    }
}
