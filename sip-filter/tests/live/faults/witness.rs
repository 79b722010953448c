//! Traffic that goes on through every fault: a banned source that must not be heard, and a customer who must.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use xtask::lab::{Netns, traffic, wait};

use crate::{
    rig::{Daemon, Rig, SENDER, SERVER4},
    wire::{Flood, register},
};

/// Banned for good.
pub(crate) const BANNED: &str = "203.0.113.7";
/// Never banned, not on any list, within all limits.
const CUSTOMER: &str = "198.51.100.20";

const SIP: u16 = 5060;
const MEDIA: u16 = 16_384;

/// Counts what a port hears, by who sent it. There may be others beside these two.
struct Ear {
    banned: Arc<AtomicU64>,
    customer: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ear {
    fn open(netns: &Netns, at: SocketAddr, [banned, customer]: [IpAddr; 2]) -> Self {
        let socket = traffic::socket(netns, at).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (of_banned, of_customer) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (of_banned, of_customer, stop) = (
                Arc::clone(&of_banned),
                Arc::clone(&of_customer),
                Arc::clone(&stop),
            );
            move || {
                let mut buffer = [0; 2048];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((_, from)) = socket.recv_from(&mut buffer) {
                        for (whose, count) in [(banned, &of_banned), (customer, &of_customer)] {
                            if from.ip() == whose {
                                count.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                }
            }
        });
        Self {
            banned: of_banned,
            customer: of_customer,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// See the module.
pub(crate) struct Witness {
    flood: Flood,
    /// Calls and media of the customer.
    customer: [Flood; 2],
    ears: [Ear; 2],
    /// Packets that found a socket full before it began.
    full_before: u64,
}

impl Witness {
    /// Bans one source for good and lets it and a customer send, for so long at most.
    pub(crate) fn begin(rig: &Rig, daemon: &Daemon, limit: Duration) -> Self {
        // Without a queue, a veth drops what its peer is too slow for.
        let queue = [
            "qdisc", "replace", "dev", SENDER, "root", "pfifo", "limit", "10000",
        ];
        rig.sender.run("tc", &queue).unwrap();
        let (banned, customer) = (rig.add_source(BANNED), rig.add_source(CUSTOMER));
        daemon.done(&["ban", BANNED, "-d", "permanent", "-R", "the witness"]);
        let (sip, media) = (SocketAddr::new(SERVER4, SIP), SocketAddr::new(SERVER4, MEDIA));
        let full_before = found_full(rig);
        let ears = [sip, media].map(|at| Ear::open(&rig.server, at, [banned, customer]));
        let start = |from, to, rate, payload: fn(u64) -> Vec<u8>| {
            Flood::start(&rig.sender, from, to, rate, limit, payload)
        };
        let from = |address, port| SocketAddr::new(address, port);
        Self {
            flood: start(from(banned, 4000), sip, 1_000, register),
            customer: [
                start(from(customer, 5060), sip, 10, options),
                start(from(customer, 4000), media, 500, voice),
            ],
            ears,
            full_before,
        }
    }

    /// Fails if the banned source was heard.
    #[track_caller]
    pub(crate) fn nothing_leaked(&self, when: &str) {
        let heard = self.ears[0].banned.load(Ordering::Relaxed);
        assert_eq!(heard, 0, "packets of a banned source passed {when}");
    }

    /// Ends the traffic: no packet of the banned source was heard, and every one of the customer was.
    #[track_caller]
    pub(crate) fn end(self, rig: &Rig) -> String {
        let banned = self.flood.stop();
        let sent: u64 = self.customer.map(Flood::stop).iter().sum();
        let heard = || -> u64 {
            self.ears
                .iter()
                .map(|ear| ear.customer.load(Ordering::Relaxed))
                .sum()
        };
        let full = || found_full(rig) - self.full_before;
        let all = wait::until("the customer's packets", Duration::from_secs(5), || {
            Ok(heard() + full() >= sent)
        });
        let leaked: u64 = self
            .ears
            .iter()
            .map(|ear| ear.banned.load(Ordering::Relaxed))
            .sum();
        assert_eq!(leaked, 0, "of {banned} packets of a banned source");
        assert!(
            all.is_ok(),
            "{} of the customer's {sent} packets arrived",
            heard()
        );
        assert!(heard() <= sent, "{} of {sent}: some came twice", heard());
        assert!(
            banned > 100 && sent > 100,
            "{banned} and {sent} packets are no traffic"
        );
        format!("0 of {banned} packets of a banned source arrived, and all {sent} of a customer")
    }
}

fn options(number: u64) -> Vec<u8> {
    let branch = format!("z9hG4bK{number}");
    format!(
        "OPTIONS sip:pbx@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.20:5060;branch={branch}\r\n\
         Max-Forwards: 70\r\nTo: <sip:pbx@example.com>\r\nFrom: <sip:phone@example.com>;tag=1\r\n\
         Call-ID: {number}@198.51.100.20\r\nCSeq: 1 OPTIONS\r\nUser-Agent: Phone/1.0\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// As large as 20 ms of G.711.
fn voice(_: u64) -> Vec<u8> {
    vec![0x80; 172]
}

/// Datagrams for which a socket of the server had no room: the filter let them pass.
fn found_full(rig: &Rig) -> u64 {
    let table = rig.server.run("cat", &["/proc/net/snmp"]).unwrap();
    let mut lines = table.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names
        .split_whitespace()
        .position(|name| name == "RcvbufErrors")
        .unwrap();
    values.split_whitespace().nth(at).unwrap().parse().unwrap()
}
