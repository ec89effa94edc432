//! A batch of MCP 2025-03-26: each of its messages goes the whole path alone, and all their replies are one stream.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};

use super::Gateway;
use crate::accept::Conn;
use crate::answer;
use crate::decode::Inbound;
use crate::decode::told::Members;
use crate::observe::{Body, Several};

/// Serves the messages of a batch at once.
pub(super) async fn serve(
    gw: &Arc<Gateway>,
    conn: &Arc<Conn>,
    messages: Vec<Request<Inbound>>,
) -> Response<Body> {
    let serving: Vec<_> = messages
        .into_iter()
        .map(|message| {
            let otherwise = unanswered(&message);
            (tokio::spawn(one(Arc::clone(gw), Arc::clone(conn), message)), otherwise)
        })
        .collect();
    let mut replies = Several::default();
    for (serving, otherwise) in serving {
        match serving.await {
            Ok(reply) => replies.add(reply, otherwise),
            Err(error) => {
                tracing::error!(event = "batch.message_lost", error = %error);
                replies.lost(otherwise);
            }
        }
    }
    match replies.is_empty() {
        true => answer::accepted().map(|bytes| Body::Own(Some(bytes))),
        false => answer::events().map(|()| Body::Several(Box::new(replies))),
    }
}

/// What a request is answered when there is no reply that could be passed on.
fn unanswered(message: &Request<Inbound>) -> Option<String> {
    let Inbound::Whole(bytes) = message.body() else { return None };
    let members = Members::read(std::str::from_utf8(bytes).ok()?)?;
    members.get("method")?;
    Some(answer::unanswered(members.get("id")?.get()))
}

fn one(
    gateway: Arc<Gateway>,
    conn: Arc<Conn>,
    message: Request<Inbound>,
) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
    Box::pin(async move { super::serve(&gateway, &conn, message).await })
}
