//! The daemon's socket in the file system.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

use super::access::{AccessError, group_id};

/// Where the socket is unless told otherwise.
pub const DEFAULT_PATH: &str = "/run/sip-filter/api.sock";

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon has it.
    #[error(
        "another sip-filter answers on {}; stop it first (`systemctl stop sip-filter`) or use another --socket",
        .0.display()
    )]
    Live(PathBuf),
    /// Something else is there, and it is not ours to remove.
    #[error("{} exists and is not a socket; remove it or use another --socket", .0.display())]
    NotASocket(PathBuf),
    /// The group it is to belong to.
    #[error("cannot give the socket to its group")]
    Group(#[source] AccessError),
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Removes the socket when the daemon ends, unless it is another daemon's by then.
#[derive(Debug)]
pub struct SocketGuard {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// Opens the socket: mode 0660, group `group` if given. The socket of a dead daemon is replaced.
///
/// # Errors
/// [`SocketError`], in particular if a living daemon answers there.
pub fn bind(path: &Path, group: Option<&str>) -> Result<(UnixListener, SocketGuard), SocketError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| SocketError::Io { action, path, source }
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory).map_err(failed("create the directory", directory))?;
    refuse_if_in_use(path)?;

    // It is made in a directory nobody else can enter and moved when its rights are set: there is no moment at which
    // a stranger could connect, and none at which a stale socket is gone and the new one not there.
    let nursery = tempfile::Builder::new()
        .prefix(".api-")
        .tempdir_in(directory)
        .map_err(failed("create a directory in", directory))?;
    let newborn = nursery.path().join("s");
    let listener = UnixListener::bind(&newborn).map_err(failed("open the socket", path))?;
    if let Some(group) = group {
        let gid = group_id(group).map_err(SocketError::Group)?;
        chown(&newborn, None, Some(gid)).map_err(failed("change the group of", path))?;
    }
    fs::set_permissions(&newborn, fs::Permissions::from_mode(0o660))
        .map_err(failed("set the mode of", path))?;
    let meta = fs::symlink_metadata(&newborn).map_err(failed("examine", path))?;
    fs::rename(&newborn, path).map_err(failed("move the socket to", path))?;
    Ok((
        listener,
        SocketGuard {
            path: path.to_owned(),
            identity: (meta.dev(), meta.ino()),
        },
    ))
}

fn refuse_if_in_use(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(SocketError::Io {
                action: "examine",
                path: path.to_owned(),
                source,
            });
        }
    }
    match std::os::unix::net::UnixStream::connect(path) {
        // Full backlog: alive, and busy.
        Ok(_) => Err(SocketError::Live(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::Live(path.to_owned())),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            tracing::info!(path = %path.display(), "replacing the socket of a daemon that is gone");
            Ok(())
        }
        Err(source) => Err(SocketError::Io {
            action: "examine",
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/api.sock");
        let (listener, guard) = bind(&path, Some("root")).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(matches!(bind(&path, None), Err(SocketError::Live(_))));

        // Killed: the listener goes, the file stays.
        drop(listener);
        std::mem::forget(guard);
        assert!(path.exists());
        let (_listener, second) = bind(&path, None).unwrap();
        drop(second);
        assert!(!path.exists());
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            0,
            "nothing is left behind"
        );
    }

    #[tokio::test]
    async fn the_socket_of_a_successor_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let (listener, guard) = bind(&path, None).unwrap();
        drop(listener);
        let (_listener, _successor) = bind(&path, None).unwrap();
        drop(guard);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn other_files_are_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(matches!(bind(&path, None), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
        assert!(matches!(
            bind(&dir.path().join("s"), Some("no-such-group-here")),
            Err(SocketError::Group(_))
        ));
    }
}
