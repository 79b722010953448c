//! The package as an operator meets it: installed, started, upgraded, removed and purged, under systemd.

use std::path::Path;

use anyhow::{Context as _, ensure};

use super::host::{Host, wait_for};

/// As `systemd-analyze security` shows it, in tenths.
const MOST_EXPOSURE: u32 = 15;

const STATUS: &str = "sip-filter status";

/// Plays it all; fails at the first thing that is not as promised.
pub(super) fn run(package: &Path, newer: &Path) -> anyhow::Result<()> {
    let packages = package.parent().context("a package lies in a directory")?;
    let host = Host::boot(packages)?;
    let trial = Trial { host: &host };
    let file = |path: &Path| -> anyhow::Result<String> {
        let name = path.file_name().context("a package is a file")?;
        Ok(format!("/mnt/{}", name.display()))
    };
    let (package, newer) = (file(package)?, file(newer)?);
    // The interface to the world, as the default route tells.
    trial.ok(
        "ip link add eth0 type veth peer name world && ip link set eth0 up && ip link set world up && \
         ip address add 192.0.2.1/24 dev eth0 && ip route add default via 192.0.2.2",
    )?;
    trial.installs(&package)?;
    trial.unit()?;
    trial.starts()?;
    trial.socket()?;
    trial.reloads()?;
    trial.survives_a_kill()?;
    trial.upgrades(&newer)?;
    trial.goes()
}

struct Trial<'a> {
    host: &'a Host,
}

