//! A thousand slow and hostile clients on the real daemon's socket, while bans go on.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::libc;
use xtask::lab::wait;

use crate::{
    rig::{Daemon, Rig, usable},
    wire::{passed, sip_probes},
};

const BANNED: &str = "203.0.113.7";
/// `nobody` and `nogroup`: may read the socket, as members of `socket_group`, and change nothing.
const NOBODY: libc::c_long = 65_534;

/// What a client may do wrong.
#[derive(Clone, Copy)]
enum Ill {
    Silent,
    Dribbles,
    HalfOpen,
    HugeBody,
    Follows,
    NeverReads,
    Garbage,
}

const ILLS: [Ill; 7] = [
    Ill::Silent,
    Ill::Dribbles,
    Ill::HalfOpen,
    Ill::HugeBody,
    Ill::Follows,
    Ill::NeverReads,
    Ill::Garbage,
];

/// One connection, poked from time to time.
struct Client {
    ill: Ill,
    stream: UnixStream,
}

impl Client {
    fn connect(socket: &Path, ill: Ill) -> Option<Self> {
        let mut stream = UnixStream::connect(socket).ok()?;
        stream.set_nonblocking(true).ok()?;
        let start: &[u8] = match ill {
            Ill::Silent => b"",
            Ill::Dribbles => b"GET /v1/status HT",
            Ill::HalfOpen => b"POST /v1/bans HTTP/1.1\r\ncontent-length: 99\r\n\r\n{",
            Ill::HugeBody => b"POST /v1/bans/import HTTP/1.1\r\ncontent-length: 1000000000\r\n\r\n",
            Ill::Follows => b"GET /v1/events?follow=true HTTP/1.1\r\n\r\n",
            Ill::NeverReads => b"GET /v1/bans HTTP/1.1\r\n\r\n",
            Ill::Garbage => b"\0\xff\x16\x03\x01 \r\r\n\n\n",
        };
        stream.write_all(start).ok()?;
        if matches!(ill, Ill::HalfOpen) {
            stream.shutdown(Shutdown::Write).ok()?;
        }
        Some(Self { ill, stream })
    }

    /// Whether it is still there.
    fn poke(&mut self) -> bool {
        let sent = match self.ill {
            Ill::Dribbles => self.stream.write(b"x"),
            Ill::HugeBody => self.stream.write(&[b' '; 65_536]),
            Ill::Garbage => self.stream.write(&[0xa5; 512]),
            _ => Ok(0),
        };
        let blocks = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        if sent.is_err_and(|error| !blocks(&error)) {
            return false;
        }
        if matches!(self.ill, Ill::NeverReads | Ill::Follows) {
            return true;
        }
        match self.stream.read(&mut [0; 512]) {
            Ok(read) => read > 0,
            Err(error) => blocks(&error),
        }
    }
}

/// Keeps its clients connected until told to stop.
struct Mob {
    stop: Arc<AtomicBool>,
    connected: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Mob {
    fn gather(socket: &Path, threads: usize, each: usize) -> Self {
        let (stop, connected) = (Arc::new(AtomicBool::new(false)), Arc::<AtomicU64>::default());
        let threads = (0..threads).map(|_| {
            let (socket, stop, connected) = (socket.to_owned(), Arc::clone(&stop), Arc::clone(&connected));
            thread::spawn(move || {
                become_nobody();
                let mut clients: Vec<Option<Client>> = Vec::new();
                clients.resize_with(each, || None);
                while !stop.load(Ordering::Relaxed) {
                    for (number, place) in clients.iter_mut().enumerate() {
                        if place.as_mut().is_none_or(|client| !client.poke()) {
                            *place = Client::connect(&socket, ILLS[number % ILLS.len()]);
                            connected.fetch_add(u64::from(place.is_some()), Ordering::Relaxed);
                        }
                    }
                    thread::sleep(Duration::from_millis(100));
                }
            })
        });
        Self {
            threads: threads.collect(),
            stop,
            connected,
        }
    }
}

impl Drop for Mob {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// This thread alone: the C library's functions would do it for all.
fn become_nobody() {
    // SAFETY: the calls take three numbers each, and change the credentials of the calling thread.
    let done = unsafe {
        libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY)
            | libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY)
    };
    assert_eq!(done, 0);
}

