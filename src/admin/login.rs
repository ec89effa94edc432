//! Logging in at the identity provider, coming back from it, and leaving.

use std::time::Duration;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{ACCEPT, HOST, REFERER, SET_COOKIE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use maud::{Markup, html};
use serde::Deserialize;

use super::body::{Asked, Filled};
use super::caller::{Caller, Peer};
use super::console::{self, page};
use super::problem::{Challenge, Problem, see_other};
use super::proof::{self, Proof, SESSION_COOKIE, cookie};
use super::{Admin, Logins};
use crate::json::Members;
use crate::oidc::{Answered, CALLBACK, LOGIN_TIME_MAX, LoginError, SESSION_TIME_MAX, Why};
use crate::record::{Entry, Kind};

/// The cookie of a login that is under way. It must come along when the provider sends the browser back, so it is no
/// `Strict` one; alone it opens nothing.
const LOGIN_COOKIE: &str = "__Host-holdpoint-login";
/// The longest path that a login leads back to, in bytes.
const PATH_BYTES_MAX: usize = 2048;

/// What a login is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    to: Option<String>,
    why: Option<Why>,
}

/// What the form that ends a session brings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Leaving {
    token: String,
}

/// The pages of those who have yet to log in.
pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/login", get(begin))
        .route(CALLBACK, get(finish))
        .route("/logout", get(left).post(leave))
}

/// `GET /login`
async fn begin(
    State(admin): State<Arc<Admin>>,
    asked: Result<Asked<Wanted>, Problem>,
    parts: Parts,
) -> Response {
    let begun = match (asked, &admin.logins) {
        (Ok(Asked(wanted)), Some(logins)) => begun(logins, &wanted, &parts).await,
        (Err(problem), _) => Err(problem),
        (_, None) => Err(Problem::NotFound("there is no such page".to_owned())),
    };
    begun.unwrap_or_else(|problem| failed(&problem))
}

async fn begun(logins: &Logins, wanted: &Wanted, parts: &Parts) -> Result<Response, Problem> {
    let authority = authority(&parts.uri, &parts.headers);
    let from = || referred(&parts.headers, authority);
    let to = wanted.to.clone().or_else(from).and_then(|to| own_path(&to)).unwrap_or_else(|| "/".to_owned());
    // With a certificate there is nothing to log in to.
    if matches!(parts.extensions.get::<Peer>(), Some(Peer::Certificate { .. })) {
        return Ok(see_other(&to));
    }
    let why = wanted.why.unwrap_or(Why::See);
    let console = &logins.provider.config().console;
    if Some(authority) != console.strip_prefix("https://") {
        // The provider sends browsers back there, and cookies of another name would not come along.
        return Ok(see_other(&format!("{console}{}", link(&to, why))));
    }
    let begun = logins.provider.begin(&to, why).await;
    let begun = begun.map_err(|why| Problem::Unavailable(LoginError::Provider(why).to_string()))?;
    let mut response = see_other(&begun.location);
    set(&mut response, LOGIN_COOKIE, &begun.cookie, "Lax", LOGIN_TIME_MAX);
    Ok(response)
}

/// `GET /login/callback`
async fn finish(
    State(admin): State<Arc<Admin>>,
    answered: Result<axum::extract::Query<Answered>, axum::extract::rejection::QueryRejection>,
    parts: Parts,
) -> Response {
    let answered = answered.map_err(|error| Problem::Invalid(error.body_text()));
    let finished = match answered {
        Ok(axum::extract::Query(answered)) => finished(&admin, &answered, &parts).await,
        Err(problem) => Err(problem),
    };
    finished.unwrap_or_else(|problem| failed(&problem))
}

