//! What the daemon may do beyond what its user may, and how it gives that up.
//!
//! Loading and attaching take [`NEEDED`]. Afterwards everything goes through file descriptors that are open, and through
//! pins that belong to the daemon's user: no capability is needed for that (Linux 5.19). Only an interface that appears
//! later needs them again.
//!
//! The kernel keeps capabilities by thread. The first thread keeps what it has until all is attached; every other one
//! gives up its own when it begins ([`enter_thread`]). [`give_up`] then does the same for the first thread, and looks at
//! every thread there is.

use std::{fmt, fs, io, sync::OnceLock, thread, time::Duration};

use caps::{CapSet, Capability, CapsHashSet};
use serde::{Deserialize, Serialize};

/// What loading, attaching and replacing take.
///
/// `CAP_PERFMON` lets the verifier accept arithmetic on packet pointers as the compiler writes it, and lets it leave out
/// its defences against programs of users that are not trusted.
pub const NEEDED: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
];

/// What becomes of the daemon's capabilities when everything is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Privileges {
    /// They are given up for good.
    #[default]
    Drop,
    /// Those of [`NEEDED`] stay, so that interfaces can be attached later.
    Keep,
}

impl Privileges {
    /// What may stay.
    fn kept(self) -> CapsHashSet {
        match self {
            Self::Drop => CapsHashSet::new(),
            Self::Keep => NEEDED.into_iter().collect(),
        }
    }
}

/// Capabilities were not given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The kernel refused.
    #[error("cannot give up capabilities: {0}")]
    Refused(String),
    /// A thread has them still, a defect.
    #[error("thread `{thread}` still has capabilities ({held}); this is a defect of sip-filter")]
    Held {
        /// Its name.
        thread: String,
        /// Which.
        held: String,
    },
    /// The kernel does not tell.
    #[error("cannot read the capabilities of this process")]
    Unknown(#[from] io::Error),
}

/// What threads that begin from now on may keep.
static PLAN: OnceLock<Privileges> = OnceLock::new();

/// Says what is to become of capabilities. To be called before there is a second thread; the first call counts.
pub fn plan(privileges: Privileges) {
    PLAN.get_or_init(|| privileges);
}

/// Gives up what the calling thread is not to have, if there is a plan. Each thread of the daemon calls it first.
pub fn enter_thread() {
    if let Some(privileges) = PLAN.get()
        && let Err(error) = reduce(&privileges.kept())
    {
        // `give_up` looks at all threads, and the start fails there.
        tracing::error!(%error, "a thread keeps its capabilities");
    }
}

/// Gives up what the process is not to have any more, and makes sure of it.
///
/// # Errors
/// [`PrivilegeError`] if any thread has more than it should.
pub fn give_up() -> Result<(), PrivilegeError> {
    let Some(privileges) = PLAN.get() else {
        return Ok(());
    };
    let kept = privileges.kept();
    reduce(&kept)?;
    verify(&kept)
}

/// Whether this thread can attach to an interface.
#[must_use]
pub fn may_attach() -> bool {
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    // CAP_SYS_ADMIN included the other two before 5.8; the kernel still lets it.
    NEEDED
        .iter()
        .all(|capability| effective.contains(capability) || effective.contains(&Capability::CAP_SYS_ADMIN))
        && effective.contains(&Capability::CAP_NET_ADMIN)
}

/// Leaves the calling thread, and what it starts, nothing but `kept`.
fn reduce(kept: &CapsHashSet) -> Result<(), PrivilegeError> {
    let refused = |error: &dyn fmt::Display| PrivilegeError::Refused(error.to_string());
    nix::sys::prctl::set_no_new_privs().map_err(|error| refused(&error))?;
    // The bounding set takes CAP_SETPCAP, which the unit does not give. No program is started with more than its
    // parent has once `no_new_privs` is set, so that set is then without effect.
    let held = caps::read(None, CapSet::Permitted).map_err(|error| refused(&error))?;
    if held.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::runtime::thread_all_supported().difference(kept) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(|error| refused(&error))?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(|error| refused(&error))?;
    let left: CapsHashSet = held.intersection(kept).copied().collect();
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &left).map_err(|error| refused(&error))?;
    }
    caps::clear(None, CapSet::Inheritable).map_err(|error| refused(&error))
}

