//! Unix sockets that their owner alone may use.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Listens on a Unix socket of mode 0600. A socket file on which nothing listens any more is replaced, nothing else is.
pub async fn listen(path: &Path) -> Result<(UnixListener, SocketFile), String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.to_string()),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err("a file that is no socket is there".to_owned());
        }
        Ok(_) => match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(format!("what is there cannot be asked whether it listens: {error}")),
            Ok(_) => return Err("another process listens there".to_owned()),
        },
    }
    bind(path).map_err(|error| error.to_string())
}

/// Binds in a directory that nobody else can enter, so that the socket is at no moment open to others, and moves it to
/// its place.
fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let dir = parent.join(format!(".hp{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&dir)?;
    let bound = (|| {
        let fresh = dir.join("s");
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&fresh)?.ino();
        fs::rename(&fresh, path)?;
        Ok((listener, SocketFile { path: path.to_owned(), inode }))
    })();
    // Empty when all went well; what cannot be removed does no harm.
    let _ = fs::remove_file(dir.join("s"));
    let _ = fs::remove_dir(&dir);
    bound
}

/// The file of a Unix socket, removed when this is dropped.
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have put another in its place.
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
