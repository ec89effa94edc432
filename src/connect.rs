//! The agent's side: an agent that cannot do mTLS speaks to this on its own machine, over stdio or a local socket, and
//! this speaks to the gateway with the workload's SVID.
//!
//! It decides nothing about calls. What it guards is the identity that it lends: who on this machine may use it, and
//! that no web page can.

pub mod gateway;
pub mod identity;
pub mod listen;
mod local;
mod peer;
mod problem;
mod relay;
mod socket;
pub mod stdio;

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::call::AgentId;
use crate::secret::Secret;
use gateway::{Gateway, Place};
use identity::Source;

/// Why the connector does not run.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A flag or a file is wrong.
    #[error("{0}")]
    Usage(String),
    /// The machine or the Workload API does not let it run.
    #[error("{0}")]
    CouldNotRun(String),
}

/// Who on this machine may use the workload's identity.
pub enum Admission {
    /// Processes of this user.
    Uid(u32),
    /// Who sends this text as a bearer token.
    Token(Secret),
    /// Everybody who can reach the socket.
    Anyone,
}

/// Where the agent speaks to the connector.
pub enum Local {
    /// Newline-delimited JSON-RPC on standard input and output; whoever started the process owns it.
    Stdio,
    /// HTTP on a TCP port of a loopback address.
    Tcp(SocketAddr, Admission),
    /// HTTP on a Unix socket.
    Unix(PathBuf, Admission),
}

/// Everything that the connector is told.
pub struct Settings {
    /// The gateway and the upstream there.
    pub place: Place,
    /// Exactly who the gateway must be; any workload of the trust domain otherwise.
    pub gateway_id: Option<AgentId>,
    /// Where the SVID comes from.
    pub source: Source,
    /// Where the agent speaks to it.
    pub local: Local,
}

/// Runs until its input ends or it is told to; `ready` hears where it listens.
///
/// Fails before anything is listened on when a file is wrong, the Workload API gives no SVID, or the socket is taken.
pub async fn run(
    settings: Settings,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(&str),
) -> Result<(), Failure> {
    let identities = identity::open(settings.source, settings.gateway_id).await?;
    let gateway = Gateway::new(settings.place, identities);
    match settings.local {
        Local::Stdio => {
            ready("stdio");
            stdio::run(gateway, stop).await.map_err(|error| Failure::CouldNotRun(error.to_string()))
        }
        Local::Tcp(address, admission) => {
            let listener = socket::tcp(address).await?;
            listen::serve(listener, admission, gateway, stop, ready).await
        }
        Local::Unix(path, admission) => {
            let listener = socket::unix(&path).await?;
            listen::serve(listener, admission, gateway, stop, ready).await
        }
    }
}
