//! SIPp as phones, as the called party, and as a flooder.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{Netns, Process, WorkDir, workdir::path_str};

const REGISTER: &str = include_str!("templates/register.xml");
const CALL: &str = include_str!("templates/call.xml");
const ANSWER: &str = include_str!("templates/answer.xml");
const FLOOD: &str = include_str!("templates/flood.xml");

/// How long a phone waits for a response before it counts the attempt as failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often, and how many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Attempts in each `every`.
    pub rate: u32,
    /// The period that `rate` counts in.
    pub every: Duration,
    /// The total, at which it ends.
    pub count: u32,
    /// The time at which it ends in any case.
    pub limit: Duration,
}

/// A phone: an account at an address.
#[derive(Debug, Clone)]
pub struct Phone {
    /// Its own address, which its interface must have.
    pub address: IpAddr,
    /// The account.
    pub user: String,
    /// The account's password.
    pub password: String,
}

/// What a generator did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Attempts begun.
    pub tried: u64,
    /// Attempts that went as the scenario wants.
    pub completed: u64,
    /// Attempts that went otherwise.
    pub failed: u64,
    /// Requests sent again because nobody answered in time.
    pub repeated: u64,
}

/// What a crowd of phones does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Register.
    Register,
    /// Call.
    Call,
}

/// A method to flood with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// REGISTER without credentials.
    Register,
    /// INVITE without credentials.
    Invite,
    /// OPTIONS.
    Options,
}

impl Flood {
    fn method(self) -> &'static str {
        match self {
            Self::Register => "REGISTER",
            Self::Invite => "INVITE",
            Self::Options => "OPTIONS",
        }
    }
}

/// A running SIPp.
#[derive(Debug)]
pub struct Sipp {
    /// The process itself.
    pub process: Process,
    stats: PathBuf,
}

impl Sipp {
    /// Starts a phone that registers again and again: REGISTER, 401, REGISTER with credentials, 200.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn register(
        netns: &Netns,
        dir: &WorkDir,
        name: &str,
        phone: &Phone,
        port: u16,
        server: SocketAddr,
        pace: Pace,
    ) -> Result<Self> {
        let mut command = base(dir, name, REGISTER, phone.address, port)?;
        credentials(&mut command, phone);
        paced(&mut command, pace);
        Self::spawn(netns, dir, name, command.arg(server.to_string()))
    }

    /// Starts a phone that calls again and again: INVITE, 407, ACK, INVITE with credentials, 180, 200, ACK,
    /// half a second of talk, BYE, 200.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn call(
        netns: &Netns,
        dir: &WorkDir,
        name: &str,
        phone: &Phone,
        port: u16,
        server: SocketAddr,
        pace: Pace,
    ) -> Result<Self> {
        let mut command = base(dir, name, CALL, phone.address, port)?;
        credentials(&mut command, phone);
        command.args(["-key", "callee", "2000"]);
        paced(&mut command, pace);
        Self::spawn(netns, dir, name, command.arg(server.to_string()))
    }

    /// Starts phones at many addresses of one host that share an account and take turns: each attempt comes from the
    /// next address. They register or call, as [`Sipp::register`] and [`Sipp::call`] do.
    ///
    /// # Errors
    /// If they can't be started.
    pub fn crowd(
        netns: &Netns,
        dir: &WorkDir,
        name: &str,
        (deed, phones): (Deed, &[Phone]),
        port: u16,
        server: SocketAddr,
        pace: Pace,
    ) -> Result<Self> {
        let phone = phones.first().context("a crowd of nobody")?;
        let scenario = match deed {
            Deed::Register => REGISTER,
            Deed::Call => CALL,
        };
        let mut addresses = String::from("SEQUENTIAL\n");
        for phone in phones {
            addresses.push_str(&format!("{};\n", phone.address));
        }
        let addresses = dir.write(&format!("{name}-addresses.csv"), &addresses)?;
        let mut command = base(dir, name, scenario, phone.address, port)?;
        credentials(&mut command, phone);
        command.args([
            "-t",
            "ui",
            "-ip_field",
            "0",
            "-inf",
            path_str(&addresses)?,
            "-max_socket",
            "2000",
        ]);
        command.args(["-key", "callee", "2000"]);
        paced(&mut command, pace);
        Self::spawn(netns, dir, name, command.arg(server.to_string()))
    }

    /// Starts the called party, which answers everything until `limit`.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn answer(netns: &Netns, dir: &WorkDir, name: &str, at: SocketAddr, limit: Duration) -> Result<Self> {
        let mut command = base(dir, name, ANSWER, at.ip(), at.port())?;
        command.args(["-timeout", &seconds(limit)]);
        Self::spawn(netns, dir, name, &mut command)
    }

    /// Starts a flood from one address that waits for no response.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn flood(
        netns: &Netns,
        dir: &WorkDir,
        name: &str,
        flood: Flood,
        from: SocketAddr,
        server: SocketAddr,
        pace: Pace,
    ) -> Result<Self> {
        let target = if flood == Flood::Invite {
            "00972592000000@"
        } else {
            ""
        };
        let scenario = FLOOD
            .replace("@METHOD@", flood.method())
            .replace("@TARGET@", target);
        let mut command = base(dir, name, &scenario, from.ip(), from.port())?;
        // No reaction to the responses, which come after the "call" has ended.
        command.args(["-nd", "-deadcall_wait", "0", "-s", "1001"]);
        paced(&mut command, pace);
        Self::spawn(netns, dir, name, command.arg(server.to_string()))
    }

    /// What it did so far; SIPp writes that down once a second and at its end.
    ///
    /// # Errors
    /// If its statistics have an unknown form.
    pub fn stats(&self) -> Result<Stats> {
        match fs::read_to_string(&self.stats) {
            Ok(csv) => parse(&csv),
            // Not written yet.
            Err(_) => Ok(Stats::default()),
        }
    }

    fn spawn(netns: &Netns, dir: &WorkDir, name: &str, command: &mut Command) -> Result<Self> {
        let command = std::mem::replace(command, Command::new("sipp"));
        let process = Process::spawn(netns, name, dir.path(), command)?;
        Ok(Self {
            process,
            stats: stats_file(dir.path(), name),
        })
    }
}

