//! A controller with two fake data planes and a real store, for tests.

use std::time::Duration;

use super::{
    Applied, BanOrder, ControlError, ControlHandle, Controller, Done, Filter, ImportBan, Length, fake::Fake,
    journal::JournalKind,
};
use crate::{
    bans::{BootId, Clock, Evidence, Origin, Outcome, Scope, Store, Target, Writer},
    config::{Config, Source},
    detect::{Decision, Rule},
};

pub(super) struct Bench {
    pub(super) controller: Controller,
    pub(super) planes: [Fake; 2],
    pub(super) clock: Clock,
    dir: tempfile::TempDir,
}

pub(super) fn target(text: &str) -> Target {
    text.parse().unwrap()
}

impl Bench {
    pub(super) fn new(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::open(config, dir, Clock::now())
    }

    pub(super) fn open(config: Config, dir: tempfile::TempDir, clock: Clock) -> Self {
        let boot_id = BootId::current();
        let store = Store::open(dir.path()).unwrap();
        let loaded = store.load(clock, &boot_id).unwrap();
        let writer = Writer::start(store).unwrap();
        let mut controller = Controller::new(config, loaded, writer, boot_id, clock);
        controller.set_own(vec!["203.0.113.1".parse().unwrap()]);
        let planes = [Fake::default(), Fake::default()];
        for (plane, name) in planes.iter().zip(["fake0", "fake1"]) {
            controller.add_plane(plane.named(name), clock).unwrap();
        }
        Self {
            controller,
            planes,
            clock,
            dir,
        }
    }

    /// A crash: nothing is closed in order, and only what was saved is there.
    pub(super) fn restart(self, later: Duration) -> Self {
        let config = self.controller.config.clone();
        drop(self.controller);
        Self::open(config, self.dir, self.clock.after(later))
    }

    /// The controller as the daemon has it, and the directory of its state.
    pub(super) fn into_handle(self) -> (ControlHandle, tempfile::TempDir) {
        let (engine, _) = std::sync::mpsc::channel();
        (
            ControlHandle::new(self.controller, Source::default(), engine),
            self.dir,
        )
    }

    pub(super) fn ban(&mut self, targets: &[&str], length: Length) -> Result<Vec<Outcome>, ControlError> {
        let order = BanOrder {
            targets: targets.iter().map(|text| target(text)).collect(),
            ..Self::order(length)
        };
        let done = self.controller.ban(&order, self.clock)?;
        let done = self.settle(done);
        Ok(done.iter().map(|done| done.outcome).collect())
    }

    /// Waits until it is saved, as the handle does.
    pub(super) fn settle<T>(&mut self, done: Done<T>) -> T {
        done.receipt.wait().unwrap();
        self.controller.acknowledge(&done.undo, done.news, self.clock);
        done.value
    }

    pub(super) fn order(length: Length) -> BanOrder {
        BanOrder {
            targets: Vec::new(),
            length,
            reason: "because".to_owned(),
            scope: Scope::Sip,
            force: false,
        }
    }

    pub(super) fn decision(text: &str, shadow: bool, clock: Clock) -> Decision {
        Decision {
            time: clock.boot,
            target: target(text),
            rule: Rule::FloodInvite,
            ban_for: Duration::from_secs(300),
            shadow,
            earlier_offences: 0,
            proven: true,
            sliding: false,
            scope: Scope::Sip,
            evidence: Evidence {
                count: 500,
                threshold: 100,
                window_seconds: 10,
                first_seen: clock.wall,
                last_seen: clock.wall,
                accounts: 0,
                proven: true,
                sample: vec!["INVITE sip:100@192.0.2.1 SIP/2.0".to_owned()],
            },
        }
    }

    pub(super) fn decide(&mut self, text: &str, shadow: bool) -> Applied {
        let decision = Self::decision(text, shadow, self.clock);
        self.controller.apply(&decision, self.clock)
    }

    pub(super) fn in_kernel(&self) -> Vec<String> {
        let targets = self.planes[0].targets();
        assert_eq!(targets, self.planes[1].targets());
        targets
    }

    pub(super) fn listed(&self) -> Vec<String> {
        let bans = self.controller.list(&Filter::default(), self.clock);
        bans.iter().map(|ban| ban.target.to_string()).collect()
    }

    pub(super) fn kinds(&self) -> Vec<JournalKind> {
        self.controller
            .journal
            .recent(100)
            .iter()
            .map(|event| event.kind)
            .collect()
    }
}

pub(super) fn import(text: &str) -> ImportBan {
    ImportBan {
        target: target(text),
        length: Length::Configured,
        reason: String::new(),
        scope: Scope::Sip,
        origin: Origin::Import,
        rule: None,
        created: None,
    }
}
