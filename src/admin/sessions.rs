//! Sessions of the console, in memory: a restart ends them all, and everybody logs in again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::call::hex;
use crate::oidc::{Authentication, SESSION_TIME_MAX};

/// Sessions of everybody.
const SESSIONS_MAX: usize = 4096;
/// Sessions of one person: one more ends their oldest.
const SESSIONS_PER_PERSON_MAX: usize = 8;

/// What a session is known by here: the digest of what its browser has. What the browser has is kept nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

/// Every session.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<Key, Session>>);

struct Session {
    authentication: Arc<Authentication>,
    opened: Instant,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.word())
    }
}

impl Key {
    /// The key of what a browser brings.
    pub(super) fn of(cookie: &str) -> Key {
        let mut key = [0; 32];
        let digest = digest::digest(&digest::SHA256, cookie.as_bytes());
        key.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Key(key)
    }

    /// Enough of it to tell sessions apart in records.
    pub(super) fn word(&self) -> String {
        hex(self.0.get(..8).unwrap_or_default())
    }

    /// The whole of it, to which forms are bound.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Sessions {
    /// Opens a session, and gives what the browser is to bring.
    pub(super) fn open(&self, authentication: Authentication) -> Result<String, &'static str> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(|_| "no random numbers")?;
        let cookie = URL_SAFE_NO_PAD.encode(secret);
        let mut sessions = self.table();
        sessions.retain(|_, session| session.opened.elapsed() < SESSION_TIME_MAX);
        let own = |session: &Session| {
            let other = &session.authentication;
            other.subject == authentication.subject && other.issuer == authentication.issuer
        };
        if sessions.values().filter(|session| own(session)).count() >= SESSIONS_PER_PERSON_MAX {
            end_oldest(&mut sessions, own);
        }
        if sessions.len() >= SESSIONS_MAX {
            end_oldest(&mut sessions, |_| true);
        }
        let session = Session { authentication: Arc::new(authentication), opened: Instant::now() };
        sessions.insert(Key::of(&cookie), session);
        Ok(cookie)
    }

    /// How whoever has this session was authenticated; none when it has ended.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<Authentication>> {
        let sessions = self.table();
        let session = sessions.get(key).filter(|session| session.opened.elapsed() < SESSION_TIME_MAX);
        session.map(|session| Arc::clone(&session.authentication))
    }

    /// Ends a session.
    pub(super) fn end(&self, key: &Key) {
        self.table().remove(key);
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Key, Session>> {
        // Each change is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end_oldest(sessions: &mut HashMap<Key, Session>, which: impl Fn(&Session) -> bool) {
    let among = sessions.iter().filter(|(_, session)| which(session));
    let oldest = among.min_by_key(|(_, session)| session.opened).map(|(key, _)| *key);
    oldest.map(|key| sessions.remove(&key));
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn of(subject: &str) -> Authentication {
        let now = SystemTime::now();
        let issuer = Arc::from("https://id.example.org");
        Authentication {
            issuer,
            subject: subject.into(),
            at: Some(now),
            acr: "".into(),
            amr: Vec::new(),
            until: now,
        }
    }

    #[test]
    fn one_person_ends_their_own_oldest_session_and_nobody_elses() {
        let sessions = Sessions::default();
        let other = sessions.open(of("bo")).unwrap();
        let all: Vec<String> =
            (0..=SESSIONS_PER_PERSON_MAX).map(|_| sessions.open(of("ana")).unwrap()).collect();
        let stands = |cookie: &String| sessions.find(&Key::of(cookie)).is_some();
        assert!(stands(&other) && !stands(&all[0]));
        assert!(all.iter().skip(1).all(stands));
        sessions.end(&Key::of(&other));
        assert!(!stands(&other));
    }
}
