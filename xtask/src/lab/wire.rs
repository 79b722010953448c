//! UDP or TCP to a server, message by message.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::{
    socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
    },
    time::{TimeVal, TimeValLike as _},
};

use super::{Netns, traffic};

/// How long a connection may take, and a message until the kernel has taken it.
const CONNECT: i64 = 700;

/// A way to a server.
#[derive(Debug)]
pub(super) enum Wire {
    Udp(UdpSocket),
    Tcp(Mutex<Stream>),
}

/// A connection, and what of it was read before its turn.
#[derive(Debug)]
pub(super) struct Stream {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub(super) fn udp(netns: &Netns, local: SocketAddr, server: SocketAddr) -> Result<Self> {
        let socket = traffic::socket(netns, local)?;
        socket
            .connect(server)
            .with_context(|| format!("no way from {local} to {server}"))?;
        Ok(Self::Udp(socket))
    }

    pub(super) fn tcp(netns: &Netns, local: SocketAddr, server: SocketAddr) -> Result<Self> {
        let stream = tcp(netns, local, server)?;
        let read = Vec::new();
        Ok(Self::Tcp(Mutex::new(Stream { stream, read })))
    }

    pub(super) fn local(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Udp(socket) => socket.local_addr(),
            Self::Tcp(stream) => lock(stream).stream.local_addr(),
        }
    }

    /// The name of the transport in a Via.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Udp(_) => "UDP",
            Self::Tcp(_) => "TCP",
        }
    }

    pub(super) fn send(&self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(message).map(drop),
            Self::Tcp(stream) => lock(stream).stream.write_all(message),
        }
    }

    /// The next message, if one comes within `wait`.
    pub(super) fn receive(&self, wait: Duration) -> io::Result<String> {
        match self {
            Self::Udp(socket) => {
                let mut buffer = vec![0; 65_536];
                socket.set_read_timeout(Some(wait))?;
                let length = socket.recv(&mut buffer)?;
                Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
            }
            Self::Tcp(stream) => lock(stream).receive(wait),
        }
    }
}

fn lock(stream: &Mutex<Stream>) -> MutexGuard<'_, Stream> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    fn receive(&mut self, wait: Duration) -> io::Result<String> {
        self.stream.set_read_timeout(Some(wait))?;
        loop {
            if let Some(length) = message_length(&self.read) {
                let message: Vec<u8> = self.read.drain(..length).collect();
                return Ok(String::from_utf8_lossy(&message).into_owned());
            }
            let mut buffer = [0; 16_384];
            let length = self.stream.read(&mut buffer)?;
            if length == 0 {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            self.read.extend(buffer.get(..length).unwrap_or_default());
        }
    }
}

/// The length of the first message in a stream (RFC 3261 18.3), once it is whole.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(bytes.get(..head)?).into_owned();
    let body = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| {
            let name = name.trim();
            name.eq_ignore_ascii_case("Content-Length") || name.eq_ignore_ascii_case("l")
        })
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0);
    (bytes.len() >= head + body).then_some(head + body)
}

/// A TCP connection from an address of a namespace; nobody there, or nobody who may, is an error after less than a
/// second.
///
/// # Errors
/// If it doesn't come about.
pub fn tcp(netns: &Netns, local: SocketAddr, server: SocketAddr) -> Result<TcpStream> {
    netns
        .enter(|| try_connect(local, server))?
        .with_context(|| format!("no connection from {local} to {server}"))
}

fn try_connect(local: SocketAddr, server: SocketAddr) -> io::Result<TcpStream> {
    let family = if server.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // It limits the time that connecting takes, too.
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::milliseconds(CONNECT))?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(local))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(server))?;
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_out_of_a_stream() {
        let first = b"SIP/2.0 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        let both = [&first[..], b"SIP/2.0 100 T\r\nl: 0\r\n\r\n"].concat();
        assert_eq!(message_length(&both), Some(first.len()));
        assert_eq!(message_length(&both[..first.len() - 1]), None);
        assert_eq!(
            message_length(&both[first.len()..]),
            Some(both.len() - first.len())
        );
        assert_eq!(message_length(b""), None);
    }
}
