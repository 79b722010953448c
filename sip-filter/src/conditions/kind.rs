//! What can be wrong, how bad it is, and what to do about it.

use serde::{Deserialize, Serialize};

/// How soon somebody should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// In working hours.
    Warning,
    /// Now: somebody is not protected, or will not be.
    Critical,
}

impl Severity {
    /// Stable name, also the `severity` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What is wrong. Names are stable: they are labels of metrics and the identity of alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The filter is not attached to an interface that is there. Subject: the interface.
    Detached,
    /// An interface that is to be filtered is not there. Subject: its name.
    InterfaceMissing,
    /// The program runs outside the driver. Subject: the interface.
    GenericMode,
    /// The server's answers are not seen, so detection works on requests alone. Subject: the interface.
    AnswersUnseen,
    /// A kernel table has little room left. Subject: `interface/table`.
    MapNearlyFull,
    /// Much is being dropped.
    FloodOngoing,
    /// The rules have banned so many that a rule may be wrong.
    MassBan,
    /// Nothing has been dropped for long.
    SimulateTooLong,
    /// The kernel lets a source pass that it should stop. Subject: the interface.
    BannedSourcePasses,
    /// Bans are in force but would not survive a reboot.
    StoreFailing,
    /// Kernel tables were not what the ban list says. Subject: the interface.
    Drift,
    /// An account is attacked from many sources.
    DistributedAuth,
    /// The configuration file cannot be used; an older one is in force.
    ConfigRejected,
    /// Alarms do not reach a receiver. Subject: the receiver.
    AlarmsUndelivered,
    /// The text file for node_exporter cannot be written.
    TextfileFailing,
    /// The filter would end with the daemon: its pins are gone. Subject: the interface.
    NotPinned,
    /// Detection does not keep up: events of the kernel program were lost for want of room. Subject: the interface.
    EventsLost,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Detached,
        Self::InterfaceMissing,
        Self::GenericMode,
        Self::AnswersUnseen,
        Self::MapNearlyFull,
        Self::FloodOngoing,
        Self::MassBan,
        Self::SimulateTooLong,
        Self::BannedSourcePasses,
        Self::StoreFailing,
        Self::Drift,
        Self::DistributedAuth,
        Self::ConfigRejected,
        Self::AlarmsUndelivered,
        Self::TextfileFailing,
        Self::NotPinned,
        Self::EventsLost,
    ];

    /// Stable name, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::InterfaceMissing => "interface-missing",
            Self::GenericMode => "generic-mode",
            Self::AnswersUnseen => "answers-unseen",
            Self::MapNearlyFull => "map-nearly-full",
            Self::FloodOngoing => "flood-ongoing",
            Self::MassBan => "mass-ban",
            Self::SimulateTooLong => "simulate-too-long",
            Self::BannedSourcePasses => "banned-source-passes",
            Self::StoreFailing => "store-failing",
            Self::Drift => "drift",
            Self::DistributedAuth => "distributed-auth",
            Self::ConfigRejected => "config-rejected",
            Self::AlarmsUndelivered => "alarms-undelivered",
            Self::TextfileFailing => "textfile-failing",
            Self::NotPinned => "not-pinned",
            Self::EventsLost => "events-lost",
        }
    }

    /// The name by which Prometheus' rules and Alertmanager know it, `SipFilter` and the kind in camel case: the same
    /// alarm by both ways has the same name.
    #[must_use]
    pub fn alert_name(self) -> String {
        let words = self.name().split('-').map(|word| {
            let mut letters = word.chars();
            let first = letters.next().map(|letter| letter.to_ascii_uppercase());
            first.into_iter().chain(letters).collect::<String>()
        });
        format!("SipFilter{}", words.collect::<String>())
    }

    /// How bad it is.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Detached
            | Self::InterfaceMissing
            | Self::BannedSourcePasses
            | Self::StoreFailing
            | Self::NotPinned => Severity::Critical,
            Self::GenericMode
            | Self::AnswersUnseen
            | Self::MapNearlyFull
            | Self::FloodOngoing
            | Self::MassBan
            | Self::SimulateTooLong
            | Self::Drift
            | Self::DistributedAuth
            | Self::ConfigRejected
            | Self::EventsLost
            | Self::AlarmsUndelivered
            | Self::TextfileFailing => Severity::Warning,
        }
    }

    /// Whether the filter itself does not work as it should. An attack that it copes with is no fault of it, nor is a
    /// choice of the operator.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        match self {
            Self::Detached
            | Self::InterfaceMissing
            | Self::MapNearlyFull
            | Self::BannedSourcePasses
            | Self::StoreFailing
            | Self::Drift
            | Self::ConfigRejected
            | Self::AlarmsUndelivered
            | Self::TextfileFailing
            | Self::NotPinned
            | Self::EventsLost
            | Self::AnswersUnseen => true,
            Self::GenericMode
            | Self::FloodOngoing
            | Self::MassBan
            | Self::SimulateTooLong
            | Self::DistributedAuth => false,
        }
    }

    /// Whether whoever finds it logs it, with more than can be said here.
    pub(super) const fn is_logged_where_found(self) -> bool {
        matches!(
            self,
            Self::GenericMode
                | Self::AnswersUnseen
                | Self::StoreFailing
                | Self::DistributedAuth
                | Self::ConfigRejected
                | Self::AlarmsUndelivered
                | Self::TextfileFailing
        )
    }

    /// What to do about it: one sentence, with the command that explains or undoes.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Detached => {
                "`sip-filter status` shows the state, `bpftool net` whose program is there; attaching is tried again by \
                 itself, unless the daemon has given up its capabilities: then restart it"
            }
            Self::InterfaceMissing => {
                "bring the interface up, or take it out of `interfaces` and run `sip-filter config reload`; it is \
                 filtered as soon as it is there"
            }
            Self::GenericMode => {
                "use a driver with native XDP, or set `xdp_mode = \"generic\"` to accept it as it is"
            }
            Self::AnswersUnseen => {
                "failed logins cannot be told from good ones; `sip-filter status` says why, and a restart tries again"
            }
            Self::MapNearlyFull => {
                "raise the setting and restart, or lift bans: `sip-filter list`, `sip-filter unban --origin import --yes`"
            }
            Self::FloodOngoing => {
                "it is being dropped; `sip-filter top` and `sip-filter events -f` show who sends it"
            }
            Self::MassBan => {
                "look at `sip-filter list --origin detector`; `sip-filter unban --origin detector --yes` lifts them, \
                 `sip-filter mode simulate` stops enforcing"
            }
            Self::SimulateTooLong => {
                "nothing is dropped; `sip-filter status` shows what would be, `sip-filter mode enforce` enforces"
            }
            Self::BannedSourcePasses => {
                "compare `sip-filter check ADDRESS` with `sip-filter status`; restarting the daemon loads and fills \
                 the tables anew, without a gap"
            }
            Self::StoreFailing => {
                "see the log and the free space of the state directory; writing is tried again by itself"
            }
            Self::Drift => {
                "it has been repaired; find out who else writes below `bpf.pin_root`, `bpftool map` shows the maps"
            }
            Self::DistributedAuth => {
                "change the password of the account; `sip-filter events` tells which and how many sources"
            }
            Self::ConfigRejected => "`sip-filter config check` names line and key",
            Self::AlarmsUndelivered => {
                "see the log for why, look at `[alarms]` in the configuration and at the receiver; delivery is tried again by itself"
            }
            Self::TextfileFailing => {
                "see that the directory of `metrics.textfile` is there and can be written by the daemon's user; writing is \
                 tried again by itself"
            }
            Self::NotPinned => {
                "packets are still filtered; mount the BPF file system again (`mount -t bpf bpf /sys/fs/bpf`), and the \
                 pins are put back by themselves; until then do not stop the daemon"
            }
            Self::EventsLost => {
                "give the daemon more processor time, or lower `events.per_window` and run `sip-filter config reload`"
            }
        }
    }
}
