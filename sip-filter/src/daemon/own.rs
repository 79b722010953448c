//! The addresses of this host.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// All addresses of all interfaces, whether up or not.
///
/// # Errors
/// If the kernel does not say.
pub fn own_addresses() -> std::io::Result<Vec<IpAddr>> {
    let addresses = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    Ok(addresses.collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_is_ours() {
        let own = super::own_addresses().unwrap();
        assert!(own.iter().any(std::net::IpAddr::is_loopback), "{own:?}");
    }
}
