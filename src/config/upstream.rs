//! The `upstreams` section: each entry becomes a route, a way to get there, a catalogue source and a credential.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri};

use crate::classify::catalog::{Asks, Catalog, UpstreamConfig, UpstreamKind};
use crate::credential::StaticFile;
use crate::decode::{McpRoute, Route, RouteKind};
use crate::definitions::Listing;
use crate::forward;
use crate::forward::breaker::{self, Breaker};
use crate::forward::pool::Pool;
use crate::net::{self, Dial};

use super::catalog;
use super::load::Reader;
use super::raw;
use super::sources::digest_of;

/// What the section gives.
#[derive(Default)]
pub(super) struct Parts {
    pub sources: Vec<Source>,
    pub upstreams: Vec<(Arc<str>, forward::Upstream)>,
    pub credentials: Vec<(Arc<str>, StaticFile)>,
    pub catalogs: Vec<super::listing::CatalogFile>,
    pub listings: Vec<(Arc<str>, Listing)>,
    hosts: Vec<Option<String>>,
    mcp: Vec<McpRoute>,
}

/// An upstream and the text of its catalogue.
pub(super) struct Source {
    config: UpstreamConfig,
    file: Option<(String, String)>,
}

impl Source {
    /// As the catalogue's reader takes it.
    pub(super) fn borrow(&self) -> catalog::Source<'_> {
        let file = self.file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
        catalog::Source { upstream: self.config.clone(), file }
    }
}

impl Parts {
    /// The routes to the upstreams.
    pub(super) fn routes(&self, catalog: &Catalog) -> Vec<Route> {
        let route = |((source, host), mcp): ((&Source, &Option<String>), &McpRoute)| {
            let upstream = catalog.upstream(&source.config.name).map(Arc::clone);
            let kind = match (source.config.kind, upstream) {
                (UpstreamKind::Mcp, _) => RouteKind::Mcp(mcp.clone()),
                (UpstreamKind::Http, Some(upstream)) => {
                    RouteKind::Http(Box::new(move |method, path| upstream.is_opaque(method, path)))
                }
                (UpstreamKind::Http, None) => RouteKind::Http(Box::new(|_, _| false)),
            };
            Route { name: Arc::clone(&source.config.name), kind, host: host.clone() }
        };
        self.sources.iter().zip(&self.hosts).zip(&self.mcp).map(route).collect()
    }
}

impl Reader {
    pub(super) fn upstream(&mut self, at: usize, raw: &raw::Upstream, parts: &mut Parts) {
        let path = format!("upstreams[{at}]");
        let Some(config) = self.upstream_config(&path, raw) else { return };
        if parts.sources.iter().any(|source| source.config.name == config.name) {
            self.mistake(&format!("{path}.name"), format!("`{}` is there twice", config.name));
            return;
        }
        let name = Arc::clone(&config.name);
        let file = raw.catalog.as_deref().and_then(|file| {
            let bytes = self.bytes(&format!("{path}.catalog"), Some(file))?;
            let shown = self.path(file).display().to_string();
            String::from_utf8(bytes)
                .map(|text| (shown, text))
                .map_err(|_| self.mistake(&format!("{path}.catalog"), "is not UTF-8"))
                .ok()
        });
        self.definitions(&path, raw, &config, parts);
        let sse = self.sse(&path, raw);
        parts.mcp.push(McpRoute {
            methods: config.methods.clone(),
            streamable: raw.url.is_some() || raw.stdio.is_some(),
            sse,
        });
        parts.sources.push(Source { config, file });
        parts.hosts.push(raw.host.as_ref().map(|host| host.to_ascii_lowercase()));
        let way = match &raw.stdio {
            Some(stdio) => self.stdio(&path, raw, stdio),
            None => self.way(&path, raw),
        };
        if let Some(upstream) = way {
            parts.upstreams.push((Arc::clone(&name), upstream));
        }
        if let Some(credential) = &raw.credential
            && let Some(file) = self.credential(&path, credential)
        {
            parts.credentials.push((name, file));
        }
    }

