//! Whole Ethernet frames, for what sockets can't send: VLAN tags, fragments, options, nonsense.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::Netns;

/// One interface, written to and read from beneath IP.
#[derive(Debug)]
pub struct Link {
    socket: File,
}

impl Link {
    /// Opens `interface` of `netns`.
    ///
    /// # Errors
    /// If there is no such interface, or we aren't root.
    pub fn open(netns: &Netns, interface: &str) -> Result<Self> {
        let socket = netns
            .enter(|| open(interface))?
            .with_context(|| format!("can't open {interface} of {}", netns.name()))?;
        Ok(Self { socket })
    }

    /// Sends one frame, addresses and EtherType included.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.socket.write_all(frame).context("can't send the frame")
    }

    /// The next frame that arrives or leaves and satisfies `wanted`, after XDP; `None` if none did in time.
    /// The kernel keeps an outer VLAN tag beside the frame, so it is missing here.
    ///
    /// # Errors
    /// If the interface goes away.
    pub fn receive(
        &mut self,
        limit: Duration,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>> {
        let start = Instant::now();
        let mut buffer = vec![0; 65_536];
        while start.elapsed() < limit {
            match self.socket.read(&mut buffer) {
                Ok(length) => {
                    let frame = buffer.get(..length).unwrap_or_default();
                    if wanted(frame) {
                        return Ok(Some(frame.to_vec()));
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error).context("can't receive frames"),
            }
        }
        Ok(None)
    }
}

/// Opens an interface of the calling thread's namespace.
fn open(interface: &str) -> io::Result<File> {
    let name = CString::new(interface)?;
    // SAFETY: the name is NUL-terminated and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let index = i32::try_from(index)
        .ok()
        .filter(|index| *index > 0)
        .ok_or_else(io::Error::last_os_error)?;
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the result is checked before it is used.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, protocol.into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, and nothing else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all fields are plain integers and an array of them, for which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index;
    // A short time, so that `receive` notices its limit.
    let timeout = libc::timeval {
        tv_sec: 0,
        tv_usec: 20_000,
    };
    // A reader that gets no processor for a moment must not miss what it waits for. Only root may have so much; for
    // others the default has to do.
    let room: libc::c_int = 16 << 20;
    // SAFETY: the pointer is to a live value of the type and size given.
    let _ = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const room).cast(),
            size_of_val(&room) as u32,
        )
    };
    // SAFETY: both pointers are to live values of the types and sizes given.
    let failed = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as u32,
        ) < 0
            || libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const timeout).cast(),
                size_of_val(&timeout) as u32,
            ) < 0
    };
    if failed {
        Err(io::Error::last_os_error())
    } else {
        Ok(File::from(fd))
    }
}
