//! What people reach the gateway by: the admin side, and its sockets on this machine.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::reload::Reload;
use super::{StartError, State};
use crate::accept::tls::Identity;
use crate::accept::{Connections, Door};
use crate::admin::{self, Admin, Cut};
use crate::identify::people::People;
use crate::identify::svid::{Role, Trust};
use crate::net::unix::{self, SocketFile};
use crate::oidc;
use crate::pipeline::Gateway;

/// A socket that is listened on, and its file.
pub(super) type Socket = (UnixListener, SocketFile);

/// Listens on every socket.
pub(super) async fn bind(paths: &[PathBuf]) -> Result<Vec<Socket>, StartError> {
    let mut sockets = Vec::new();
    for path in paths {
        let bound = unix::listen(path).await;
        sockets.push(bound.map_err(|why| StartError::Socket { path: path.clone(), why })?);
    }
    Ok(sockets)
}

/// The admin side of a gateway, where anybody can reach it.
pub(super) fn admin(
    gateway: &Arc<Gateway>,
    people: Arc<ArcSwap<People>>,
    state: &State,
    reload: &Arc<Reload>,
    oidc: Option<oidc::Config>,
    drain: watch::Receiver<bool>,
) -> Result<Option<Arc<Admin>>, StartError> {
    let Some(index) = &state.index else { return Ok(None) };
    let reload = Arc::clone(reload);
    let cut: Cut = Arc::new(move |agent| reload.cut(|other| other == agent));
    let admin = Admin::new(Arc::clone(gateway), people, Arc::clone(index), cut, oidc, drain);
    admin.map(Some).map_err(StartError::Random)
}

/// The door for people: with a certificate, or with what an identity provider says where there is one.
pub(super) fn door(
    trust: &Arc<ArcSwap<Trust>>,
    identity: &Arc<Identity>,
    connections: &Arc<Connections>,
    oidc: Option<&oidc::Config>,
) -> Result<Door, StartError> {
    let identity = Arc::clone(identity);
    let door = match oidc {
        Some(_) => {
            Door::with_guests(trust, Role::People, identity, connections, admin::GUEST_CONNECTIONS_MAX)
        }
        None => Door::new(trust, Role::People, identity, connections),
    };
    door.map_err(StartError::Tls)
}

/// Serves the sockets, and follows the audit for readers of events.
pub(super) fn serve(
    tasks: &mut JoinSet<()>,
    sockets: Vec<Socket>,
    admin: &Arc<Admin>,
    drain: &watch::Receiver<bool>,
) {
    tasks.spawn(Arc::clone(admin).follow());
    for (listener, file) in sockets {
        let serving = admin::local(listener, Arc::clone(admin), drain.clone());
        tasks.spawn(async move {
            serving.await;
            drop(file);
        });
    }
}
