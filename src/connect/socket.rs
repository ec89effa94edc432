//! The sockets that an agent reaches the connector by: none that another machine can reach.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::Failure;
use super::local::Names;

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
            Listener::Unix(_, file) => format!("unix://{}", file.path.display()),
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

/// Listens on a Unix socket of mode 0600. A socket file on which nothing listens any more is replaced, nothing else is.
pub async fn unix(path: &Path) -> Result<Listener, Failure> {
    let cannot = |why: &dyn std::fmt::Display| {
        Failure::CouldNotRun(format!("--listen unix://{}: {why}", path.display()))
    };
    if !path.is_absolute() {
        return Err(Failure::Usage(format!(
            "--listen unix://{}: expected unix:///PATH with an absolute path",
            path.display()
        )));
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(cannot(&error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(cannot(&"a file that is no socket is there"));
        }
        Ok(_) => match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => {
                return Err(cannot(&format!("what is there cannot be asked whether it listens: {error}")));
            }
            Ok(_) => return Err(cannot(&"another process listens there")),
        },
    }
    bind(path).map_err(|error| cannot(&error))
}

/// Binds in a directory that nobody else can enter, so that the socket is at no moment open to others, and moves it to
/// its place.
fn bind(path: &Path) -> io::Result<Listener> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let dir = parent.join(format!(".hp{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&dir)?;
    let bound = (|| {
        let fresh = dir.join("s");
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&fresh)?.ino();
        fs::rename(&fresh, path)?;
        Ok(Listener::Unix(listener, SocketFile { path: path.to_owned(), inode }))
    })();
    // Empty when all went well; what cannot be removed does no harm.
    let _ = fs::remove_file(dir.join("s"));
    let _ = fs::remove_dir(&dir);
    bound
}

/// The file of a Unix socket.
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have put another in its place.
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
