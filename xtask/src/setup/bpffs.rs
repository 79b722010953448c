//! The file system in which pinned maps and programs live.

use std::fs;

use anyhow::Context as _;

use super::Outcome;
use crate::process::{Privilege, run};

const MOUNT_POINT: &str = "/sys/fs/bpf";

pub(super) fn find_or_mount(privilege: Privilege) -> anyhow::Result<Outcome> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    if is_mounted(&mounts) {
        return Ok(Outcome::Found(format!("mounted at {MOUNT_POINT}")));
    }
    let args = ["-t", "bpf", "bpf", MOUNT_POINT];
    let mut mount = privilege
        .command("mount", args)
        .with_context(|| format!("neither root nor sudo; as root, run: mount {}", args.join(" ")))?;
    run(&mut mount)?;
    Ok(Outcome::Done(format!("mounted at {MOUNT_POINT}")))
}

fn is_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(MOUNT_POINT) && fields.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_bpffs_whatever_its_source_is_called() {
        assert!(is_mounted(
            "proc /proc proc rw 0 0\nnone /sys/fs/bpf bpf rw,mode=700 0 0\n"
        ));
        assert!(!is_mounted(
            "tmpfs /sys/fs/bpf tmpfs rw 0 0\nbpf /run/bpf bpf rw 0 0\n"
        ));
    }
}
