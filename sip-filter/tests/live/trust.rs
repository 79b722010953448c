//! Trust and proof, from a registration on the wire to the kernel's table, and over a restart.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use xtask::lab::wait;

use crate::rig::{Daemon, Rig, SERVER4, usable};

const NONCE: &str = "bm9uY2Ugb2YgdGhlIHRlc3Q";

fn socket(at: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// One try of alice to register; with credentials, if there is a nonce.
fn register(number: u32, nonce: Option<&str>) -> String {
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
fn exchange(phone: &UdpSocket, registrar: &UdpSocket, request: &str) -> String {
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
    std::thread::sleep(Duration::from_millis(2_500));
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
