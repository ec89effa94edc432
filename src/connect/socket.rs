//! The sockets that an agent reaches the connector by: none that another machine can reach.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::Failure;
use super::local::Names;
use crate::net::unix::SocketFile;

/// A socket that is listened on.
pub enum Listener {
    /// A TCP port of a loopback address.
    Tcp(TcpListener, SocketAddr),
    /// A Unix socket, which is removed when this is dropped.
    Unix(UnixListener, SocketFile),
}

/// One agent's connection.
pub enum Socket {
    /// With the agent's address.
    Tcp(TcpStream, SocketAddr),
    /// Its user is asked of the socket.
    Unix(UnixStream),
}

impl Listener {
    /// The next connection.
    pub async fn accept(&self) -> io::Result<Socket> {
        match self {
            Listener::Tcp(listener, _) => {
                let (stream, peer) = listener.accept().await?;
                // Without it an event would wait for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                Ok(Socket::Tcp(stream, peer))
            }
            Listener::Unix(listener, _) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }

    /// The names by which it may be called.
    pub fn names(&self) -> Names {
        match self {
            Listener::Tcp(_, address) => Names::Loopback(*address),
            Listener::Unix(..) => Names::Single,
        }
    }

    /// Where it listens, as a person writes it.
    pub fn url(&self) -> String {
        match self {
            Listener::Tcp(_, address) => format!("http://{address}"),
            Listener::Unix(_, file) => format!("unix://{}", file.path().display()),
        }
    }
}

/// Listens on TCP; refuses an address that is not loopback.
pub async fn tcp(address: SocketAddr) -> Result<Listener, Failure> {
    if !address.ip().is_loopback() {
        return Err(Failure::Usage(format!(
            "--listen {address}: expected a loopback address such as 127.0.0.1:PORT or [::1]:PORT, because whoever \
             reaches this socket acts as the workload"
        )));
    }
    let cannot = |error: io::Error| Failure::CouldNotRun(format!("--listen {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    Ok(Listener::Tcp(listener, address))
}

/// Listens on a Unix socket of mode 0600.
pub async fn unix(path: &Path) -> Result<Listener, Failure> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(Failure::Usage(format!(
            "--listen unix://{shown}: expected unix:///PATH with an absolute path"
        )));
    }
    let (listener, file) = crate::net::unix::listen(path)
        .await
        .map_err(|why| Failure::CouldNotRun(format!("--listen unix://{shown}: {why}")))?;
    Ok(Listener::Unix(listener, file))
}