impl Trial<'_> {
    /// Runs a command that must work.
    fn ok(&self, script: &str) -> anyhow::Result<String> {
        let (code, text) = self.host.sh(script)?;
        ensure!(
            code == 0,
            "`{script}` ended with {code}: {text}{}",
            self.journal()
        );
        Ok(text)
    }

    /// Runs a command that must fail with this code and text.
    fn fails(&self, script: &str, wanted: i32, words: &str) -> anyhow::Result<()> {
        let (code, text) = self.host.sh(script)?;
        ensure!(
            code == wanted && text.contains(words),
            "`{script}` ended with {code}, not with {wanted} and `{words}`: {text}"
        );
        Ok(())
    }

    fn says(&self, script: &str, words: &[&str]) -> anyhow::Result<()> {
        let text = self.ok(script)?;
        for word in words {
            ensure!(text.contains(word), "`{script}` does not say `{word}`: {text}");
        }
        Ok(())
    }

    fn journal(&self) -> String {
        let log = self
            .host
            .sh("journalctl --no-pager -o cat -u sip-filter | tail -30");
        log.map_or_else(|error| error.to_string(), |(_, text)| text)
    }

    fn installs(&self, package: &str) -> anyhow::Result<()> {
        self.ok(&format!("dpkg -i {package}"))?;
        self.says(
            "stat -c '%A %U %G %n' /usr/bin/sip-filter /etc/sip-filter/config.toml",
            &[
                "-rwxr-xr-x root root /usr/bin/sip-filter",
                "-rw-r--r-- root root /etc/sip-filter/config.toml",
            ],
        )?;
        self.says(
            "dpkg -s sip-filter",
            &["Status: install ok installed", " /etc/sip-filter/config.toml"],
        )?;
        self.says("sip-filter --version", &["sip-filter "])?;
        self.says("sip-filter config check", &["is a valid configuration"])?;
        self.ok(
            "cd /usr/share && test -s man/man1/sip-filter.1.gz -a -s man/man1/sip-filter-ban.1.gz \
             -a -s bash-completion/completions/sip-filter -a -s zsh/vendor-completions/_sip-filter \
             -a -s fish/vendor_completions.d/sip-filter.fish -a -s doc/sip-filter/copyright \
             -a -s doc/sip-filter/changelog.gz",
        )?;
        // Nothing starts by itself.
        self.fails("systemctl is-enabled sip-filter", 1, "disabled")?;
        self.fails("systemctl is-active sip-filter", 3, "inactive")?;
        println!("installed");
        Ok(())
    }

    fn unit(&self) -> anyhow::Result<()> {
        let text = self.ok("systemd-analyze verify --man=no /usr/lib/systemd/system/sip-filter*.service")?;
        ensure!(!text.contains("sip-filter"), "systemd-analyze verify: {text}");
        let text = self.ok("systemd-analyze security --no-pager sip-filter.service")?;
        let line = text.lines().rev().find(|line| line.contains("Overall exposure"));
        let line = line.context("systemd-analyze gives no score")?.trim();
        let score = line.split(' ').find_map(|word| {
            let (whole, tenth) = word.split_once('.')?;
            Some(whole.parse::<u32>().ok()? * 10 + tenth.parse::<u32>().ok()?)
        });
        let score = score.with_context(|| format!("no score in `{line}`"))?;
        ensure!(score <= MOST_EXPOSURE, "{line}");
        println!("{line}");
        Ok(())
    }

    fn starts(&self) -> anyhow::Result<()> {
        self.ok("systemctl enable --now sip-filter")?;
        self.says(
            STATUS,
            &[
                "mode:       enforce",
                "eth0 attached",
                "responses seen",
                "user sip-filter, no capabilities",
            ],
        )?;
        self.says(
            "cat /proc/$(systemctl show -P MainPID sip-filter)/status",
            &[
                "CapPrm:\t0000000000000000",
                "CapEff:\t0000000000000000",
                "CapAmb:\t0000000000000000",
                "NoNewPrivs:\t1",
                "Seccomp:\t2",
            ],
        )?;
        self.says(
            "stat -c '%A %U %G %n' /run/sip-filter/api.sock /var/lib/sip-filter /var/lib/sip-filter/bans.redb \
             /sys/fs/bpf/sip-filter",
            &[
                "srw-rw---- sip-filter sip-filter /run/sip-filter/api.sock",
                "drwxr-x--- sip-filter sip-filter /var/lib/sip-filter",
                "-rw------- sip-filter sip-filter /var/lib/sip-filter/bans.redb",
                "drwx------ sip-filter sip-filter /sys/fs/bpf/sip-filter",
            ],
        )?;
        self.ok("sip-filter health")?;
        self.ok("sip-filter ban 203.0.113.7 -d permanent")?;
        println!("enabled: filtering as sip-filter, without capabilities");
        Ok(())
    }

    fn socket(&self) -> anyhow::Result<()> {
        self.ok("useradd --groups sip-filter reader && useradd outsider")?;
        self.says("runuser -u reader -- sip-filter list", &["203.0.113.7"])?;
        self.fails(
            "runuser -u reader -- sip-filter unban 203.0.113.7",
            1,
            "may look but not change",
        )?;
        self.fails(
            "runuser -u outsider -- sip-filter list",
            3,
            "not permitted to open",
        )?;
        println!("socket: the group reads, others do not even that");
        Ok(())
    }

    fn reloads(&self) -> anyhow::Result<()> {
        let config = "/etc/sip-filter/config.toml";
        self.ok(&format!(
            "sed -i 's/^hand_duration = .*/hand_duration = \"2h\"/' {config}"
        ))?;
        self.ok("systemctl reload sip-filter")?;
        self.says("sip-filter config show", &["hand_duration = \"2h\""])?;
        self.ok(&format!(
            "cp {config} /run/good-config && echo nonsense >> {config}"
        ))?;
        self.fails("systemctl reload sip-filter", 1, "failed")?;
        self.says("sip-filter config show", &["hand_duration = \"2h\""])?;
        self.ok(&format!(
            "cp /run/good-config {config} && systemctl reload sip-filter"
        ))?;
        println!("reload: a good configuration holds, a bad one is refused");
        Ok(())
    }

    fn survives_a_kill(&self) -> anyhow::Result<()> {
        let program = self.program()?;
        self.ok("kill -KILL $(systemctl show -P MainPID sip-filter)")?;
        ensure!(self.program()? == program, "the filter went with the daemon");
        self.waits_for_the_daemon()?;
        self.says("sip-filter list", &["203.0.113.7"])?;
        println!("killed: the filter stays, and systemd brings the daemon back");
        Ok(())
    }

    fn upgrades(&self, newer: &str) -> anyhow::Result<()> {
        let before = self.ok("systemctl show -P MainPID sip-filter")?;
        self.ok(&format!("dpkg -i {newer}"))?;
        self.waits_for_the_daemon()?;
        let after = self.ok("systemctl show -P MainPID sip-filter")?;
        ensure!(before != after, "the old daemon still runs");
        self.says("dpkg -s sip-filter", &["+upgrade"])?;
        self.says("sip-filter list", &["203.0.113.7"])?;
        self.says("sip-filter config show", &["hand_duration = \"2h\""])?;
        self.says("journalctl --no-pager -u sip-filter", &["took over the filter"])?;
        println!("upgraded: bans and configuration are kept");
        Ok(())
    }

    fn goes(&self) -> anyhow::Result<()> {
        self.ok("dpkg -r sip-filter")?;
        self.ok("test ! -e /sys/fs/bpf/sip-filter -a ! -e /usr/bin/sip-filter")?;
        ensure!(self.program()?.is_none(), "the filter is still attached");
        self.ok("test -s /var/lib/sip-filter/bans.redb -a -s /etc/sip-filter/config.toml")?;
        self.ok("dpkg -P sip-filter")?;
        self.ok("test ! -e /var/lib/sip-filter -a ! -e /etc/sip-filter")?;
        self.fails("systemctl is-active sip-filter", 3, "inactive")?;
        println!("removed and purged: no filter, no pins, no state");
        Ok(())
    }

    /// The XDP program of the interface, by its id.
    fn program(&self) -> anyhow::Result<Option<String>> {
        let text = self.ok("ip link show dev eth0")?;
        let mut words = text
            .split_whitespace()
            .skip_while(|word| !word.starts_with("prog/xdp"));
        Ok(words.nth(2).map(str::to_owned))
    }

    fn waits_for_the_daemon(&self) -> anyhow::Result<()> {
        wait_for("the daemon", || {
            let (active, _) = self.host.sh("systemctl is-active sip-filter")?;
            let (answers, _) = self.host.sh(STATUS)?;
            Ok((active == 0 && answers == 0).then_some(()))
        })
    }
}
