//! `cargo xtask fuzz`: random packets and tables through the host's pipeline and through the kernel's.
//!
//! The work is done by a test of the controller (`sip-filter/tests/kernel/fuzz`), which `cargo xtask test` builds and
//! runs, too, for a hundred thousand packets.

use crate::{
    process::{self, Privilege},
    test::with_sudo_runner,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run so many packets
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    packets: u64,

    /// Run for so many seconds instead
    #[arg(long, value_name = "S", conflicts_with = "packets", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,

    /// Where the random numbers begin; by default they are others each day
    #[arg(long, value_name = "X")]
    seed: Option<u64>,

    /// Run this world of the seed only, as a mismatch names it
    #[arg(long, value_name = "W", requires = "seed")]
    world: Option<u64>,

    /// Optimise the host's side: slow to build, faster to run
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // With the features of `cargo xtask test`, so that nothing is built twice.
    let mut command = process::cargo(["test", "--workspace", "--test", "kernel"]);
    command.args(args.release.then_some("--release"));
    command.args([
        "fuzz::host_and_kernel_decide_alike",
        "--",
        "--exact",
        "--nocapture",
    ]);
    let variables = [
        ("PACKETS", args.seconds.is_none().then_some(args.packets)),
        ("SECONDS", args.seconds),
        ("SEED", Some(args.seed.unwrap_or_else(day))),
        ("WORLD", args.world),
    ];
    for (name, value) in variables {
        if let Some(value) = value {
            command.env(format!("SIP_FILTER_FUZZ_{name}"), value.to_string());
        }
    }
    match Privilege::look() {
        Privilege::Root => {}
        Privilege::Sudo => {
            with_sudo_runner(&mut command);
        }
        Privilege::Missing => {
            anyhow::bail!("loading programs into the kernel takes root, or sudo without a password")
        }
    }
    process::run(command.env("SIP_FILTER_REQUIRE_KERNEL", "1"))
}

/// The number of this day.
fn day() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.as_secs() / 86_400
}
