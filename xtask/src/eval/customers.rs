//! The customers: phones that must work whatever happens, and habits that are easily taken for attacks.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use xtask::lab::{
    Site, Topology,
    client::{Client, Exchange, Shape},
    interrupt,
    sipp::Phone,
};

/// Last parts of the addresses of the phones that take part in everything; the last one has IPv6. The first is
/// the customer in whose name floods are sent.
pub(super) const BASE: [u8; 3] = [11, 12, 13];
/// The address of customers with habits.
pub(super) const SPECIAL: u8 = 31;
/// Phones of the office.
const OFFICE: u16 = 80;
/// How often a phone registers and calls.
const PACE: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);

/// Habits of customers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// All phones of an office behind one address register at the same moment, twice, and call.
    Office,
    /// A PBX that watches the server with OPTIONS each second.
    Watching,
    /// One mistyped password, then the right one.
    Mistyped,
    /// A wrong password for nine minutes, once a minute, then the right one.
    WrongPassword,
    /// Four wrong passwords and the right one, fifteen times.
    Forgetful,
    /// 50 INVITEs a second, answered challenges included, from one registered address.
    CallCentre,
    /// A registered phone among keep-alives of all kinds and a WireGuard tunnel, on the same port.
    KeepAlives,
    /// Calls whose INVITE takes several fragments.
    Fragments,
    /// Calls with a Request-URI of some 600 bytes.
    LongUri,
}

/// What became of a customer's requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) tried: u64,
    pub(super) failed: u64,
    pub(super) slowest: Duration,
    /// What the first failure looked like.
    pub(super) first_failure: Option<String>,
    /// Of the customer in whose name others send: requests begun while they do, and how many succeeded.
    pub(super) impersonated: (u64, u64),
}

impl Tally {
    fn note(&mut self, what: &str, exchange: Exchange, expected: impl Fn(u16) -> bool) {
        self.tried += 1;
        self.slowest = self.slowest.max(exchange.took);
        if !exchange.status.is_some_and(expected) {
            self.failed += 1;
            let answer = exchange
                .status
                .map_or("no answer".to_owned(), |status| status.to_string());
            self.first_failure
                .get_or_insert_with(|| format!("{what}: {answer}"));
        }
    }

    fn success(&mut self, what: &str, exchange: Exchange) {
        self.note(what, exchange, |status| (200..300).contains(&status));
    }

    pub(super) fn add(&mut self, other: Self) {
        self.tried += other.tried;
        self.failed += other.failed;
        self.slowest = self.slowest.max(other.slowest);
        self.impersonated.0 += other.impersonated.0;
        self.impersonated.1 += other.impersonated.1;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}

/// Everybody who has an account.
pub(super) fn accounts() -> Vec<Phone> {
    let account = |address, user: String| Phone {
        address,
        // A careless customer's: four digits, which svcrack finds in seconds if nobody stops it.
        password: if user == "1001" {
            "2500".to_owned()
        } else {
            password(&user)
        },
        user,
    };
    let base = BASE.into_iter().zip(1001..).map(|(host, number)| {
        let v6 = BASE.last() == Some(&host);
        account(phone(host, v6), number.to_string())
    });
    let special = phone(SPECIAL, false);
    let office = (0..OFFICE).map(|number| account(special, (3000 + number).to_string()));
    base.chain(office).collect()
}

fn password(user: &str) -> String {
    format!("Xk9-{user}-vT4")
}

/// A phone's address.
pub(super) fn phone(host: u8, v6: bool) -> IpAddr {
    if v6 {
        Topology::phone_v6(host)
    } else {
        Topology::phone_v4(host)
    }
}

/// The customer in whose name floods are sent.
pub(super) fn victim(v6: bool) -> IpAddr {
    phone(BASE[if v6 { 2 } else { 0 }], v6)
}

/// All addresses of customers.
pub(super) fn is_customer(net: &ipnet::IpNet) -> bool {
    BASE.iter().chain([&SPECIAL]).any(|host| {
        [phone(*host, false), phone(*host, true)]
            .iter()
            .any(|address| net.contains(address))
    })
}

/// What a phone's life depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life<'a> {
    pub(super) stop: &'a AtomicBool,
    /// Whether the attack goes on.
    pub(super) attacked: &'a AtomicBool,
    /// Others send in its name: it makes more requests meanwhile, so that a hundredth of them can be told from none.
    pub(super) impersonated: bool,
    /// Over TCP.
    pub(super) tcp: bool,
}

