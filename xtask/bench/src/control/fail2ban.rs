//! The same for fail2ban over Kamailio's log: from the failure that reaches its threshold to the first request that
//! Kamailio does not answer any more.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use xtask::lab::{
    Site, Topology,
    fail2ban::{self, MAX_RETRY},
    sipp::Phone,
    traffic,
};

use super::visible::milliseconds;
use crate::figures::Sample;

/// The attackers' host, as in the evaluation.
const HOST: u8 = 21;
const PHONE: u8 = 11;
/// Time between two requests, which is the resolution.
const PAUSE: Duration = Duration::from_millis(2);
/// Requests in a row without an answer that mean that the source is banned.
const SILENCE: usize = 50;
const PATIENCE: Duration = Duration::from_secs(15);

/// Milliseconds from the deciding failure to the first request that is dropped, of `count` sources one after another.
pub(crate) fn bans(count: u8) -> Result<Sample> {
    // Kamailio's configuration must know somebody.
    let somebody = Phone {
        address: Topology::phone_v4(PHONE),
        user: "1001".to_owned(),
        password: "unused".to_owned(),
    };
    let site = Site::start(
        "fail2ban",
        &[PHONE],
        &[HOST],
        &[somebody],
        Duration::from_secs(600),
    )?;
    let _fail2ban = fail2ban::start(&site, None)?;
    let host = site.topology.attacker(HOST)?;
    let mut times = Sample::default();
    for last in 0..count {
        let source = IpAddr::from(Ipv4Addr::new(203, 0, 113, 100 + last));
        host.add_address("eth0", &format!("{source}/24"))?;
        let socket = traffic::socket(host, SocketAddr::new(source, 5060))?;
        socket.connect(Site::server_v4())?;
        times.push(ban(&socket).with_context(|| format!("{source} and fail2ban"))?);
    }
    Ok(times)
}

/// Sends requests for an account that does not exist until nobody answers.
fn ban(socket: &UdpSocket) -> Result<f64> {
    socket.set_nonblocking(true)?;
    let server = socket.peer_addr()?;
    let local = socket.local_addr()?;
    let (start, mut sent, mut answered) = (Instant::now(), Vec::new(), Vec::new());
    let mut buffer = [0; 2048];
    while start.elapsed() < PATIENCE {
        let number = sent.len();
        let request = format!(
            "REGISTER sip:{server} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKf{number};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:nobody@{server}>;tag=f{number}\r\nTo: <sip:nobody@{server}>\r\n\
             Call-ID: {number}@{local}\r\nCSeq: 1 REGISTER\r\nContact: <sip:nobody@{local}>\r\n\
             Content-Length: 0\r\n\r\n"
        );
        sent.push(Instant::now());
        // A full queue or a report of ICMP: the request is not answered then.
        let _ = socket.send(request.as_bytes());
        std::thread::sleep(PAUSE);
        while let Ok(length) = socket.recv(&mut buffer) {
            answered.extend(number_of(buffer.get(..length).unwrap_or_default()));
        }
        let last = answered.iter().max().copied().unwrap_or(0);
        if sent.len() > last + SILENCE {
            return first_dropped(&sent, last);
        }
    }
    anyhow::bail!("not banned within {} s", PATIENCE.as_secs())
}

fn first_dropped(sent: &[Instant], last_answered: usize) -> Result<f64> {
    ensure!(last_answered >= MAX_RETRY, "silence before there was a reason");
    let (decided, dropped) = (sent.get(MAX_RETRY - 1), sent.get(last_answered + 1));
    let (decided, dropped) = decided.zip(dropped).context("too few requests")?;
    Ok(milliseconds(*dropped - *decided))
}

/// Of an answer to request number 17: `Call-ID: 17@…`.
fn number_of(answer: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(answer).ok()?;
    let (_, rest) = text.split_once("Call-ID: ")?;
    rest.split_once('@')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_name_their_request() {
        let answer = b"SIP/2.0 404 Not Found\r\nCall-ID: 17@203.0.113.100:5060\r\n\r\n";
        assert_eq!(number_of(answer), Some(17));
        assert_eq!(number_of(b"SIP/2.0 404 Not Found\r\n\r\n"), None);
    }

    #[test]
    fn the_time_counts_from_the_deciding_failure() {
        let start = Instant::now();
        let sent: Vec<_> = (0..20).map(|number| start + PAUSE * number).collect();
        assert_eq!(first_dropped(&sent, 9).unwrap(), 12.0);
        assert!(first_dropped(&sent, 2).is_err());
    }
}
