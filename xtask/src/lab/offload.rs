//! The `ethtool` settings the lab needs, so that it needs no `ethtool`.

use std::{io, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result, ensure};

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_SGRO: u32 = 0x2c;

/// `struct ethtool_value` of the kernel.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Makes the sender compute checksums on `interface` of the calling thread's namespace.
///
/// # Errors
/// If there is no such interface.
pub fn disable_tx_checksum(interface: &str) -> Result<()> {
    set(interface, ETHTOOL_STXCSUM, 0, "checksum offload")
}

/// Lets `interface` of the calling thread's namespace merge received packets (GRO). A veth takes frames that an XDP
/// program redirects only if both ends do, or run XDP programs; else it drops them without a word.
///
/// # Errors
/// If there is no such interface.
pub fn enable_gro(interface: &str) -> Result<()> {
    set(interface, ETHTOOL_SGRO, 1, "GRO")
}

fn set(interface: &str, command: u32, data: u32, what: &str) -> Result<()> {
    ensure!(
        interface.len() < libc::IFNAMSIZ,
        "interface name {interface} is too long"
    );
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").context("a socket to configure the interface")?;
    let mut value = Value { command, data };
    // SAFETY: all fields of `ifreq` are plain integers, arrays and pointers, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request names a NUL-terminated interface and points to an `ethtool_value` that outlives the
    // call; the kernel reads and writes nothing else.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("{what} of {interface}"));
    }
    Ok(())
}
