//! The archive that the kernel unpacks into its first file system: cpio in the format `newc`
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel).

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Component, Path},
};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const DEVICE: u32 = 0o020_000;

/// An archive in the making; directories on the way to an entry come by themselves.
pub(super) struct Archive<W: Write> {
    to: W,
    directories: BTreeSet<String>,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(to: W) -> Self {
        Self {
            to,
            directories: BTreeSet::new(),
            entries: 0,
        }
    }

    pub(super) fn directory(&mut self, path: &str) -> io::Result<()> {
        self.way_to(&format!("{path}/entry"))
    }

    pub(super) fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) -> io::Result<()> {
        self.way_to(path)?;
        self.entry(path, FILE | permissions, (0, 0), contents)
    }

    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.way_to(path)?;
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes())
    }

    /// A character device.
    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.way_to(path)?;
        self.entry(path, DEVICE | 0o600, (major, minor), &[])
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.to.flush()
    }

    /// Makes the directories above `path`.
    fn way_to(&mut self, path: &str) -> io::Result<()> {
        let parent = Path::new(path).parent().unwrap_or(Path::new(""));
        let mut made = String::new();
        for component in parent.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            made.push('/');
            made.push_str(&name.to_string_lossy());
            if self.directories.insert(made.clone()) {
                let path = made.clone();
                self.entry(&path, DIRECTORY | 0o755, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(contents.len())
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, format!("{path} is too large")))?;
        let name = path.trim_start_matches('/');
        let fields = [
            self.entries,
            mode,
            0, // user
            0, // group
            1, // links
            0, // time
            size,
            0,
            0,
            device.0,
            device.1,
            u32::try_from(name.len() + 1).unwrap_or(u32::MAX),
            0,
        ];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.to.write_all(header.as_bytes())?;
        self.to.write_all(name.as_bytes())?;
        self.to.write_all(&[0])?;
        self.pad(header.len() + name.len() + 1)?;
        self.to.write_all(contents)?;
        self.pad(contents.len())
    }

    /// Names and contents begin at multiples of four.
    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.to.write_all(&[0; 3][..length.next_multiple_of(4) - length])
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::process::which;

    fn archive() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.file("/a/b/tool", 0o755, b"12345").unwrap();
        archive.file("/a/other", 0o644, b"").unwrap();
        archive.link("/init", "/a/b/tool").unwrap();
        archive.directory("/proc").unwrap();
        archive.finish().unwrap();
        bytes
    }

    #[test]
    fn every_entry_begins_at_a_multiple_of_four_and_has_its_length() {
        let bytes = archive();
        let field = |at: usize, n: usize| {
            let text = std::str::from_utf8(&bytes[at + 6 + 8 * n..][..8]).unwrap();
            usize::from_str_radix(text, 16).unwrap()
        };
        let (mut at, mut names) = (0, Vec::new());
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701", "at {at}");
            let (size, name) = (field(at, 6), field(at, 11));
            let text = std::str::from_utf8(&bytes[at + 110..at + 110 + name - 1]).unwrap();
            assert_eq!(bytes[at + 110 + name - 1], 0);
            names.push((text.to_owned(), size));
            at = (at + 110 + name).next_multiple_of(4) + size.next_multiple_of(4);
        }
        let expected = [
            ("a", 0),
            ("a/b", 0),
            ("a/b/tool", 5),
            ("a/other", 0),
            ("init", 9),
            ("proc", 0),
            ("TRAILER!!!", 0),
        ];
        assert_eq!(names, expected.map(|(name, size)| (name.to_owned(), size)));
    }

    #[test]
    fn an_independent_reader_agrees() {
        let Some(busybox) = which("busybox") else {
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(busybox)
            .args(["cpio", "-i", "-d"])
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&archive()).unwrap();
        assert!(child.wait().unwrap().success());
        let tool = directory.path().join("a/b/tool");
        assert_eq!(std::fs::read(tool).unwrap(), b"12345");
        let init = std::fs::read_link(directory.path().join("init")).unwrap();
        assert_eq!(init, Path::new("/a/b/tool"));
    }
}
