//! A SIP client that can be told what to say: real transactions with digest authentication over UDP or TCP, for
//! customers and attackers that no program at hand plays.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    Netns, digest,
    message::{header, headers_named, uri_of},
    wire::Wire,
};

/// RFC 3261's T1 and T2: the first retransmission comes after T1, later ones never later than T2.
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);

/// How one exchange with the server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// The last final status; none if nobody answered in time.
    pub status: Option<u16>,
    /// From the first request to the last answer, or to giving up.
    pub took: Duration,
}

impl Exchange {
    /// Whether the server did as asked.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// What makes a call unusual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of parameters to add to the Request-URI.
    pub long_uri: usize,
    /// Bytes of session description to add.
    pub long_body: usize,
}

/// A client at one address and port, with an account.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
    local: SocketAddr,
    server: SocketAddr,
    user: String,
    agent: String,
    /// Time to wait for each final answer.
    pub patience: Duration,
    /// Whether requests are sent again while nobody answers.
    pub insists: bool,
}

/// One request to be.
struct Request<'a> {
    method: &'a str,
    uri: &'a str,
    to: String,
    call: &'a Call,
    cseq: u32,
    headers: String,
    body: &'a str,
}

/// What the requests of one dialog share.
struct Call {
    id: String,
    tag: String,
}

impl Client {
    /// A client for `user` at `local`, which its namespace must have; port 0 takes any.
    ///
    /// # Errors
    /// If the address can't be had.
    pub fn new(netns: &Netns, local: SocketAddr, server: SocketAddr, user: &str) -> Result<Self> {
        Self::over(Wire::udp(netns, local, server)?, server, user)
    }

    /// The same over a TCP connection of its own.
    ///
    /// # Errors
    /// If there is no connection within a moment.
    pub fn tcp(netns: &Netns, local: SocketAddr, server: SocketAddr, user: &str) -> Result<Self> {
        let mut client = Self::over(Wire::tcp(netns, local, server)?, server, user)?;
        // RFC 3261 17.1: TCP does that.
        client.insists = false;
        Ok(client)
    }

    fn over(wire: Wire, server: SocketAddr, user: &str) -> Result<Self> {
        Ok(Self {
            local: wire.local()?,
            wire,
            server,
            user: user.to_owned(),
            agent: "LabPhone/2.0".to_owned(),
            patience: Duration::from_secs(10),
            insists: true,
        })
    }

    /// Gives it another User-Agent.
    #[must_use]
    pub fn agent(mut self, agent: &str) -> Self {
        agent.clone_into(&mut self.agent);
        self
    }

    /// Makes it one that asks once and doesn't wait long, as attackers do.
    #[must_use]
    pub fn hasty(mut self) -> Self {
        self.patience = Duration::from_millis(800);
        self.insists = false;
        self
    }

