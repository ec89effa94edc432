//! What an MCP call needs beside its own way: who judges its reply, and how an upstream learns that what it asked the
//! agent will not be answered. Such a refusal is a reply like any other: it goes the whole path, and is on the record.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};

use super::{Gateway, Generation};
use crate::accept::Conn;
use crate::answer;
use crate::call::{Consequence, Drift, Era, PolicyInput, Shade, Stop};
use crate::classify::catalog::Upstream;
use crate::decide::Sight;
use crate::decode::jsonrpc::{Form, Id, Message};
use crate::decode::mcp::McpAction;
use crate::decode::session::Dialogue;
use crate::decode::{Call, Inbound};
use crate::definitions::Definitions;
use crate::names::Names;
use crate::observe::{Elsewhere, Judge, Old, Shown, Tap};

/// Who judges the reply to an MCP call, and where it comes. Both are boxed: they go through the whole path of a call.
#[derive(Default)]
pub(super) struct Judging {
    /// Who judges what comes in the reply itself.
    pub(super) judge: Option<Box<Judge>>,
    /// Who learns from it.
    pub(super) tap: Option<Box<Tap>>,
    /// Set when the response comes on the stream of an old session instead.
    pub(super) elsewhere: Option<Elsewhere>,
}

impl Judging {
    /// The judge of this call's reply.
    pub(super) fn of(gw: &Arc<Gateway>, generation: &Generation, conn: &Arc<Conn>, call: &Call) -> Judging {
        let name = &call.route().name;
        let (Some(envelope), Some(upstream)) = (call.envelope(), generation.catalog.upstream(name)) else {
            return Judging::default();
        };
        let dialogue =
            Dialogue::new(&generation.decoder.sessions, call.agent().id(), name, envelope.session.clone());
        let mut judge = Box::new(Judge::of(call, envelope, upstream.config().asks, dialogue));
        if judge.is_wary() && envelope.era == Era::Legacy {
            let way = Way::of(gw, conn, call);
            judge.declining(Arc::new(move |id, session| way.decline(id, session)));
        }
        let (definitions, upstream) = (Arc::clone(&generation.definitions), Arc::clone(name));
        judge.relisting(Box::new(move || definitions.changed(&upstream)));
        if let (McpAction::OpenSession, Some(at)) = (&envelope.action, &envelope.endpoint) {
            let authority =
                generation.upstreams.authority(name).and_then(|authority| authority.to_str().ok());
            let own = call.head().uri.path();
            judge.on_old_transport(Old {
                origin: (authority.unwrap_or_default().to_owned(), Arc::from(at.path())),
                prefix: format!("{}/messages?session=", own.strip_suffix("/sse").unwrap_or(own)),
                parked: Arc::clone(&gw.parked),
                session: None,
            });
        }
        Judging { judge: Some(judge), tap: None, elsewhere: None }
    }

    /// Says what the agent may see, where the reply is a list; and parks the call where it is answered elsewhere.
    pub(super) fn see(
        &mut self,
        gw: &Gateway,
        generation: &Generation,
        call: &Call,
        input: &PolicyInput,
        shade: &Shade,
    ) -> Result<(), Box<Stop>> {
        let name = &call.route().name;
        let (Some(judge), Some(envelope)) = (&mut self.judge, call.envelope()) else { return Ok(()) };
        if let (Some(list), Some(upstream)) = (judge.list(), generation.catalog.upstream(name)) {
            if list.array == "tasks" {
                let begun = Dialogue::new(&generation.decoder.sessions, call.agent().id(), name, None);
                judge.see(Box::new(move |task, _| match begun.tool_of(task) {
                    Some(_) => Shown::Yes,
                    None => Shown::No,
                }));
            } else {
                let sight = Sight::new(&generation.policy, upstream, input, shade);
                let (looks, shade) = (Looks::of(generation, upstream), shade.clone());
                judge.see(Box::new(move |name, item| {
                    if !sight.shows(list.array, name) {
                        return Shown::No;
                    }
                    let drift = (list.array == "tools").then(|| looks.withheld(name, item)).flatten();
                    let drift = drift.filter(|_| !shade.covers(looks.consequence(name)));
                    drift.map_or(Shown::Yes, |drift| Shown::Withheld(drift.as_str()))
                }));
            }
        }
        let old = envelope.endpoint.as_ref().and(envelope.session.as_ref());
        if let (Some(session), Some(Form::Request { id, .. })) = (old, call.message().map(Message::form))
            && let Some(judge) = self.judge.take()
        {
            self.elsewhere = Some(gw.parked.park(Arc::clone(session), id.clone(), judge, self.tap.take())?);
        }
        Ok(())
    }
}

