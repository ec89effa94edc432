//! What every page has, and how text that others wrote is put on it.

use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;

use super::{breakglass, shadow, waiting};
use crate::admin::Admin;
use crate::admin::agents::moment;
use crate::admin::body::Filled;
use crate::admin::caller::Caller;
use crate::admin::literal::{self, Part};
use crate::admin::problem::Problem;
use crate::admin::proof::Proof;
use crate::admin::shadow::InShadow;
use crate::call::PersonAction;
use crate::store::REASON_BYTES_MAX;

/// What is left of a hold's time when it is said more loudly.
const SOON: Duration = Duration::from_secs(5 * 60);

/// Which part of the console a page is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Agents,
    BreakGlass,
    Inbox,
    Nowhere,
    Records,
    Runs,
    Tools,
}

/// What makes one page another than the others.
pub(super) struct Face<'a> {
    /// Which part of the console it is in.
    pub(super) place: Place,
    /// Its title.
    pub(super) title: &'a str,
    /// What its tab says, where that is more.
    pub(super) tab: Option<&'a str>,
    /// What keeps it as it is on the server; such a page is answered with [`super::answer_live`].
    pub(super) script: Option<&'static str>,
}

/// A page for whoever has yet to log in: it tells nothing. With a path, the browser goes there next.
pub(super) fn bare(title: &str, next: Option<&str>, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (head(title, None))
                @if let Some(path) = next { meta http-equiv="refresh" content={ "0;url=" (path) }; }
            }
            body {
                header { span class="brand" { img src="/mark.svg" alt="" width="20" height="20"; "Holdpoint" } }
                main id="content" { h1 { (text(title)) } (content) }
            }
        }
    }
}

fn head(title: &str, script: Option<&str>) -> Markup {
    html! {
        meta charset="utf-8";
        meta name="viewport" content="width=device-width, initial-scale=1";
        meta name="color-scheme" content="light dark";
        title { (literal::plain(title)) " · Holdpoint" }
        link rel="icon" type="image/svg+xml" href="/mark.svg";
        link rel="stylesheet" href="/style.css";
        @if let Some(script) = script { script src=(script) defer {} }
    }
}

/// Who looks at the page; and where they logged in, how they leave, and how they log in again once that is too long ago
/// to decide anything.
fn who(admin: &Admin, caller: &Caller) -> Markup {
    let session = matches!(caller.proof(), Some(Proof::Session(..)));
    let decides = caller.proof().is_none_or(|proof| proof.suffices(admin, PersonAction::Approve).is_ok());
    html! {
        span class="who" { span class="unseen" { "You are " } (text(caller.name())) }
        @if session {
            @if !decides { a class="again" href="/login?why=decide" { "Log in again to decide" } }
            form class="leave" method="post" action="/logout" {
                input type="hidden" name="token" value=(token(admin, caller));
                button { "Log out" }
            }
        }
    }
}

/// A whole page, which says first what is in shadow.
pub(super) async fn page(
    admin: &Admin,
    caller: &Caller,
    place: Place,
    title: &str,
    content: &Markup,
) -> Markup {
    whole(admin, caller, &Face { place, title, tab: None, script: None }, content).await
}

