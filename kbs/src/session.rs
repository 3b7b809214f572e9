//! What is remembered between two requests: sessions of the handshake, and challenges for an SVID. All of it in memory,
//! bounded in number and time.

use std::collections::{BTreeMap, HashMap};
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

/// Keys to values that end by themselves. When full, the oldest makes room: anybody can open these, so a flood may
/// shorten everybody's time to answer, but keeps nobody out.
struct Expiring<K, V> {
    held: Mutex<Held<K, V>>,
    max: usize,
}

struct Held<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys by the number of their insertion, so that the oldest is found without a search.
    order: BTreeMap<u64, K>,
    inserted: u64,
}

struct Entry<V> {
    number: u64,
    until: SystemTime,
    value: V,
}

impl<K: Hash + Eq + Clone, V> Expiring<K, V> {
    fn new(max: usize) -> Self {
        Self {
            held: Mutex::new(Held {
                entries: HashMap::new(),
                order: BTreeMap::new(),
                inserted: 0,
            }),
            max,
        }
    }

    fn insert(&self, key: K, value: V, until: SystemTime, now: SystemTime) {
        let mut held = self.lock();
        while held.order.len() >= self.max || held.oldest_ended(now) {
            let Some((_, oldest)) = held.order.pop_first() else {
                break;
            };
            held.entries.remove(&oldest);
        }
        held.inserted += 1;
        let number = held.inserted;
        held.order.insert(number, key.clone());
        let entry = Entry {
            number,
            until,
            value,
        };
        held.entries.insert(key, entry);
    }

    /// What was held, unless it has ended.
    fn remove(&self, key: &K, now: SystemTime) -> Option<(SystemTime, V)> {
        let mut held = self.lock();
        let entry = held.entries.remove(key)?;
        held.order.remove(&entry.number);
        (now < entry.until).then_some((entry.until, entry.value))
    }

    /// What is held, unless it has ended.
    fn get(&self, key: &K, now: SystemTime) -> Option<V>
    where
        V: Clone,
    {
        let held = self.lock();
        let entry = held.entries.get(key)?;
        (now < entry.until).then(|| entry.value.clone())
    }

    fn len(&self) -> usize {
        self.lock().entries.len()
    }

    fn lock(&self) -> MutexGuard<'_, Held<K, V>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq, V> Held<K, V> {
    fn oldest_ended(&self, now: SystemTime) -> bool {
        let oldest = self.order.first_key_value();
        let oldest = oldest.and_then(|(_, key)| self.entries.get(key));
        oldest.is_some_and(|entry| entry.until <= now)
    }
}

/// 32 lower hex digits, as in a UUID without dashes.
pub(crate) type SessionId = String;

/// Those that wait for evidence and those that have an answer are held apart: strangers cannot push out the attested.
pub(crate) struct Sessions {
    /// To the nonce.
    challenged: Expiring<SessionId, String>,
    /// To the token.
    attested: Expiring<SessionId, String>,
}

/// A challenge that is being answered. Nobody else can answer it any more.
pub(crate) struct Taken {
    id: SessionId,
    pub(crate) nonce: String,
    pub(crate) until: SystemTime,
}

impl Taken {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

pub(crate) struct Opened {
    pub(crate) id: SessionId,
    pub(crate) nonce: String,
    pub(crate) until: SystemTime,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("no such session, or it ended, or its challenge was answered before or made room")]
    Unknown,
    #[error("the session is attested already")]
    Attested,
    #[error("no randomness")]
    Random,
}

impl Sessions {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            challenged: Expiring::new(max),
            attested: Expiring::new(max),
        }
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
        self.challenged
            .insert(id.clone(), nonce.clone(), until, now);
        Ok(Opened { id, nonce, until })
    }

    /// Takes the challenge out, so that one answer to it is all there will be, right or wrong.
    pub(crate) fn take(&self, id: &SessionId, now: SystemTime) -> Result<Taken, SessionError> {
        if self.attested.get(id, now).is_some() {
            return Err(SessionError::Attested);
        }
        let (until, nonce) = self
            .challenged
            .remove(id, now)
            .ok_or(SessionError::Unknown)?;
        Ok(Taken {
            id: id.clone(),
            nonce,
            until,
        })
    }

    /// The answer was right. The session ends when it would have.
    pub(crate) fn attested(&self, taken: Taken, token: String, now: SystemTime) {
        self.attested.insert(taken.id, token, taken.until, now);
    }

    pub(crate) fn token(&self, id: &SessionId, now: SystemTime) -> Option<String> {
        self.attested.get(id, now)
    }

    pub(crate) fn len(&self) -> usize {
        self.challenged.len() + self.attested.len()
    }
}

/// Challenges for an SVID; the nonce is its own name.
pub(crate) struct Challenges(Expiring<[u8; 32], ()>);

impl Challenges {
    pub(crate) fn new(max: usize) -> Self {
        Self(Expiring::new(max))
    }

    pub(crate) fn open(&self, now: SystemTime) -> Nonce {
        let nonce = Nonce::random();
        let until = now + CHALLENGE_LIFETIME;
        self.0.insert(*nonce.as_bytes(), (), until, now);
        nonce
    }

    /// Whether it was open; it is not any more.
    pub(crate) fn take(&self, nonce: &Nonce, now: SystemTime) -> bool {
        self.0.remove(nonce.as_bytes(), now).is_some()
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
        sessions.attested(taken, "token".to_owned(), later(10));
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
    fn a_flood_keeps_nobody_out_and_pushes_no_attested_session_out() {
        let sessions = Sessions::new(8);
        let opened = sessions.open(NOW).unwrap();
        let taken = sessions.take(&opened.id, NOW).unwrap();
        sessions.attested(taken, "token".to_owned(), NOW);
        let first = sessions.open(NOW).unwrap();
        for _ in 0..100 {
            sessions.open(NOW).unwrap();
        }
        assert_eq!(sessions.len(), 9);
        let ours = sessions.open(NOW).unwrap();
        for _ in 0..7 {
            sessions.open(NOW).unwrap();
        }
        assert!(sessions.take(&ours.id, NOW).is_ok());
        assert_eq!(
            sessions.take(&first.id, NOW).err(),
            Some(SessionError::Unknown)
        );
        assert_eq!(sessions.token(&opened.id, NOW).as_deref(), Some("token"));

        let challenges = Challenges::new(2);
        let nonces: Vec<_> = (0..3).map(|_| challenges.open(NOW)).collect();
        let open: Vec<_> = nonces.iter().map(|n| challenges.take(n, NOW)).collect();
        assert_eq!(open, [false, true, true]);
    }

    #[test]
    fn what_has_ended_or_was_taken_is_not_held() {
        let sessions = Sessions::new(8);
        for second in 0..4 {
            sessions.open(later(second)).unwrap();
        }
        let last = sessions.open(later(302)).unwrap();
        assert_eq!(sessions.len(), 2);
        sessions.take(&last.id, later(302)).unwrap();
        assert_eq!(sessions.len(), 1);
        let held = sessions.challenged.lock();
        assert_eq!(held.order.len(), held.entries.len());
    }

    #[test]
    fn an_svid_challenge_is_good_once_and_for_a_minute() {
        let challenges = Challenges::new(8);
        let nonce = challenges.open(NOW);
        assert!(challenges.take(&nonce, later(59)));
        assert!(!challenges.take(&nonce, later(59)));
        let nonce = challenges.open(NOW);
        assert!(!challenges.take(&nonce, later(60)));
        assert!(!challenges.take(&Nonce::random(), NOW));
    }
}