    /// REGISTER, and again with credentials when asked for them.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn register(&self, password: &str) -> Result<Exchange> {
        let uri = format!("sip:{}", self.server);
        let to = self.address_of_record();
        let headers = format!("{}Expires: 60\r\n", self.contact());
        self.authenticated("REGISTER", &uri, &to, password, &headers, "")
            .map(|(exchange, ..)| exchange)
    }

    /// A whole call: INVITE with its authentication, ACK, BYE.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn call(&self, callee: &str, password: &str, shape: Shape) -> Result<Exchange> {
        let parameters = if shape.long_uri > 0 {
            format!(";x-route={}", "a1b2c3d4".repeat(shape.long_uri.div_ceil(8)))
        } else {
            String::new()
        };
        let uri = format!("sip:{callee}@{}{parameters}", self.server);
        let to = format!("<sip:{callee}@{}>", self.server.ip());
        let body = self.session(shape.long_body);
        let headers = format!("{}Content-Type: application/sdp\r\n", self.contact());
        let (exchange, answer, call, cseq) =
            self.authenticated("INVITE", &uri, &to, password, &headers, &body)?;
        let Some(answer) = answer.filter(|_| exchange.succeeded()) else {
            return Ok(exchange);
        };
        // The dialog: its target, its route and the other party's tag are the answer's.
        let target = header(&answer, "Contact")
            .and_then(uri_of)
            .unwrap_or(&uri)
            .to_owned();
        let to = header(&answer, "To").unwrap_or(&to).to_owned();
        let mut routes: Vec<&str> = headers_named(&answer, "Record-Route").collect();
        routes.reverse();
        let headers: String = routes.iter().map(|route| format!("Route: {route}\r\n")).collect();
        let request = |method, cseq| Request {
            method,
            uri: &target,
            to: to.clone(),
            call: &call,
            cseq,
            headers: headers.clone(),
            body: "",
        };
        self.send(self.render(&request("ACK", cseq), &branch()).as_bytes())?;
        let (bye, _) = self.transact(&request("BYE", cseq + 1))?;
        let status = if bye.succeeded() {
            exchange.status
        } else {
            bye.status
        };
        Ok(Exchange {
            status,
            took: exchange.took + bye.took,
        })
    }

    /// OPTIONS.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn options(&self) -> Result<Exchange> {
        let uri = format!("sip:{}", self.server);
        let call = Call::new(&self.local);
        let request = Request {
            method: "OPTIONS",
            uri: &uri,
            to: format!("<{uri}>"),
            call: &call,
            cseq: 1,
            headers: self.contact(),
            body: "",
        };
        self.transact(&request).map(|(exchange, _)| exchange)
    }

    /// An INVITE whose challenge isn't answered: looking whether a number can be dialled.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn probe(&self, number: &str) -> Result<Exchange> {
        let uri = format!("sip:{number}@{}", self.server.ip());
        let call = Call::new(&self.local);
        let body = self.session(0);
        let request = Request {
            method: "INVITE",
            uri: &uri,
            to: format!("<{uri}>"),
            call: &call,
            cseq: 1,
            headers: format!("{}Content-Type: application/sdp\r\n", self.contact()),
            body: &body,
        };
        self.transact(&request).map(|(exchange, _)| exchange)
    }

    /// Sends a packet of any kind.
    ///
    /// # Errors
    /// If the socket fails for another reason than that somebody refused an earlier packet, or that the connection is
    /// gone.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        match self.wire.send(packet) {
            Err(error) if !refused(&error) && !is_passing(&error) => Err(error).context("can't send"),
            _ => Ok(()),
        }
    }

    /// A request, and once more with credentials if that is what it takes.
    fn authenticated(
        &self,
        method: &str,
        uri: &str,
        to: &str,
        password: &str,
        headers: &str,
        body: &str,
    ) -> Result<(Exchange, Option<String>, Call, u32)> {
        let start = Instant::now();
        let call = Call::new(&self.local);
        let mut request = Request {
            method,
            uri,
            to: to.to_owned(),
            call: &call,
            cseq: 1,
            headers: headers.to_owned(),
            body,
        };
        let (mut exchange, mut answer) = self.transact(&request)?;
        let names = match exchange.status {
            Some(401) => Some(("WWW-Authenticate", "Authorization")),
            Some(407) => Some(("Proxy-Authenticate", "Proxy-Authorization")),
            _ => None,
        };
        let challenge = names.and_then(|(challenge, credentials)| {
            let value = header(answer.as_deref()?, challenge)?;
            Some((
                credentials,
                digest::answer(value, method, uri, &self.user, password)?,
            ))
        });
        if let Some((name, credentials)) = challenge {
            request.cseq = 2;
            request.headers = format!("{headers}{name}: {credentials}\r\n");
            (exchange, answer) = self.transact(&request)?;
        }
        exchange.took = start.elapsed();
        let cseq = request.cseq;
        Ok((exchange, answer, call, cseq))
    }

    /// Sends a request until its final answer or the end of patience.
    fn transact(&self, request: &Request<'_>) -> Result<(Exchange, Option<String>)> {
        let start = Instant::now();
        let branch = branch();
        let packet = self.render(request, &branch);
        let mut pause = T1;
        let mut due = start;
        let mut provisional = false;
        let is_invite = request.method == "INVITE";
        loop {
            let now = Instant::now();
            let Some(left) = self
                .patience
                .checked_sub(now - start)
                .filter(|left| !left.is_zero())
            else {
                let took = start.elapsed();
                return Ok((Exchange { status: None, took }, None));
            };
            if now >= due && !(is_invite && provisional) && (due == start || self.insists) {
                self.send(packet.as_bytes())?;
                due = now + pause;
                pause = if is_invite { pause * 2 } else { (pause * 2).min(T2) };
            }
            let wait = left
                .min(due.saturating_duration_since(now))
                .max(Duration::from_millis(1));
            let wait = if is_invite && provisional || !self.insists {
                left
            } else {
                wait
            };
            let text = match self.wire.receive(wait) {
                Ok(text) => text,
                Err(error) if refused(&error) => {
                    // "Unreachable" comes at once: don't turn it into a busy loop.
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error).context("can't receive"),
            };
            let Some(status) = answers(&text, request) else {
                continue;
            };
            if status < 200 {
                provisional = true;
                continue;
            }
            if is_invite && status >= 300 {
                let to = header(&text, "To").unwrap_or(&request.to).to_owned();
                let ack = Request {
                    method: "ACK",
                    to,
                    headers: String::new(),
                    body: "",
                    ..*request
                };
                self.send(self.render(&ack, &branch).as_bytes())?;
            }
            let exchange = Exchange {
                status: Some(status),
                took: start.elapsed(),
            };
            return Ok((exchange, Some(text)));
        }
    }

    fn render(&self, request: &Request<'_>, branch: &str) -> String {
        let Request {
            method,
            uri,
            to,
            call: Call { id, tag },
            cseq,
            headers,
            body,
        } = request;
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {local};branch={branch};rport\r\nMax-Forwards: 70\r\n\
             From: {from};tag={tag}\r\nTo: {to}\r\nCall-ID: {id}\r\nCSeq: {cseq} {method}\r\n{headers}\
             User-Agent: {agent}\r\nContent-Length: {length}\r\n\r\n{body}",
            transport = self.wire.name(),
            local = self.local,
            from = self.address_of_record(),
            agent = self.agent,
            length = body.len(),
        )
    }

    fn address_of_record(&self) -> String {
        let server = SocketAddr::new(self.server.ip(), 0).to_string();
        let host = server.strip_suffix(":0").unwrap_or(&server);
        format!("<sip:{}@{host}>", self.user)
    }

    fn contact(&self) -> String {
        let transport = match self.wire {
            Wire::Udp(_) => "",
            Wire::Tcp(_) => ";transport=tcp",
        };
        format!("Contact: <sip:{}@{}{transport}>\r\n", self.user, self.local)
    }

    /// A session description of at least `length` bytes.
    fn session(&self, length: usize) -> String {
        let family = if self.local.is_ipv4() { "IP4" } else { "IP6" };
        let ip = self.local.ip();
        let mut body = format!(
            "v=0\r\no=lab 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
             m=audio 40000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\n"
        );
        let mut number = 0;
        while body.len() < length {
            number += 1;
            body.push_str(&format!(
                "a=candidate:{number} 1 UDP 2130706431 {ip} {} typ host generation 0\r\n",
                40_000 + number
            ));
        }
        body
    }
}

