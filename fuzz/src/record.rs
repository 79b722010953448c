//! Records of the store.

use std::time::{Duration, SystemTime};

use sip_filter::bans::{
    BootId, Clock, Target,
    record::{
        read_allowed, read_ban, read_history, read_proof, read_trust, write_allowed, write_ban,
        write_history, write_proof, write_trust,
    },
};

fn clock() -> Clock {
    Clock {
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        boot: Duration::from_secs(5_000),
    }
}

/// Reads a record as each kind. What can be read can be written, is read back, and is the same: the daemon writes
/// records it has read whenever something about them changes.
pub fn record(record: &[u8]) {
    let (clock, target) = (clock(), "192.0.2.1".parse::<Target>().expect("an address"));
    for boot_id in [BootId::new("a"), BootId::new("b")] {
        let boot_id = &boot_id;
        kept(record, |bytes| {
            let (entry, _) = read_ban(target, bytes, clock, boot_id).ok()?;
            Some(write_ban(&entry, clock, boot_id))
        });
        kept(record, |bytes| {
            let trust = read_trust(target, bytes, clock, boot_id).ok()?;
            let endpoints = trust.endpoints.into_iter();
            Some(write_trust(
                &trust.account,
                trust.until,
                endpoints,
                clock,
                boot_id,
            ))
        });
        kept(record, |bytes| {
            let (by, until) = read_proof(bytes, clock, boot_id).ok()?;
            Some(write_proof(by, until, clock, boot_id))
        });
    }
    kept(record, |bytes| Some(write_allowed(&read_allowed(bytes).ok()?)));
    kept(record, |bytes| {
        Some(write_history(read_history(bytes).ok()?.iter()))
    });
}

fn kept(record: &[u8], rewrite: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let Some(written) = rewrite(record) else { return };
    let again = rewrite(&written);
    assert!(
        again.as_ref() == Some(&written),
        "{}\nwas written, and became {:?}",
        written.escape_ascii(),
        again.map(|again| again.escape_ascii().to_string())
    );
}