/// Looks at all threads. One that is only just beginning is given a moment.
fn verify(kept: &CapsHashSet) -> Result<(), PrivilegeError> {
    let allowed = kept
        .iter()
        .fold(0, |mask, capability| mask | capability.bitmask());
    let mut attempts = 0;
    loop {
        let excess = threads()?.into_iter().find(|(_, rights)| rights.exceeds(allowed));
        let Some((thread, rights)) = excess else {
            return Ok(());
        };
        attempts += 1;
        if attempts == 100 {
            return Err(PrivilegeError::Held {
                thread,
                held: rights.to_string(),
            });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Name and rights of each thread of this process.
fn threads() -> io::Result<Vec<(String, Rights)>> {
    let mut threads = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        // A thread may end meanwhile.
        if let Ok(status) = fs::read_to_string(task?.path().join("status")) {
            let name = field(&status, "Name").unwrap_or_default().to_owned();
            threads.push((name, Rights::parse(&status)?));
        }
    }
    Ok(threads)
}

/// What a thread may do, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    inheritable: u64,
    permitted: u64,
    effective: u64,
    ambient: u64,
    no_new_privileges: bool,
}

impl Rights {
    /// Those of this process.
    ///
    /// # Errors
    /// If `/proc` does not tell.
    pub fn read() -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/self/status")?)
    }

    fn parse(status: &str) -> io::Result<Self> {
        let lacks = |name: &str| io::Error::new(io::ErrorKind::InvalidData, format!("no `{name}` in /proc"));
        let mask = |name: &str| {
            let digits = field(status, name).ok_or_else(|| lacks(name))?;
            u64::from_str_radix(digits, 16).map_err(|_| lacks(name))
        };
        Ok(Self {
            inheritable: mask("CapInh")?,
            permitted: mask("CapPrm")?,
            effective: mask("CapEff")?,
            ambient: mask("CapAmb")?,
            no_new_privileges: field(status, "NoNewPrivs").ok_or_else(|| lacks("NoNewPrivs"))? == "1",
        })
    }

    fn exceeds(self, allowed: u64) -> bool {
        (self.permitted | self.effective) & !allowed != 0
            || self.inheritable | self.ambient != 0
            || !self.no_new_privileges
    }

    /// Names of all capabilities in any set that counts.
    #[must_use]
    pub fn capabilities(self) -> Vec<String> {
        let held = self.inheritable | self.permitted | self.effective | self.ambient;
        (0..64)
            .filter(|bit| held >> bit & 1 == 1)
            .map(|bit| {
                let known = caps::all()
                    .into_iter()
                    .find(|capability| capability.index() == bit);
                known.map_or_else(|| format!("CAP_{bit}"), |capability| capability.to_string())
            })
            .collect()
    }

    /// Whether no program it starts can have more.
    #[must_use]
    pub fn no_new_privileges(self) -> bool {
        self.no_new_privileges
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.capabilities().join(" "))
    }
}

/// A line of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tdetect\nCapInh:\t0000000000000000\nCapPrm:\t000000c000001000\n\
        CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";

    #[test]
    fn whatever_a_thread_has_too_much_is_seen() {
        let rights = Rights::parse(STATUS).unwrap();
        assert_eq!(rights.capabilities(), ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
        let needed = NEEDED
            .iter()
            .fold(0, |mask, capability| mask | capability.bitmask());
        assert!(!rights.exceeds(needed));
        assert!(rights.exceeds(0), "permitted alone is enough to get it back");
        for (line, with) in [
            ("CapInh:\t0000000000000000", "CapInh:\t0000000000001000"),
            ("CapAmb:\t0000000000000000", "CapAmb:\t0000000000001000"),
            ("CapEff:\t0000000000000000", "CapEff:\t0000000000000001"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
        ] {
            let rights = Rights::parse(&STATUS.replace(line, with)).unwrap();
            assert!(rights.exceeds(needed), "{with}");
        }
        assert!(Rights::parse("CapInh:\t0\n").is_err());
    }

    #[test]
    fn a_thread_that_gave_up_has_nothing_and_cannot_get_it_back() {
        // Threads have capabilities of their own, so that this one does not harm the other tests.
        let inside = thread::spawn(|| {
            reduce(&CapsHashSet::new()).unwrap();
            let back = caps::set(None, CapSet::Effective, &NEEDED.into_iter().collect());
            let own = fs::read_to_string("/proc/thread-self/status").unwrap();
            (back.is_err(), may_attach(), Rights::parse(&own).unwrap())
        });
        let (refused, may_attach, rights) = inside.join().unwrap();
        assert!(refused && !may_attach);
        assert!(!rights.exceeds(0), "{rights}");
    }
}