impl Call {
    fn new(local: &SocketAddr) -> Self {
        let number = serial();
        Self {
            id: format!("{number:08x}-{}@{}", local.port(), local.ip()),
            tag: format!("{:08x}", number.wrapping_mul(0x9e37_79b9)),
        }
    }
}

fn serial() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn branch() -> String {
    format!("z9hG4bK{:08x}", serial().wrapping_mul(0x85eb_ca6b))
}

/// The status, if the text answers this very request.
fn answers(text: &str, request: &Request<'_>) -> Option<u16> {
    let status = text.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()?;
    let cseq = format!("{} {}", request.cseq, request.method);
    (header(text, "Call-ID")? == request.call.id && header(text, "CSeq")? == cseq).then_some(status)
}

/// Whether it says nothing but "not now". A socket with a time limit is interrupted by whatever stops the process for a
/// moment (signal(7)), whether or not a signal is handled.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn refused(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            // Of TCP: the connection is gone, or takes no more.
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_is_no_end() {
        assert!(is_passing(&io::Error::from_raw_os_error(libc::EINTR)));
        assert!(is_passing(&io::Error::from_raw_os_error(libc::EAGAIN)));
        assert!(!is_passing(&io::Error::from_raw_os_error(libc::EBADF)));
    }

    #[test]
    fn an_answer_belongs_to_its_request() {
        let call = Call {
            id: "7@host".to_owned(),
            tag: "t".to_owned(),
        };
        let request = Request {
            method: "INVITE",
            uri: "sip:x",
            to: String::new(),
            call: &call,
            cseq: 2,
            headers: String::new(),
            body: "",
        };
        let text = |id: &str, cseq: &str| {
            format!("SIP/2.0 407 Auth\r\nCall-ID: {id}\r\nCSeq: {cseq}\r\nContent-Length: 0\r\n\r\n")
        };
        assert_eq!(answers(&text("7@host", "2 INVITE"), &request), Some(407));
        assert_eq!(answers(&text("7@host", "1 INVITE"), &request), None);
        assert_eq!(answers(&text("8@host", "2 INVITE"), &request), None);
        assert_eq!(answers("garbage", &request), None);
    }
}
