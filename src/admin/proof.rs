//! How a person shows who they are: by a certificate, by a session of the console, or by a token that a program shows;
//! and whether that does for a decision.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{AUTHORIZATION, COOKIE, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method};

use super::agents::moment;
use super::caller::Caller;
use super::problem::{Challenge, Problem};
use super::sessions::Key;
use super::{Admin, Logins};
use crate::call::PersonAction;
use crate::json::Members;
use crate::oidc::{Authentication, Insufficient, TokenError};

/// The session's cookie. By its prefix a browser takes it from this host alone, over TLS, for every path [RFC 6265bis].
pub(super) const SESSION_COOKIE: &str = "__Host-holdpoint-session";

/// How a person has shown who they are.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    /// A certificate of a domain of people, by its serial number.
    Certificate(Arc<str>),
    /// A session of the console.
    Session(Key, Arc<Authentication>),
    /// An access token.
    Token(Arc<Authentication>),
}

impl Proof {
    /// What an identity provider says; none for a certificate.
    pub(super) fn authentication(&self) -> Option<&Arc<Authentication>> {
        match self {
            Proof::Certificate(_) => None,
            Proof::Session(_, authentication) | Proof::Token(authentication) => Some(authentication),
        }
    }

    /// The same in one line, for a vote: `mtls SERIAL`, or `oidc ISSUER auth_time=… acr=… amr=…`.
    pub(super) fn evidence(&self) -> String {
        let serial = match self {
            Proof::Certificate(serial) => return format!("mtls {serial}"),
            Proof::Session(_, authentication) | Proof::Token(authentication) => authentication,
        };
        let Authentication { issuer, at, acr, amr, .. } = &**serial;
        let at = at.map(moment).unwrap_or_default();
        format!("oidc {issuer} auth_time={at} acr={acr} amr={}", amr.join(","))
    }

    /// The same for records, beside who it is.
    pub(super) fn describe(&self, members: &mut Members) {
        match self {
            Proof::Certificate(serial) => return members.text("instance", serial),
            Proof::Session(key, _) => members.text("instance", &format!("session {}", key.word())),
            Proof::Token(_) => members.text("instance", "token"),
        }
        if let Some(authentication) = self.authentication() {
            members.object("oidc", |members| described(authentication, members));
        }
    }

    /// Whether it still is one: sessions end, and tokens do.
    pub(super) fn stands(&self, admin: &Admin) -> bool {
        match self {
            Proof::Certificate(_) => true,
            Proof::Session(key, _) => {
                admin.logins.as_ref().is_some_and(|logins| logins.sessions.find(key).is_some())
            }
            Proof::Token(authentication) => SystemTime::now() < authentication.until,
        }
    }

    /// Whether it does for this action. Who sees, stops an agent or takes records away need not log in again for it; who
    /// lets something happen must have been authenticated recently, and in the way that is asked for.
    pub(super) fn suffices(&self, admin: &Admin, action: PersonAction) -> Result<(), Problem> {
        let lets = match action {
            PersonAction::Export | PersonAction::Suspend | PersonAction::View => return Ok(()),
            PersonAction::Approve
            | PersonAction::BreakGlass
            | PersonAction::Endorse
            | PersonAction::Pin
            | PersonAction::Resume => action,
        };
        let Some(authentication) = self.authentication() else { return Ok(()) };
        let logins = admin.logins.as_ref().ok_or(Problem::Challenged(Challenge::Absent))?;
        let config = logins.provider.config();
        let why = match authentication.suffices(config, SystemTime::now()) {
            Ok(()) => return Ok(()),
            Err(Insufficient::Old) => "your login is too long ago",
            Err(Insufficient::Weak) => "you did not log in in the way that is asked for",
        };
        let (max_age, acr) = (config.fresh, config.acr.join(" "));
        let text = format!("{why}: to {}, log in again", lets.as_str());
        Err(Problem::Challenged(Challenge::Again { text, max_age, acr }))
    }
}

