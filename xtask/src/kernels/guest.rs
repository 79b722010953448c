//! A virtual machine: started, watched, ended.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::step::{Step, StepResult};

/// Megabytes of memory: the largest tables that fit are tried.
const MEMORY: u32 = 2048;
/// Bytes of the disk to which a guest writes an archive of its logs; what is not written takes no room.
const DISK: u64 = 256 << 20;

pub(super) struct Guest<'a> {
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    /// For console, logs, and whatever tests leave.
    pub(super) directory: &'a Path,
    /// How long it may run.
    pub(super) time: Duration,
}

/// What a guest reported.
pub(super) struct Outcome {
    /// How long it took until our first process ran.
    pub(super) booted: Option<Duration>,
    pub(super) steps: Vec<(&'static Step, StepResult)>,
    /// It came to its own end.
    pub(super) ended: bool,
}

impl Outcome {
    pub(super) fn passed(&self) -> bool {
        let passed = |result: &StepResult| matches!(result, StepResult::Passed(_));
        self.ended && !self.steps.is_empty() && self.steps.iter().all(|(_, result)| passed(result))
    }

    pub(super) fn boot(&self) -> String {
        match self.booted {
            Some(time) => format!("ok {} s", time.as_secs()),
            None => "FAILED".to_owned(),
        }
    }

    /// Where to look.
    pub(super) fn story(&self, directory: &Path) -> String {
        let mut story = format!("console: {}", directory.join("console.log").display());
        if !self.ended {
            story.push_str("; the guest did not come to its end, so there are no other logs");
            return story;
        }
        for (step, result) in &self.steps {
            if !matches!(result, StepResult::Passed(_)) {
                let log = directory.join(format!("{}.log", step.name));
                story.push_str(&format!("; {}: {}", step.name, log.display()));
            }
        }
        story
    }
}

impl Guest<'_> {
    /// Boots it and waits for its end.
    pub(super) fn run(&self, steps: &[&'static Step]) -> anyhow::Result<Outcome> {
        let [disk, reports] = ["disk", "steps.log"].map(|name| self.directory.join(name));
        File::create(&disk)
            .and_then(|file| file.set_len(DISK))
            .with_context(|| format!("cannot create {}", disk.display()))?;
        let mut machine = self.start(&disk, &reports)?;
        let ended = wait(&mut machine, self.time)?;
        let text = fs::read_to_string(&reports).unwrap_or_default();
        let mut outcome = parse(&text, steps);
        outcome.ended &= ended;
        if outcome.ended {
            let mut unpack = Command::new("tar");
            unpack.arg("-xf").arg(&disk).arg("-C").arg(self.directory);
            let status = unpack.status().context("cannot start tar")?;
            if !status.success() {
                bail!("cannot unpack the logs of the guest from {}", disk.display());
            }
        }
        let _ = fs::remove_file(&disk);
        Ok(outcome)
    }

    fn start(&self, disk: &Path, reports: &Path) -> anyhow::Result<Child> {
        let file = |path: &Path| format!("file:{}", path.display());
        let console = self.directory.join("console.log");
        let log = File::create(self.directory.join("qemu.log")).context("cannot create qemu.log")?;
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(["-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", "2"])
            .args(["-m", &MEMORY.to_string()])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            // A panic resets the machine, which ends it.
            .args(["-append", "console=ttyS0 panic=-1 mitigations=off"])
            .args(["-serial", &file(&console), "-serial", &file(reports)])
            .args(["-drive", &format!("if=virtio,format=raw,file={}", disk.display())])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot write qemu.log")?)
            .stderr(log);
        qemu.spawn().context("cannot start qemu-system-x86_64")
    }
}

/// Waits for the end; whatever takes longer is ended, which is a failure.
fn wait(machine: &mut Child, time: Duration) -> anyhow::Result<bool> {
    let started = Instant::now();
    loop {
        if let Some(status) = machine.try_wait().context("cannot wait for qemu")? {
            return Ok(status.success());
        }
        if started.elapsed() > time {
            println!("the guest ran for {} s and was ended", time.as_secs());
            machine.kill().context("cannot end qemu")?;
            machine.wait().context("cannot wait for qemu")?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Reads what the first process of the guest reported: `booted SECONDS`, for each step `begin NAME SECONDS` and
/// `end NAME CODE SECONDS`, and `done`. Seconds are those since the kernel began.
fn parse(reports: &str, steps: &[&'static Step]) -> Outcome {
    let seconds = |word: &str| {
        word.parse()
            .ok()
            .and_then(|s| Duration::try_from_secs_f64(s).ok())
    };
    let mut outcome = Outcome {
        booted: None,
        steps: steps.iter().map(|step| (*step, StepResult::NotReached)).collect(),
        ended: false,
    };
    let mut begun = Duration::ZERO;
    for line in reports.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut set = |name: &str, result| {
            for (step, old) in &mut outcome.steps {
                if step.name == name {
                    *old = result;
                }
            }
        };
        match words[..] {
            ["booted", time] => outcome.booted = seconds(time),
            ["begin", name, time] => {
                begun = seconds(time).unwrap_or_default();
                set(name, StepResult::Failed(None));
            }
            ["end", name, "0", time] => {
                let took = seconds(time).unwrap_or_default().saturating_sub(begun);
                set(name, StepResult::Passed(took));
            }
            ["end", name, code, _] => set(name, StepResult::Failed(code.parse().ok())),
            ["done"] => outcome.ended = true,
            _ => {}
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::step::FULL;

    #[test]
    fn reports_become_results() {
        let [first, second, ..] = [FULL[0].name, FULL[1].name];
        let text = format!(
            "booted 3.21\r\nbegin {first} 3.30\r\nend {first} 0 8.41\r\nbegin {second} 8.5\r\nend {second} 101 9.0\r\n"
        );
        let full: Vec<&Step> = FULL.iter().collect();
        let outcome = parse(&text, &full);
        assert_eq!(outcome.booted, Some(Duration::from_millis(3210)));
        assert_eq!(
            outcome.steps[0].1,
            StepResult::Passed(Duration::from_millis(5110))
        );
        assert_eq!(outcome.steps[1].1, StepResult::Failed(Some(101)));
        assert!(
            outcome.steps[2..]
                .iter()
                .all(|(_, result)| *result == StepResult::NotReached)
        );
        assert!(!outcome.ended && !outcome.passed());
    }

    #[test]
    fn only_a_guest_whose_every_step_passed_has_passed() {
        let full: Vec<&Step> = FULL.iter().collect();
        let mut text = String::from("booted 1.0\n");
        for step in &FULL {
            text.push_str(&format!("begin {0} 1.0\nend {0} 0 2.0\n", step.name));
        }
        assert!(!parse(&text, &full).passed(), "it did not come to its end");
        text.push_str("done\n");
        assert!(parse(&text, &full).passed());
        let hangs = text.replace(&format!("end {} 0 2.0\n", FULL[2].name), "");
        assert!(!parse(&hangs, &full).passed());
        assert!(!parse("done\n", &[]).passed());
    }

    #[test]
    fn what_hangs_is_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!wait(&mut child, Duration::from_millis(100)).unwrap());
        assert!(child.try_wait().unwrap().is_some());
    }
}
