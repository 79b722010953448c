//! A program of the operator: the alarm as JSON on its standard input, no shell, bounded time.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStderr, Command, Stdio},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use super::{DeliveryError, Receiver, excerpt};
use crate::alarms::Alarm;

/// How often a running hook is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is kept of what a hook writes to standard error.
const MESSAGE_MAX: u64 = 4096;
/// How long it may take to arrive when the hook has ended.
const MESSAGE_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Exec {
    program: String,
    arguments: Vec<String>,
    limit: Duration,
}

impl Exec {
    pub(super) fn new(program: &str, arguments: &[String], limit: Duration) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            limit,
        }
    }

    fn run(&self, alarm: &Alarm) -> Result<(), DeliveryError> {
        let failed = |source: io::Error| DeliveryError::Run {
            program: self.program.clone(),
            source,
        };
        let mut json = serde_json::to_vec(alarm).map_err(|error| failed(error.into()))?;
        json.push(b'\n');
        let mark = mark();
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A group of its own, so that what it starts can be ended with it; and a mark, for what leaves the group.
            .process_group(0)
            .env(MARK, &mark)
            .spawn()
            .map_err(failed)?;
        // Both pipes have threads of their own: a hook that neither reads nor ends must not hold up this one.
        if let Some(mut input) = child.stdin.take() {
            // One that does not read its input has what it needs.
            thread::spawn(move || input.write_all(&json));
        }
        let message = child.stderr.take().map(read);
        let status = wait(&mut child, &mark, self.limit).map_err(failed)?;
        let Some(status) = status else {
            return Err(DeliveryError::TimeLimit {
                program: self.program.clone(),
                limit: self.limit,
            });
        };
        if status.success() {
            return Ok(());
        }
        let message = message
            .map(|parts| all_within(&parts, MESSAGE_WAIT))
            .unwrap_or_default();
        Err(DeliveryError::Failed {
            program: self.program.clone(),
            status,
            message: excerpt(&message),
        })
    }
}

impl Receiver for Exec {
    fn name(&self) -> &'static str {
        "exec"
    }

    fn deliver(&mut self, alarms: &[Alarm]) -> Result<(), DeliveryError> {
        alarms.iter().try_for_each(|alarm| self.run(alarm))
    }
}

/// What comes through the pipe, part by part, on a thread of its own.
fn read(errors: ChildStderr) -> mpsc::Receiver<Vec<u8>> {
    let (sender, parts) = mpsc::channel();
    thread::spawn(move || {
        let (mut errors, mut buffer) = (errors.take(MESSAGE_MAX), [0; 512]);
        while let Ok(length @ 1..) = errors.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    parts
}

/// What was said until the pipe was closed or the time was over: a process that the hook left in a session of its own
/// cannot be ended with it, and may hold the pipe open for ever.
fn all_within(parts: &mpsc::Receiver<Vec<u8>>, limit: Duration) -> Vec<u8> {
    let end = Instant::now() + limit;
    let mut message = Vec::new();
    while let Ok(part) = parts.recv_timeout(end.saturating_duration_since(Instant::now())) {
        message.extend(part);
    }
    message
}

/// `None`: it took too long, and was killed with all that it started.
fn wait(child: &mut Child, mark: &str, limit: Duration) -> io::Result<Option<std::process::ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            kill_all(child, mark);
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            kill_all(child, mark);
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Tells the processes of one run of a hook from all others.
const MARK: &str = "SIP_FILTER_HOOK";

fn mark() -> String {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed))
}

/// What a hook leaves running would hold its pipes open; its time is over, too.
fn kill_all(child: &Child, mark: &str) {
    kill_group(child);
    // `setsid` and daemons leave the group. What they start meanwhile is found the next time.
    for _ in 0..3 {
        let marked = marked(mark);
        if marked.is_empty() {
            return;
        }
        for process in marked {
            let _ = kill(process, Signal::SIGKILL);
        }
    }
}

