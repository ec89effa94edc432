//! Replies that are read whole, because something in them must be known, changed or learnt before any of it passes.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Response, response};
use http_body_util::BodyExt as _;

use super::judge::Sentence;
use super::{Body, LEARNT_BYTES_MAX, Lesson, Passing, REST_TIME_MAX, SILENCE_MAX, WHOLE_BYTES_MAX, failed};
use crate::accept::Gone;
use crate::call::Stop;
use crate::decode::sse;
use crate::forward::Leave;
use crate::record::Ending;

impl Passing {
    /// Reads a reply whole, so that it can be judged before any of it passes. One that is too long for that passes as it
    /// arrives, unless it is a list: what is in it would not be known. So does one that is not `judged`, only learnt, and
    /// that rests.
    pub(super) async fn whole(
        mut self: Box<Self>,
        mut head: response::Parts,
        gone: &Gone,
        judged: bool,
    ) -> Result<Response<Body>, Box<Stop>> {
        let mut size = 0;
        let bytes_max = if judged { WHOLE_BYTES_MAX } else { LEARNT_BYTES_MAX };
        while let Some(body) = &mut self.incoming {
            let may_rest = if judged || size == 0 { SILENCE_MAX } else { REST_TIME_MAX };
            let reading = tokio::time::timeout(may_rest, body.frame());
            // What is left of a reply whose agent has left is drained or given up, and recorded, when it is dropped.
            let Some(read) = gone.unless(Leave::Ends, reading).await else {
                return Err(failed("client-gone"));
            };
            match read {
                Ok(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    size += data.len();
                    self.early.push_back(data);
                }
                Ok(None) => self.incoming = None,
                Err(_) if may_rest == REST_TIME_MAX => return Ok(self.piece_by_piece(head)),
                Ok(Some(Err(_))) | Err(_) => {
                    return self.refused(Ending::UpstreamBroke, failed("broken")).await;
                }
            }
            if size > bytes_max {
                if self.judge.as_ref().is_some_and(|judge| judge.list().is_some()) {
                    return self.refused(Ending::UpstreamBroke, failed("list-size")).await;
                }
                return Ok(self.piece_by_piece(head));
            }
        }
        let text = match self.early.len() {
            1 => self.early.pop_front().unwrap_or_default(),
            _ => Bytes::from(self.early.drain(..).collect::<Vec<_>>().concat()),
        };
        // Parsed once, for whoever looks into it.
        let mut document = self.tap.as_ref().and_then(|tap| tap.parse(&text));
        let kind = matches!(self.lesson, Some(Lesson::Json(..))).then(|| match &document {
            Some(document) => sse::outcome_of(document.root()),
            None => sse::outcome(&text),
        });
        let sentence = match (&mut self.judge, kind.is_some()) {
            (Some(judge), true) => judge.message(&text),
            _ => Sentence::Pass,
        };
        let bytes = match sentence {
            Sentence::Pass => text,
            Sentence::Replace(less) => {
                document = None;
                Bytes::from(less)
            }
            Sentence::Withhold(stop) => return self.refused(Ending::Complete, stop).await,
            Sentence::Drop => {
                return self.refused(Ending::UpstreamBroke, failed("request-of-upstream")).await;
            }
            Sentence::Break(reason) => return self.refused(Ending::UpstreamBroke, failed(reason)).await,
        };
        if head.headers.contains_key(CONTENT_LENGTH) {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        match (&document, &mut self.tap) {
            (Some(document), Some(tap)) => self.keeping.extend(tap.document(document)),
            _ => self.learn(&bytes),
        }
        self.note(&bytes);
        self.close(Ending::Complete, kind);
        self.recorded().await?;
        Ok(Response::from_parts(head, Body::Own(Some(bytes))))
    }

    /// What was kept back passes after all.
    fn piece_by_piece(mut self: Box<Self>, head: response::Parts) -> Response<Body> {
        if let Some(tap) = &mut self.tap {
            tap.hurry();
        }
        Response::from_parts(head, Body::Reply(self))
    }
}