/// Kilobytes in memory, and open files.
fn held(daemon: &Daemon) -> (u64, usize) {
    let process = format!("/proc/{}", daemon.process.id());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let memory = line.trim().trim_end_matches(" kB").parse().unwrap();
    (memory, fs::read_dir(format!("{process}/fd")).unwrap().count())
}

#[test]
fn a_thousand_hostile_clients_do_not_keep_an_operator_from_banning() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("clients");
    rig.config("main", "socket_group = \"nogroup\"", "");
    let daemon = rig.start("main", &[]);
    daemon.done(&["ban", BANNED]);
    // Whoever is in the group can get at the socket, and at nothing else.
    let path = rig.dir.path().to_owned();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(fs::metadata(daemon.socket()).unwrap().gid(), 65_534);
    let before = held(&daemon);

    let mob = Mob::gather(daemon.socket(), 4, 250);
    let (mut slowest, mut most) = (Duration::ZERO, before);
    let end = Instant::now() + Duration::from_secs(5);
    let mut bans = 0;
    while Instant::now() < end {
        bans += 1;
        let begun = Instant::now();
        daemon.done(&["ban", &format!("198.51.100.{}", bans % 250), "-d", "1h"]);
        slowest = slowest.max(begun.elapsed());
        let now = held(&daemon);
        most = (most.0.max(now.0), most.1.max(now.1));
        if bans % 5 == 0 {
            assert!(passed(&rig, &sip_probes(BANNED.parse().unwrap())).is_empty());
            let innocent = sip_probes("203.0.113.200".parse().unwrap());
            assert_eq!(passed(&rig, &innocent).len(), innocent.len());
        }
        thread::sleep(Duration::from_millis(50));
    }
    let connected = mob.connected.load(Ordering::Relaxed);
    println!(
        "{connected} hostile connections, {bans} bans among them, the slowest took {slowest:?}; memory {} kB, then at \
         most {} kB; files {}, then at most {}",
        before.0, most.0, before.1, most.1
    );
    assert!(connected >= 1_000, "only {connected}");
    // The body of an import may be 64 MiB, but not from those who may not import.
    assert!(
        most.0 < before.0 + (64 << 10),
        "memory: {before:?}, then {most:?}"
    );
    // 64 connections, 64 that are told to come again, and what the daemon has itself.
    assert!(most.1 < before.1 + 200, "open files: {before:?}, then {most:?}");
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");

    drop(mob);
    wait::until("all to be let go", Duration::from_secs(60), || {
        Ok(held(&daemon).1 <= before.1 + 2)
    })
    .unwrap_or_else(|error| panic!("{error}: {before:?}, then {:?}", held(&daemon)));
    assert_eq!(daemon.ask(&["health"]).code, Some(0));
    assert_eq!(daemon.bans().len(), (bans + 1).min(251));
}

#[test]
fn those_who_hold_all_places_lose_them() {
    if !usable(&[]) {
        return;
    }
    let (_rig, daemon) = Rig::started("clients-owner");
    // As root, for whom places are kept from others.
    let silent: Vec<_> = (0..200)
        .filter_map(|_| UnixStream::connect(daemon.socket()).ok())
        .collect();
    let begun = Instant::now();
    wait::until("a ban", Duration::from_secs(30), || {
        Ok(daemon.ask(&["ban", BANNED]).code == Some(0))
    })
    .unwrap();
    println!(
        "a ban got through {:?} after {} silent clients of root",
        begun.elapsed(),
        silent.len()
    );
}