async fn finished(admin: &Admin, answered: &Answered, parts: &Parts) -> Result<Response, Problem> {
    let (Some(logins), Some(Peer::Guest { address })) = (&admin.logins, parts.extensions.get::<Peer>())
    else {
        return Ok(see_other("/"));
    };
    let kept = cookie(&parts.headers, LOGIN_COOKIE).unwrap_or_default();
    let entered = logins.provider.finish(kept, answered).await.map_err(|error| {
        admin.evidence().stranger_refused(error.reason(), "oidc", Some(*address), |members| {
            members.text("kind", "login");
        });
        match error {
            LoginError::Provider(_) => Problem::Unavailable(error.to_string()),
            other => Problem::Forbidden(other.to_string()),
        }
    })?;
    let authentication = entered.authentication;
    let person = admin.people.load().named(&authentication.issuer, &authentication.subject);
    let Some(person) = person else {
        proof::stranger(admin, &authentication, *address);
        return Err(proof::unknown(&authentication));
    };
    let session = logins.sessions.open(authentication.clone());
    let session = session.map_err(|why| Problem::Unavailable(why.to_owned()))?;
    let proof = Proof::Session(super::sessions::Key::of(&session), Arc::new(authentication));
    let caller = Caller::Person { person, proof, address: *address };
    recorded(admin, &caller, "login");
    // A page and no redirect: this request was made by the provider's page, so a `Strict` cookie would not come along to
    // where it led. What this page leads to is asked for by the console.
    let mut response = console::bare(
        "You are logged in",
        Some(&entered.to),
        &html! {
            p { a href=(entered.to) { "Go on" } }
        },
    );
    set(&mut response, SESSION_COOKIE, &session, "Strict", SESSION_TIME_MAX);
    set(&mut response, LOGIN_COOKIE, "", "Lax", Duration::ZERO);
    Ok(response)
}

/// `POST /logout`
async fn leave(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    filled: Result<Filled<Leaving>, Problem>,
) -> Response {
    let own = filled.and_then(|Filled(leaving)| page::own(&admin, &caller, &leaving.token));
    if let Err(problem) = own {
        return failed(&problem);
    }
    if let (Some(Proof::Session(key, _)), Some(logins)) = (caller.proof(), &admin.logins) {
        logins.sessions.end(key);
        recorded(&admin, &caller, "logout");
    }
    let mut response = see_other("/logout");
    set(&mut response, SESSION_COOKIE, "", "Strict", Duration::ZERO);
    response
}

/// `GET /logout`
async fn left() -> Response {
    console::bare(
        "You are logged out",
        None,
        &html! {
            p { "The identity provider may still know you: whoever has this browser may log in again without being asked." }
            p { a href="/login" { "Log in" } }
        },
    )
}

fn recorded(admin: &Admin, caller: &Caller, action: &str) {
    let mut members = Members::default();
    members.text("action", action);
    members.object("by", |members| caller.describe(members));
    if let Caller::Person { address, .. } = caller {
        members.plain("peer", address);
    }
    members.object("decision", |members| {
        members.text("outcome", "allowed");
        members.text("rule", "oidc");
    });
    admin.evidence().ledger.append_detached(Entry::new(Kind::Admin, None, members));
}

/// Where a browser is and what it asks for, so that it can come back. None for a program.
pub(super) struct Navigation {
    /// The page that is asked for, or that the form is on.
    to: String,
    /// Whether it is asked for by a page of another site, to which the session's cookie does not come along.
    from: Site,
    /// Whether it is a form.
    method: Method,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    Other,
    Own,
}

impl Navigation {
    pub(super) fn of<B>(request: &Request<B>) -> Option<Navigation> {
        let headers = request.headers();
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
        let page = accepted.into_iter().any(|accept| accept.contains("text/html"));
        let path = request.uri().path_and_query().map(http::uri::PathAndQuery::as_str);
        if !page || request.uri().path().starts_with("/v1/") {
            return None;
        }
        let method = request.method().clone();
        let to = match method {
            Method::GET => path.and_then(own_path),
            _ => referred(headers, authority(request.uri(), headers)),
        };
        let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
        let from = if matches!(site, Some(b"cross-site" | b"same-site")) { Site::Other } else { Site::Own };
        Some(Navigation { to: to.unwrap_or_else(|| "/".to_owned()), from, method })
    }
}

