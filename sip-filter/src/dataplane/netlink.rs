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
// linux/pkt_sched.h, linux/rtnetlink.h, linux/pkt_cls.h
const TCMSG: usize = 20;
const CLSACT_EGRESS: u32 = 0xffff_fff3;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_ID: u16 = 11;
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

/// The ids of the BPF classifiers that look at what leaves an interface by clsact.
pub(super) fn egress_classifiers(index: u32) -> io::Result<Vec<u32>> {
    let fd = open(SockFlag::empty(), 0)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(ANSWER))?;
    let mut request = Vec::with_capacity(HEADER + TCMSG);
    request.extend(((HEADER + TCMSG) as u32).to_ne_bytes());
    request.extend(libc::RTM_GETTFILTER.to_ne_bytes());
    request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    request.extend([0; 8]);
    // struct tcmsg: family, interface, handle, parent, info
    for word in [0, index, 0, CLSACT_EGRESS, 0] {
        request.extend(word.to_ne_bytes());
    }
    sendto(
        fd.as_raw_fd(),
        &request,
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;
    let (mut ids, mut buffer) = (Vec::new(), vec![0; 65_536]);
    loop {
        let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if classifiers(buffer.get(..length).unwrap_or_default(), &mut ids)? {
            return Ok(ids);
        }
    }
}

/// Takes a part of the answer to `RTM_GETTFILTER` apart; returns whether it was the last.
fn classifiers(answer: &[u8], ids: &mut Vec<u32>) -> io::Result<bool> {
    let cut = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is cut short");
    let mut rest = answer;
    while !rest.is_empty() {
        let length = bytes(rest, 0).map(u32::from_ne_bytes).ok_or_else(cut)? as usize;
        let kind = i32::from(u16::from_ne_bytes(bytes(rest, 4).ok_or_else(cut)?));
        let message = rest.get(..length.max(HEADER)).ok_or_else(cut)?;
        if kind == libc::NLMSG_DONE {
            return Ok(true);
        }
        if kind == libc::NLMSG_ERROR {
            let code = i32::from_ne_bytes(bytes(message, HEADER).ok_or_else(cut)?);
            return Err(io::Error::from_raw_os_error(-code));
        }
        let of_filter = message.get(HEADER + TCMSG..).ok_or_else(cut)?;
        for (_, options) in attributes(of_filter).filter(|(kind, _)| *kind == TCA_OPTIONS) {
            let mine = attributes(options).filter(|(kind, _)| *kind == TCA_BPF_ID);
            ids.extend(mine.filter_map(|(_, value)| bytes(value, 0).map(u32::from_ne_bytes)));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    // A part: a kernel that answers nothing at all would be waited for in vain, and the receive timeout ends that.
    Ok(false)
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
    fn classifiers_are_found_in_an_answer_of_several_messages() {
        let message = |kind: u16, body: &[u8]| {
            let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(body);
            bytes
        };
        let filter = |id: u32| {
            let options = [
                attribute(7, b"egress\0"),
                attribute(TCA_BPF_ID, &id.to_ne_bytes()),
            ]
            .concat();
            let attributes = [attribute(1, b"bpf\0"), attribute(TCA_OPTIONS | 0x8000, &options)].concat();
            message(libc::RTM_NEWTFILTER, &[vec![0; TCMSG], attributes].concat())
        };
        let done = message(libc::NLMSG_DONE as u16, &[0; 4]);
        let mut ids = Vec::new();
        assert!(!classifiers(&[filter(7), filter(9)].concat(), &mut ids).unwrap());
        assert!(classifiers(&done, &mut ids).unwrap());
        assert_eq!(ids, [7, 9]);
        let answer = [filter(7), done].concat();
        for cut in 0..answer.len() {
            let _ = classifiers(&answer[..cut], &mut Vec::new());
        }
        let refused = message(libc::NLMSG_ERROR as u16, &(-libc::ENODEV).to_ne_bytes());
        let error = classifiers(&refused, &mut ids).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn the_loopback_has_no_classifiers() {
        // Where there is no clsact, the kernel says so, or that there is nothing.
        if let Ok(ids) = egress_classifiers(1) {
            assert!(ids.is_empty(), "{ids:?}");
        }
    }

    #[test]
    fn the_loopback_has_no_program_and_there_is_no_interface_0x7fffffff() {
        assert!(xdp_programs(1).is_ok());
        let error = xdp_programs(0x7fff_ffff).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{error}");
    }
}
