//! Trust and proof, from a registration on the wire to the kernel's table, and over a restart.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use xtask::lab::{spoof::Forger, traffic::Burst, wait};

use crate::rig::{Daemon, INTERFACE, Rig, SENDER, SERVER4, usable};

pub(crate) const NONCE: &str = "bm9uY2Ugb2YgdGhlIHRlc3Q";

pub(crate) fn socket(at: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// One try of alice to register; with credentials, if there is a nonce.
pub(crate) fn register(number: u32, nonce: Option<&str>) -> String {
    let credentials = nonce.map_or_else(String::new, |nonce| {
        format!(
            "Authorization: Digest username=\"alice\", realm=\"example.com\", nonce=\"{nonce}\", \
             uri=\"sip:example.com\", response=\"0123456789abcdef0123456789abcdef\"\r\n"
        )
    });
    format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bK{number}\r\n\
         From: <sip:alice@example.com>;tag=a\r\nTo: <sip:alice@example.com>\r\nCall-ID: trust@203.0.113.9\r\n\
         CSeq: {number} REGISTER\r\nContact: <sip:alice@203.0.113.9:5060>\r\nExpires: 600\r\n{credentials}\
         Content-Length: 0\r\n\r\n"
    )
}

/// What a registrar answers to it.
fn answer(request: &str) -> String {
    let copied: String = request
        .lines()
        .filter(|line| {
            ["Via", "From", "To", "Call-ID", "CSeq"]
                .iter()
                .any(|name| line.starts_with(name))
        })
        .map(|line| format!("{line}\r\n"))
        .collect();
    let (status, more) = if request.contains(NONCE) {
        (
            "200 OK",
            "Contact: <sip:alice@203.0.113.9:5060>;expires=600\r\n".to_owned(),
        )
    } else {
        let challenge = format!("WWW-Authenticate: Digest realm=\"example.com\", nonce=\"{NONCE}\"\r\n");
        ("401 Unauthorized", challenge)
    };
    format!("SIP/2.0 {status}\r\n{copied}{more}Content-Length: 0\r\n\r\n")
}

/// Sends a request and has it answered, over the wire both ways.
pub(crate) fn exchange(phone: &UdpSocket, registrar: &UdpSocket, request: &str) -> String {
    let mut buffer = [0; 2_048];
    phone
        .send_to(request.as_bytes(), registrar.local_addr().unwrap())
        .unwrap();
    let (length, from) = registrar.recv_from(&mut buffer).unwrap();
    let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
    registrar.send_to(answer(&text).as_bytes(), from).unwrap();
    let (length, _) = phone.recv_from(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

fn trust_entries(daemon: &Daemon) -> u64 {
    let status = daemon.json(&["status"]);
    let tables = status["tables"].as_array().unwrap();
    let table = tables
        .iter()
        .find(|table| table["name"] == "sip0/trust4")
        .unwrap();
    table["entries"].as_u64().unwrap()
}

#[test]
fn a_registration_is_trusted_and_a_ban_by_hand_ends_that() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("trust");
    let source = rig.add_source("203.0.113.9");
    let registrar = rig.server.enter(|| socket((SERVER4, 5060).into())).unwrap();
    let phone = rig.sender.enter(|| socket((source, 5060).into())).unwrap();
    let status = daemon.json(&["status"]);
    assert!(status["interfaces"][0]["egress"].is_string(), "{status}");
    let check = |daemon: &Daemon| -> serde_json::Value {
        serde_json::from_str(&daemon.ask(&["check", "203.0.113.9", "-o", "json"]).stdout).unwrap()
    };

    assert!(exchange(&phone, &registrar, &register(1, None)).contains("401"));
    assert_eq!(check(&daemon)["trust"], serde_json::Value::Null);
    assert!(exchange(&phone, &registrar, &register(2, Some(NONCE))).contains("200"));
    wait::until("trust", Duration::from_secs(10), || {
        Ok(check(&daemon)["trust"].is_object())
    })
    .unwrap();
    let known = check(&daemon);
    assert!(
        known["trust"]["account"].as_str().unwrap().contains("alice"),
        "{known}"
    );
    let left = known["trust"]["until_in_seconds"].as_u64().unwrap();
    assert!((540..=600).contains(&left), "{known}");
    assert!(known["proof"]["by"].is_string(), "{known}");
    let status = daemon.json(&["status"]);
    assert_eq!((&status["trusted"], &status["proven"]), (&1.into(), &1.into()));
    assert_eq!(trust_entries(&daemon), 1);
    let text = daemon.ask(&["check", "203.0.113.9"]).stdout;
    assert!(
        text.contains("trusted: ") && text.contains("proven: by "),
        "{text}"
    );

    // What is a second old survives a kill, and the rest an orderly stop.
    thread::sleep(Duration::from_millis(2_500));
    daemon.kill();
    let daemon = rig.start("main", &[]);
    assert_eq!(check(&daemon)["trust"]["account"], known["trust"]["account"]);
    assert_eq!(check(&daemon)["proof"]["by"], known["proof"]["by"]);
    assert_eq!(trust_entries(&daemon), 1);

    daemon.done(&["ban", "203.0.113.0/24"]);
    assert_eq!(trust_entries(&daemon), 0);
    daemon.stop();
    let daemon = rig.start("main", &[]);
    let known = check(&daemon);
    assert_eq!(
        (&known["trust"], &known["banned"]),
        (&serde_json::Value::Null, &true.into())
    );
    daemon.stop();
}

fn options(number: u64, tag: &str) -> String {
    format!(
        "OPTIONS sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bK{tag}{number}\r\n\
         From: <sip:alice@example.com>;tag={tag}\r\nTo: <sip:example.com>\r\nCall-ID: {tag}-{number}\r\n\
         CSeq: {number} OPTIONS\r\nContent-Length: 0\r\n\r\n"
    )
}

/// Answers whatever comes until told to stop, and counts what is forged.
fn serve(registrar: &UdpSocket, stop: &AtomicBool, forged: &AtomicU64) {
    registrar
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut buffer = [0; 2_048];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = registrar.recv_from(&mut buffer) else {
            continue;
        };
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        if text.contains("forged") {
            forged.fetch_add(1, Ordering::Relaxed);
        } else {
            registrar.send_to(answer(text).as_bytes(), from).unwrap();
        }
    }
}