/// What a browser is given instead of being told that nobody is logged in, or that a login is too old. A form is never
/// sent on: whoever comes back from the provider looks at the page again, and decides again.
pub(super) fn instead(navigation: Option<Navigation>, refused: Response) -> Response {
    let challenge = refused.extensions().get::<Challenge>().cloned();
    let (Some(Navigation { to, from, method }), Some(challenge)) = (navigation, challenge) else {
        return refused;
    };
    let (title, why, text) = match challenge {
        Challenge::Absent if method == Method::GET && from == Site::Other => {
            // Asked for once more, by this page: then the cookie comes along, if there is one.
            let page = html! { p { a href=(to) { "Go on" } } };
            return console::bare("One moment", Some(&to), &page);
        }
        Challenge::Absent if method == Method::GET => return see_other(&link(&to, Why::See)),
        Challenge::Absent => ("Log in", Why::See, "You are not logged in, or not any more.".to_owned()),
        Challenge::Again { text, .. } => ("Log in again", Why::Decide, text),
        Challenge::Token(_) => return refused,
    };
    let content = html! {
        p class="problem" role="alert" { (page::text(&text)) }
        p { "Nothing was done. You come back to the page, and decide there." }
        p { a class="button" href=(link(&to, why)) { (title) } }
    };
    let mut response = console::bare(title, None, &content);
    *response.status_mut() = refused.status();
    if let Some(value) = refused.headers().get(WWW_AUTHENTICATE) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value.clone());
    }
    response
}

fn failed(problem: &Problem) -> Response {
    let (status, _, title) = problem.face();
    let content: Markup = html! {
        p class="problem" role="alert" { (page::text(&problem.detail())) }
        p { a href="/login" { "Log in" } }
    };
    let mut response = console::bare(title, None, &content);
    *response.status_mut() = status;
    response
}

fn link(to: &str, why: Why) -> String {
    let why = match why {
        Why::Decide => "decide",
        Why::See => "see",
    };
    format!("/login?why={why}&to={}", page::segment(to))
}

/// A path of this console that a login may lead to.
fn own_path(path: &str) -> Option<String> {
    let whole: Uri = path.parse().ok()?;
    let safe = path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= PATH_BYTES_MAX
        && path.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '\\' | '"' | '\'' | '<' | '>'));
    let elsewhere = !["/login", "/logout"].iter().any(|page| whole.path().starts_with(page));
    (safe && elsewhere).then(|| path.to_owned())
}

/// The page that asked, where it is one of this host.
fn referred(headers: &HeaderMap, authority: &str) -> Option<String> {
    let referer: Uri = headers.get(REFERER)?.to_str().ok()?.parse().ok()?;
    let own = referer.scheme_str() == Some("https") && referer.authority()?.as_str() == authority;
    own.then(|| referer.path_and_query().and_then(|path| own_path(path.as_str())))?
}

fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let named = uri.authority().map(http::uri::Authority::as_str);
    let host = || headers.get(HOST).and_then(|host| host.to_str().ok());
    named.or_else(host).unwrap_or_default()
}

/// Sets a cookie that scripts do not see; for no time, it is taken away.
fn set(response: &mut Response, name: &str, value: &str, same_site: &str, time: Duration) {
    let seconds = time.as_secs();
    let cookie = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite={same_site}; Max-Age={seconds}");
    match HeaderValue::from_str(&cookie) {
        Ok(mut cookie) => {
            cookie.set_sensitive(true);
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        Err(_) => *response = Problem::Unavailable("the cookie cannot be set".to_owned()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_a_page_of_the_console_alone() {
        for path in ["/", "/records?tool=a%20b&limit=5", "/holds/0198"] {
            assert_eq!(own_path(path).as_deref(), Some(path));
        }
        let long = format!("/{}", "a".repeat(PATH_BYTES_MAX));
        for path in [
            "//evil.example/x",
            "/\\evil.example",
            "https://evil.example/",
            "evil",
            "",
            "/a b",
            "/\r\nx: y",
            "/\u{202e}",
            "/login?to=/login",
            "/logout",
            &long,
        ] {
            assert_eq!(own_path(path), None, "{path:?}");
        }
    }
}
