//! What is to be written: of each record only what it is to be in the end.

use std::{collections::BTreeMap, time::Duration};

use redb::TableDefinition;

use crate::{
    bans::{
        Allowed, BootId, Clock, Endpoint, Entry, Past, Target,
        record::{write_allowed, write_ban, write_history, write_proof, write_trust},
    },
    detect::Proof,
};

/// What a change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Bans,
    Allow,
    History,
    Trust,
    Proof,
}

impl Table {
    pub(super) const ALL: [Self; 5] = [Self::Bans, Self::Allow, Self::History, Self::Trust, Self::Proof];

    pub(super) const fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(match self {
            Self::Bans => "bans",
            Self::Allow => "allow",
            Self::History => "history",
            Self::Trust => "trust",
            Self::Proof => "proof",
        })
    }
}

/// Changes that are written together or not at all. The last one of a record counts: while the disk is full, what
/// waits grows with what there is, not with time, and what was taken back again asks for no room.
#[derive(Clone, Debug, Default)]
pub struct Batch(pub(super) BTreeMap<(Table, Target), Option<Vec<u8>>>);

impl Batch {
    /// A ban was made or changed.
    pub fn put_ban(&mut self, entry: &Entry, clock: Clock, boot_id: &BootId) {
        let record = write_ban(entry, clock, boot_id);
        self.0.insert((Table::Bans, entry.ban.target), Some(record));
    }

    /// A ban ended.
    pub fn remove_ban(&mut self, target: Target) {
        self.0.insert((Table::Bans, target), None);
    }

    /// An operator allowed a target.
    pub fn put_allowed(&mut self, target: Target, entry: &Allowed) {
        self.0.insert((Table::Allow, target), Some(write_allowed(entry)));
    }

    /// An operator took it back.
    pub fn remove_allowed(&mut self, target: Target) {
        self.0.insert((Table::Allow, target), None);
    }

    /// The history of a target, replacing what is there; none at all removes it.
    pub fn put_history<'a>(&mut self, target: Target, past: impl Iterator<Item = &'a Past>) {
        let mut past = past.peekable();
        let record = past.peek().is_some().then(|| write_history(past));
        self.0.insert((Table::History, target), record);
    }

    /// A source is trusted until a boot time.
    pub fn put_trust(
        &mut self,
        target: Target,
        (account, until): (&str, Duration),
        endpoints: impl Iterator<Item = (Endpoint, Duration)>,
        clock: Clock,
        boot_id: &BootId,
    ) {
        let record = write_trust(account, until, endpoints, clock, boot_id);
        self.0.insert((Table::Trust, target), Some(record));
    }

    /// A source is not trusted any more.
    pub fn remove_trust(&mut self, target: Target) {
        self.0.insert((Table::Trust, target), None);
    }

    /// A source has proven that its address is its own, which is believed until a boot time.
    pub fn put_proof(&mut self, target: Target, by: Proof, until: Duration, clock: Clock, boot_id: &BootId) {
        let record = write_proof(by, until, clock, boot_id);
        self.0.insert((Table::Proof, target), Some(record));
    }

    /// That is not believed any more.
    pub fn remove_proof(&mut self, target: Target) {
        self.0.insert((Table::Proof, target), None);
    }

    /// Appends another, which is later.
    pub(in crate::bans) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Forgets what another, which is later and written, has replaced.
    pub(in crate::bans) fn forget(&mut self, written: &Self) {
        self.0.retain(|record, _| !written.0.contains_key(record));
    }

    /// Records that it removes.
    pub(super) fn removals(&self) -> usize {
        self.0.values().filter(|record| record.is_none()).count()
    }

    /// How many records it writes or removes.
    pub(in crate::bans) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
