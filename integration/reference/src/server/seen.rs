//! What the server was asked and what became of it, in a file.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use hyper::http::request::Parts;
use serde_json::{Value, json};

/// The file, or nothing where none was named.
pub struct Seen(Option<Mutex<File>>);

impl Seen {
    /// Appends to the file at `path`.
    pub fn open(path: Option<OsString>) -> io::Result<Seen> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path).map(Mutex::new);
        Ok(Seen(path.map(open).transpose()?))
    }

    /// One request, whole.
    pub fn request(&self, head: &Parts, body: &[u8]) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers: Vec<_> =
            head.headers.iter().map(|(name, value)| (name.as_str(), text(value.as_bytes()))).collect();
        self.line(&json!({
            "event": "complete", "method": head.method.as_str(), "path": head.uri.path(),
            "headers": headers, "body": text(body),
        }));
    }

    /// How the computation with this label ended: `finished` or `cancelled`.
    pub fn ended(&self, event: &str, label: &str) {
        self.line(&json!({"event": event, "label": label}));
    }

    fn line(&self, line: &Value) {
        let Some(file) = &self.0 else { return };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write a line, so that lines never mix. Without its file a test fails on its own.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}
