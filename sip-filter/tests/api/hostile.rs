//! Clients that are slow, oversized, too many, or send garbage: the daemon goes on serving the others.

use std::{path::Path, time::Duration};

use sip_filter::api::{ErrorKind, Limits, client::ClientError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, timeout},
};

use crate::{
    client,
    support::{Daemon, fake::Fake},
};

fn hasty() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        write_timeout: Duration::from_millis(300),
        ..Limits::default()
    }
}

/// Sends `request` and returns all of the answer.
async fn raw(socket: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // The server may close before it has taken everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer))
        .await
        .expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn garbage_is_answered_or_closed() {
    let daemon = Daemon::start(hasty());
    for garbage in [
        &b"\0\xff\xfe garbage\r\n\r\n"[..],
        b"OPTIONS sip:100@198.51.100.1 SIP/2.0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/bans HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/bans HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let answer = raw(&daemon.socket, garbage).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    for (request, status, words) in [
        ("GET /nowhere HTTP/1.1\r\n\r\n", "404", "no such path"),
        ("DELETE /v1/status HTTP/1.1\r\n\r\n", "400", "method"),
        ("GET /v1/bans?limit=x HTTP/1.1\r\n\r\n", "400", "limit"),
        ("GET /v1/bans?colour=red HTTP/1.1\r\n\r\n", "400", "colour"),
        ("GET /v1/bans/check?ip=host HTTP/1.1\r\n\r\n", "400", "ip"),
        (
            "POST /v1/bans HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello",
            "400",
            "line 1 column 1",
        ),
        (
            "POST /v1/bans HTTP/1.1\r\ncontent-length: 47\r\n\r\n{\"targets\":[\"203.0.113.7\"],\"lifetme\":\"10 days\"}",
            "400",
            "lifetme",
        ),
    ] {
        let answer = raw(&daemon.socket, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
        assert!(answer.contains("\"code\":\""), "{answer}");
        assert!(answer.contains(words), "{answer}");
    }
    client(&daemon).status().await.unwrap();
}

#[tokio::test]
async fn slow_heads_and_bodies_are_cut_off() {
    let daemon = Daemon::start(hasty());
    let started = Instant::now();
    let answer = raw(&daemon.socket, b"GET /v1/stat").await;
    assert!(!answer.contains("200 OK"));
    let answer = raw(&daemon.socket, b"").await;
    assert_eq!(answer, "");
    let answer = raw(
        &daemon.socket,
        b"POST /v1/bans HTTP/1.1\r\ncontent-length: 99\r\n\r\n{",
    )
    .await;
    assert!(answer.contains("did not arrive"), "{answer}");
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn oversized_requests_are_refused() {
    let daemon = Daemon::start(Limits {
        body_bytes: 1000,
        import_bytes: 2000,
        ..hasty()
    });
    let post = |path: &str, length: usize| {
        let mut request = format!("POST {path} HTTP/1.1\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        request.resize(request.len() + length, b' ');
        request
    };
    let answer = raw(&daemon.socket, &post("/v1/bans", 1001)).await;
    assert!(answer.contains("longer than the 1000 bytes"), "{answer}");
    let answer = raw(&daemon.socket, &post("/v1/bans/import", 2001)).await;
    assert!(answer.contains("longer than the 2000 bytes"), "{answer}");
    let answer = raw(&daemon.socket, &post("/v1/bans/import", 2000)).await;
    assert!(answer.contains("EOF while parsing"), "{answer}");
    let mut head = b"GET /v1/status HTTP/1.1\r\nx: ".to_vec();
    head.resize(1 << 20, b'a');
    let answer = raw(&daemon.socket, &head).await;
    assert!(!answer.contains("200 OK"), "{answer}");
    client(&daemon).status().await.unwrap();
}

#[tokio::test]
async fn whoever_does_not_read_its_answer_loses_it() {
    let daemon = Daemon::start(Limits {
        large_answers: 1,
        ..hasty()
    });
    // Some megabytes: more than any socket buffer.
    for number in 0..20_000_u32 {
        let mut ban = Fake::detected();
        ban.target = sip_filter::bans::Target::address(std::net::Ipv4Addr::from(number).into());
        daemon.service.bans.lock().unwrap().push(ban);
    }
    let mut lazy = UnixStream::connect(&daemon.socket).await.unwrap();
    lazy.write_all(b"GET /v1/bans HTTP/1.1\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The only turn is taken, and comes free because the other is cut off.
    let list = client(&daemon).bans(&Default::default()).await.unwrap();
    assert_eq!(list.bans.len(), 20_000);
    let mut answer = Vec::new();
    let _ = lazy.read_to_end(&mut answer).await;
    assert!(answer.len() < 2_000_000, "{}", answer.len());
}

#[tokio::test]
async fn two_hundred_connections_hold_nobody_out_for_long() {
    let daemon = Daemon::start(hasty());
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(UnixStream::connect(&daemon.socket).await.unwrap());
    }
    match client(&daemon).status().await {
        Err(ClientError::Api(error)) => assert_eq!(error.kind, ErrorKind::Busy),
        // Turned away without words, when even those are too many.
        Err(ClientError::Interrupted(_)) => {}
        other => panic!("{other:?}"),
    }
    let deadline = Instant::now() + Duration::from_secs(3);
    while client(&daemon).status().await.is_err() {
        assert!(
            Instant::now() < deadline,
            "idle connections still hold all places"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(idle);
    daemon.stop().await;
}

#[tokio::test]
async fn followers_are_bounded() {
    let daemon = Daemon::start(Limits {
        followers: 2,
        ..hasty()
    });
    let first = client(&daemon).events(1, true).await.unwrap();
    let _second = client(&daemon).events(1, true).await.unwrap();
    match client(&daemon).events(1, true).await {
        Err(ClientError::Api(error)) => assert_eq!(error.kind, ErrorKind::Busy),
        other => panic!("{:?}", other.err()),
    }
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(3);
    while client(&daemon).events(1, true).await.is_err() {
        assert!(Instant::now() < deadline, "a follower that left still counts");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
