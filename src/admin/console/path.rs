//! The way from what was read to where it would go, as a picture: sources on the left, what joins them, the sink on the
//! right. It is made of text, so that it is read aloud, zoomed and stacked on a phone like text.

use maud::{Markup, html};

use super::page::{badge, segment, text};
use crate::admin::runs::{Evidence, Finding};

/// Sources that are drawn for one finding; the others are counted.
const SOURCES_MAX: usize = 8;
/// Destinations that are named in the picture.
const DESTINATIONS_MAX: usize = 4;

/// Where something goes, or would have gone.
pub(super) struct Sink<'a> {
    /// The upstream.
    pub(super) upstream: &'a str,
    /// The tool or operation.
    pub(super) tool: &'a str,
    /// The places, where they are known in clear.
    pub(super) destinations: &'a [(String, String)],
}

/// What a finding says, as a person reads it.
fn meaning(word: &str) -> &'static str {
    match word {
        "bulk-lineage" => "many confidential records go to one destination",
        "canary" => "a planted token leaves",
        "chain-deny" | "chain-hold" => "a sequence that the operator declared",
        "constructed-url" => "a URL that was never read carries data",
        "lineage" => "confidential records go to somebody who is neither their party nor known",
        "lineage-unknown" => "what it carries cannot be told",
        "party-payment" => "money goes to somebody whom only an outsider's record names",
        "planted-argument" => "an argument came from free text that outsiders can write",
        "planted-destination" => "the destination came from free text that outsiders can write",
        "probing" => "another try after a finding stopped a call",
        "secret-lineage" => "a key, a password or a code leaves",
        "trifecta" => {
            "it has read confidential things and outsiders' text, and calls somebody who is not known"
        }
        chain if chain.starts_with("chain:") => "a sequence that the operator declared",
        _ => "found in this call",
    }
}

/// By what a source was recognised.
fn by(how: &str) -> &'static str {
    match how {
        "fingerprint" => "the same text",
        "made" => "made as a key is made",
        "reference" => "a reference to it",
        "token" => "a rare word of it",
        _ => "it could not be read, so it counts",
    }
}

/// The picture of what was found in one call.
pub(super) fn picture(findings: &[Finding], sink: &Sink<'_>) -> Markup {
    html! {
        @for finding in findings {
            figure class="path" {
                figcaption { (badge(&finding.finding)) " " (meaning(&finding.finding)) }
                @let sources = sources(finding);
                @if !sources.is_empty() {
                    ul class="sources" aria-label="Read from" {
                        @for source in sources.iter().take(SOURCES_MAX) { li { (from(source)) } }
                        @if sources.len() > SOURCES_MAX { li class="quiet" { "and " (sources.len() - SOURCES_MAX) " more sources" } }
                    }
                    span class="arrow" aria-hidden="true" {}
                }
                div class="sink" {
                    span class="unseen" { "Goes to " }
                    (called(sink.upstream, sink.tool))
                    @for (kind, place) in sink.destinations.iter().take(DESTINATIONS_MAX) {
                        div class="place" { span class="quiet" { (text(kind)) " " } strong { (text(place)) } }
                    }
                    @if sink.destinations.len() > DESTINATIONS_MAX { div class="quiet" { "and " (sink.destinations.len() - DESTINATIONS_MAX) " more destinations" } }
                }
            }
        }
    }
}

/// What a finding rests on, by the record that it was read in.
fn sources(finding: &Finding) -> Vec<Vec<&Evidence>> {
    let mut sources: Vec<Vec<&Evidence>> = Vec::new();
    for one in &finding.evidence {
        let same = |source: &&mut Vec<&Evidence>| {
            source.first().is_some_and(|first| one.record.is_some() && first.record == one.record)
        };
        match sources.iter_mut().find(same) {
            Some(source) => source.push(one),
            None => sources.push(vec![one]),
        }
    }
    sources
}

fn from(source: &[&Evidence]) -> Markup {
    let Some(first) = source.first() else { return html! {} };
    html! {
        div {
            @match (&first.upstream, &first.tool) {
                (Some(upstream), Some(tool)) => (called(upstream, tool)),
                _ => span class="quiet" { "no source is known" },
            }
            @if let Some(record) = &first.record { " " a href={ "/records/" (segment(record)) } { "record" } }
        }
        @for one in source.iter().take(SOURCES_MAX) {
            div class="quiet" { (by(&one.how)) @if one.matched > 0 { ": " (one.matched) @if one.matched == 1 { " place" } @else { " places" } @if one.bytes > 0 { ", about " (one.bytes) " bytes" } } }
        }
    }
}

fn called(upstream: &str, tool: &str) -> Markup {
    html! { span class="mono" { (text(upstream)) wbr; "." (text(tool)) } }
}