/// A whole page with a face of its own.
pub(super) async fn whole(admin: &Admin, caller: &Caller, face: &Face<'_>, content: &Markup) -> Markup {
    let waiting = waiting::said(admin, caller).await;
    let current = |here: Place| (face.place == here).then_some("page");
    html! {
        (DOCTYPE)
        html lang="en" {
            head { (head(face.tab.unwrap_or(face.title), face.script)) }
            body {
                a class="skip" href="#content" { "Skip to content" }
                header {
                    a class="brand" href="/" { img src="/mark.svg" alt="" width="20" height="20"; "Holdpoint" }
                    nav aria-label="Console" {
                        a href="/" aria-current=[current(Place::Inbox)] {
                            "Inbox " span class="waiting" id="waiting" data-said title="calls that wait for people, and that you may see" { (waiting) }
                        }
                        a href="/agents" aria-current=[current(Place::Agents)] { "Agents" }
                        a href="/runs" aria-current=[current(Place::Runs)] { "Runs" }
                        a href="/records" aria-current=[current(Place::Records)] { "Records" }
                        a href="/tools" aria-current=[current(Place::Tools)] { "Tools" }
                        a href="/breakglass" aria-current=[current(Place::BreakGlass)] { "Break-glass" }
                    }
                    (who(admin, caller))
                }
                (breakglass::banner(admin, face.place))
                (shadow::banner(&InShadow::now(admin)))
                main id="content" {
                    h1 { (text(face.title)) }
                    (content)
                }
            }
        }
    }
}

/// The page that says what went wrong.
pub(super) async fn problem(admin: &Admin, caller: &Caller, problem: &Problem) -> Markup {
    let (_, _, title) = problem.face();
    let content = html! {
        p class="problem" role="alert" { (text(&problem.detail())) }
        p { a href="/" { "Back to the inbox" } }
    };
    page(admin, caller, Place::Nowhere, title, &content).await
}

/// Text that somebody else may have written: what does not show itself is shown by its number.
pub(in crate::admin) fn text(text: &str) -> Markup {
    html! {
        @for part in literal::parts(text) {
            @match part {
                Part::Plain(plain) => (plain),
                Part::Marked(c) => (hidden(c)),
            }
        }
    }
}

/// A character that does not show itself, by its number.
pub(super) fn hidden(c: char) -> Markup {
    html! { span class="hidden-char" title="a character that does not show itself" { (literal::name(c)) } }
}

/// A form that searches where it stands.
pub(super) fn search(path: &str, fields: &Markup) -> Markup {
    html! { form class="search" method="get" action=(path) role="search" { (fields) button { "Find" } } }
}

/// A field of such a form that offers some values, each with its words.
pub(super) fn choice<'a>(
    label: &str,
    name: &str,
    (values, chosen): (&[&'a str], &str),
    words: impl Fn(&'a str) -> String,
) -> Markup {
    html! {
        label { (label)
            select name=(name) {
                @for value in values { option value=(value) selected[chosen == *value] { (words(value)) } }
            }
        }
    }
}

/// The value itself, where `any` stands for none.
pub(super) fn or_any(value: &str) -> String {
    if value.is_empty() { "any" } else { value }.to_owned()
}

/// The head of a table, whose rows a phone shows as cards.
pub(super) fn columns(names: &[&str]) -> Markup {
    html! { thead { tr { @for name in names { th scope="col" { (name) } } } } }
}

/// A word for a state or an outcome; colour and mark only repeat what the word says.
pub(super) fn badge(word: &str) -> Markup {
    let tone = match word {
        "active" | "allowed" | "in-force" | "approved" | "executed" | "changed" | "sound" => "good",
        "suspended" | "denied" | "malformed" | "unavailable" | "broken" | "failed" | "drifted" | "frozen"
        | "indeterminate" | "secret" | "open" => "bad",
        "held" | "limited" | "read-only" | "review-overdue" | "tool-error" | "error" | "unknown"
        | "pending" | "releasing" | "confidential" | "untrusted" | "review owed" => "warn",
        _ => "plain",
    };
    html! { span class={ "badge " (tone) } { (text(word)) } }
}

/// What would have become of a call that passed in shadow.
pub(super) fn would_be(outcome: &str) -> Markup {
    html! { span class="badge shadowed" { "would be " (text(outcome)) } }
}

/// A moment, short for the eye and whole for a machine.
pub(super) fn time(at: &str) -> Markup {
    let day = at.get(..10).unwrap_or(at);
    let clock = at.get(11..19).unwrap_or_default();
    html! { time datetime=(at) title=(at) { (day) " " (clock) "\u{202f}UTC" } }
}

/// How long it is until a moment, or nothing when it has come; the script of live pages goes on with it.
pub(super) fn left(until: SystemTime, now: SystemTime) -> Markup {
    let left = until.duration_since(now).unwrap_or_default();
    let soon = if left < SOON { "left soon" } else { "left" };
    html! { time class=(soon) datetime=(moment(until)) title=(moment(until)) { (span(left)) } }
}

/// How long it has been since a moment; the script of live pages goes on with it.
pub(super) fn age(since: SystemTime, now: SystemTime) -> Markup {
    let age = now.duration_since(since).unwrap_or_default();
    html! { time class="age" datetime=(moment(since)) title=(moment(since)) { (span(age)) } }
}

/// A length of time as people say it. `live.js` says it in the same words.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}\u{202f}s"),
        60..600 => format!("{}\u{202f}min {}\u{202f}s", seconds / 60, seconds % 60),
        600..3600 => format!("{}\u{202f}min", seconds / 60),
        3600..172_800 => format!("{}\u{202f}h {}\u{202f}min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}\u{202f}d", seconds / 86_400),
    }
}

