//! What a process takes of the machine.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};

/// Processor time of all threads of a process so far, those that have ended included.
///
/// # Errors
/// If there is no such process.
pub fn cpu(pid: u32) -> Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the second argument points to a clock id of ours.
    let failed = unsafe { libc::clock_getcpuclockid(pid.try_into()?, &raw mut clock) };
    ensure!(failed == 0, "no process {pid}");
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the second argument points to a `timespec` of ours.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) };
    ensure!(failed == 0, "no processor time of process {pid}");
    Ok(Duration::new(time.tv_sec.try_into()?, time.tv_nsec.try_into()?))
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// What it alone has written: heap and stacks.
    pub private: u64,
    /// All that it uses, what it shares divided by the number of those who do (PSS).
    pub proportional: u64,
    /// Pages of its program and libraries.
    pub program: u64,
    /// Kernel tables that it has mapped. They belong to the kernel and exist once, mapped or not.
    pub tables: u64,
}

impl Memory {
    /// Everything that `ps` calls RSS.
    #[must_use]
    pub fn resident(self) -> u64 {
        self.private + self.program + self.tables
    }
}

/// Reads the memory of a process.
///
/// # Errors
/// If there is none, or its memory is described in another way.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps");
    parse_smaps(&fs::read_to_string(&path).context(path)?)
}

fn parse_smaps(smaps: &str) -> Result<Memory> {
    let mut memory = Memory::default();
    let mut is_table = false;
    let mut resident = 0;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        let mut bytes = || -> Result<u64> {
            let number = words.next().and_then(|word| word.parse::<u64>().ok());
            Ok(number.with_context(|| format!("smaps: {line}"))? * 1024)
        };
        match first {
            "Rss:" => resident = bytes()?,
            "Pss:" => memory.proportional += bytes()?,
            // It comes after `Rss` of the same mapping.
            "Anonymous:" => {
                let anonymous = bytes()?;
                memory.private += anonymous;
                let rest = resident - anonymous.min(resident);
                if is_table {
                    memory.tables += rest;
                } else {
                    memory.program += rest;
                }
            }
            _ if !first.ends_with(':') => is_table = line.contains("anon_inode:bpf-map"),
            _ => {}
        }
    }
    Ok(memory)
}

/// Memory that the kernel charges for the BPF maps a process holds, in bytes, each map once.
///
/// # Errors
/// If it holds none.
pub fn map_memory(pid: u32) -> Result<u64> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(&directory).context(directory)?.flatten() {
        // A descriptor may be closed meanwhile.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        maps.extend(parse_map(&text));
    }
    ensure!(!maps.is_empty(), "process {pid} holds no BPF map");
    Ok(maps.values().sum())
}

/// Descriptors that a process has open.
///
/// # Errors
/// If there is no such process.
pub fn descriptors(pid: u32) -> Result<u64> {
    entries(&format!("/proc/{pid}/fd"))
}

/// Threads of a process.
///
/// # Errors
/// If there is no such process.
pub fn threads(pid: u32) -> Result<u64> {
    entries(&format!("/proc/{pid}/task"))
}

fn entries(directory: &str) -> Result<u64> {
    let entries = fs::read_dir(directory).with_context(|| directory.to_owned())?;
    Ok(entries.count() as u64)
}

/// Id and charged bytes, if it is a map.
#[must_use]
pub fn parse_map(fdinfo: &str) -> Option<(u64, u64)> {
    let value = |name: &str| {
        let line = fdinfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(':')?.trim().parse().ok()
    };
    Some((value("map_id")?, value("memlock")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_told_apart() {
        let smaps = "55d0-55d1 r-xp 00000000 fe:00 5 /usr/bin/x\nSize: 20 kB\nRss: 12 kB\nPss: 5 kB\nAnonymous: 0 kB\n\
                     VmFlags: rd ex mr\n\
                     7f00-7f01 rw-p 00000000 00:00 0 [heap]\nRss: 8 kB\nAnonymous: 8 kB\n\
                     7f02-7f03 rw-s 00000000 00:10 1038 anon_inode:bpf-map\nRss: 64 kB\nAnonymous: 0 kB\n";
        let expected = Memory {
            private: 8192,
            proportional: 5120,
            program: 12288,
            tables: 65536,
        };
        assert_eq!(parse_smaps(smaps).unwrap(), expected);
        assert_eq!(expected.resident(), 84 * 1024);
        assert!(parse_smaps("Rss: many kB\n").is_err());
    }

    #[test]
    fn a_map_is_known_by_its_id() {
        let map = "pos:\t0\nflags:\t02\nmap_type:\t2\nmemlock:\t4528\nmap_id:\t17\nfrozen:\t0\n";
        assert_eq!(parse_map(map), Some((17, 4528)));
        assert_eq!(
            parse_map("pos:\t0\nprog_type:\t6\nmemlock:\t4096\nprog_id:\t3\n"),
            None
        );
    }

    #[test]
    fn our_own_time_passes() {
        let before = cpu(std::process::id()).unwrap();
        let mut sum = 0_u64;
        for number in 0..3_000_000_u64 {
            sum = std::hint::black_box(sum ^ number);
        }
        assert!(cpu(std::process::id()).unwrap() > before, "{sum}");
    }
}