    fn upstream_config(&mut self, path: &str, raw: &raw::Upstream) -> Option<UpstreamConfig> {
        let kind = match raw.kind.as_str() {
            "http" => Some(UpstreamKind::Http),
            "mcp" => Some(UpstreamKind::Mcp),
            _ => {
                self.mistake(&format!("{path}.kind"), "must be `mcp` or `http`");
                None
            }
        };
        let inside = match raw.boundary.as_deref() {
            None | Some("outside") => false,
            Some("inside") => true,
            Some(_) => {
                self.mistake(&format!("{path}.boundary"), "must be `inside` or `outside`");
                false
            }
        };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if raw.name.is_empty() || !raw.name.bytes().all(plain) {
            self.mistake(&format!("{path}.name"), "must be lower-case letters, digits and dashes");
        }
        let text = |value: &Option<String>| Arc::from(value.as_deref().unwrap_or_default());
        Some(UpstreamConfig {
            name: Arc::from(raw.name.as_str()),
            kind: kind?,
            environment: text(&raw.environment),
            region: text(&raw.region),
            data_domain: text(&raw.data_domain),
            inside,
            trusted: raw.trusted.unwrap_or(false),
            strict: raw.strict.unwrap_or(false),
            asks: self.asks(path, raw),
            methods: self.methods(path, raw),
            shadow: self.shadow(path, raw),
        })
    }

    /// Where sessions of the transport of 2024-11-05 open: at the same server as `url`.
    fn sse(&mut self, path: &str, raw: &raw::Upstream) -> Option<PathAndQuery> {
        let path = format!("{path}.sse");
        let sse = raw.sse.as_deref()?;
        if raw.kind != "mcp" {
            self.mistake(&path, "is for `kind: mcp` alone");
        }
        let Ok(uri) = sse.parse::<Uri>() else {
            self.mistake(&path, "must be a URL, as in http://127.0.0.1:3101/sse");
            return None;
        };
        let url = raw.url.as_deref().and_then(|url| url.parse::<Uri>().ok());
        if url.is_some_and(|url| url.scheme() != uri.scheme() || url.authority() != uri.authority()) {
            self.mistake(&path, "must be at the same server as `url`");
        }
        uri.path_and_query().cloned()
    }

