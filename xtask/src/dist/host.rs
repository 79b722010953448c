//! A Debian 12 with systemd, in namespaces of its own upon a cached root: nothing that happens in it is kept, and
//! nothing of it is seen outside.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::{
    process::{run, which},
    toolchain_record::ToolchainRecord,
};

/// Everything is mounted in a namespace that ends with systemd: over the cached root lies one in memory.
///
/// Arguments: cached root, an empty directory, the directory with packages.
const BOOT: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t bpf -o mode=700 bpf sys/fs/bpf
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mount --bind "$3" mnt
ln -s pts/ptmx dev/ptmx
mkdir .old
pivot_root . .old
umount --lazy /.old
cd /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --log-target=null
"#;

/// The running host. It ends when dropped.
pub(super) struct Host {
    unshare: Child,
    /// systemd, as seen from outside.
    init: u32,
    _directory: tempfile::TempDir,
}

impl Host {
    /// Boots it; the files of `packages` lie under `/mnt`.
    pub(super) fn boot(packages: &Path) -> anyhow::Result<Self> {
        let base = base()?;
        let directory = tempfile::Builder::new().prefix("sip-filter-dist-").tempdir()?;
        let mut unshare = Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--ipc",
                "--uts",
                "--net",
                "--cgroup",
            ])
            .args(["sh", "-c", BOOT, "boot"])
            .arg(base)
            .arg(directory.path())
            .arg(packages)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start `unshare`")?;
        let init = wait_for("the host's first process", || {
            if let Some(status) = unshare.try_wait()? {
                bail!("the host did not boot ({status}); it takes root and overlayfs");
            }
            let id = unshare.id();
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
            let Some(Ok(init)) = children.split_whitespace().next().map(str::parse::<u32>) else {
                return Ok(None);
            };
            let name = fs::read_to_string(format!("/proc/{init}/comm")).unwrap_or_default();
            Ok((name.trim() == "systemd").then_some(init))
        })?;
        let host = Self {
            unshare,
            init,
            _directory: directory,
        };
        wait_for("systemd", || {
            let (_, state) = host.sh("systemctl is-system-running")?;
            Ok(["running", "degraded"].contains(&state.trim()).then_some(()))
        })?;
        Ok(host)
    }

    /// Runs a shell command in it; its exit code, and all that it printed.
    pub(super) fn sh(&self, script: &str) -> anyhow::Result<(i32, String)> {
        let output = Command::new("nsenter")
            .arg(format!("--target={}", self.init))
            .args([
                "--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup", "--root", "--wd=/",
            ])
            .args([
                "env",
                "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "DEBIAN_FRONTEND=noninteractive",
            ])
            .args(["sh", "-c", &format!("exec 2>&1\n{script}")])
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code().unwrap_or(-1), text))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // systemd goes with it, and everything else with systemd.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let gone = Instant::now() + Duration::from_secs(10);
        while Path::new(&format!("/proc/{}", self.init)).exists() && Instant::now() < gone {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Asks again and again, for a minute.
pub(super) fn wait_for<T>(
    what: &str,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = ask()? {
            return Ok(found);
        }
        if Instant::now() > end {
            bail!("waited a minute for {what}");
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// The root without our package, made on first use.
fn base() -> anyhow::Result<PathBuf> {
    let cache =
        ToolchainRecord::cache_dir().context("neither XDG_CACHE_HOME nor HOME says where the cache is")?;
    let base = cache.join("debian-12-systemd");
    if base.is_dir() {
        return Ok(base);
    }
    let debootstrap = which("debootstrap").context("no `debootstrap`; run `cargo xtask setup`")?;
    let new = cache.join("debian-12-systemd.new");
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    run(Command::new(debootstrap)
        .args([
            "--variant=minbase",
            "--include=systemd,systemd-sysv,dbus,iproute2",
            "bookworm",
        ])
        .arg(&new)
        .stdout(Stdio::null()))?;
    fs::rename(new, &base)?;
    Ok(base)
}
