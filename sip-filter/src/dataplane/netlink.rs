//! What the kernel says of network interfaces, asked by route netlink (rtnetlink(7)): whose XDP program an interface
//! runs, and when interfaces come and go.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
        setsockopt, socket, sockopt,
    },
    time::{TimeVal, TimeValLike as _},
};
use tokio::io::{Interest, unix::AsyncFd};

const HEADER: usize = 16;
const IFINFO: usize = 16;

// linux/if_link.h
const IFLA_XDP: u16 = 43;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
/// Nested attributes carry flags in the upper bits of their type.
const TYPE_MASK: u16 = 0x3fff;
/// `RTMGRP_LINK`
const LINKS: u32 = 1;

/// How long the kernel may take to answer.
const ANSWER: i64 = 2_000;

fn open(flags: SockFlag, groups: u32) -> io::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags | SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// The ids of the XDP programs that an interface runs; empty if it runs none.
pub(super) fn xdp_programs(index: u32) -> io::Result<Vec<u32>> {
    let fd = open(SockFlag::empty(), 0)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(ANSWER))?;
    let mut request = Vec::with_capacity(HEADER + IFINFO);
    request.extend(((HEADER + IFINFO) as u32).to_ne_bytes());
    request.extend(libc::RTM_GETLINK.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([0; 4]);
    request.extend(index.to_ne_bytes());
    request.extend([0; 8]);
    sendto(
        fd.as_raw_fd(),
        &request,
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;
    let mut buffer = vec![0; 65_536];
    let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    parse(buffer.get(..length).unwrap_or_default())
}

/// Takes the answer to `RTM_GETLINK` apart.
fn parse(answer: &[u8]) -> io::Result<Vec<u32>> {
    let cut = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is cut short");
    let kind = u16::from_ne_bytes(bytes(answer, 4).ok_or_else(cut)?);
    if kind == libc::NLMSG_ERROR as u16 {
        let code = i32::from_ne_bytes(bytes(answer, HEADER).ok_or_else(cut)?);
        return Err(io::Error::from_raw_os_error(-code));
    }
    let mut ids = Vec::new();
    let of_link = answer.get(HEADER + IFINFO..).ok_or_else(cut)?;
    for (_, xdp) in attributes(of_link).filter(|(kind, _)| *kind == IFLA_XDP) {
        for (kind, value) in attributes(xdp) {
            if matches!(
                kind,
                IFLA_XDP_PROG_ID | IFLA_XDP_DRV_PROG_ID | IFLA_XDP_SKB_PROG_ID | IFLA_XDP_HW_PROG_ID
            ) && let Some(id) = bytes(value, 0).map(u32::from_ne_bytes)
                && id != 0
                && !ids.contains(&id)
            {
                ids.push(id);
            }
        }
    }
    Ok(ids)
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at + N)?.try_into().ok()
}

/// Type and value of each attribute.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes(rest, 0)?));
        let kind = u16::from_ne_bytes(bytes(rest, 2)?) & TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Tells when an interface comes, goes, or changes.
pub struct LinkWatch(AsyncFd<OwnedFd>);

impl LinkWatch {
    /// Starts to listen. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the system has no socket to give.
    pub fn open() -> io::Result<Self> {
        let fd = open(SockFlag::SOCK_NONBLOCK, LINKS)?;
        // SAFETY: an owned descriptor, which always names the same socket and is closed only when dropped, which
        // `AsyncFd` does after its registration ends.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self(fd))
    }

    /// Waits for something to change. What comes within a moment is one change: an interface that is made causes many
    /// messages.
    ///
    /// # Errors
    /// If the socket cannot be waited for any more.
    pub async fn changed(&mut self) -> io::Result<()> {
        drop(self.0.readable().await?);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut guard = self.0.readable().await?;
        let mut buffer = [0; 8_192];
        // A message that was lost (ENOBUFS) is a change, too.
        while !matches!(
            recv(guard.get_inner().as_raw_fd(), &mut buffer, MsgFlags::empty()),
            Err(nix::Error::EAGAIN) | Ok(0)
        ) {}
        guard.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_programs_of_an_interface_are_found_among_its_attributes() {
        let xdp = [
            attribute(2, &[4]),
            attribute(IFLA_XDP_DRV_PROG_ID, &7_u32.to_ne_bytes()),
            attribute(IFLA_XDP_SKB_PROG_ID, &9_u32.to_ne_bytes()),
            attribute(IFLA_XDP_HW_PROG_ID, &0_u32.to_ne_bytes()),
        ]
        .concat();
        let mut answer = vec![0; HEADER + IFINFO];
        answer[4..6].copy_from_slice(&16_u16.to_ne_bytes());
        answer.extend(attribute(3, b"eth0\0"));
        answer.extend(attribute(IFLA_XDP | 0x8000, &xdp));
        assert_eq!(parse(&answer).unwrap(), [7, 9]);
        for cut in 0..answer.len() {
            // Whatever is missing, nothing panics.
            let _ = parse(&answer[..cut]);
        }
        answer.truncate(HEADER + IFINFO);
        assert!(parse(&answer).unwrap().is_empty());
    }

    #[test]
    fn the_loopback_has_no_program_and_there_is_no_interface_0x7fffffff() {
        assert!(xdp_programs(1).is_ok());
        let error = xdp_programs(0x7fff_ffff).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{error}");
    }
}
