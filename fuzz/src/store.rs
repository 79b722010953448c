//! The file of the store, damaged.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use sip_filter::{
    bans::{
        AllowOrigin, Allowed, BanList, Batch, BootId, Clock, Endpoint, NewBan, Origin, Scope, Store,
        StoreError, Target,
    },
    detect::Proof,
};

const FILE: &str = "bans.redb";

fn clock() -> Clock {
    Clock {
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        boot: Duration::from_secs(5_000),
    }
}

/// A directory in memory where there is one: a disk would be the slowest part.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    tempfile::tempdir_in(parent).expect("a directory of our own")
}

/// A store with something in every table.
static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let directory = directory();
    let (clock, boot_id) = (clock(), BootId::new("a"));
    let mut store = Store::open(directory.path()).expect("a new store");
    let target = |text: String| text.parse::<Target>().expect("an address");
    for round in 0..3 {
        let mut batch = Batch::default();
        for host in 0..40 {
            let new = NewBan {
                target: target(format!("192.0.2.{}", host + 40 * round)),
                origin: Origin::Import,
                rule: None,
                reason: "a list of bans".to_owned(),
                scope: Scope::Sip,
                lifetime: Some(Duration::from_secs(600 + host)),
                created: None,
                evidence: None,
            };
            let change = BanList::default().ban(new, clock).1.expect("a change");
            batch.put_ban(&change.after.expect("a ban"), clock, &boot_id);
        }
        let source = target(format!("2001:db8:{round}::/64"));
        batch.put_proof(source, Proof::Nonce, Duration::from_secs(9_000), clock, &boot_id);
        let home = Endpoint {
            address: [192, 0, 2, 1].into(),
            protocol: 17,
            port: 5060,
            hops: 57,
        };
        let until = Duration::from_secs(8_000);
        batch.put_trust(
            source,
            ("alice", until),
            [(home, until)].into_iter(),
            clock,
            &boot_id,
        );
        let allowed = Allowed {
            origin: AllowOrigin::Operator,
            comment: "carrier".to_owned(),
            created: None,
        };
        batch.put_allowed(source, &allowed);
        store.write(&batch).expect("there is room");
    }
    drop(store);
    std::fs::read(directory.path().join(FILE)).expect("the file of the store")
});

/// Damages a store as the input says, and opens it.
///
/// Whatever was done to it, the store opens or says what is wrong with which file; then the file is as it was.
pub fn store(damage: &[u8]) {
    silence_caught_panics();
    let directory = directory();
    let path = directory.path().join(FILE);
    let damaged = damaged(damage);
    std::fs::write(&path, &damaged).expect("room for the file");
    match used(directory.path()) {
        Ok(()) => {}
        Err(error) => explained(&error, &path, &damaged),
    }
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .expect("it is there")
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// What a daemon does with it: read everything, write, read again after a restart.
fn used(directory: &Path) -> Result<(), StoreError> {
    let (clock, boot_id) = (clock(), BootId::new("a"));
    let opened = Store::open(directory)?;
    let before = opened.load(clock, &boot_id)?;
    assert!(
        before.bans.len() <= 200,
        "bans out of nowhere: {}",
        before.bans.len()
    );
    Ok(())
}

fn explained(error: &StoreError, path: &PathBuf, damaged: &[u8]) {
    let text = error.to_string();
    assert!(
        text.contains(&path.display().to_string()) && text.len() < 2_000,
        "{text}"
    );
    assert!(
        matches!(
            error,
            StoreError::Damaged { .. } | StoreError::Newer { .. } | StoreError::Failed { .. }
        ),
        "{text}"
    );
    assert!(
        std::fs::read(path).expect("it is still there") == damaged,
        "changed, and yet: {text}"
    );
}

/// The sound file, changed by a program of the input: operation, place, and what comes there. An input that begins
/// with `raw:` is the file itself.
fn damaged(input: &[u8]) -> Vec<u8> {
    if let Some(raw) = input.strip_prefix(b"raw:") {
        return raw.to_vec();
    }
    let mut file = SOUND.clone();
    let mut rest = input;
    while let Some(([operation, a, b, c, length], after)) = rest.split_first_chunk::<5>() {
        let place = (usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c)) % file.len().max(1);
        let (bytes, after) = after.split_at(after.len().min(usize::from(*length)));
        rest = after;
        let end = file.len().min(place + bytes.len());
        match operation % 5 {
            0 => file[place..end].copy_from_slice(&bytes[..end - place]),
            1 => file[place..end]
                .iter_mut()
                .zip(bytes)
                .for_each(|(byte, other)| *byte ^= other),
            2 => file.truncate(place),
            // A page that was not written, or was written elsewhere.
            3 => {
                let page = 4096.min(file.len() - place / 4096 * 4096);
                file[place / 4096 * 4096..][..page].fill(0);
            }
            _ => {
                let from = usize::from(*length) * 4096;
                let page = place / 4096 * 4096;
                if from + 4096 <= file.len() && page + 4096 <= file.len() {
                    file.copy_within(from..from + 4096, page);
                }
            }
        }
    }
    file
}

/// The store catches the panics of the database library and makes errors of them. libFuzzer would end the process at
/// the panic itself, and the log of a test would be full of them.
fn silence_caught_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        let under_libfuzzer = cfg!(feature = "libfuzzer");
        std::panic::set_hook(Box::new(move |info| {
            let ours = info
                .location()
                .is_some_and(|place| place.file().contains("fuzz/"));
            if ours && !under_libfuzzer {
                report(info);
            } else if ours {
                use std::io::Write as _;
                // libFuzzer's own hook would say nothing else.
                let _ = writeln!(std::io::stderr(), "{info}");
            }
        }));
    });
}
