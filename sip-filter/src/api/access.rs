//! Who may do what.
//!
//! Whoever can open the socket may read: its mode and group decide that. Changes are for root, the user the daemon
//! runs as, and the members of the admin group; the kernel vouches for the peer's user id.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::net::UnixStream;

/// The process at the other end of a connection, at the time it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Process id, for the log.
    pub pid: i32,
}

impl Peer {
    /// Asks the kernel.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn of(stream: &UnixStream) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self {
            uid: credentials.uid(),
            gid: credentials.gid(),
            pid: credentials.pid().unwrap_or(0),
        })
    }
}

/// Who may change things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    own_uid: u32,
    admin_group: Option<(String, u32)>,
}

/// The admin group cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// There is no such group.
    #[error("there is no group `{0}`; create it with `groupadd --system {0}` or correct the configuration")]
    NoSuchGroup(String),
    /// The group database cannot be read.
    #[error("cannot look up the group `{group}`")]
    Lookup {
        /// Its name.
        group: String,
        /// Why not.
        #[source]
        source: nix::Error,
    },
}

/// The id of a group.
///
/// # Errors
/// If there is no such group or the group database cannot be read.
pub fn group_id(name: &str) -> Result<u32, AccessError> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(AccessError::NoSuchGroup(name.to_owned())),
        Err(source) => Err(AccessError::Lookup {
            group: name.to_owned(),
            source,
        }),
    }
}

impl Access {
    /// Root, this process's user, and the members of `admin_group`.
    ///
    /// # Errors
    /// If there is no such group.
    pub fn new(admin_group: Option<&str>) -> Result<Self, AccessError> {
        let admin_group = match admin_group {
            Some(name) => Some((name.to_owned(), group_id(name)?)),
            None => None,
        };
        Ok(Self {
            own_uid: Uid::effective().as_raw(),
            admin_group,
        })
    }

    /// Whether the peer may change things whatever groups it is in. Needs no look-up.
    #[must_use]
    pub fn is_owner(&self, peer: Peer) -> bool {
        peer.uid == 0 || peer.uid == self.own_uid
    }

    /// Whether the peer may change things. `groups` lists the supplementary groups of a user and is asked only if it
    /// matters, since the group database may be on the network.
    pub fn may_write(&self, peer: Peer, groups: impl FnOnce(Peer) -> Vec<u32>) -> bool {
        if self.is_owner(peer) {
            return true;
        }
        match self.admin_group {
            Some((_, gid)) => peer.gid == gid || groups(peer).contains(&gid),
            None => false,
        }
    }

    /// Why a peer may not, and who may.
    #[must_use]
    pub fn refusal(&self, peer: Peer) -> String {
        let user = match User::from_uid(Uid::from_raw(peer.uid)) {
            Ok(Some(user)) => format!("user `{}`", user.name),
            _ => format!("user id {}", peer.uid),
        };
        match &self.admin_group {
            Some((name, _)) => {
                format!(
                    "{user} may look but not change anything: that takes root or a member of the group `{name}`"
                )
            }
            None => format!(
                "{user} may look but not change anything: that takes root (no admin group is configured)"
            ),
        }
    }
}

/// The supplementary groups of the peer's user, by the group database; none if it cannot be read.
#[must_use]
pub fn supplementary_groups(peer: Peer) -> Vec<u32> {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(peer.uid)) else {
        return Vec::new();
    };
    let Ok(name) = CString::new(user.name) else {
        return Vec::new();
    };
    match getgrouplist(&name, user.gid) {
        Ok(groups) => groups.into_iter().map(Gid::as_raw).collect(),
        Err(error) => {
            tracing::warn!(uid = peer.uid, %error, "cannot read the groups of a user; treating it as in none");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer { uid, gid, pid: 1 }
    }

    #[test]
    fn root_the_daemon_and_admins_may_write() {
        let access = Access {
            own_uid: 500,
            admin_group: Some(("noc".to_owned(), 77)),
        };
        let nobody_asked = |_: Peer| -> Vec<u32> { panic!("no look-up needed") };
        assert!(access.may_write(peer(0, 0), nobody_asked));
        assert!(access.may_write(peer(500, 500), nobody_asked));
        assert!(access.may_write(peer(1000, 77), nobody_asked));
        assert!(access.may_write(peer(1000, 1000), |_| vec![4, 77]));
        assert!(!access.may_write(peer(1000, 1000), |_| vec![4, 78]));
        assert!(access.refusal(peer(4_000_000, 1)).contains("group `noc`"));

        let closed = Access {
            own_uid: 500,
            admin_group: None,
        };
        // Group 0 gives nothing: only the user id of root does.
        assert!(!closed.may_write(peer(1000, 0), |_| vec![0]));
    }

    #[test]
    fn the_group_database_is_read() {
        assert_eq!(group_id("root").unwrap(), 0);
        assert!(matches!(
            group_id("no-such-group-here"),
            Err(AccessError::NoSuchGroup(_))
        ));
        assert!(supplementary_groups(peer(0, 0)).contains(&0));
        assert!(supplementary_groups(peer(4_000_000, 0)).is_empty());
    }
}