    fn methods(&mut self, path: &str, raw: &raw::Upstream) -> Vec<Arc<str>> {
        if raw.kind != "mcp" && !raw.methods.is_empty() {
            self.mistake(&format!("{path}.methods"), "is for `kind: mcp` alone");
        }
        for (at, method) in raw.methods.iter().enumerate() {
            if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_graphic()) {
                self.mistake(
                    &format!("{path}.methods[{at}]"),
                    "must be a method of JSON-RPC, as in acme/reindex",
                );
            }
        }
        raw.methods.iter().map(|method| Arc::from(method.as_str())).collect()
    }

    fn asks(&mut self, path: &str, raw: &raw::Upstream) -> Asks {
        let usual = Asks::usual(raw.trusted.unwrap_or(false));
        let Some(words) = &raw.may_ask else { return usual };
        if raw.kind != "mcp" {
            self.mistake(&format!("{path}.may_ask"), "is for `kind: mcp` alone");
        }
        Asks::parse(words.iter().map(String::as_str)).unwrap_or_else(|| {
            self.mistake(
                &format!("{path}.may_ask"),
                "must list `elicitation`, `roots`, `sampling`, or nothing",
            );
            usual
        })
    }

    fn way(&mut self, path: &str, raw: &raw::Upstream) -> Option<forward::Upstream> {
        if raw.url.is_none() && raw.kind == "mcp" {
            self.mistake(path, "needs `url` or `stdio`");
            return None;
        }
        let expected = "must be a URL, as in http://127.0.0.1:3101/mcp or https://crm.internal";
        let url = raw.url.as_deref().or(raw.sse.as_deref());
        let uri = url.and_then(|url| url.parse::<Uri>().ok());
        let parsed = uri.as_ref().and_then(|uri| {
            let tls = match uri.scheme_str()? {
                "http" => false,
                "https" => true,
                _ => return None,
            };
            let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
            let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
            let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
            Some((tls, host, port, authority.as_str().to_owned(), uri.path().parse::<PathAndQuery>().ok()?))
        });
        let Some((tls, host, port, authority, base)) =
            parsed.filter(|_| uri.is_some_and(|uri| uri.query().is_none()))
        else {
            self.mistake(&format!("{path}.url"), expected);
            return None;
        };
        let (config, roots) = match tls {
            true => self.upstream_tls(path, raw).map(|(config, roots)| (Some(config), roots))?,
            false => (None, Vec::new()),
        };
        if !tls && raw.tls.is_some() {
            self.mistake(&format!("{path}.tls"), "needs an https:// URL");
        }
        let pass_authorization = match raw.authorization.as_deref() {
            None | Some("strip") => false,
            Some("pass") => true,
            Some(_) => {
                self.mistake(&format!("{path}.authorization"), "must be `strip` or `pass`");
                false
            }
        };
        let spiffe_id = raw.tls.as_ref().and_then(|tls| tls.spiffe_id.as_deref()).unwrap_or_default();
        let scheme: &[u8] = if tls { b"https" } else { b"http" };
        let rests_on = digest_of([scheme, authority.as_bytes(), &roots, spiffe_id.as_bytes()]);
        Some(forward::Upstream {
            pool: Arc::new(Pool::new(Dial {
                name: Arc::from(host.as_str()),
                authority: authority.parse().ok()?,
                host,
                port,
                tls: config,
                inside: None,
            })),
            rests_on,
            authority: HeaderValue::from_str(&authority).ok()?,
            path: base,
            timeout: self.duration(&format!("{path}.timeout"), raw.timeout.as_deref(), 30),
            breaker: self.breaker(path, raw),
            pass_authorization,
        })
    }

    /// On unless `failures` is 0.
    fn breaker(&mut self, path: &str, raw: &raw::Upstream) -> Option<Arc<Breaker>> {
        let name = Arc::from(raw.name.as_str());
        let raw::Breaker { failures, open_for } = raw.breaker.clone().unwrap_or_default();
        let usual = breaker::Config::default();
        let path = format!("{path}.breaker");
        let open_for =
            self.duration(&format!("{path}.open_for"), open_for.as_deref(), usual.open_for.as_secs());
        if open_for > breaker::Config::OPEN_FOR_MAX {
            self.mistake(&format!("{path}.open_for"), "must be 1h at most");
        }
        let failures = failures.unwrap_or(usual.failures);
        if failures > breaker::Config::FAILURES_MAX {
            let problem = format!("must be {} at most", breaker::Config::FAILURES_MAX);
            self.mistake(&format!("{path}.failures"), problem);
        }
        (failures > 0).then(|| Arc::new(Breaker::new(name, breaker::Config { failures, open_for })))
    }

    /// TLS to an upstream, and what tells its roots from others.
    fn upstream_tls(
        &mut self,
        path: &str,
        raw: &raw::Upstream,
    ) -> Option<(Arc<rustls::ClientConfig>, Vec<u8>)> {
        let tls = raw.tls.as_ref();
        let bundle = match tls.and_then(|tls| tls.bundle.as_deref()) {
            Some(file) => Some(self.bytes(&format!("{path}.tls.bundle"), Some(file))?),
            None => None,
        };
        let spiffe_id = tls.and_then(|tls| tls.spiffe_id.as_deref());
        let config = net::tls::client_config(bundle.as_deref(), spiffe_id, &[b"h2", b"http/1.1"])
            .map_err(|problem| self.mistake(&format!("{path}.tls"), problem))
            .ok()?;
        let roots = bundle.unwrap_or_else(|| {
            let mut system = net::tls::system_certificates();
            system.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
            digest_of(system.iter().map(AsRef::as_ref)).to_vec()
        });
        Some((config, roots))
    }

    fn credential(&mut self, path: &str, raw: &raw::StaticCredential) -> Option<StaticFile> {
        let file = self.path(&raw.file);
        match std::fs::metadata(&file) {
            Err(error) => {
                self.mistake(&format!("{path}.credential.file"), format!("{}: {error}", file.display()))
            }
            Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => self.mistake(
                &format!("{path}.credential.file"),
                format!("{}: others may read it: chmod 600", file.display()),
            ),
            Ok(_) => {}
        }
        let name = raw.header.as_deref().unwrap_or("Authorization");
        let header: Option<HeaderName> = name.parse().ok();
        if header.is_none() {
            self.mistake(&format!("{path}.credential.header"), "must be a header name");
        }
        let header = header?;
        let default = if header == http::header::AUTHORIZATION { "Bearer " } else { "" };
        let prefix = raw.prefix.clone().unwrap_or_else(|| default.to_owned());
        Some(StaticFile { file, header, prefix })
    }
}

/// A credential from a file has no end, so it must not serve a tool that limits the life of its credentials.
pub(super) fn check_credentials(reader: &mut Reader, catalog: &Catalog, parts: &Parts) {
    for (name, _) in &parts.credentials {
        let Some(upstream) = catalog.upstream(name) else { continue };
        for entry in upstream.entries().filter(|entry| entry.max_credential_ttl.is_some()) {
            let text = format!(
                "`{name}` has a static credential, which never expires, and its tool `{}` has max_credential_ttl",
                entry.profile.name
            );
            reader.mistake("upstreams", text);
        }
    }
}