/// An agent's id without its trust domain.
pub(super) fn path(id: &str) -> &str {
    let rest = id.strip_prefix("spiffe://").unwrap_or(id);
    rest.split_once('/').map_or(rest, |(_, path)| path)
}

/// A text, or a dash where there is none.
pub(super) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}

/// A segment of a path.
pub(in crate::admin) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// By what a form is known to be one of this console's, made for this person, and in this session where they have one.
pub(super) fn token(admin: &Admin, caller: &Caller) -> String {
    URL_SAFE_NO_PAD.encode(hmac::sign(&admin.forms, &bound(caller)))
}

/// What a form is bound to.
fn bound(caller: &Caller) -> Vec<u8> {
    let who = caller.who().as_str().as_bytes().to_vec();
    match caller.proof() {
        Some(Proof::Session(key, _)) => [who.as_slice(), b"\0", key.as_bytes()].concat(),
        _ => who,
    }
}

/// What a form that asks for a reason alone brings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    token: String,
    reason: String,
}

/// The reason of a form that is one of this console's.
pub(super) fn given(
    admin: &Admin,
    caller: &Caller,
    filled: Result<Filled<Given>, Problem>,
) -> Result<String, Problem> {
    let Filled(given) = filled?;
    own(admin, caller, &given.token)?;
    Ok(given.reason)
}

/// The form by which an order is given with a reason, folded: what it says folded, what the reason is called, and where
/// it goes.
pub(super) fn order(said: &Ordering<'_>, token: &str) -> Markup {
    html! {
        details class="order" {
            summary { (said.folded) "…" }
            form method="post" action=(said.to) {
                input type="hidden" name="token" value=(token);
                label { (said.reason) textarea name="reason" required rows="2" maxlength=(REASON_BYTES_MAX) {} }
                button class=(said.class) { (said.button) }
            }
        }
    }
}

/// The words of a form of order.
pub(super) struct Ordering<'a> {
    /// What it says while it is folded.
    pub(super) folded: &'a str,
    /// What the reason is called.
    pub(super) reason: &'a str,
    /// The path that it goes to.
    pub(super) to: String,
    /// What its button says.
    pub(super) button: Markup,
    /// The class of its button.
    pub(super) class: &'a str,
}

/// What a reason is called where nothing else is said.
pub(super) const REASON: &str = "Reason, for the record";

/// Checks the token of a form.
pub(in crate::admin) fn own(admin: &Admin, caller: &Caller, token: &str) -> Result<(), Problem> {
    let tag = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
    hmac::verify(&admin.forms, &bound(caller), &tag).map_err(|_| {
        Problem::Forbidden(
            "the form is not one of this console's, or is too old: load the page again".to_owned(),
        )
    })
}