/// What tools on their way to an agent are compared with.
struct Looks {
    definitions: Arc<Definitions>,
    upstream: Arc<Upstream>,
    names: Arc<Names>,
}

impl Looks {
    fn of(generation: &Generation, upstream: &Arc<Upstream>) -> Looks {
        Looks {
            definitions: Arc::clone(&generation.definitions),
            upstream: Arc::clone(upstream),
            names: Arc::clone(generation.catalog.names()),
        }
    }

    /// How much a call of this tool would count when its definition is not believed.
    fn consequence(&self, name: &str) -> Consequence {
        let entry = self.upstream.tool(name);
        entry.map_or(Consequence::UNLISTED, |entry| entry.profile.consequence.max(Consequence::UNLISTED))
    }

    /// Why this tool must be left out, if it must: what it says is not what is pinned or was seen first, has text that
    /// nobody sees, or takes the looks of a catalogued tool.
    fn withheld(&self, name: &str, item: &str) -> Option<Drift> {
        let (entry, upstream) = (self.upstream.tool(name), &self.upstream.config().name);
        let pin = entry.and_then(|entry| entry.pin.as_deref());
        let alike = || self.names.taken_for(upstream, name).map(|_| Drift::LooksAlike);
        let drift = self.definitions.withheld(upstream, pin, item.as_bytes());
        drift.or_else(|| if entry.is_none() { alike() } else { None })
    }
}

/// An agent's answer to the upstream, on its way. If it does not get there, the upstream is told that there is none:
/// it would else wait for it, and the agent's own call with it.
pub(super) struct Answer(Option<Box<(Way, Id)>>);

impl Answer {
    /// The answer that a call is, if it is one.
    pub(super) fn of(gw: &Arc<Gateway>, conn: &Arc<Conn>, call: &Call) -> Answer {
        let answers = call.envelope().is_some_and(|envelope| {
            matches!(envelope.action, McpAction::Reply { empty_or_error: false, .. })
        });
        let id = call.message().and_then(|message| message.id()).filter(|_| answers);
        Answer(id.map(|id| Box::new((Way::of(gw, conn, call), id.clone()))))
    }

    /// It goes to the upstream.
    pub(super) fn given(mut self) {
        self.0 = None;
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            let (way, id) = *answer;
            way.decline(&id, None);
        }
    }
}

/// The way back to an upstream within one agent's session. Hardly any is gone, so nothing is built for it before.
struct Way {
    gateway: Arc<Gateway>,
    conn: Arc<Conn>,
    uri: Uri,
    headers: [Option<HeaderValue>; 3],
}

/// What the way back is found by.
const KEPT: [HeaderName; 3] = [
    header::HOST,
    HeaderName::from_static("mcp-session-id"),
    HeaderName::from_static("mcp-protocol-version"),
];

impl Way {
    fn of(gw: &Arc<Gateway>, conn: &Arc<Conn>, call: &Call) -> Way {
        let Parts { uri, headers, .. } = call.head();
        let headers = KEPT.map(|name| headers.get(name).cloned());
        Way { gateway: Arc::clone(gw), conn: Arc::clone(conn), uri: uri.clone(), headers }
    }

    /// Answers the upstream's request with an error, in the agent's name.
    fn decline(&self, id: &Id, session: Option<&Arc<str>>) {
        // What the stream of an old session asks is answered where that session's messages go.
        let own = self.uri.path();
        let uri = match (session, own.strip_suffix("/sse")) {
            (Some(session), Some(name)) => format!("{name}/messages?session={session}").parse().ok(),
            _ => None,
        };
        let mut request = Request::new(Inbound::Whole(Bytes::from(answer::declined(id))));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.unwrap_or_else(|| self.uri.clone());
        let headers = request.headers_mut();
        headers.extend(
            std::iter::zip(KEPT, &self.headers).filter_map(|(name, value)| Some((name, value.clone()?))),
        );
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        self.gateway.errands.run(again(Arc::clone(&self.gateway), Arc::clone(&self.conn), request));
    }
}

/// Serves a request that the gateway makes, without anybody who waits for its response.
fn again(
    gateway: Arc<Gateway>,
    conn: Arc<Conn>,
    request: Request<Inbound>,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move { drop(super::serve(&gateway, &conn, request).await) })
}
