//! `upstreams[].stdio`: a program that the gateway runs, as whom, with what, and how much of everything.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::uri::{Authority, PathAndQuery};
use nix::unistd::{Uid, User};

use crate::forward;
use crate::forward::pool::Pool;
use crate::net::Dial;
use crate::secret::Secret;
use crate::stdio::process::{self, Limits, Program, Value};
use crate::stdio::{Config, Server};

use super::load::Reader;
use super::raw;
use super::sources::digest_of;

/// A head is due within `timeout`; a stream is opened in good time before that.
const HEAD_TIME_MAX: Duration = Duration::from_secs(15);

impl Reader {
    /// An upstream that is a program.
    pub(super) fn stdio(
        &mut self,
        path: &str,
        upstream: &raw::Upstream,
        raw: &raw::Stdio,
    ) -> Option<forward::Upstream> {
        if upstream.kind != "mcp" {
            self.mistake(&format!("{path}.stdio"), "is for `kind: mcp` only");
        }
        if upstream.url.is_some() {
            self.mistake(&format!("{path}.stdio"), "cannot stand beside `url`: an upstream is one of both");
        }
        let meaningless = [
            ("sse", upstream.sse.is_some()),
            ("tls", upstream.tls.is_some()),
            ("credential", upstream.credential.is_some()),
            ("authorization", upstream.authorization.is_some()),
        ];
        for (key, there) in meaningless {
            if there {
                self.mistake(
                    &format!("{path}.{key}"),
                    "has no meaning beside `stdio`; a secret goes into its `env`",
                );
            }
        }
        let path = format!("{path}.stdio");
        let timeout = self.duration(
            &format!("{}.timeout", path.trim_end_matches(".stdio")),
            upstream.timeout.as_deref(),
            30,
        );
        let children_max = self.count(&format!("{path}.children_max"), raw.children_max, 64);
        let per_agent = self.count(&format!("{path}.children_per_agent_max"), raw.children_per_agent_max, 8);
        let idle_time_max =
            self.duration(&format!("{path}.idle_time_max"), raw.idle_time_max.as_deref(), 600);
        let name: Arc<str> = Arc::from(upstream.name.as_str());
        let program = self.program(&path, raw)?;
        // What is written, and what of it was looked up. A secret in a file is read anew by each start.
        let user = program.user.as_ref().map(|user| (user.uid, user.gid));
        let written = format!("{raw:?} {timeout:?} {user:?} {:?} {:?}", program.command, program.home);
        let rests_on = digest_of([b"stdio".as_slice(), written.as_bytes()]);
        let server = Server::new(Config {
            name: Arc::clone(&name),
            program,
            children_max,
            children_per_agent_max: per_agent,
            idle_time_max,
            head_time_max: HEAD_TIME_MAX.min(timeout / 2),
        });
        let dial = Dial {
            host: upstream.name.clone(),
            name,
            authority: Authority::from_static("stdio"),
            port: 0,
            tls: None,
            inside: Some(Arc::new(server)),
        };
        Some(forward::Upstream {
            pool: Arc::new(Pool::new(dial)),
            rests_on,
            authority: HeaderValue::from_static("stdio"),
            path: PathAndQuery::from_static("/mcp"),
            timeout,
            // Each agent has children of its own, so that one that fails says nothing about another's.
            breaker: None,
            pass_authorization: false,
        })
    }

    fn program(&mut self, path: &str, raw: &raw::Stdio) -> Option<Program> {
        let (user, home) = self.user(path, raw.user.as_deref())?;
        let environment = self.environment(path, raw);
        let named = environment.iter().find(|(name, _)| name == "PATH");
        let search = match named {
            Some((_, Value::Plain(text))) => text.clone(),
            _ => process::PATH.to_owned(),
        };
        let command = self.command(path, raw, &search);
        let directory = self.path(raw.directory.as_deref().unwrap_or("/"));
        if !directory.is_dir() {
            self.mistake(&format!("{path}.directory"), format!("{}: no such directory", directory.display()));
        }
        let limits = self.limits_of(path, &raw.limits, user.is_some());
        let arguments = raw.command.iter().skip(1).cloned().collect();
        if raw.command.iter().any(|word| word.contains('\0')) {
            self.mistake(&format!("{path}.command"), "must not contain NUL");
        }
        Some(Program { command: command?, arguments, directory, user, home, environment, limits })
    }