/// Requests of the phone: sent, answered.
fn keep_asking(phone: &UdpSocket, to: SocketAddr, stop: &AtomicBool) -> (u64, u64) {
    phone.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (mut asked, mut answered) = (0, 0);
    let mut buffer = [0; 2_048];
    while !stop.load(Ordering::Relaxed) {
        asked += 1;
        phone.send_to(options(asked, "own").as_bytes(), to).unwrap();
        answered += u64::from(phone.recv_from(&mut buffer).is_ok());
        thread::sleep(Duration::from_millis(10));
    }
    (asked, answered)
}

#[test]
fn a_flood_in_a_customers_name_from_elsewhere_does_not_touch_the_customer() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("fence");
    let source = rig.add_source("203.0.113.9");
    let registrar = rig.server.enter(|| socket((SERVER4, 5060).into())).unwrap();
    let phone = rig.sender.enter(|| socket((source, 5060).into())).unwrap();
    assert!(exchange(&phone, &registrar, &register(1, None)).contains("401"));
    assert!(exchange(&phone, &registrar, &register(2, Some(NONCE))).contains("200"));
    wait::until("an endpoint", Duration::from_secs(10), || {
        Ok(daemon.json(&["status"])["endpoints"] == 1)
    })
    .unwrap();
    let text = daemon.ask(&["check", "203.0.113.9"]).stdout;
    assert!(text.contains("from UDP 203.0.113.9:5060, hop limit 64"), "{text}");

    let (stop, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
    let server = SocketAddr::new(SERVER4, 5060);
    // His port from further away, and another port from as far.
    let forge = |port, hops| {
        let forger = Forger::new((&rig.sender, SENDER), (&rig.server, INTERFACE)).unwrap();
        let burst = Burst {
            count: 40_000,
            rate: Some(10_000),
            limit: Duration::from_secs(6),
        };
        let from = SocketAddr::new(source, port);
        let mut forger = forger.hops(hops);
        move || {
            let packet = |number, payload: &mut Vec<u8>| {
                payload.extend(options(number, "forged").as_bytes());
                from
            };
            forger.send(server, burst, || false, packet).packets
        }
    };
    let (sent, (asked, answered)) = thread::scope(|scope| {
        scope.spawn(|| serve(&registrar, &stop, &arrived));
        let asking = scope.spawn(|| keep_asking(&phone, server, &stop));
        let forging = [forge(5060, 57), forge(31_000, 64)].map(|forge| scope.spawn(forge));
        let sent: u64 = forging.into_iter().map(|one| one.join().unwrap()).sum();
        stop.store(true, Ordering::Relaxed);
        (sent, asking.join().unwrap())
    });
    let arrived = arrived.into_inner();
    println!("forged: {sent} sent, {arrived} passed; the customer: {asked} asked, {answered} answered");
    assert!(sent > 20_000, "{sent}");
    assert!(asked > 50, "{asked}");
    assert!(answered * 100 >= asked * 99, "{answered} of {asked} answered");
    assert!(arrived * 10 <= sent, "{arrived} of {sent}");
    assert!(daemon.bans().is_empty(), "nobody is banned for it");
    wait::until("the alarm", Duration::from_secs(10), || {
        Ok(daemon
            .done(&["events", "-o", "json"])
            .contains("in the name of trusted 203.0.113.9"))
    })
    .unwrap();
    daemon.stop();
}
