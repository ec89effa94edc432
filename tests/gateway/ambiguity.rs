//! What two readers of HTTP could understand differently reaches none of them.

use crate::harness::World;

#[tokio::test]
async fn a_path_with_two_readings_is_refused() {
    let world = World::start().await;
    let cases = [
        ("/crm/v1/../v1/invoices/1001", "dot-segment"),
        ("/crm/v1/./invoices/1001", "dot-segment"),
        ("/crm/v1/%2e%2e/admin", "encoded-dot"),
        ("/crm/v1/%2E%2E/admin", "encoded-dot"),
        ("/crm/v1/%252e%252e/admin", "double-encoding"),
        ("/crm/v1/invoices%2f1001", "encoded-slash"),
        ("/crm/v1/invoices%5c1001", "encoded-backslash"),
        ("/crm/v1//invoices/1001", "empty-segment"),
        ("/crm//v1/invoices/1001", "empty-segment"),
        ("/crm/v1/invoices/1001;x=..", "path-parameter"),
        ("/crm/v1/invoices/1001%3bx", "path-parameter"),
        ("/crm/v1/invoices/1001%00", "encoded-control"),
        ("/crm/v1/invoices/1001%0d%0aX:1", "encoded-control"),
        ("/crm/v1/invoices/%c0%af", "path-utf8"),
        ("/crm/v1/invoices/%6100", "encoded-unreserved"),
        ("/crm/v1/invoices/%zz", "percent-escape"),
        ("/crm/v1/invoices/1001?a=1&a=2", "duplicate-key"),
        ("/crm/v1/invoices/1001?a=1&A=2", "case-folded-key"),
        ("/crm/v1/invoices/1001?a=1&%61=2", "duplicate-key"),
        ("/crm/v1/invoices/1001?a=1;b=2", "semicolon"),
        ("/crm/v1/invoices/1001?_method=DELETE", "method-override"),
        ("/crm/v1/invoices/1001?=1", "empty-key"),
        ("/nowhere/v1/invoices/1001", "route"),
        ("/CRM/v1/invoices/1001", "route"),
    ];
    for (path, reason) in cases {
        let mut raw = world.raw("support").await;
        let (status, text) = raw.ask(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        assert!(status == 400 || status == 404, "{path}: {text}");
        let id = raw.header("holdpoint-record");
        assert_eq!(world.record(&id, "refused")["reason"], reason, "{path}");
    }
    world.nothing_upstream();
    world.join().await;
}

#[tokio::test]
async fn a_path_that_hyper_would_not_even_read_is_refused() {
    let world = World::start().await;
    for path in [
        "/crm/v1\\..\\admin",
        "/crm/v1/invoices/1001#/../../admin",
        "/crm/v1/invoices/\u{fc}",
        "/crm/v1/in voices",
        "*",
        "crm/v1/invoices/1001",
    ] {
        let mut raw = world.raw("support").await;
        let (status, text) = raw.ask(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        assert!((400..500).contains(&status) || status == 0, "{path}: {text}");
    }
    world.nothing_upstream();
    world.join().await;
}

#[tokio::test]
async fn headers_that_override_or_repeat_are_refused() {
    let world = World::start().await;
    let cases = [
        ("x-http-method-override: DELETE", "method-override"),
        ("x-http-method: DELETE", "method-override"),
        ("x-method-override: DELETE", "method-override"),
        ("x_http_method_override: DELETE", "underscore"),
        ("authorization: a\r\nauthorization: b", "duplicate-header"),
        ("idempotency-key: a\r\nidempotency-key: b", "duplicate-header"),
        ("mcp_session_id: x", "underscore"),
        ("content_type: text/plain", "underscore"),
    ];
    for (header, reason) in cases {
        let mut raw = world.raw("support").await;
        let request = format!("GET /crm/v1/invoices/1001 HTTP/1.1\r\nhost: localhost\r\n{header}\r\n\r\n");
        let (status, text) = raw.ask(&request).await;
        assert_eq!(status, 400, "{header}: {text}");
        let id = raw.header("holdpoint-record");
        assert_eq!(world.record(&id, "refused")["reason"], reason, "{header}");
    }
    world.nothing_upstream();
    world.join().await;
}

#[tokio::test]
async fn framing_with_two_readings_never_becomes_a_second_request() {
    let world = World::start().await;
    let hidden = "GET /crm/v1/invoices/1001 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let cases = [
        ("content-length: 4\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
        ("content-length: 4\r\ncontent-length: 5", "abcd"),
        ("content-length: +4", "abcd"),
        ("content-length: 4, 4", "abcd"),
        ("transfer-encoding: xchunked", "0\r\n\r\n"),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity", "0\r\n\r\n"),
        ("transfer-encoding : chunked", "0\r\n\r\n"),
        ("transfer-encoding: \x0bchunked", "0\r\n\r\n"),
    ];
    for (framing, body) in cases {
        let mut raw = world.raw("support").await;
        let request =
            format!("POST /crm/echo HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n{body}{hidden}");
        let (status, text) = raw.ask(&request).await;
        assert!((400..502).contains(&status) || status == 0, "{framing}: {text}");
        assert!(!raw.until("invoices").await, "{framing}");
    }
    world.nothing_upstream();
    world.join().await;
}