    /// Who runs it, and where that user is at home. `None` for the gateway's own user.
    fn user(&mut self, path: &str, name: Option<&str>) -> Option<(Option<process::User>, PathBuf)> {
        let at = format!("{path}.user");
        let own = Uid::effective();
        let root = "/".into();
        let Some(name) = name else {
            if own.is_root() {
                self.mistake(
                    &at,
                    "is required, since this gateway runs as root; `user: root` if it must be so",
                );
                return None;
            }
            let home = User::from_uid(own).ok().flatten().map_or(root, |user| user.dir);
            return Some((None, home));
        };
        let found = match User::from_name(name) {
            Ok(Some(user)) => user,
            Ok(None) => {
                self.mistake(&at, format!("there is no user `{name}`"));
                return None;
            }
            Err(error) => {
                self.mistake(&at, format!("`{name}` cannot be looked up: {error}"));
                return None;
            }
        };
        if found.uid == own && !own.is_root() {
            return Some((None, found.dir));
        }
        if !own.is_root() {
            self.mistake(&at, format!("`{name}` is another user, and only a gateway of root can become one"));
            return None;
        }
        Some((Some(process::User { uid: found.uid.as_raw(), gid: found.gid.as_raw() }), found.dir))
    }

    fn command(&mut self, path: &str, raw: &raw::Stdio, search: &str) -> Option<PathBuf> {
        let at = format!("{path}.command");
        let Some(program) = raw.command.first().filter(|program| !program.is_empty()) else {
            self.mistake(&at, "must be a program and its arguments, as in [npx, \"@example/server\"]");
            return None;
        };
        if program.contains('/') {
            let file = self.path(program);
            let file = std::path::absolute(&file).unwrap_or(file);
            if !is_program(&file) {
                self.mistake(&at, format!("{}: no program", file.display()));
                return None;
            }
            return Some(file);
        }
        let places = search.split(':').filter(|dir| dir.starts_with('/'));
        let found = places.map(|dir| Path::new(dir).join(program)).find(|file| is_program(file));
        if found.is_none() {
            self.mistake(&at, format!("there is no program `{program}` in {search}"));
        }
        found
    }

    fn environment(&mut self, path: &str, raw: &raw::Stdio) -> Vec<(String, Value)> {
        let mut environment = Vec::new();
        for (name, text) in &raw.env {
            let at = format!("{path}.env.{name}");
            if name.is_empty() || name.contains(['=', '\0']) || text.contains('\0') {
                self.mistake(&at, "is no name, or its value has a NUL");
                continue;
            }
            let reference = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            let value = match reference.map(|reference| reference.split_once(':')) {
                None if text.contains("${") => {
                    self.mistake(&at, "${env:NAME} and ${file:PATH} stand alone");
                    None
                }
                None => Some(Value::Plain(text.clone())),
                Some(Some(("env", variable))) => self.variable(&at, variable),
                Some(Some(("file", file))) => self.secret_file(&at, file),
                Some(_) => {
                    self.mistake(&at, "must be a text, ${env:NAME} or ${file:PATH}");
                    None
                }
            };
            environment.extend(value.map(|value| (name.clone(), value)));
        }
        environment
    }

    fn variable(&mut self, at: &str, variable: &str) -> Option<Value> {
        match std::env::var(variable) {
            Ok(text) => Some(Value::Secret(Secret::new(text))),
            Err(_) => {
                self.mistake(
                    at,
                    format!("the gateway's environment has no `{variable}`, or it is not UTF-8"),
                );
                None
            }
        }
    }

    fn secret_file(&mut self, at: &str, file: &str) -> Option<Value> {
        let file = self.path(file);
        match std::fs::metadata(&file) {
            Err(error) => self.mistake(at, format!("{}: {error}", file.display())),
            Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
                self.mistake(at, format!("{}: others may read it: chmod 600", file.display()));
            }
            Ok(_) => return Some(Value::File(file)),
        }
        None
    }

    fn limits_of(&mut self, path: &str, raw: &raw::StdioLimits, other: bool) -> Limits {
        let memory = self.size(&format!("{path}.limits.memory"), raw.memory.as_deref(), 2 << 30);
        let numbers = [("processes", raw.processes), ("files", raw.files), ("cpu_seconds", raw.cpu_seconds)];
        for (key, number) in numbers {
            if number == Some(0) {
                self.mistake(&format!("{path}.limits.{key}"), "must be at least 1");
            }
        }
        Limits {
            memory_bytes: Some(memory as u64),
            // The count is the user's: one that the gateway shares would be held to it as well.
            processes: raw.processes.or(other.then_some(256)),
            files: Some(raw.files.unwrap_or(1024)),
            cpu_seconds: raw.cpu_seconds,
        }
    }

    fn count(&mut self, at: &str, number: Option<usize>, default: usize) -> usize {
        if number == Some(0) {
            self.mistake(at, "must be at least 1");
        }
        number.unwrap_or(default)
    }
}

fn is_program(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