fn stats_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.csv"))
}

fn base(dir: &WorkDir, name: &str, scenario: &str, address: IpAddr, port: u16) -> Result<Command> {
    let scenario = dir.write(&format!("{name}.xml"), scenario)?;
    let mut command = Command::new("sipp");
    // Its default directory would be ours: it drops files there.
    command.current_dir(dir.path());
    command.args([
        "-sf",
        path_str(&scenario)?,
        "-i",
        &address.to_string(),
        "-p",
        &port.to_string(),
    ]);
    command
        .args(["-nostdin", "-trace_stat", "-fd", "1", "-stf"])
        .arg(stats_file(dir.path(), name));
    Ok(command)
}

fn credentials(command: &mut Command, phone: &Phone) {
    let Phone {
        user,
        password,
        address: _,
    } = phone;
    command.args(["-s", user, "-au", user, "-ap", password]);
    command.args(["-recv_timeout", &PATIENCE.as_millis().to_string()]);
}

fn paced(command: &mut Command, pace: Pace) {
    command.args([
        "-r",
        &pace.rate.to_string(),
        "-rp",
        &pace.every.as_millis().to_string(),
    ]);
    command.args(["-m", &pace.count.to_string(), "-timeout", &seconds(pace.limit)]);
}

fn seconds(limit: Duration) -> String {
    limit.as_secs().max(1).to_string()
}

/// Reads the last line of SIPp's statistics.
fn parse(csv: &str) -> Result<Stats> {
    // A last line without its end is still being written; the first may be that one.
    let complete = csv.rfind('\n').map_or("", |end| &csv[..end]);
    let mut lines = complete.lines().map(|line| line.split(';').collect::<Vec<_>>());
    let (Some(names), Some(values)) = (lines.next(), lines.next_back()) else {
        return Ok(Stats::default());
    };
    let value = |name: &str| -> Result<u64> {
        let column = names
            .iter()
            .position(|n| *n == name)
            .with_context(|| format!("SIPp reports no {name}"))?;
        values
            .get(column)
            .and_then(|v| v.parse().ok())
            .with_context(|| format!("SIPp's {name} is no number"))
    };
    Ok(Stats {
        tried: value("TotalCallCreated")?,
        completed: value("SuccessfulCall(C)")?,
        failed: value("FailedCall(C)")?,
        repeated: value("Retransmissions(C)")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complete_line_counts() {
        let csv = "StartTime;TotalCallCreated;SuccessfulCall(C);FailedCall(C);Retransmissions(C);\n\
                   a;1;0;0;0;\nb;7;5;1;3;\nc;9;";
        let expected = Stats {
            tried: 7,
            completed: 5,
            failed: 1,
            repeated: 3,
        };
        assert_eq!(parse(csv).unwrap(), expected);
    }

    #[test]
    fn a_header_alone_means_nothing_yet() {
        assert_eq!(
            parse("TotalCallCreated;SuccessfulCall(C);FailedCall(C);\n").unwrap(),
            Stats::default()
        );
    }
}