/// Processes that live and were started by this run of the hook.
fn marked(mark: &str) -> Vec<Pid> {
    let wanted = format!("{MARK}={mark}");
    let is_marked = |environment: &[u8]| {
        environment
            .split(|byte| *byte == 0)
            .any(|one| one == wanted.as_bytes())
    };
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|process| {
            let id = process.file_name().to_str()?.parse().ok()?;
            // One that is gone, or somebody else's, cannot be read.
            let environment = fs::read(process.path().join("environ")).ok()?;
            is_marked(&environment).then(|| Pid::from_raw(id))
        })
        .collect()
}

fn kill_group(child: &Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // Nothing left of the group: nothing to do.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        api::types::Mode,
        conditions::{Condition, Kind, Severity},
    };

    fn alarm() -> Alarm {
        let condition = Condition {
            name: Kind::Detached,
            subject: "eth0".into(),
            severity: Severity::Critical,
            since: SystemTime::UNIX_EPOCH,
            text: "$(touch /nowhere) `id`".into(),
            remedy: "look".into(),
        };
        Alarm::new(condition, None, "edge", Mode::Enforce)
    }

    fn sh(script: &str, limit: Duration) -> Exec {
        Exec::new("/bin/sh", &["-c".to_owned(), script.to_owned()], limit)
    }

    #[test]
    fn the_hook_reads_the_alarm() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("alarm");
        let mut hook = sh(&format!("cat > {}", file.display()), Duration::from_secs(60));
        hook.deliver(&[alarm()]).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        assert_eq!(json["name"], "detached");
        assert_eq!(json["status"], "firing");
        assert_eq!(json["subject"], "eth0");
        assert_eq!(json["summary"], "$(touch /nowhere) `id`");
        assert_eq!(json["starts_at"], "1970-01-01T00:00:00.000Z");
        assert_eq!(json["ends_at"], serde_json::Value::Null);
    }

    #[test]
    fn a_hook_that_hangs_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("late");
        let script = format!("(sleep 3; touch {}) & wait", file.display());
        let error = sh(&script, Duration::from_millis(200))
            .deliver(&[alarm()])
            .unwrap_err();
        assert!(matches!(error, DeliveryError::TimeLimit { .. }), "{error}");
        thread::sleep(Duration::from_secs(4));
        assert!(!file.exists(), "the child has outlived the hook");
    }

    #[test]
    fn a_child_that_leaves_the_group_is_ended_too() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("still-there");
        for end in ["exit 0", "sleep 60"] {
            let script = format!(
                "setsid sh -c 'sleep 3; touch {}' >/dev/null 2>&1 & {end}",
                file.display()
            );
            let _ = sh(&script, Duration::from_millis(500)).deliver(&[alarm()]);
        }
        thread::sleep(Duration::from_secs(4));
        assert!(!file.exists(), "the child has outlived the hook");
    }

    #[test]
    fn a_hook_that_fails_says_why() {
        let error = sh("echo no route >&2; exit 3", Duration::from_secs(60))
            .deliver(&[alarm()])
            .unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh failed (exit status: 3): no route");
        assert!(!error.is_final());
        let missing = Exec::new("/nonexistent/hook", &[], Duration::from_secs(1)).deliver(&[alarm()]);
        assert!(matches!(missing, Err(DeliveryError::Run { .. })), "{missing:?}");
    }

    #[test]
    fn what_a_hook_leaves_in_a_session_of_its_own_holds_nothing_up() {
        let begun = Instant::now();
        let error = sh(
            "setsid sleep 60 & echo no route >&2; exit 3",
            Duration::from_secs(50),
        )
        .deliver(&[alarm()])
        .unwrap_err();
        assert!(error.to_string().ends_with("no route"), "{error}");
        assert!(
            begun.elapsed() < Duration::from_secs(45),
            "it waited for what the hook had left"
        );
    }

    #[test]
    fn a_hook_that_does_not_read_is_no_failure() {
        sh("exec <&-; exit 0", Duration::from_secs(60))
            .deliver(&[alarm()])
            .unwrap();
    }
}
