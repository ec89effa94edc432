//! Plain HTTP: what is accepted of a target, a form, headers and an authority has one reading, and stays what it is when
//! it is read again.
#![no_main]

use holdpoint::decode::http::{authority, content, form, headers as check_headers, route, target};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first line is the target, the second an authority; header lines follow; a form is after an empty line.
    let end = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((data, &b""[..]), |end| (&data[..end], &data[end + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    if let Some(line) = lines.next().and_then(|line| std::str::from_utf8(line).ok()) {
        let (path, query) = line.split_once('?').map_or((line, None), |(path, query)| (path, Some(query)));
        one_target(path, query);
    }
    if let Some(line) = lines.next() {
        one_authority(line);
    }
    let headers = fields(lines);
    let _ = (check_headers(&headers), content(&headers));
    if let Ok(pairs) = form(body) {
        let theirs: Vec<_> = form_urlencoded::parse(body).collect();
        assert_eq!(pairs, theirs, "another form");
    }
});

fn one_target(path: &str, query: Option<&str>) {
    route(path);
    let Ok(found) = target(path, query) else { return };
    let again = target(&found.path, query).expect("the canonical path is accepted");
    assert_eq!((&again.path, &again.segments), (&found.path, &found.segments), "not canonical");
    let uri: Uri = found.path.parse().expect("a target that can be sent");
    assert_eq!(uri.path(), found.path, "sent otherwise");
    // Escapes and nothing else: a reader that decodes once finds the segments, and a second time changes nothing.
    let once = unescape(&found.path);
    assert_eq!(once, format!("/{}", found.segments.join("/")), "another path");
    assert_eq!(unescape(&once), once, "escaped twice");
    assert!(found.segments.iter().all(|segment| !matches!(&**segment, "." | "..") && !segment.contains('/')));
    if let Some(query) = query {
        let theirs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        assert_eq!(found.query, theirs, "another query");
    }
}

/// Percent-decoded, without `+` for a space.
fn unescape(text: &str) -> String {
    let shielded = text.replace('+', "%2B");
    let wrapped = format!("k={}", shielded.replace('&', "%26"));
    form_urlencoded::parse(wrapped.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn one_authority(line: &[u8]) {
    let of = |host: &[u8]| {
        let request = Request::builder().uri("/").header("host", host).body(()).ok()?;
        authority(&request.into_parts().0).ok()
    };
    if let Some(found) = of(line) {
        assert_eq!(of(found.as_bytes()).as_ref(), Some(&found), "not canonical");
        assert!(
            !found.contains(['@', '/', '\\', '#', '?', ',', ' ']),
            "more than a host and a port: {found}"
        );
    }
}

fn fields<'d>(lines: impl Iterator<Item = &'d [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.take(32) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    headers
}
