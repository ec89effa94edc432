//! Server-sent events as a client reads them, with what resuming a stream needs [WHATWG HTML §9.2].

use std::time::Duration;

/// The longest wait before a reconnection that a server may ask for.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Where a stream can be taken up again.
#[derive(Clone, Debug, Default)]
pub struct Position {
    /// The id of the last event that had one.
    pub last_id: Option<String>,
    /// How long the server wants clients to wait before they reconnect.
    pub retry: Option<Duration>,
}

/// Reads events from a stream however it is cut into chunks.
#[derive(Debug)]
pub struct Events {
    bytes_max: usize,
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    is_message: bool,
    /// The id of the event that is being read: it counts when the event is whole.
    id: Option<String>,
    after_cr: bool,
    is_first: bool,
}

impl Events {
    /// A reader that fails on an event of more than this many bytes.
    pub fn new(bytes_max: usize) -> Events {
        Events {
            bytes_max,
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            is_message: true,
            id: None,
            after_cr: false,
            is_first: true,
        }
    }

    /// Takes the next bytes; gives the data of the `message` events that they complete, and moves the position.
    pub fn feed(&mut self, chunk: &[u8], position: &mut Position) -> Result<Vec<Vec<u8>>, String> {
        let mut messages = Vec::new();
        for byte in chunk {
            let after_cr = std::mem::replace(&mut self.after_cr, *byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => messages.extend(self.line_ended(position)),
                byte => {
                    if self.line.len() + self.data.len() >= self.bytes_max {
                        return Err(format!("an event of more than {} bytes", self.bytes_max));
                    }
                    self.line.push(*byte);
                }
            }
        }
        Ok(messages)
    }

    fn line_ended(&mut self, position: &mut Position) -> Option<Vec<u8>> {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.is_first) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            return self.event_ended(position);
        }
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (line.get(..at)?, line.get(at + 1..)?),
            None => (line.as_slice(), &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => self.is_message = matches!(value, b"" | b"message"),
            b"id" if !value.contains(&0) => self.id = std::str::from_utf8(value).ok().map(str::to_owned),
            b"retry" => {
                let millis = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                position.retry = millis.map(|millis| Duration::from_millis(millis).min(RETRY_MAX));
            }
            _ => {}
        }
        None
    }

    fn event_ended(&mut self, position: &mut Position) -> Option<Vec<u8>> {
        if let Some(id) = self.id.take() {
            // An empty id takes the last one back.
            position.last_id = Some(id).filter(|id| !id.is_empty());
        }
        let data = std::mem::take(&mut self.data);
        self.has_data = false;
        let is_message = std::mem::replace(&mut self.is_message, true);
        (is_message && !data.is_empty()).then_some(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        let text = "\u{feff}: hello\r\nid: 1\r\ndata:\r\n\r\nretry: 50\nid: 2\nevent: message\ndata: {\"a\":\ndata: 1}\n\n\
                    event: other\ndata: no\n\nid: 3\rdata: {}\r\rid: 4\ndata: half";
        for size in [1, 2, 3, 7, text.len()] {
            let (mut events, mut position, mut found) = (Events::new(100), Position::default(), Vec::new());
            for chunk in text.as_bytes().chunks(size) {
                found.extend(events.feed(chunk, &mut position).unwrap());
            }
            assert_eq!(found, [b"{\"a\":\n1}".to_vec(), b"{}".to_vec()], "in chunks of {size}");
            assert_eq!(position.last_id.as_deref(), Some("3"), "an event counts when it is whole");
            assert_eq!(position.retry, Some(Duration::from_millis(50)));
        }
    }

    #[test]
    fn an_event_over_the_bound_is_an_error() {
        let mut position = Position::default();
        assert!(Events::new(10).feed(b"data: 12345", &mut position).is_err());
    }
}
