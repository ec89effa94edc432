//! What every page has, and how text that others wrote is put on it.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maud::{DOCTYPE, Markup, html};

use super::shadow;
use crate::admin::Admin;
use crate::admin::caller::Caller;
use crate::admin::literal::{self, Part};
use crate::admin::problem::Problem;
use crate::admin::proof::Proof;
use crate::admin::shadow::InShadow;
use crate::call::PersonAction;

/// Which part of the console a page is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Agents,
    Nowhere,
    Records,
    Tools,
}

/// A page for whoever has yet to log in: it tells nothing. With a path, the browser goes there next.
pub(super) fn bare(title: &str, next: Option<&str>, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (head(title))
                @if let Some(path) = next { meta http-equiv="refresh" content={ "0;url=" (path) }; }
            }
            body {
                header { span class="brand" { img src="/mark.svg" alt="" width="20" height="20"; "Holdpoint" } }
                main id="content" { h1 { (text(title)) } (content) }
            }
        }
    }
}

fn head(title: &str) -> Markup {
    html! {
        meta charset="utf-8";
        meta name="viewport" content="width=device-width, initial-scale=1";
        meta name="color-scheme" content="light dark";
        title { (literal::plain(title)) " · Holdpoint" }
        link rel="icon" type="image/svg+xml" href="/mark.svg";
        link rel="stylesheet" href="/style.css";
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
pub(super) fn page(admin: &Admin, caller: &Caller, place: Place, title: &str, content: &Markup) -> Markup {
    let current = |here: Place| (place == here).then_some("page");
    html! {
        (DOCTYPE)
        html lang="en" {
            head { (head(title)) }
            body {
                a class="skip" href="#content" { "Skip to content" }
                header {
                    a class="brand" href="/" { img src="/mark.svg" alt="" width="20" height="20"; "Holdpoint" }
                    nav aria-label="Console" {
                        a href="/" aria-current=[current(Place::Agents)] { "Agents" }
                        a href="/records" aria-current=[current(Place::Records)] { "Records" }
                        a href="/tools" aria-current=[current(Place::Tools)] { "Tools" }
                    }
                    (who(admin, caller))
                }
                (shadow::banner(&InShadow::now(admin)))
                main id="content" {
                    h1 { (text(title)) }
                    (content)
                }
            }
        }
    }
}

/// The page that says what went wrong.
pub(super) fn problem(admin: &Admin, caller: &Caller, problem: &Problem) -> Markup {
    let (_, _, title) = problem.face();
    let content = html! {
        p class="problem" role="alert" { (text(&problem.detail())) }
        p { a href="/" { "Back to the agents" } }
    };
    page(admin, caller, Place::Nowhere, title, &content)
}

/// Text that somebody else may have written: what does not show itself is shown by its number.
pub(in crate::admin) fn text(text: &str) -> Markup {
    html! {
        @for part in literal::parts(text) {
            @match part {
                Part::Plain(plain) => (plain),
                Part::Marked(c) => span class="hidden-char" title="a character that does not show itself" { (literal::name(c)) },
            }
        }
    }
}

/// A word for a state or an outcome; colour and mark only repeat what the word says.
pub(super) fn badge(word: &str) -> Markup {
    let tone = match word {
        "active" | "allowed" | "executed" | "changed" | "sound" => "good",
        "suspended" | "denied" | "malformed" | "unavailable" | "broken" | "failed" | "drifted" => "bad",
        "held" | "limited" | "read-only" | "review-overdue" | "tool-error" | "error" | "unknown" => "warn",
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

/// Checks the token of a form.
pub(in crate::admin) fn own(admin: &Admin, caller: &Caller, token: &str) -> Result<(), Problem> {
    let tag = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
    hmac::verify(&admin.forms, &bound(caller), &tag).map_err(|_| {
        Problem::Forbidden(
            "the form is not one of this console's, or is too old: load the page again".to_owned(),
        )
    })
}
