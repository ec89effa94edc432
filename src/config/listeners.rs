//! Where the gateway listens, and whom the admin listener lets in.

use std::path::PathBuf;

use super::load::{Listener, ListenerKind, Reader};
use super::raw::{self, File};
use crate::identify::people::People;
use crate::identify::svid::{Role, Trust};
use crate::yaml::Mistake;

/// What an address may be.
const ADDRESS: &str = "must be an address and a port, as in 127.0.0.1:8443";
/// What a socket's path may be, in bytes [unix(7): `sun_path`].
const SOCKET_BYTES_MAX: usize = 100;

impl Reader {
    /// The addresses, and the sockets of the admin listener.
    pub(super) fn listeners(&mut self, raw: &File) -> (Vec<Listener>, Vec<PathBuf>) {
        let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
        for (at, listener) in raw.listeners.iter().enumerate() {
            let path = format!("listeners[{at}]");
            let kind = match listener.kind.as_str() {
                "admin" => Some(ListenerKind::Admin),
                "agents" => Some(ListenerKind::Agents),
                "health" => Some(ListenerKind::Health),
                "tasks" => Some(ListenerKind::Tasks),
                _ => {
                    self.mistake(&format!("{path}.kind"), "must be `agents`, `admin`, `tasks` or `health`");
                    None
                }
            };
            let admin = kind == Some(ListenerKind::Admin);
            self.socket(&path, admin.then_some(()), listener, &mut sockets);
            if admin && listener.address.starts_with("unix://") {
                continue;
            }
            let address =
                listener.address.parse().map_err(|_| self.mistake(&format!("{path}.address"), ADDRESS));
            if let (Some(kind), Ok(address)) = (kind, address) {
                let hosts = listener.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
                listeners.push(Listener { name: listener.name.clone(), kind, address, hosts });
            }
        }
        (listeners, sockets)
    }

    /// A listener's socket, given as its address or beside it; `admin` is there for a listener that may have one.
    fn socket(&mut self, path: &str, admin: Option<()>, raw: &raw::Listener, sockets: &mut Vec<PathBuf>) {
        let by_address = raw.address.strip_prefix("unix://").filter(|_| admin.is_some());
        let beside = raw.socket.as_deref().map(|socket| socket.strip_prefix("unix://").unwrap_or(socket));
        if beside.is_some() && admin.is_none() {
            self.mistake(&format!("{path}.socket"), "belongs to a listener of kind `admin`");
            return;
        }
        for (key, socket) in [("address", by_address), ("socket", beside)] {
            let Some(socket) = socket else { continue };
            let socket = self.path(socket);
            // A path without a root would depend on where the gateway was started.
            let socket = std::path::absolute(&socket).unwrap_or(socket);
            if socket.as_os_str().len() > SOCKET_BYTES_MAX {
                self.mistake(
                    &format!("{path}.{key}"),
                    format!("must be a path of at most {SOCKET_BYTES_MAX} bytes"),
                );
            }
            if sockets.contains(&socket) {
                self.mistake(&format!("{path}.{key}"), "this socket is given twice");
            }
            sockets.push(socket);
        }
    }

    /// A listener for orchestrators needs a trust domain that holds them.
    pub(super) fn of_orchestrators(&mut self, raw: &File, trust: Option<&Trust>) {
        let tasks = raw.listeners.iter().any(|listener| listener.kind == "tasks");
        if tasks && trust.is_some_and(|trust| !trust.has(Role::Orchestrators)) {
            let text = "must have one with roles: [orchestrators] for the listener of kind `tasks`";
            self.mistake("trust.domains", text);
        }
    }

    /// People must be of a trust domain that holds people, and an admin listener needs such a domain.
    pub(super) fn of_people(&mut self, raw: &File, people: Option<&People>, trust: Option<&Trust>) {
        let admin = raw
            .listeners
            .iter()
            .any(|listener| listener.kind == "admin" && !listener.address.starts_with("unix://"));
        // With an identity provider people need no certificates, and so no domain of their own.
        let holds_people = |trust: &Trust| trust.has(Role::People) || raw.oidc.is_some();
        if admin && people.is_none() {
            self.mistake("people", "is required with a listener of kind `admin`: a file such as people.yaml");
        }
        if admin && trust.is_some_and(|trust| !holds_people(trust)) {
            self.mistake(
                "trust.domains",
                "must have one with roles: [people] for the listener of kind `admin`, or there must be a section `oidc`",
            );
        }
        let (Some(people), Some(trust)) = (people, trust) else { return };
        let file = self.path(raw.people.as_deref().unwrap_or_default()).display().to_string();
        let mut strangers: Vec<_> = people
            .iter()
            .filter(|person| match trust.domain(person.id.trust_domain()) {
                Some(domain) => domain.role() != Role::People,
                None => !people.has_subject(&person.id),
            })
            .map(|person| {
                let problem = "is of no trust domain with roles: [people]";
                Mistake::new(&file, person.id.as_str(), problem)
            })
            .collect();
        strangers.sort();
        self.mistakes.extend(strangers);
    }
}