fn described(authentication: &Authentication, members: &mut Members) {
    members.text("issuer", &authentication.issuer);
    members.text("subject", &authentication.subject);
    if let Some(at) = authentication.at {
        members.text("auth_time", &moment(at));
    }
    members.some("acr", &authentication.acr);
    members.texts("amr", authentication.amr.iter().map(|amr| &**amr));
}

/// Who asks without a certificate: the person of a token where one is shown, else of a session.
pub(super) async fn guest(admin: &Admin, parts: &Parts, address: SocketAddr) -> Result<Caller, Problem> {
    let unlet = || Problem::Forbidden("only a certificate of a person opens this listener".to_owned());
    let logins = admin.logins.as_ref().ok_or_else(unlet)?;
    let mut shown = parts.headers.get_all(AUTHORIZATION).iter();
    let proof = match (shown.next(), shown.next()) {
        (None, _) => session(logins, parts)?,
        (Some(value), None) => token(admin, logins, value.as_bytes(), address).await?,
        (Some(_), Some(_)) => return Err(Problem::Invalid("`Authorization` is given twice".to_owned())),
    };
    let Some(authentication) = proof.authentication() else { return Err(unlet()) };
    match admin.people.load().named(&authentication.issuer, &authentication.subject) {
        Some(person) => Ok(Caller::Person { person, proof, address }),
        None => {
            stranger(admin, authentication, address);
            Err(unknown(authentication))
        }
    }
}

/// What somebody is told whom the provider knows and nobody here does.
pub(super) fn unknown(authentication: &Authentication) -> Problem {
    let Authentication { issuer, subject, .. } = authentication;
    Problem::Forbidden(format!("`{subject}` of {issuer} is not among the people of this gateway"))
}

/// Records somebody whom the provider knows and nobody here does; a flood of them is folded.
pub(super) fn stranger(admin: &Admin, authentication: &Authentication, address: SocketAddr) {
    let rule = "unknown-person";
    admin.evidence().stranger_refused(rule, rule, Some(address), |members| {
        members.text("kind", "unknown");
        members.object("oidc", |members| described(authentication, members));
    });
}

fn session(logins: &Logins, parts: &Parts) -> Result<Proof, Problem> {
    let absent = || Problem::Challenged(Challenge::Absent);
    let key = Key::of(cookie(&parts.headers, SESSION_COOKIE).ok_or_else(absent)?);
    let authentication = logins.sessions.find(&key).ok_or_else(absent)?;
    let changes = !matches!(parts.method, Method::GET | Method::HEAD);
    if changes && !is_from_own_page(&parts.headers, &logins.provider.config().console) {
        return Err(Problem::Forbidden("the request does not say that it comes from the console".to_owned()));
    }
    Ok(Proof::Session(key, authentication))
}

/// Whether a browser says that a page of the console asks. What came along by itself, as a cookie does, counts for nothing
/// without that.
fn is_from_own_page(headers: &HeaderMap, console: &str) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter().map(|origin| origin.as_bytes());
    match (origins.next(), origins.next()) {
        (Some(origin), None) => origin == console.as_bytes(),
        (Some(_), Some(_)) => false,
        (None, _) => headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"same-origin"),
    }
}

async fn token(admin: &Admin, logins: &Logins, value: &[u8], address: SocketAddr) -> Result<Proof, Problem> {
    let challenged = |text: String| Problem::Challenged(Challenge::Token(text));
    let value = std::str::from_utf8(value).unwrap_or_default();
    let token = match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => return Err(challenged("`Authorization` must be `Bearer` and an access token".to_owned())),
    };
    if logins.provider.config().audience.is_none() {
        return Err(challenged("tokens are not taken here: `oidc.audience` is not configured".to_owned()));
    }
    match logins.provider.shown(token).await {
        Ok(authentication) => Ok(Proof::Token(Arc::new(authentication))),
        Err(error @ TokenError::Provider(_)) => Err(Problem::Unavailable(error.to_string())),
        Err(error) => {
            admin.evidence().stranger_refused(error.reason(), "oidc", Some(address), |members| {
                members.text("kind", "token");
            });
            Err(challenged(error.to_string()))
        }
    }
}

/// The one cookie of this name; none where there are two, of which one would be somebody else's.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    match (found.next(), found.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}
