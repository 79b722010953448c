//! What the tests of the kernel program share: packets by name, and a pair of data planes, host and kernel, that must
//! agree on everything.

pub mod frames;
pub mod pair;

/// Whether kernel tests must run. Without it they are skipped where BPF is not to be had, and say so.
pub fn kernel_required() -> bool {
    std::env::var_os("SIP_FILTER_REQUIRE_KERNEL").is_some_and(|value| value == "1")
}

/// Returns whether to go on; panics where skipping is not allowed.
#[must_use]
pub fn kernel_or_skip(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(
        !kernel_required(),
        "{test} needs root and SIP_FILTER_REQUIRE_KERNEL=1 forbids skipping it"
    );
    eprintln!("SKIPPED {test}: it loads programs into the kernel, which needs root");
    false
}
