//! Running other programs.

use std::{
    env,
    ffi::OsStr,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// The root of the source tree, and the directory every task works in.
pub(crate) fn workspace() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The cargo that runs us, so that all of a task uses one toolchain.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()).args(args);
    command
}

/// A command as one would type it.
pub(crate) fn display(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program
        .file_name()
        .unwrap_or(program.as_os_str())
        .display()
        .to_string();
    for arg in command.get_args() {
        let arg = arg.display().to_string();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
        // Writing to a string cannot fail.
        let _ = match !arg.is_empty() && arg.chars().all(plain) {
            true => write!(line, " {arg}"),
            false => write!(line, " '{arg}'"),
        };
    }
    line
}

/// Shows the command, runs it, and fails if it fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = display(command);
    println!("$ {line}");
    let status = command
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Standard output of a command that succeeded, `None` otherwise; for looking around.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a command would be found. Administrators' directories count even if the user's `PATH` lacks them.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// How commands that need root can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// We are root.
    Root,
    /// We are not, but `sudo` is there.
    Sudo,
    /// Neither.
    Missing,
}

impl Privilege {
    pub(crate) fn look() -> Self {
        let uid = output(Command::new("id").arg("-u"));
        match uid.as_deref().map(str::trim) {
            Some("0") => Self::Root,
            _ if which("sudo").is_some() => Self::Sudo,
            _ => Self::Missing,
        }
    }

    /// The command, run as root; `None` if there is no way to become root.
    pub(crate) fn command<S: AsRef<OsStr>>(
        self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Option<Command> {
        let mut command = match self {
            Self::Root => Command::new(program),
            Self::Sudo => {
                let mut sudo = Command::new("sudo");
                sudo.arg(program);
                sudo
            }
            Self::Missing => return None,
        };
        command.args(args);
        Some(command)
    }
}