/// A phone that registers and calls until it is to stop.
pub(super) fn live(site: &Site, phone: &Phone, life: Life<'_>) -> Result<Tally> {
    let client = if life.tcp {
        let (local, server) = (SocketAddr::new(phone.address, 0), Site::server_for(phone.address));
        Client::tcp(&site.topology.phones, local, server, &phone.user)?
    } else {
        client(site, phone.address, 5060, &phone.user)?
    };
    let mut tally = Tally::default();
    while !life.stop.load(Ordering::Relaxed) && !interrupt::requested() {
        let start = Instant::now();
        let counted = life.impersonated && life.attacked.load(Ordering::Relaxed);
        let before = (tally.tried, tally.failed);
        tally.success("REGISTER", client.register(&phone.password)?);
        tally.success("INVITE", client.call("2000", &phone.password, Shape::default())?);
        if counted {
            let (tried, failed) = (tally.tried - before.0, tally.failed - before.1);
            tally.impersonated.0 += tried;
            tally.impersonated.1 += tried - failed;
        }
        let pace = if counted { PACE / 10 } else { PACE };
        rest(pace.saturating_sub(start.elapsed()), life.stop);
    }
    Ok(tally)
}

fn client(site: &Site, address: IpAddr, port: u16, user: &str) -> Result<Client> {
    let (local, server) = (SocketAddr::new(address, port), Site::server_for(address));
    Client::new(&site.topology.phones, local, server, user)
}

/// Sleeps, but not past `stop`.
pub(super) fn rest(time: Duration, stop: &AtomicBool) {
    let start = Instant::now();
    while start.elapsed() < time && !stop.load(Ordering::Relaxed) && !interrupt::requested() {
        thread::sleep((time - start.elapsed().min(time)).min(Duration::from_millis(100)));
    }
}

impl Habit {
    /// Lives the habit to its end, or to `stop`.
    pub(super) fn play(self, site: &Site, v6: bool, brief: bool, stop: &AtomicBool) -> Result<Tally> {
        let address = phone(SPECIAL, v6);
        let seconds = if brief { 12 } else { 30 };
        let mut tally = Tally::default();
        let user = "3000";
        let right = password(user);
        if self == Self::Office {
            return office(site, address, brief, stop);
        }
        if self == Self::CallCentre {
            return call_centre(site, address, SECOND * seconds, stop);
        }
        let phone = client(site, address, 5060, user)?;
        match self {
            Self::Office | Self::CallCentre => {}
            Self::Watching => {
                for _ in 0..seconds {
                    tally.success("OPTIONS", phone.options()?);
                    rest(SECOND, stop);
                }
            }
            Self::Mistyped => {
                tally.note("wrong password", phone.register("Xk9-3O00-vT4")?, |status| {
                    status == 401
                });
                rest(SECOND * 4, stop);
                for _ in 0..4 {
                    tally.success("REGISTER", phone.register(&right)?);
                    tally.success("INVITE", phone.call("2000", &right, Shape::default())?);
                    rest(SECOND * 2, stop);
                }
            }
            Self::WrongPassword => {
                for _ in 0..9 {
                    tally.note("wrong password", phone.register("outdated")?, |status| {
                        status == 401
                    });
                    rest(SECOND * 60, stop);
                }
                tally.success("REGISTER with the right password", phone.register(&right)?);
            }
            Self::Forgetful => {
                for _ in 0..if brief { 6 } else { 15 } {
                    // Locked out: it would wait for each answer in vain.
                    if tally.failed >= 3 {
                        break;
                    }
                    for _ in 0..4 {
                        tally.note("wrong password", phone.register("outdated")?, |status| {
                            status == 401
                        });
                        rest(SECOND / 5, stop);
                    }
                    tally.success("REGISTER", phone.register(&right)?);
                    rest(SECOND / 2, stop);
                }
            }
            Self::KeepAlives => keep_alives(&phone, &right, SECOND * seconds, &mut tally, stop)?,
            Self::Fragments | Self::LongUri => {
                let shape = match self {
                    Self::Fragments => Shape {
                        long_body: 4000,
                        ..Shape::default()
                    },
                    _ => Shape {
                        long_uri: 600,
                        ..Shape::default()
                    },
                };
                tally.success("REGISTER", phone.register(&right)?);
                for _ in 0..seconds / 2 {
                    tally.success("INVITE", phone.call("2000", &right, shape)?);
                    rest(SECOND, stop);
                }
            }
        }
        Ok(tally)
    }
}

