//! A terminal to run the binary in, whose screen can be read.

use std::{path::PathBuf, process::Command, time::Duration};

use xtask::lab::{command, wait, workdir::path_str};

use crate::rig::Rig;

/// How long the screen may take to show something, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A tmux server of its own with one pane. It ends with the value.
pub(crate) struct Screen {
    server: PathBuf,
}

impl Screen {
    /// Runs a shell command in a terminal of this size.
    pub(crate) fn run(rig: &Rig, name: &str, (width, height): (u16, u16), shell: &str) -> Self {
        let server = rig.path(&format!("{name}.tmux"));
        let screen = Self { server };
        let [width, height] = [width, height].map(|size| size.to_string());
        let size = ["-x", &width, "-y", &height];
        let new = [&["new-session", "-d"], &size[..], &[shell]].concat();
        screen.tmux(&["-f", "/dev/null"], &new);
        screen
    }

    fn tmux(&self, options: &[&str], arguments: &[&str]) -> String {
        let server = ["-u", "-S", path_str(&self.server).unwrap()];
        command::run("tmux", &[options, &server, arguments].concat()).unwrap()
    }

    pub(crate) fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&[], &["resize-window", "-x", &width, "-y", &height]);
    }

    /// Presses keys by tmux's names for them.
    pub(crate) fn keys(&self, keys: &[&str]) {
        self.tmux(&[], &[&["send-keys"], keys].concat());
    }

    pub(crate) fn text(&self) -> String {
        self.tmux(&[], &["capture-pane", "-p"])
    }

    /// Whether a program draws on the terminal's other screen.
    pub(crate) fn on_other_screen(&self) -> bool {
        self.tmux(&[], &["display-message", "-p", "#{alternate_on}"])
            .trim()
            == "1"
    }

    /// The process the pane was started with.
    pub(crate) fn pid(&self) -> i32 {
        let pid = self.tmux(&[], &["display-message", "-p", "#{pane_pid}"]);
        pid.trim().parse().unwrap()
    }

    /// Waits until the screen shows all of `words`, and returns it.
    #[track_caller]
    pub(crate) fn shows(&self, words: &[&str]) -> String {
        self.when(&format!("{words:?} on the screen"), |text| {
            words.iter().all(|word| text.contains(word))
        })
    }

    #[track_caller]
    pub(crate) fn when(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let mut text = String::new();
        let found = wait::until(what, PATIENCE, || {
            text = self.text();
            Ok(holds(&text))
        });
        found.unwrap_or_else(|error| panic!("{error}:\n{text}"));
        text
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It may have ended already, with its last pane.
        let _ = Command::new("tmux")
            .arg("-S")
            .arg(&self.server)
            .arg("kill-server")
            .output();
    }
}
