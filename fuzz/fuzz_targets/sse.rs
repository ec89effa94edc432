//! Event streams: however a stream is cut into chunks, the same events are found, and they are the standard's.
#![no_main]

use holdpoint::decode::jsonrpc::Id;
use holdpoint::decode::sse::{Event, Scanner, is_response, outcome};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first byte says how many of the next are cuts, the second how large an event may be.
    let [cuts, max, rest @ ..] = data else { return };
    let (cuts, stream) = rest.split_at(usize::from(*cuts % 16).min(rest.len()));
    let event_bytes_max = if *max < 128 { usize::from(*max) } else { 1 << 20 };

    let mut scanner = Scanner::new(event_bytes_max);
    let whole = scanner.feed(stream);
    let (boundary, opaque) = (scanner.boundary(), scanner.opaque());
    let unfinished = scanner.finish();

    let mut scanner = Scanner::new(event_bytes_max);
    let mut found = Vec::new();
    let mut fed = 0;
    for chunk in chunks(stream, cuts) {
        let before = scanner.boundary();
        found.extend(scanner.feed(chunk));
        fed += chunk.len() as u64;
        assert!(before <= scanner.boundary() && scanner.boundary() <= fed, "released beyond what came");
    }
    assert_eq!(found, whole, "cuts change what is found");
    assert_eq!((scanner.boundary(), scanner.opaque()), (boundary, opaque), "cuts change what is released");
    assert_eq!(scanner.finish(), unfinished, "cuts change what is left over");

    for event in found.iter().chain(&unfinished) {
        assert!(event.end <= stream.len() as u64);
        is_response(&event.data, &Id::Number(7));
        is_response(&event.data, &Id::Text("7".into()));
        outcome(&event.data);
    }
    if !opaque {
        let told: Vec<_> = whole.into_iter().map(|Event { kind, data, .. }| (kind, data)).collect();
        assert_eq!(told, by_the_standard(stream), "not what the standard says");
    }
});

/// The stream in pieces, each as long as the next cut says, and the rest.
fn chunks<'s>(mut stream: &'s [u8], cuts: &[u8]) -> Vec<&'s [u8]> {
    let mut chunks = Vec::new();
    for cut in cuts {
        let (chunk, rest) = stream.split_at(usize::from(*cut).min(stream.len()));
        chunks.push(chunk);
        stream = rest;
    }
    chunks.push(stream);
    chunks
}

/// The events of a whole stream, straight from WHATWG HTML §9.2.6: lines first, then fields.
fn by_the_standard(stream: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let (mut lines, mut line, mut bytes) = (Vec::new(), Vec::new(), stream.iter().copied().peekable());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\n' => lines.push(std::mem::take(&mut line)),
            b'\r' => {
                bytes.next_if_eq(&b'\n');
                lines.push(std::mem::take(&mut line));
            }
            other => line.push(other),
        }
    }
    let (mut events, mut kind, mut data) = (Vec::new(), Vec::new(), Vec::<Vec<u8>>::new());
    for line in lines {
        if line.is_empty() {
            let (kind, data) = (std::mem::take(&mut kind), std::mem::take(&mut data));
            if !data.is_empty() {
                events.push((kind, data.join(&b'\n')));
            }
            continue;
        }
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (line[..colon].to_vec(), line[colon + 1..].to_vec()),
            None => (line.clone(), Vec::new()),
        };
        let value = value.strip_prefix(b" ").map(<[u8]>::to_vec).unwrap_or(value);
        match &*name {
            b"data" => data.push(value),
            b"event" => kind = value,
            _ => {}
        }
    }
    events
}