/// The line comes back, and all phones register at once; a little later it happens again. Then they call.
fn office(site: &Site, address: IpAddr, brief: bool, stop: &AtomicBool) -> Result<Tally> {
    let phones = (0..OFFICE)
        .map(|number| {
            let user = (3000 + number).to_string();
            Ok((client(site, address, 10_000 + number, &user)?, password(&user)))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut tally = Tally::default();
    for pause in [if brief { 3 } else { 12 }, 2] {
        tally.add(all_at_once(
            &phones,
            |phone, password| phone.register(password),
            "REGISTER",
        )?);
        rest(SECOND * pause, stop);
    }
    let some = phones.get(..8).unwrap_or(&phones);
    tally.add(all_at_once(
        some,
        |phone, password| phone.call("2000", password, Shape::default()),
        "INVITE",
    )?);
    Ok(tally)
}

fn all_at_once(
    phones: &[(Client, String)],
    act: impl Fn(&Client, &str) -> Result<Exchange> + Sync,
    what: &str,
) -> Result<Tally> {
    let tally = Mutex::new(Tally::default());
    let one = |(phone, password): &(Client, String)| -> Result<()> {
        let exchange = act(phone, password)?;
        tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .success(what, exchange);
        Ok(())
    };
    let one = &one;
    thread::scope(|scope| {
        let threads: Vec<_> = phones.iter().map(|each| scope.spawn(move || one(each))).collect();
        threads.into_iter().try_for_each(super::joined)
    })?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Calls begin at a steady 25 a second; each takes two INVITEs.
fn call_centre(site: &Site, address: IpAddr, time: Duration, stop: &AtomicBool) -> Result<Tally> {
    const LINES: u16 = 25;
    let password = password("3000");
    let lines = (0..LINES)
        .map(|line| client(site, address, 12_000 + line, "3000"))
        .collect::<Result<Vec<_>>>()?;
    let mut tally = Tally::default();
    if let Some(line) = lines.first() {
        tally.success("REGISTER", line.register(&password)?);
    }
    rest(SECOND * 2, stop);
    let start = Instant::now();
    let calls = thread::scope(|scope| {
        let password = &password;
        let threads: Vec<_> = lines
            .into_iter()
            .zip(0u32..)
            .map(|(line, number)| {
                scope.spawn(move || -> Result<Tally> {
                    let mut tally = Tally::default();
                    rest(SECOND / u32::from(LINES) * number, stop);
                    while start.elapsed() < time && !stop.load(Ordering::Relaxed) && !interrupt::requested() {
                        let begun = Instant::now();
                        tally.success("INVITE", line.call("2000", password, Shape::default())?);
                        rest(SECOND.saturating_sub(begun.elapsed()), stop);
                    }
                    Ok(tally)
                })
            })
            .collect();
        threads.into_iter().map(super::joined).collect::<Result<Vec<_>>>()
    })?;
    for each in calls {
        tally.add(each);
    }
    Ok(tally)
}

/// CRLF, STUN, empty datagrams and a WireGuard tunnel, all to the SIP port.
fn keep_alives(
    phone: &Client,
    password: &str,
    time: Duration,
    tally: &mut Tally,
    stop: &AtomicBool,
) -> Result<()> {
    let start = Instant::now();
    let mut round: u64 = 0;
    while start.elapsed() < time && !stop.load(Ordering::Relaxed) && !interrupt::requested() {
        if round.is_multiple_of(50) {
            tally.success("REGISTER", phone.register(password)?);
            tally.success("INVITE", phone.call("2000", password, Shape::default())?);
            phone.send(&wireguard(1, 148, round))?;
        }
        if round.is_multiple_of(5) {
            phone.send(b"\r\n\r\n")?;
            phone.send(b"\r\n")?;
            phone.send(b"")?;
            phone.send(b"\0")?;
        }
        if round.is_multiple_of(10) {
            let mut stun = vec![0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42];
            stun.extend([round as u8; 12]);
            phone.send(&stun)?;
        }
        // The tunnel's data: 20 packets a second, of different sizes.
        phone.send(&wireguard(4, 96 + 16 * (round % 64) as usize, round))?;
        round += 1;
        rest(Duration::from_millis(50), stop);
    }
    Ok(())
}

/// A message of WireGuard's: its type, three zeros, and what looks random.
fn wireguard(kind: u8, length: usize, seed: u64) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(super::attack::noise(seed).take(length.saturating_sub(4)));
    message
}
